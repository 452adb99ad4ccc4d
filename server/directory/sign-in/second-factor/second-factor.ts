/**
 * A user's second factor: begun, confirmed with a code, and taken away again. It counts from its confirmation, so nobody
 * locks themselves out with a secret that their phone did not take.
 *
 * Lock order: the user's row, the second factor's, everything else, the log's head. Whatever changes one user's second
 * factor meets at the user's row.
 */
import { randomBytes } from 'node:crypto';
import type { z } from 'zod';
import { Problem } from '../../../../protocol/problems.ts';
import { type Database, statement, type Transaction } from '../../../../storage/catalog/database.ts';
import type { By } from '../../audit/act.ts';
import { record } from '../../audit/record.ts';
import type { Directory } from '../../directory.ts';
import { type LockedUser, lockUser } from '../../users/locks.ts';
import { endAll } from '../sessions/sessions.ts';
import {
  generator,
  judgeCode,
  newRecoveryCodes,
  type OfUser,
  type RightCode,
  recoveryHash,
  secretContext,
  takeCode,
} from './codes.ts';
import type { BegunSecondFactor, RecoveryCodes, SecondFactorView } from './shapes.ts';

/** RFC 4226, 4: at least 128 bits, 160 recommended. */
const secretBytes = 20;

const sql = {
  begin: statement(
    'directory.beginSecondFactor',
    `INSERT INTO second_factors AS f (user_id, tenant_id, secret) VALUES ($2, $1, $3)
         ON CONFLICT (user_id) DO UPDATE SET secret = $3, made_at = now(), last_step = NULL WHERE f.confirmed_at IS NULL
     RETURNING 1`,
  ),
  confirm: statement(
    'directory.confirmSecondFactor',
    `UPDATE second_factors SET confirmed_at = now() WHERE tenant_id = $1 AND user_id = $2 AND confirmed_at IS NULL RETURNING 1`,
  ),
  insertCodes: statement(
    'directory.insertRecoveryCodes',
    'INSERT INTO recovery_codes (user_id, code_sha256) SELECT $1, unnest($2::bytea[])',
  ),
  hasCode: statement(
    'directory.hasRecoveryCode',
    'SELECT 1 FROM recovery_codes WHERE user_id = $1 AND code_sha256 = $2',
  ),
  deleteCodes: statement('directory.deleteRecoveryCodes', 'DELETE FROM recovery_codes WHERE user_id = $1'),
  delete: statement(
    'directory.deleteSecondFactor',
    'DELETE FROM second_factors WHERE tenant_id = $1 AND user_id = $2 RETURNING 1',
  ),
  openSession: statement(
    'directory.openLimitedSession',
    'UPDATE sessions SET limited = false WHERE tenant_id = $1 AND user_id = $2 AND session_id = $3',
  ),
  endLimited: statement(
    'directory.endLimitedSessions',
    'UPDATE sessions SET ended_at = now() WHERE tenant_id = $1 AND user_id = $2 AND limited AND ended_at IS NULL',
  ),
  read: statement(
    'directory.readSecondFactorState',
    `SELECT f.confirmed_at AS "confirmedAt", f.user_id IS NOT NULL AS begun,
            (SELECT count(*)::int FROM recovery_codes c WHERE c.user_id = f.user_id AND c.used_at IS NULL) AS "codesLeft"
       FROM users u LEFT JOIN second_factors f ON f.user_id = u.user_id WHERE u.tenant_id = $1 AND u.user_id = $2`,
  ),
};

/** A secret, sealed before the transaction; in the clear only to be shown to its owner, once. */
export interface DrawnSecondFactor {
  sealed: Buffer;
  shown: z.infer<typeof BegunSecondFactor>;
}

export async function drawSecondFactor(
  { keys }: Directory,
  { user, userName }: { user: number; userName: string },
): Promise<DrawnSecondFactor> {
  const secret = randomBytes(secretBytes);
  const sealed = await keys.seal(secret, secretContext(user));
  // A colon would part the label in two.
  const totp = generator(secret, userName.replaceAll(':', ' '));
  const shown = { secret: totp.secret.base32, uri: totp.toString() };
  secret.fill(0);
  return { sealed, shown };
}

/**
 * Begins a second factor, in the place of one that was begun and not confirmed. `drawn.shown` is then shown, once.
 * @throws Problem not_found; conflict when one is in force
 */
export async function beginSecondFactor(
  tx: Transaction,
  by: By,
  of: OfUser,
  drawn: Pick<DrawnSecondFactor, 'sealed'>,
): Promise<void> {
  const locked = await lockUser(tx, { ...of, expected: null });
  if ((await tx.query(sql.begin, [of.tenant, of.user, drawn.sealed])).length === 0)
    throw new Problem('conflict', 'a second factor is in force: take it away first');
  await recordChange(tx, by, 'second_factor.begin', locked, {});
}

/**
 * Puts a second factor into force with a code of it. A session that was limited to that is one like any other then; other
 * limited ones end.
 * @param of.session the caller's
 * @param drawn recovery codes, by `newRecoveryCodes()`; shown once
 * @throws Problem second_factor_needed when the code is wrong or none was begun; too_many_requests
 */
