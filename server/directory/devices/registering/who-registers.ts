/**
 * Who registers a device, or looks at the devices there are: by a sign-in, or by a registration code. What was given is
 * judged here, and used up (`useUp`) in the transaction of the registration, under the lock of the user's row.
 *
 * What must stay true: a code that is wrong, used, expired, revoked, or of a user who may not sign in gets one answer. A
 * code that was used is taken once more only from whoever has the token of the device that it registered.
 */
import { timingSafeEqual } from 'node:crypto';
import { sha256 } from '../../../../protocol/hashes.ts';
import type { RegisterRequest } from '../../../../protocol/messages.ts';
import { Problem } from '../../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../../storage/catalog/database.ts';
import { recordAlone } from '../../audit/record.ts';
import type { Directory } from '../../directory.ts';
import { type JudgedSignIn, judgeSignIn, type SignedIn, usedCode, useSignIn } from '../../sign-in/sign-in.ts';
import { tokenHash } from '../../sign-in/tokens.ts';
import { findRegistrationCode, plainCode, registrationCodeHash, useRegistrationCode } from './registration-codes.ts';

/** For so long after a registration its code may be given again: an agent that was cut off is started again by then. */
const repeatHours = 24;

const findWith = statement(
  'directory.findRegisteredWith',
  `SELECT user_id AS "userId", registered_with AS "registeredWith" FROM devices
    WHERE token_sha256 = $1 AND state = 'active' AND registered_with IS NOT NULL AND created_at > now() - interval '${repeatHours} hours'`,
);

/** What is sent to be somebody: registrationKey, userName and password, or a registrationCode. */
export type SignInOrCode = Pick<
  RegisterRequest,
  'registrationKey' | 'userName' | 'password' | 'code' | 'registrationCode'
> & {
  /** Of the device to be, or that came to be when this was asked before. */
  token?: string | undefined;
};

interface Common extends SignedIn {
  userName: string;
  organization: number;
  /** The code that was given together with the token; null: neither, or one of the two. */
  registeredWith: Buffer | null;
  /** In the words of the log. */
  how: string;
}

export type Registrant = Common &
  (
    | { by: 'sign-in'; judged: JudgedSignIn }
    | { by: 'code'; sha256: Buffer /** It was used, for what is asked again. */; isAgain: boolean }
  );

/**
 * @param address where the request came from
 * @throws Problem sign_in_failed (field `registrationCode` where that is wrong), too_many_requests, second_factor_needed,
 *   password_change_needed
 */
export function whoRegisters(directory: Directory, request: SignInOrCode, address: string): Promise<Registrant> {
  return request.registrationCode === undefined
    ? bySignIn(directory, request, address)
    : byCode(directory, request.registrationCode, request.token, address);
}

async function bySignIn(directory: Directory, request: SignInOrCode, address: string): Promise<Registrant> {
  const { registrationKey = '', userName = '', password = '', code, token } = request;
  const before = code === undefined ? null : await registeredBefore(directory, token);
  const judged = await judgeSignIn(
    directory,
    { registrationKey: normalizeKey(registrationKey) },
    { userName, password, code },
    address,
    before === null
      ? undefined
      : (user, given) => user === before.userId && isSame(before.registeredWith, proofOf(token, given)),
  );
  const { userId, tenantId, account } = judged;
  const right = judged.code;
  return {
    by: 'sign-in',
    userId,
    tenantId,
    userName: account.name,
    organization: account.organization,
    judged,
    registeredWith: account.secondFactor && code !== undefined ? proofOf(token, code) : null,
    how: right ? ('step' in right ? 'password and code' : 'password and recovery code') : 'password',
  };
}

async function byCode(
  directory: Directory,
  code: string,
  token: string | undefined,
  address: string,
): Promise<Registrant> {
  const { database, signIns } = directory;
  const forgive = signIns.attempt('a registration code', address);
  const hash = registrationCodeHash(code);
  const found = await findRegistrationCode(database, hash);
  if (!found) throw noSuchCode();
  const registeredWith = proofOf(token, code);
  const before = found.used ? await registeredBefore(directory, token) : null;
  const isAgain = before?.userId === found.userId && isSame(before.registeredWith, registeredWith);
  const { userId, tenantId, userName, organization, state } = found;
  if (state !== 'active' || (!isAgain && (found.used || found.expired || found.lost))) {
    const gone = found.expired ? 'registration code lapsed' : found.lost;
    const why = found.used ? 'registration code used before' : gone;
    const act = {
      action: 'device.sign_in',
      target: { kind: 'user', id: userId, name: userName },
      organization,
    } as const;
    await recordAlone(database, byUser({ tenantId, userId, userName }, address), {
      ...act,
      result: 'refused',
      details: { why: state === 'active' ? why : state, code: found.id },
    });
    throw noSuchCode();
  }
  forgive();
  return {
    by: 'code',
    userId,
    tenantId,
    userName,
    organization,
    sha256: hash,
    isAgain,
    registeredWith,
    how: `registration code ${found.id}`,
  };
}

export function byUser({ tenantId, userId, userName }: SignedIn & { userName: string }, address: string) {
  return { tenant: tenantId, party: { kind: 'user', id: userId, name: userName }, address } as const;
}

/**
 * Uses up what was given, under the lock of the user's row.
 * @returns false when it was used since it was judged
 */
export async function useUp(tx: Transaction, who: Registrant): Promise<boolean> {
  if (who.by === 'sign-in') return useSignIn(tx, who.judged);
  return who.isAgain || useRegistrationCode(tx, who.userId, who.sha256);
}

/** What to throw when `useUp` said no. */
export async function usedMeanwhile(directory: Directory, who: Registrant): Promise<Problem> {
  return who.by === 'sign-in' ? usedCode(directory, who.judged) : noSuchCode();
}

/** What the device of a token was registered with, if that was lately and with a code, and the device is active. */
async function registeredBefore(
  { database }: Directory,
  token: string | undefined,
): Promise<{ userId: number; registeredWith: Buffer } | null> {
  const hash = token === undefined ? null : tokenHash(token);
  if (!hash) return null;
  const [row] = await database.query<{ userId: number; registeredWith: Buffer }>(findWith, [hash]);
  return row ?? null;
}

/** A code of six digits is not to be found from its hash, and so not without the token, which is kept as a hash only. */
function proofOf(token: string | undefined, code: string): Buffer | null {
  return token === undefined ? null : sha256(Buffer.from(`registered with\0${token}\0${plainCode(code)}`));
}

function isSame(one: Buffer, other: Buffer | null): boolean {
  return other !== null && timingSafeEqual(one, other);
}

/** Registration keys are typed off a screen: case and surrounding spaces do not matter. */
function normalizeKey(key: string): string {
  return key.trim().toUpperCase();
}

export function noSuchCode(): Problem {
  return new Problem('sign_in_failed', 'this registration code is not good (any more): ask for another', {
    field: 'registrationCode',
    type: 'urn:holdfast:problem:registration_code',
    title: 'The registration code is not good (any more)',
  });
}
