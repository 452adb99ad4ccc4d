/**
 * Wrong passwords and codes in a row, counted in the database, so that the count holds across replicas. An account waits
 * after ten of them, and longer after each one more; addresses that it is known to sign in from are counted by
 * themselves, so that whoever guesses from elsewhere does not keep its owner out (docs/decisions/sign-in.md).
 *
 * What must stay true: an attempt is counted before it is judged, so of many at once no more are judged than may be; and
 * while an account waits nothing is judged, so a right password is not seen to be right. Accounts that do not exist are
 * counted and wait just the same.
 */
import { Problem } from '../../../protocol/problems.ts';
import { type Database, statement, type Transaction } from '../../../storage/catalog/database.ts';
import type { By } from '../audit/act.ts';
import { record } from '../audit/record.ts';
import { lockUser } from '../users/locks.ts';
import { userAccountKey } from './accounts.ts';

/** Wrong ones in a row that are judged before the account waits. */
export const failuresMax = 10;
/** The first wait; it doubles with each further failure. */
const firstWaitMinutes = 1;
export const longestWaitMinutes = 60;
/** After so long without a failure the count begins anew. */
const forgetHours = 24;
/** An address not signed in from for so long is not known any more. */
const knownDays = 90;
const knownAddressesMax = 16;

const source = `CASE WHEN EXISTS (SELECT 1 FROM sign_in_addresses
                                   WHERE account_sha256 = $1 AND address = $3 AND last_at > now() - interval '${knownDays} days')
                     THEN $3 ELSE 'elsewhere' END`;
const counted = `CASE WHEN f.last_at < now() - interval '${forgetHours} hours' THEN 1 ELSE f.failures + 1 END`;
// The exponent is bounded before it is used: 2^6 minutes are past the longest wait.
const wait = `least(${longestWaitMinutes}, ${firstWaitMinutes} * 2 ^ least(${counted} - ${failuresMax}, 6)) * interval '1 minute'`;

const sql = {
  // Attempts of one account and source wait here for one another's row, and no longer than this statement.
  count: statement(
    'directory.countSignInAttempt',
    `INSERT INTO sign_in_failures AS f (account_sha256, what, source, failures) VALUES ($1, $2, ${source}, 1)
         ON CONFLICT (account_sha256, what, source) DO UPDATE
            SET failures = ${counted}, last_at = now(),
                locked_until = CASE WHEN ${counted} >= ${failuresMax} THEN now() + ${wait} END
          WHERE f.locked_until IS NULL OR f.locked_until <= now()
      RETURNING f.source, f.failures`,
  ),
  readWait: statement(
    'directory.readSignInWait',
    `SELECT ceil(extract(epoch FROM locked_until - now()))::int AS seconds FROM sign_in_failures
      WHERE account_sha256 = $1 AND what = $2 AND source = ${source}`,
  ),
  giveBack: statement(
    'directory.giveBackSignInAttempt',
    `UPDATE sign_in_failures SET failures = greatest(failures - 1, 1), locked_until = NULL
      WHERE account_sha256 = $1 AND what = $2 AND source = $3`,
  ),
  forget: statement(
    'directory.forgetSignInFailures',
    'DELETE FROM sign_in_failures WHERE account_sha256 = $1 AND what = $2 AND source = $3',
  ),
  unlock: statement(
    'directory.unlockAccount',
    'DELETE FROM sign_in_failures WHERE account_sha256 = $1 RETURNING failures',
  ),
  read: statement(
    'directory.readSignInFailures',
    `SELECT what, source <> 'elsewhere' AS known, failures, last_at AS "lastAt",
            CASE WHEN locked_until > now() THEN locked_until END AS "lockedUntil"
       FROM sign_in_failures WHERE account_sha256 = $1 ORDER BY what, source`,
  ),
  know: statement(
    'directory.knowAddress',
    `INSERT INTO sign_in_addresses (account_sha256, address) VALUES ($1, $2)
         ON CONFLICT (account_sha256, address) DO UPDATE SET last_at = now()`,
  ),
  forgetAddresses: statement(
    'directory.forgetAddresses',
    `DELETE FROM sign_in_addresses WHERE account_sha256 = $1 AND address IN (
       SELECT address FROM sign_in_addresses WHERE account_sha256 = $1 ORDER BY last_at DESC, address OFFSET ${knownAddressesMax})`,
  ),
};

export interface Attempt {
  /** Of the account (accounts.ts). */
  account: Buffer;
  what: 'password' | 'code';
  /** Where it comes from, as addresses are counted: IPv6 by its network. */
  address: string;
}

/** An attempt that may be judged; it counts as a failure until it is forgotten. */
export interface CountedAttempt extends Attempt {
  source: string;
  /** This one included. */
  failures: number;
}

/**
 * Counts an attempt that is about to be judged.
 * @throws Problem too_many_requests { retryAfterSeconds } while the account waits
 */
export async function countAttempt(db: Database, attempt: Attempt): Promise<CountedAttempt> {
  const values = [attempt.account, attempt.what, attempt.address];
  const [counted] = await db.query<{ source: string; failures: number }>(sql.count, values);
  if (counted) return { ...attempt, ...counted };
  const [waits] = await db.query<{ seconds: number | null }>(sql.readWait, values);
  throw new Problem('too_many_requests', 'too many failed sign-ins; wait, or ask an administrator to unlock you', {
    retryAfterSeconds: Math.max(1, waits?.seconds ?? 1),
  });
}

/** For one that was not judged after all: the database was away, or too many waited for their turn. */
export async function giveBackAttempt(db: Database, { account, what, source }: CountedAttempt): Promise<void> {
  await db.query(sql.giveBack, [account, what, source]);
}

/** The attempt was right: what failed before it from there does not count any more. */
export async function forgetFailures(db: Database | Transaction, attempt: CountedAttempt): Promise<void> {
  await db.query(sql.forget, [attempt.account, attempt.what, attempt.source]);
}

/** A whole sign-in came to its end from there: the account's owner is known at that address. */
export async function knowAddress(tx: Transaction, account: Buffer, address: string): Promise<void> {
  await tx.query(sql.know, [account, address]);
  await tx.query(sql.forgetAddresses, [account]);
}

export interface SignInFailures {
  what: 'password' | 'code';
  /** From one of the addresses that the user is known at; else from all others together. */
  known: boolean;
  failures: number;
  lastAt: Date;
  /** Null: does not wait. */
  lockedUntil: Date | null;
}

/** For an administrator: what has failed of a user's sign-ins, and what they wait for. */
export async function readSignInFailures(db: Database | Transaction, user: number): Promise<SignInFailures[]> {
  return db.query<SignInFailures>(sql.read, [userAccountKey(user)]);
}

/**
 * Lets a user sign in again at once, from everywhere.
 * @throws Problem not_found
 */
export async function unlockUser(
  tx: Transaction,
  by: By,
  { tenant, user }: { tenant: number; user: number },
): Promise<void> {
  const { name, organization } = await lockUser(tx, { tenant, user, expected: null });
  const failures = await forgetAllFailures(tx, userAccountKey(user));
  await record(tx, by, {
    action: 'user.unlock',
    target: { kind: 'user', id: user, name },
    organization,
    result: 'done',
    details: { failures },
  });
}

/** Nothing that has failed counts any more. @returns how many failures that were */
export async function forgetAllFailures(tx: Transaction, account: Buffer): Promise<number> {
  const rows = await tx.query<{ failures: number }>(sql.unlock, [account]);
  return rows.reduce((sum, each) => sum + each.failures, 0);
}