export async function confirmSecondFactor(
  directory: Directory,
  by: By,
  { session, code, ...of }: OfUser & { session: number; code: string },
  address: string,
  drawn: readonly string[] = newRecoveryCodes(),
): Promise<z.infer<typeof RecoveryCodes>> {
  const right = await judgeCode(directory, of, code, { address, confirmed: false });
  // A recovery code proves nothing about a new secret.
  if (!right || !('step' in right)) throw wrongCode();
  const done = await directory.database.transaction(async (tx) => {
    const locked = await lockUser(tx, { ...of, expected: null });
    if (await hasCodes(tx, of.user, drawn)) return true; // by a COMMIT whose outcome was not known
    if ((await tx.query(sql.confirm, [of.tenant, of.user])).length === 0 || !(await takeCode(tx, of, right)))
      return false;
    await replaceCodes(tx, of.user, drawn);
    await tx.query(sql.openSession, [of.tenant, of.user, session]);
    await tx.query(sql.endLimited, [of.tenant, of.user]);
    await recordChange(tx, by, 'second_factor.confirm', locked, {});
    return true;
  });
  if (!done) throw wrongCode();
  return { recoveryCodes: [...drawn] };
}

/**
 * New recovery codes in the place of those before.
 * @throws Problem second_factor_needed when the code is wrong or no second factor is in force; too_many_requests
 */
export async function renewRecoveryCodes(
  directory: Directory,
  by: By,
  { code, ...of }: OfUser & { code: string },
  address: string,
  drawn: readonly string[] = newRecoveryCodes(),
): Promise<z.infer<typeof RecoveryCodes>> {
  await withCode(directory, { ...of, code }, address, async (tx, take) => {
    const locked = await lockUser(tx, { ...of, expected: null });
    if (await hasCodes(tx, of.user, drawn)) return true;
    if (!(await take())) return false;
    await replaceCodes(tx, of.user, drawn);
    await recordChange(tx, by, 'second_factor.renew_recovery_codes', locked, {});
    return true;
  });
  return { recoveryCodes: [...drawn] };
}

/**
 * Takes a user's own second factor away, with a code of it. All other sessions end: where the organization wants a second
 * factor, the next sign-in asks to set up another.
 * @param of.session the caller's, which stays
 * @throws Problem second_factor_needed when the code is wrong or no second factor is in force; too_many_requests
 */
export async function removeSecondFactor(
  directory: Directory,
  by: By,
  { session, code, ...of }: OfUser & { session: number; code: string },
  address: string,
): Promise<void> {
  let removed = false;
  await withCode(directory, { ...of, code }, address, async (tx, take) => {
    const locked = await lockUser(tx, { ...of, expected: null });
    const again = removed && (await readSecondFactorState(tx, of)).state === 'none';
    if (again) return true; // by a COMMIT whose outcome was not known
    removed = await take();
    if (!removed) return false;
    await erase(tx, of);
    const sessions = await endAll(tx, of, session);
    await recordChange(tx, by, 'second_factor.remove', locked, { sessions });
    return true;
  });
}

/**
 * Takes a user's second factor away for them, for whom has lost it and the recovery codes: `twofactorauth.configure`. All
 * their sessions end. Without one nothing happens.
 * @throws Problem not_found
 */
export async function resetSecondFactor(tx: Transaction, by: By, of: OfUser): Promise<void> {
  const locked = await lockUser(tx, { ...of, expected: null });
  if (!(await erase(tx, of))) return;
  const sessions = await endAll(tx, of, null);
  await recordChange(tx, by, 'second_factor.reset', locked, { sessions });
}

/** @throws Problem not_found */
export async function readSecondFactorState(
  db: Database | Transaction,
  { tenant, user }: OfUser,
): Promise<z.infer<typeof SecondFactorView>> {
  const [row] = await db.query<{ confirmedAt: Date | null; begun: boolean; codesLeft: number }>(sql.read, [
    tenant,
    user,
  ]);
  if (!row) throw new Problem('not_found', 'there is no such user');
  const { confirmedAt, begun, codesLeft } = row;
  return {
    state: confirmedAt ? 'inForce' : begun ? 'begun' : 'none',
    since: confirmedAt?.toISOString() ?? null,
    recoveryCodesLeft: codesLeft,
  };
}

/** Judges a code of the factor in force, and does what it was given for in one transaction with using it up. */
async function withCode(
  directory: Directory,
  { code, ...of }: OfUser & { code: string },
  address: string,
  work: (tx: Transaction, take: () => Promise<boolean>) => Promise<boolean>,
): Promise<void> {
  const right: RightCode | null = await judgeCode(directory, of, code, { address, confirmed: true });
  if (!right || !(await directory.database.transaction((tx) => work(tx, () => takeCode(tx, of, right)))))
    throw wrongCode();
}

async function hasCodes(tx: Transaction, user: number, drawn: readonly string[]): Promise<boolean> {
  return (await tx.query(sql.hasCode, [user, recoveryHash(drawn[0]!)])).length > 0;
}

async function replaceCodes(tx: Transaction, user: number, drawn: readonly string[]): Promise<void> {
  await tx.query(sql.deleteCodes, [user]);
  await tx.query(sql.insertCodes, [user, drawn.map(recoveryHash)]);
}

async function erase(tx: Transaction, { tenant, user }: OfUser): Promise<boolean> {
  await tx.query(sql.deleteCodes, [user]);
  return (await tx.query(sql.delete, [tenant, user])).length > 0;
}

function recordChange(
  tx: Transaction,
  by: By,
  action: string,
  { id, name, organization }: LockedUser,
  details: Record<string, number>,
): Promise<void> {
  return record(tx, by, { action, target: { kind: 'user', id, name }, organization, result: 'done', details });
}

function wrongCode(): Problem {
  return new Problem('second_factor_needed', 'the code is not right, or was used before', { field: 'code' });
}
