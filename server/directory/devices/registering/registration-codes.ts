/**
 * Registration codes: with one a device is registered without a password, once and soon. For users who sign in at an
 * identity provider, and for whoever would rather not type a password into another machine.
 *
 * What must stay true: a code lets in as its user's device, so nobody makes one for a user who may do what they may not
 * (may-act-as.ts), or goes around a second factor that they could not take away; and whoever makes one for themself has
 * just shown who they are (own-codes.ts), and it is good no longer than the session they made it in. It is kept as SHA-256
 * and used up in the transaction of the registration.
 *
 * Lock order: the tenant's row for sharing, the user's row, the code's, everything else, the log's head. Making, using and
 * revoking meet at the user's row.
 */
import { sha256 } from '../../../../protocol/hashes.ts';
import { Problem } from '../../../../protocol/problems.ts';
import { type Database, statement, type Transaction } from '../../../../storage/catalog/database.ts';
import type { By } from '../../audit/act.ts';
import { record } from '../../audit/record.ts';
import { newPassword } from '../../organizations/registration-key.ts';
import { type Actor, may } from '../../roles/may.ts';
import type { OwnSettings } from '../../settings/effective.ts';
import { assertMayActAs } from '../../sign-in/password-changes/may-act-as.ts';
import { isSecondFactorWanted, settingsWithoutSecondFactor } from '../../sign-in/second-factor/wanted.ts';
import { liveOf } from '../../sign-in/sessions/sessions.ts';
import { type EffectiveState, heldOfUser } from '../../users/effective-state.ts';
import { lockUser } from '../../users/locks.ts';
import { lockActiveUser } from '../../users/people.ts';
import { revokeOpenCodes } from './open-codes.ts';

/** Open ones of a user that people have made. */
export const openCodesMax = 5;
/** After looking at one's devices, time enough to choose one and to type an archive password. */
export const listingCodeMinutes = 10;

const sql = {
  secondFactor: statement(
    'directory.secondFactorOfRegistering',
    `SELECT to_json(o.path) AS path FROM users u JOIN organizations o ON o.organization_id = u.organization_id
       JOIN second_factors f ON f.user_id = u.user_id AND f.confirmed_at IS NOT NULL
      WHERE u.tenant_id = $1 AND u.user_id = $2`,
  ),
  count: statement(
    'directory.countRegistrationCodes',
    `SELECT count(*)::int AS open FROM registration_codes c LEFT JOIN sessions s ON s.session_id = c.session_id
      WHERE c.user_id = $1 AND c.kind = 'made' AND c.used_at IS NULL AND c.expires_at > now()
        AND (c.session_id IS NULL OR ${liveOf('s')})`,
  ),
  insert: statement(
    'directory.insertRegistrationCode',
    `INSERT INTO registration_codes (tenant_id, user_id, code_sha256, kind, expires_at, session_id)
     VALUES ($1, $2, $3, $4, now() + $5 * interval '1 minute', $6) RETURNING code_id AS id, expires_at AS "expiresAt"`,
  ),
  // Nobody is there to revoke them: the oldest make room.
  trimListing: statement(
    'directory.trimListingCodes',
    `DELETE FROM registration_codes WHERE code_id IN (
       SELECT code_id FROM registration_codes WHERE user_id = $1 AND kind = 'listing' AND used_at IS NULL
        ORDER BY code_id DESC OFFSET ${openCodesMax})`,
  ),
  find: statement(
    'directory.findRegistrationCode',
    `SELECT c.code_id AS id, c.tenant_id AS "tenantId", c.user_id AS "userId", u.name AS "userName",
            u.organization_id AS organization, held.state, c.used_at IS NOT NULL AS used, c.expires_at <= now() AS expired,
            c.expires_at AS "expiresAt", c.session_id IS NOT NULL AND NOT (${liveOf('s')}) AS over,
            coalesce(s.limited, false) AS limited, bare.settings AS "askOf"
       FROM registration_codes c JOIN users u ON u.user_id = c.user_id
       JOIN organizations o ON o.organization_id = u.organization_id CROSS JOIN LATERAL ${heldOfUser} held
       LEFT JOIN sessions s ON s.session_id = c.session_id
       LEFT JOIN LATERAL ${settingsWithoutSecondFactor} bare ON s.session_id IS NOT NULL
      WHERE c.code_sha256 = $1`,
  ),
  use: statement(
    'directory.useRegistrationCode',
    `UPDATE registration_codes SET used_at = now()
      WHERE user_id = $1 AND code_sha256 = $2 AND used_at IS NULL AND expires_at > now() RETURNING 1`,
  ),
};

/** XXXX-XXXX-XXXX-XXXX-XXXX-XXXX: 120 random bits, which nobody guesses. */
export function newRegistrationCode(): string {
  return newPassword().match(/.{4}/g)!.join('-');
}

/** What a code is known by. As it was typed: case, spaces and dashes do not matter. 120 random bits need no slow hash. */
export function registrationCodeHash(code: string): Buffer {
  return sha256(Buffer.from(plainCode(code)));
}

export function plainCode(code: string): string {
  return code.replace(/[\s-]/g, '').toUpperCase();
}

interface OfUser {
  tenant: number;
  user: number;
}

export interface MadeCode {
  /** What the log calls it by. */
  id: number;
  expiresAt: string;
}

/**
 * Makes a code for a user who may sign in.
 * @param request.actor whoever makes it; they must be able to give all that the user may
 * @param request.minutes how long it is good
 * @param request.session for oneself: the one it is good with, after its user was asked (own-codes.ts); null: for somebody else
 * @param code by `newRegistrationCode()`, drawn before the transaction and shown once
 * @throws Problem not_found, forbidden; conflict when the user may not sign in, or has as many open as there may be
 */
