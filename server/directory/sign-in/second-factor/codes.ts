/**
 * Codes of the second factor: those of a generator (RFC 6238: SHA-1, 6 digits, 30 seconds, as every authenticator knows
 * them) and recovery codes, for when that is lost. Each is good once.
 *
 * What must stay true: a code is counted before it is judged (lockout.ts), and used up in the transaction of what it was
 * given for. The secret is in the clear only while a code is judged, and while its owner copies it.
 */
import { randomInt } from 'node:crypto';
import { Secret, TOTP } from 'otpauth';
import { sha256 } from '../../../../protocol/hashes.ts';
import { type Database, statement, type Transaction } from '../../../../storage/catalog/database.ts';
import type { Directory } from '../../directory.ts';
import { userAccountKey } from '../accounts.ts';
import { type CountedAttempt, countAttempt, forgetFailures, giveBackAttempt } from '../lockout.ts';

const periodSeconds = 30;
const digits = 6;
/** Steps before and after the present one: clocks of phones, and fingers, are that much off. */
const stepsOff = 1;
export const recoveryCodeCount = 10;

const sql = {
  // The database's clock, so that a code used on one replica is used on all.
  read: statement(
    'directory.readSecondFactor',
    `SELECT secret, confirmed_at IS NOT NULL AS confirmed, last_step AS "lastStep",
            floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS "nowMs"
       FROM second_factors WHERE tenant_id = $1 AND user_id = $2`,
  ),
  useStep: statement(
    'directory.useCodeStep',
    `UPDATE second_factors SET last_step = $3 WHERE tenant_id = $1 AND user_id = $2 AND (last_step IS NULL OR last_step < $3)
     RETURNING true AS used`,
  ),
  findRecovery: statement(
    'directory.findRecoveryCode',
    'SELECT 1 FROM recovery_codes WHERE user_id = $1 AND code_sha256 = $2 AND used_at IS NULL',
  ),
  useRecovery: statement(
    'directory.useRecoveryCode',
    `UPDATE recovery_codes SET used_at = now() WHERE user_id = $1 AND code_sha256 = $2 AND used_at IS NULL
     RETURNING true AS used`,
  ),
};

export interface OfUser {
  tenant: number;
  user: number;
}

export interface SecondFactorRow {
  secret: Buffer;
  confirmed: boolean;
  lastStep: number | null;
  nowMs: number;
}

export async function readSecondFactor(
  db: Database | Transaction,
  { tenant, user }: OfUser,
): Promise<SecondFactorRow | null> {
  const [row] = await db.query<SecondFactorRow>(sql.read, [tenant, user]);
  return row ?? null;
}

/** What the key service is told a sealed secret is: one moved to another user's row does not open. */
export const secretContext = (user: number): string => `holdfast second factor, user ${user}`;

/** What a generator makes codes from. `label` and issuer are what it shows. */
export function generator(secret: Buffer, label = 'user', issuer = 'Holdfast'): TOTP {
  const bytes = new Secret({ buffer: new Uint8Array(secret).buffer });
  return new TOTP({ issuer, label, secret: bytes, algorithm: 'SHA1', digits, period: periodSeconds });
}

/** A code that was right, and can be used up. */
export type RightCode = ({ step: number } | { recovery: Buffer }) & { attempt: CountedAttempt };

/**
 * Judges a code. Being right is not enough: `takeCode` uses it up, and may find that it was used.
 * @param code as it was typed: spaces and dashes do not matter
 * @returns null when it is wrong, or of a step whose code was used
 * @throws Problem too_many_requests
 */
export async function judgeCode(
  directory: Directory,
  of: OfUser,
  code: string,
  asked: { address: string; confirmed: boolean },
): Promise<RightCode | null> {
  const { database } = directory;
  const account = userAccountKey(of.user);
  const attempt = await countAttempt(database, { account, what: 'code', address: asked.address });
  try {
    const typed = code.replace(/[\s-]/g, '').toUpperCase();
    const right = /^\d+$/.test(typed)
      ? await judgeGenerated(directory, of, typed, asked.confirmed)
      : await judgeRecovery(database, of.user, typed);
    return right && { ...right, attempt };
  } catch (error) {
    await giveBackAttempt(database, attempt); // the database or the key service was away
    throw error;
  }
}

async function judgeGenerated(
  { database, keys }: Directory,
  of: OfUser,
  token: string,
  confirmed: boolean,
): Promise<{ step: number } | null> {
  const row = await readSecondFactor(database, of);
  if (!row || row.confirmed !== confirmed) return null;
  const secret = await keys.unseal(row.secret, secretContext(of.user));
  const step = stepOfCode(secret, token, row.nowMs);
  secret.fill(0);
  return step === null || (row.lastStep !== null && step <= row.lastStep) ? null : { step };
}

/** The step whose code it is, at most one away from that of the moment; null: of none. */
export function stepOfCode(secret: Buffer, token: string, nowMs: number): number | null {
  if (token.length !== digits) return null;
  const delta = generator(secret).validate({ token, timestamp: nowMs, window: stepsOff });
  return delta === null ? null : Math.floor(nowMs / 1_000 / periodSeconds) + delta;
}

async function judgeRecovery(database: Database, user: number, typed: string): Promise<{ recovery: Buffer } | null> {
  const recovery = recoveryHash(typed);
  return (await database.query(sql.findRecovery, [user, recovery])).length > 0 ? { recovery } : null;
}

/**
 * Uses a code up, in the transaction of what it was given for.
 * @returns false when another has used it since it was judged
 */
export async function takeCode(tx: Transaction, { tenant, user }: OfUser, code: RightCode): Promise<boolean> {
  const rows =
    'step' in code
      ? await tx.query(sql.useStep, [tenant, user, code.step])
      : await tx.query(sql.useRecovery, [user, code.recovery]);
  if (rows.length === 0) return false;
  await forgetFailures(tx, code.attempt);
  return true;
}

/** Without 0, 1, I and O, which are taken for one another. 32 of them: 5 bits each. */
const letters = '23456789ABCDEFGHJKLMNPQRSTUVWXYZ';

/** XXXX-XXXX-XXXX-XXXX: 80 random bits, at least one of them a letter, as digits alone are a generator's code. */
export function newRecoveryCodes(): string[] {
  return Array.from({ length: recoveryCodeCount }, newRecoveryCode);
}

function newRecoveryCode(): string {
  const group = (): string => Array.from({ length: 4 }, () => letters[randomInt(letters.length)]).join('');
  const code = [group(), group(), group(), group()].join('-');
  return /[A-Z]/.test(code) ? code : newRecoveryCode();
}

/** 80 random bits need no slow hash. */
export function recoveryHash(code: string): Buffer {
  return sha256(Buffer.from(code.replace(/[\s-]/g, '').toUpperCase()));
}
