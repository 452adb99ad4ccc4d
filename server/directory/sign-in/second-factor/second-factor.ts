/**
 * The second factor of a user, or of one who runs the server: begun, confirmed with a code, and taken away again. It counts from its confirmation, so nobody
 * locks themselves out with a secret that their phone did not take.
 *
 * Lock order: the user's or operator's row, the second factor's, everything else, the log's head. Whatever changes one
 * second factor meets at its owner's row.
 */
import { randomBytes } from 'node:crypto';
import type { z } from 'zod';
import { Problem } from '../../../../protocol/problems.ts';
import { type Database, statement, type Transaction } from '../../../../storage/catalog/database.ts';
import type { By } from '../../audit/act.ts';
import { record } from '../../audit/record.ts';
import type { Directory } from '../../directory.ts';
import { lockUser } from '../../users/locks.ts';
import { endAll, endAllByPassword, type Owner } from '../sessions/sessions.ts';
import {
  generator,
  judgeCode,
  newRecoveryCodes,
  ofBoth,
  type RightCode,
  recoveryHash,
  secretContext,
  takeCode,
  valuesOf,
} from './codes.ts';
import type { BegunSecondFactor, RecoveryCodes, SecondFactorView } from './shapes.ts';

/** RFC 4226, 4: at least 128 bits, 160 recommended. */
const secretBytes = 20;

const sqlOf = ofBoth(({ what, factors, codes, id, of }) => ({
  begin: statement(
    `directory.begin${what}SecondFactor`,
    what === ''
      ? `INSERT INTO second_factors AS f (user_id, tenant_id, secret) VALUES ($2, $1, $3)
             ON CONFLICT (user_id) DO UPDATE SET secret = $3, made_at = now(), last_step = NULL WHERE f.confirmed_at IS NULL
         RETURNING 1`
      : `INSERT INTO operator_second_factors AS f (operator_id, secret) SELECT $2, $3 WHERE $1::bigint IS NULL
             ON CONFLICT (operator_id) DO UPDATE SET secret = $3, made_at = now(), last_step = NULL WHERE f.confirmed_at IS NULL
         RETURNING 1`,
  ),
  confirm: statement(
    `directory.confirm${what}SecondFactor`,
    `UPDATE ${factors} SET confirmed_at = now() WHERE ${of} AND confirmed_at IS NULL RETURNING 1`,
  ),
  insertCodes: statement(
    `directory.insert${what}RecoveryCodes`,
    `INSERT INTO ${codes} (${id}, code_sha256) SELECT $1, unnest($2::bytea[])`,
  ),
  hasCode: statement(
    `directory.has${what}RecoveryCode`,
    `SELECT 1 FROM ${codes} WHERE ${id} = $1 AND code_sha256 = $2`,
  ),
  deleteCodes: statement(`directory.delete${what}RecoveryCodes`, `DELETE FROM ${codes} WHERE ${id} = $1`),
  delete: statement(`directory.delete${what}SecondFactor`, `DELETE FROM ${factors} WHERE ${of} RETURNING 1`),
  openSession: statement(
    `directory.open${what}LimitedSession`,
    `UPDATE sessions SET limited = false WHERE ${of} AND session_id = $3`,
  ),
  read: statement(
    `directory.read${what}SecondFactorState`,
    `SELECT f.confirmed_at AS "confirmedAt", f.${id} IS NOT NULL AS begun,
            (SELECT count(*)::int FROM ${codes} c WHERE c.${id} = f.${id} AND c.used_at IS NULL) AS "codesLeft"
       FROM ${what === '' ? 'users' : 'operators'} u LEFT JOIN ${factors} f ON f.${id} = u.${id}
      WHERE ${what === '' ? 'u.tenant_id = $1' : '$1::bigint IS NULL'} AND u.${id} = $2`,
  ),
}));

const lockOperator = statement(
  'directory.lockOperatorOfSecondFactor',
  'SELECT name FROM operators WHERE operator_id = $1 FOR NO KEY UPDATE',
);

/** A secret, sealed before the transaction; in the clear only to be shown to its owner, once. */
export interface DrawnSecondFactor {
  sealed: Buffer;
  shown: z.infer<typeof BegunSecondFactor>;
}

export async function drawSecondFactor({ keys }: Directory, of: Owner, userName: string): Promise<DrawnSecondFactor> {
  const secret = randomBytes(secretBytes);
  const sealed = await keys.seal(secret, secretContext(of));
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
  of: Owner,
  drawn: Pick<DrawnSecondFactor, 'sealed'>,
): Promise<void> {
  const locked = await lockOwner(tx, of);
  if ((await tx.query(sqlOf(of).begin, [...valuesOf(of), drawn.sealed])).length === 0)
    throw new Problem('conflict', 'a second factor is in force: take it away first');
  await recordChange(tx, by, 'second_factor.begin', locked, {});
}

/**
 * Puts a second factor into force with a code of it. The caller's session, if it was limited to that, is one like any other
 * then. All others that came by a password end: from now on there is none that did not show a code, so that whoever has only
 * the password, and signed in before, has nothing.
 * @param session the caller's
 * @param drawn recovery codes, by `newRecoveryCodes()`; shown once
 * @throws Problem second_factor_needed when the code is wrong or none was begun; too_many_requests
 */
