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
import { operatorAccountKey, userAccountKey } from '../accounts.ts';
import { type CountedAttempt, countAttempt, forgetFailures, giveBackAttempt } from '../lockout.ts';
import type { Owner } from '../sessions/sessions.ts';

const periodSeconds = 30;
const digits = 6;
/** Steps before and after the present one: clocks of phones, and fingers, are that much off. */
const stepsOff = 1;
export const recoveryCodeCount = 10;

/** Users' and operators' are kept in tables of their own, alike. */
const tables = {
  user: {
    what: '',
    factors: 'second_factors',
    codes: 'recovery_codes',
    id: 'user_id',
    of: 'tenant_id = $1 AND user_id = $2',
  },
  operator: {
    what: 'Operator',
    factors: 'operator_second_factors',
    codes: 'operator_recovery_codes',
    id: 'operator_id',
    of: '$1::bigint IS NULL AND operator_id = $2',
  },
};

/** Statements about users, and the same about operators. `$1` is the tenant (null: an operator's), `$2` whose. */
export function ofBoth<Sql>(make: (of: (typeof tables)['user' | 'operator']) => Sql): (owner: Owner) => Sql {
  const [user, operator] = [make(tables.user), make(tables.operator)];
  return (owner) => (owner.operator === undefined ? user : operator);
}

/** The beginning of what such a statement is given. */
export const valuesOf = (owner: Owner): [tenant: number | null, id: number] =>
  owner.operator === undefined ? [owner.tenant, owner.user] : [null, owner.operator];

const sqlOf = ofBoth(({ what, factors, codes, id, of }) => ({
  // The database's clock, so that a code used on one replica is used on all.
  read: statement(
    `directory.read${what}SecondFactor`,
    `SELECT secret, confirmed_at IS NOT NULL AS confirmed, last_step AS "lastStep",
            floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS "nowMs"
       FROM ${factors} WHERE ${of}`,
  ),
  useStep: statement(
    `directory.use${what}CodeStep`,
    `UPDATE ${factors} SET last_step = $3 WHERE ${of} AND (last_step IS NULL OR last_step < $3) RETURNING true AS used`,
  ),
  findRecovery: statement(
    `directory.find${what}RecoveryCode`,
    `SELECT 1 FROM ${codes} WHERE ${id} = $1 AND code_sha256 = $2 AND used_at IS NULL`,
  ),
  useRecovery: statement(
    `directory.use${what}RecoveryCode`,
    `UPDATE ${codes} SET used_at = now() WHERE ${id} = $1 AND code_sha256 = $2 AND used_at IS NULL RETURNING true AS used`,
  ),
}));

export interface SecondFactorRow {
  secret: Buffer;
  confirmed: boolean;
  lastStep: number | null;
  nowMs: number;
}

export async function readSecondFactor(db: Database | Transaction, owner: Owner): Promise<SecondFactorRow | null> {
  const [row] = await db.query<SecondFactorRow>(sqlOf(owner).read, valuesOf(owner));
  return row ?? null;
}

/** What the key service is told a sealed secret is: one moved to another's row does not open. */
export const secretContext = (owner: Owner): string =>
  owner.operator === undefined
    ? `holdfast second factor, user ${owner.user}`
    : `holdfast second factor, operator ${owner.operator}`;

const accountKeyOf = (owner: Owner): Buffer =>
  owner.operator === undefined ? userAccountKey(owner.user) : operatorAccountKey(owner.operator);

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
  of: Owner,
  code: string,
  asked: { address: string; confirmed: boolean },
): Promise<RightCode | null> {
  const { database } = directory;
  const account = accountKeyOf(of);
  const attempt = await countAttempt(database, { account, what: 'code', address: asked.address });
  try {
    const typed = code.replace(/[\s-]/g, '').toUpperCase();
    const right = /^\d+$/.test(typed)
      ? await judgeGenerated(directory, of, typed, asked.confirmed)
      : await judgeRecovery(database, of, typed);
    return right && { ...right, attempt };
  } catch (error) {
    await giveBackAttempt(database, attempt); // the database or the key service was away
    throw error;
  }
}

async function judgeGenerated(
  { database, keys }: Directory,
  of: Owner,
  token: string,
  confirmed: boolean,
): Promise<{ step: number } | null> {
  const row = await readSecondFactor(database, of);
  if (!row || row.confirmed !== confirmed) return null;
  const secret = await keys.unseal(row.secret, secretContext(of));
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

async function judgeRecovery(database: Database, of: Owner, typed: string): Promise<{ recovery: Buffer } | null> {
  const recovery = recoveryHash(typed);
  return (await database.query(sqlOf(of).findRecovery, [valuesOf(of)[1], recovery])).length > 0 ? { recovery } : null;
}

/**
 * Uses a code up, in the transaction of what it was given for.
 * @returns false when another has used it since it was judged
 */
export async function takeCode(tx: Transaction, of: Owner, code: RightCode): Promise<boolean> {
  const sql = sqlOf(of);
  const [tenant, id] = valuesOf(of);
  const rows =
    'step' in code
      ? await tx.query(sql.useStep, [tenant, id, code.step])
      : await tx.query(sql.useRecovery, [id, code.recovery]);
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
