/**
 * A user's password: changed by themselves, or set by an administrator for one sign-in. Both end what was signed in with
 * the one before. Hashing is slow and done before the transaction.
 *
 * Lock order: the user's row, everything else, the log's head.
 */
import { Problem } from '../../../../protocol/problems.ts';
import { type Database, statement, type Transaction } from '../../../../storage/catalog/database.ts';
import type { By } from '../../audit/act.ts';
import { record } from '../../audit/record.ts';
import type { Directory } from '../../directory.ts';
import { newPassword as drawPassword } from '../../organizations/registration-key.ts';
import type { Actor } from '../../roles/may.ts';
import { lockUser } from '../../users/locks.ts';
import { userAccountKey } from '../accounts.ts';
import { judgePassword } from '../judge-password.ts';
import { forgetAllFailures } from '../lockout.ts';
import { endAll } from '../sessions/sessions.ts';
import { assertMayActAs } from './may-act-as.ts';
import { assertPassword, type KnownWords } from './password-rules.ts';

/** A one-time password that is not used for so long is good for nothing. */
export const oneTimePasswordHours = 72;

const sql = {
  find: statement(
    'directory.findUserToChangePassword',
    `SELECT u.name AS "userName", u.email, t.name AS "tenantName", u.password_hash AS "passwordHash"
       FROM users u JOIN tenants t ON t.tenant_id = u.tenant_id WHERE u.tenant_id = $1 AND u.user_id = $2`,
  ),
  hash: statement(
    'directory.readPasswordHash',
    'SELECT password_hash AS "passwordHash" FROM users WHERE tenant_id = $1 AND user_id = $2',
  ),
  set: statement(
    'directory.setPassword',
    `UPDATE users SET password_hash = $3, password_changed_at = now(), password_once_until = NULL
      WHERE tenant_id = $1 AND user_id = $2`,
  ),
  setOnce: statement(
    'directory.setOneTimePassword',
    `UPDATE users SET password_hash = $3, password_changed_at = now(), password_once_until = now() + interval '${oneTimePasswordHours} hours'
      WHERE tenant_id = $1 AND user_id = $2 RETURNING password_once_until AS "expiresAt"`,
  ),
  dropInvitation: statement(
    'directory.dropInvitation',
    'DELETE FROM invitations WHERE tenant_id = $1 AND user_id = $2',
  ),
};

export interface OfUser {
  tenant: number;
  user: number;
}

interface UserRow extends KnownWords {
  passwordHash: string | null;
}

/**
 * Changes the user's own password. Their other sessions end.
 * @param request.session the caller's, which stays
 * @throws Problem out_of_bounds (field `password`: it is not the present one; field `newPassword`), too_many_requests,
 *   conflict when they have no password, not_found
 */
export async function changePassword(
  directory: Directory,
  by: By,
  request: OfUser & { session: number; password: string; newPassword: string },
  address: string,
): Promise<{ endedSessions: number }> {
  const { session, password, newPassword, ...of } = request;
  const found = await find(directory.database, of);
  if (found.passwordHash === null) throw new Problem('conflict', 'you have no password here');
  // Counted as a sign-in is: a session that somebody took is no way to guess the password.
  const { passwordHash, userName } = found;
  const candidate = { userName, key: userAccountKey(of.user), passwordHash, open: true };
  const right = await judgePassword(directory, candidate, password, address);
  if (!right) throw wrongPassword();
  assertPassword(newPassword, found, 'newPassword');
  if (newPassword.normalize('NFC') === password.normalize('NFC'))
    throw new Problem('out_of_bounds', 'this is the password you have', { field: 'newPassword' });
  const newHash = await directory.passwords.hash(newPassword);

  const done = await directory.database.transaction(async (tx) => {
    const locked = await lockUser(tx, { ...of, expected: null });
    const now = await readHash(tx, of);
    if (now === newHash) return { endedSessions: 0 }; // by a COMMIT whose outcome was not known
    if (now !== found.passwordHash) return null;
    await tx.query(sql.set, [of.tenant, of.user, newHash]);
    const endedSessions = await endAll(tx, of, session);
    await recordChange(tx, by, 'password.change', locked, { sessions: endedSessions });
    return { endedSessions };
  });
  if (!done) throw wrongPassword();
  return done;
}

/** A password that nobody chose, and its hash: made before the transaction, shown once. */
export interface DrawnPassword {
  password: string;
  hash: string;
}

export async function drawOneTimePassword({ passwords }: Directory): Promise<DrawnPassword> {
  const password = drawPassword();
  return { password, hash: await passwords.hash(password) };
}

/**
 * Sets a password that is good for setting another at the next sign-in. All sessions end, an open invitation too, and the
 * user waits no longer for wrong passwords.
 * @param request.actor whoever does it; they must be able to give all that the user may
 * @throws Problem not_found, forbidden
 */
export async function resetPassword(
  tx: Transaction,
  by: By,
  { actor, ...of }: OfUser & { actor: Actor },
  drawn: Pick<DrawnPassword, 'hash'>,
): Promise<{ expiresAt: string }> {
  const locked = await lockUser(tx, { ...of, expected: null });
  await assertMayActAs(tx, actor, of);
  const [row] = await tx.query<{ expiresAt: Date }>(sql.setOnce, [of.tenant, of.user, drawn.hash]);
  await tx.query(sql.dropInvitation, [of.tenant, of.user]);
  await forgetAllFailures(tx, userAccountKey(of.user));
  const sessions = await endAll(tx, of, null);
  const expiresAt = row!.expiresAt.toISOString();
  await recordChange(tx, by, 'password.reset', locked, { sessions, expiresAt });
  return { expiresAt };
}

async function find(db: Database, { tenant, user }: OfUser): Promise<UserRow> {
  const [row] = await db.query<UserRow>(sql.find, [tenant, user]);
  if (!row) throw new Problem('not_found', 'there is no such user');
  return row;
}

async function readHash(tx: Transaction, { tenant, user }: OfUser): Promise<string | null> {
  const [row] = await tx.query<{ passwordHash: string | null }>(sql.hash, [tenant, user]);
  return row?.passwordHash ?? null;
}

function recordChange(
  tx: Transaction,
  by: By,
  action: string,
  { id, name, organization }: { id: number; name: string; organization: number },
  details: Record<string, number | string>,
): Promise<void> {
  return record(tx, by, { action, target: { kind: 'user', id, name }, organization, result: 'done', details });
}

function wrongPassword(): Problem {
  return new Problem('out_of_bounds', 'this is not your present password', { field: 'password' });
}