export async function confirmSecondFactor(
  directory: Directory,
  by: By,
  { session, code, of }: { of: Owner; session: number; code: string },
  address: string,
  drawn: readonly string[] = newRecoveryCodes(),
): Promise<z.infer<typeof RecoveryCodes>> {
  const right = await judgeCode(directory, of, code, { address, confirmed: false });
  // A recovery code proves nothing about a new secret.
  if (!right || !('step' in right)) throw wrongCode();
  const done = await directory.database.transaction(async (tx) => {
    const locked = await lockOwner(tx, of);
    if (await hasCodes(tx, of, drawn)) return true; // by a COMMIT whose outcome was not known
    if ((await tx.query(sqlOf(of).confirm, valuesOf(of))).length === 0 || !(await takeCode(tx, of, right)))
      return false;
    await replaceCodes(tx, of, drawn);
    await tx.query(sqlOf(of).openSession, [...valuesOf(of), session]);
    const sessions = await endAllByPassword(tx, of, session);
    await recordChange(tx, by, 'second_factor.confirm', locked, { sessions });
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
  { code, of }: { of: Owner; code: string },
  address: string,
  drawn: readonly string[] = newRecoveryCodes(),
): Promise<z.infer<typeof RecoveryCodes>> {
  await withCode(directory, { of, code }, address, async (tx, take) => {
    const locked = await lockOwner(tx, of);
    if (await hasCodes(tx, of, drawn)) return true;
    if (!(await take())) return false;
    await replaceCodes(tx, of, drawn);
    await recordChange(tx, by, 'second_factor.renew_recovery_codes', locked, {});
    return true;
  });
  return { recoveryCodes: [...drawn] };
}

/**
 * Takes one's own second factor away, with a code of it. All other sessions end. Where one is wanted, the caller's can do
 * nothing from then on but set up another.
 * @param session the caller's, which stays
 * @throws Problem second_factor_needed when the code is wrong or no second factor is in force; too_many_requests
 */
export async function removeSecondFactor(
  directory: Directory,
  by: By,
  { session, code, of }: { of: Owner; session: number; code: string },
  address: string,
): Promise<void> {
  let removed = false;
  await withCode(directory, { of, code }, address, async (tx, take) => {
    const locked = await lockOwner(tx, of);
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
 * Takes a second factor away for whoever has lost it and the recovery codes: a user's by an administrator
 * (`twofactorauth.configure`), an operator's at the server's command line. All their sessions end. Without one nothing happens.
 * @throws Problem not_found
 */
export async function resetSecondFactor(tx: Transaction, by: By, of: Owner): Promise<void> {
  const locked = await lockOwner(tx, of);
  if (!(await erase(tx, of))) return;
  const sessions = await endAll(tx, of, null);
  await recordChange(tx, by, 'second_factor.reset', locked, { sessions });
}

/** @throws Problem not_found */
export async function readSecondFactorState(
  db: Database | Transaction,
  of: Owner,
): Promise<z.infer<typeof SecondFactorView>> {
  const values = valuesOf(of);
  const [row] = await db.query<{ confirmedAt: Date | null; begun: boolean; codesLeft: number }>(sqlOf(of).read, values);
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
  { code, of }: { of: Owner; code: string },
  address: string,
  work: (tx: Transaction, take: () => Promise<boolean>) => Promise<boolean>,
): Promise<void> {
  const right: RightCode | null = await judgeCode(directory, of, code, { address, confirmed: true });
  if (!right || !(await directory.database.transaction((tx) => work(tx, () => takeCode(tx, of, right)))))
    throw wrongCode();
}

async function hasCodes(tx: Transaction, of: Owner, drawn: readonly string[]): Promise<boolean> {
  return (await tx.query(sqlOf(of).hasCode, [valuesOf(of)[1], recoveryHash(drawn[0]!)])).length > 0;
}

async function replaceCodes(tx: Transaction, of: Owner, drawn: readonly string[]): Promise<void> {
  const [, id] = valuesOf(of);
  await tx.query(sqlOf(of).deleteCodes, [id]);
  await tx.query(sqlOf(of).insertCodes, [id, drawn.map(recoveryHash)]);
}

async function erase(tx: Transaction, of: Owner): Promise<boolean> {
  await tx.query(sqlOf(of).deleteCodes, [valuesOf(of)[1]]);
  return (await tx.query(sqlOf(of).delete, valuesOf(of))).length > 0;
}

interface LockedOwner {
  id: number;
  name: string;
  /** Null: an operator, who is in none. */
  organization: number | null;
}

/** @throws Problem not_found */
async function lockOwner(tx: Transaction, of: Owner): Promise<LockedOwner> {
  if (of.operator === undefined) return lockUser(tx, { ...of, expected: null });
  const [row] = await tx.query<{ name: string }>(lockOperator, [of.operator]);
  if (!row) throw new Problem('not_found', 'there is no such operator');
  return { id: of.operator, name: row.name, organization: null };
}

/** An act has no kind of target for operators: they are named in its details. */
function recordChange(
  tx: Transaction,
  by: By,
  action: string,
  { id, name, organization }: LockedOwner,
  details: Record<string, number>,
): Promise<void> {
  if (organization === null)
    return record(tx, by, {
      action,
      target: null,
      organization,
      result: 'done',
      details: { operator: id, name, ...details },
    });
  return record(tx, by, { action, target: { kind: 'user', id, name }, organization, result: 'done', details });
}

function wrongCode(): Problem {
  return new Problem('second_factor_needed', 'the code is not right, or was used before', { field: 'code' });
}
