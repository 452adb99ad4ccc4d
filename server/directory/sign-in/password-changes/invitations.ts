/**
 * Invitations: with one a user without a password sets the first. A user has at most one open, of 72 hours and good once;
 * the token is shown to whoever invites, for there is no mail, and kept as SHA-256.
 *
 * Lock order: the user's row, the invitation, everything else, the log's head.
 */
import type { z } from 'zod';
import { Problem } from '../../../../protocol/problems.ts';
import { type Database, statement, type Transaction } from '../../../../storage/catalog/database.ts';
import type { By } from '../../audit/act.ts';
import { record } from '../../audit/record.ts';
import type { Directory } from '../../directory.ts';
import type { Actor } from '../../roles/may.ts';
import { heldOfUser } from '../../users/effective-state.ts';
import { lockUser } from '../../users/locks.ts';
import { tokenHash } from '../tokens.ts';
import { assertMayActAs } from './may-act-as.ts';
import type { OfUser } from './password-changes.ts';
import { assertPassword } from './password-rules.ts';
import type { InvitationView } from './shapes.ts';

export const invitationHours = 72;

const sql = {
  hash: statement(
    'directory.readHashOfInvited',
    'SELECT password_hash AS "passwordHash" FROM users WHERE tenant_id = $1 AND user_id = $2',
  ),
  put: statement(
    'directory.putInvitation',
    `INSERT INTO invitations (user_id, tenant_id, token_sha256, expires_at) VALUES ($2, $1, $3, now() + interval '${invitationHours} hours')
         ON CONFLICT (user_id) DO UPDATE SET token_sha256 = $3, made_at = now(), expires_at = now() + interval '${invitationHours} hours'
     RETURNING expires_at AS "expiresAt"`,
  ),
  find: statement(
    'directory.findInvitation',
    `SELECT i.tenant_id AS tenant, i.user_id AS "user", u.name AS "userName", u.email, t.name AS "tenantName", i.expires_at AS "expiresAt"
       FROM invitations i JOIN users u ON u.user_id = i.user_id JOIN tenants t ON t.tenant_id = i.tenant_id
       JOIN organizations o ON o.organization_id = u.organization_id CROSS JOIN LATERAL ${heldOfUser} held
      WHERE i.token_sha256 = $1 AND i.expires_at > now() AND u.password_hash IS NULL AND held.state = 'active'`,
  ),
  take: statement(
    'directory.takeInvitation',
    'DELETE FROM invitations WHERE user_id = $1 AND token_sha256 = $2 AND expires_at > now() RETURNING 1',
  ),
  set: statement(
    'directory.setFirstPassword',
    'UPDATE users SET password_hash = $3, password_changed_at = now() WHERE tenant_id = $1 AND user_id = $2',
  ),
};

interface Invitation extends OfUser {
  userName: string;
  email: string | null;
  tenantName: string;
  expiresAt: Date;
}

/**
 * Invites a user who has no password yet, in the place of an invitation before.
 * @param request.actor whoever invites; they must be able to give all that the user may
 * @param token by `newToken()`, drawn before the transaction and shown once
 * @throws Problem not_found, forbidden; conflict when they have a password
 */
export async function inviteUser(
  tx: Transaction,
  by: By,
  { actor, ...of }: OfUser & { actor: Actor },
  token: string,
): Promise<{ expiresAt: string }> {
  const { id, name, organization } = await lockUser(tx, { ...of, expected: null });
  await assertMayActAs(tx, actor, of);
  if ((await readHash(tx, of)) !== null)
    throw new Problem('conflict', 'this user has a password; set a new one, if it is lost');
  const [row] = await tx.query<{ expiresAt: Date }>(sql.put, [of.tenant, of.user, tokenHash(token)]);
  const expiresAt = row!.expiresAt.toISOString();
  await record(tx, by, {
    action: 'user.make_invitation',
    target: { kind: 'user', id, name },
    organization,
    result: 'done',
    details: { expiresAt },
  });
  return { expiresAt };
}

/**
 * Whom an invitation is for, to be shown to whoever has it.
 * @throws Problem not_found: it was used, replaced, or is past its time, or the user may not sign in
 */
export async function readInvitation(db: Database, token: string): Promise<z.infer<typeof InvitationView>> {
  const { tenant, tenantName, userName, expiresAt } = await find(db, token);
  return { tenant, tenantName, userName, expiresAt: expiresAt.toISOString() };
}

/**
 * Sets the first password. Signing in is the next thing, and not part of it.
 * @throws Problem not_found as above, out_of_bounds (field `newPassword`), too_many_requests
 */
export async function acceptInvitation(
  directory: Directory,
  { token, newPassword }: { token: string; newPassword: string },
  address: string,
): Promise<{ tenant: number; userName: string }> {
  const forgive = directory.signIns.attempt('an invitation', address); // to spare the hashing
  const found = await find(directory.database, token);
  forgive();
  assertPassword(newPassword, found, 'newPassword');
  const newHash = await directory.passwords.hash(newPassword);
  const { tenant, user } = found;

  const done = await directory.database.transaction(async (tx) => {
    const { id, name, organization } = await lockUser(tx, { tenant, user, expected: null });
    const now = await readHash(tx, found);
    if (now === newHash) return true; // by a COMMIT whose outcome was not known
    if (now !== null || (await tx.query(sql.take, [user, tokenHash(token)])).length === 0) return false;
    await tx.query(sql.set, [tenant, user, newHash]);
    const by: By = { tenant, party: { kind: 'user', id, name }, address };
    await record(tx, by, {
      action: 'password.set',
      target: { kind: 'user', id, name },
      organization,
      result: 'done',
      details: { with: 'invitation' },
    });
    return true;
  });
  if (!done) throw noInvitation();
  return { tenant, userName: found.userName };
}

async function find(db: Database, token: string): Promise<Invitation> {
  const hash = tokenHash(token);
  const [row] = hash ? await db.query<Invitation>(sql.find, [hash]) : [];
  if (!row) throw noInvitation();
  return row;
}

async function readHash(tx: Transaction, { tenant, user }: OfUser): Promise<string | null> {
  const [row] = await tx.query<{ passwordHash: string | null }>(sql.hash, [tenant, user]);
  return row?.passwordHash ?? null;
}

function noInvitation(): Problem {
  return new Problem('not_found', 'this invitation is not valid (any more); ask for another');
}