export async function makeRegistrationCode(
  tx: Transaction,
  by: By,
  { actor, minutes, session, ...of }: OfUser & { actor: Actor; minutes: number; session: number | null },
  code: string,
): Promise<MadeCode> {
  const isActive = await lockActiveUser(tx, of.user);
  const { name, organization } = await lockUser(tx, { ...of, expected: null });
  if (session === null && isSelf(actor, of))
    throw new Problem('forbidden', 'make one for yourself with your password: POST /v1/me/registration-codes');
  await assertMayActAs(tx, actor, of);
  await assertMayPassSecondFactor(tx, actor, of);
  if (!isActive) throw new Problem('conflict', 'this user, or something above them, is not active');
  const [row] = await tx.query<{ open: number }>(sql.count, [of.user]);
  if (row!.open >= openCodesMax)
    throw new Problem('conflict', `there are ${openCodesMax} open registration codes: use one, or revoke them first`);
  return insertCode(tx, by, { ...of, name, organization, kind: 'made', minutes, session }, code);
}

const isSelf = (actor: Actor, { tenant, user }: OfUser): boolean => actor.user === user && actor.tenant === tenant;

/**
 * A code goes around the second factor of a user who has one, so whoever makes it for them must be one who may take that
 * away. @throws Problem forbidden
 */
async function assertMayPassSecondFactor(tx: Transaction, actor: Actor, of: OfUser): Promise<void> {
  const { tenant, user } = of;
  if (isSelf(actor, of)) return;
  const [row] = await tx.query<{ path: number[] }>(sql.secondFactor, [tenant, user]);
  if (!row) return;
  const target = { tenant, organizationPath: row.path, user };
  if (!may(actor, 'twofactorauth.configure', target).allowed)
    throw new Problem('forbidden', 'this user has a second factor, which a code goes around: let them make one', {
      permissions: ['twofactorauth.configure'],
    });
}

/** Makes a code for whoever has looked at their devices with a code of their second factor. The user's row is locked. */
export async function makeListingCode(
  tx: Transaction,
  of: OfUser & { name: string; organization: number; address: string },
  code: string,
): Promise<void> {
  const { tenant, user, name, address } = of;
  const by: By = { tenant, party: { kind: 'user', id: user, name }, address };
  await insertCode(tx, by, { ...of, kind: 'listing', minutes: listingCodeMinutes, session: null }, code);
  await tx.query(sql.trimListing, [user]);
}

async function insertCode(
  tx: Transaction,
  by: By,
  of: OfUser & {
    name: string;
    organization: number;
    kind: 'made' | 'listing';
    minutes: number;
    session: number | null;
  },
  code: string,
): Promise<MadeCode> {
  const { tenant, user, name, organization, kind, minutes, session } = of;
  const values = [tenant, user, registrationCodeHash(code), kind, minutes, session];
  const [row] = await tx.query<{ id: number; expiresAt: Date }>(sql.insert, values);
  const made = { id: row!.id, expiresAt: row!.expiresAt.toISOString() };
  await record(tx, by, {
    action: 'user.make_registration_code',
    target: { kind: 'user', id: user, name },
    organization,
    result: 'done',
    details: { code: made.id, expiresAt: made.expiresAt, ...(kind === 'listing' && { for: 'replacing a device' }) },
  });
  return made;
}

/**
 * Takes all open codes of a user away.
 * @throws Problem not_found
 */
export async function revokeRegistrationCodes(tx: Transaction, by: By, of: OfUser): Promise<{ revoked: number }> {
  const { id, name, organization } = await lockUser(tx, { ...of, expected: null });
  const revoked = await revokeOpenCodes(tx, id);
  await record(tx, by, {
    action: 'user.revoke_registration_codes',
    target: { kind: 'user', id, name },
    organization,
    result: 'done',
    details: { codes: revoked },
  });
  return { revoked };
}

export interface FoundCode {
  id: number;
  tenantId: number;
  userId: number;
  userName: string;
  organization: number;
  /** Of the user: the strictest of their own state and of those above. */
  state: EffectiveState;
  used: boolean;
  expired: boolean;
  expiresAt: Date;
  /** Why the session it was made in does not stand for it any more; null: it does, or there was none. */
  lost: 'session ended' | 'second factor wanted' | null;
}

interface CodeRow extends Omit<FoundCode, 'lost'> {
  /** Of its session, as every request of it is asked (actor.ts). */
  over: boolean;
  limited: boolean;
  askOf: OwnSettings[] | null;
}

export async function findRegistrationCode(db: Database | Transaction, hash: Buffer): Promise<FoundCode | null> {
  const [row] = await db.query<CodeRow>(sql.find, [hash]);
  if (!row) return null;
  const { over, limited, askOf, ...found } = row;
  const isLimited = limited || (askOf !== null && isSecondFactorWanted(askOf));
  return { ...found, lost: over ? 'session ended' : isLimited ? 'second factor wanted' : null };
}

/** The code that was drawn, when it is made already: by a COMMIT whose outcome was not known. */
export async function findMade(tx: Transaction, code: string): Promise<MadeCode | null> {
  const found = await findRegistrationCode(tx, registrationCodeHash(code));
  return found && { id: found.id, expiresAt: found.expiresAt.toISOString() };
}

/**
 * Uses a code up. The user's row is locked, and the tenant's for sharing: no setting changes meanwhile. A session that ends
 * at this moment has ended after it.
 * @returns false when it is not good (any more)
 */
export async function useRegistrationCode(tx: Transaction, user: number, hash: Buffer): Promise<boolean> {
  if ((await findRegistrationCode(tx, hash))?.lost !== null) return false;
  return (await tx.query(sql.use, [user, hash])).length > 0;
}
