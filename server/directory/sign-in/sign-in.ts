/**
 * A user's sign-in with an organization's registration key, to register a device. Whatever part is wrong, the answer is the
 * same and takes the same work, so that nobody learns which names or keys exist. A device opens all that its user backed
 * up, so it takes the second factor too.
 */
import type { RegisterRequest } from '../../../protocol/messages.ts';
import { Problem } from '../../../protocol/problems.ts';
import type { Directory } from '../directory.ts';
import { findUserAccount, type TenantName, type UserAccount } from './accounts.ts';
import { judgePassword } from './judge-password.ts';
import { forgetFailures, knowAddress } from './lockout.ts';
import { judgeCode, type RightCode, takeCode } from './second-factor/codes.ts';
import { recordRefusal, type SignInRefusal, whyClosed } from './sessions/acts-of-sign-in.ts';

export interface SignedIn {
  userId: number;
  tenantId: number;
}

export type SignInRequest = Pick<RegisterRequest, 'registrationKey' | 'userName' | 'password'> & {
  /** Of the second factor, where there is one. */
  code?: string | undefined;
};

export function signInFailed(): Problem {
  return new Problem('sign_in_failed', 'the registration key, user name or password is not right');
}

/**
 * @param address where the request came from
 * @param purpose `look`: only to see what there is, before the same code is given to register
 * @throws Problem sign_in_failed, too_many_requests, second_factor_needed, password_change_needed
 */
export function signIn(
  directory: Directory,
  request: SignInRequest,
  address: string,
  purpose: 'look' | 'register' = 'register',
): Promise<SignedIn> {
  const tenant = { registrationKey: normalizeKey(request.registrationKey) };
  return signInAt(directory, tenant, request, address, purpose);
}

/** The same where the tenant is known otherwise: by a device of theirs. @throws as `signIn` */
export async function signInAt(
  directory: Directory,
  tenant: TenantName,
  request: Omit<SignInRequest, 'registrationKey'>,
  address: string,
  purpose: 'look' | 'register' = 'register',
): Promise<SignedIn> {
  const { database } = directory;
  const found = await findUserAccount(database, tenant, request.userName);
  const refuse = (why: SignInRefusal) => recordRefusal(database, found, address, { action: 'device.sign_in', why });
  const closed = whyClosed(found);
  const { key, passwordHash } = found;
  const candidate = { userName: request.userName, key, passwordHash, open: closed === null };
  if (!(await judgePassword(directory, candidate, request.password, address)) || found.kind === 'none') {
    await refuse(closed ?? 'wrong password');
    throw signInFailed();
  }
  if (found.once) throw new Problem('password_change_needed', 'set a new password first: sign in to the console');
  const code = await judgeSecondFactor(directory, found, request.code, address);
  if (code === 'wrong' || !(await finish(directory, found, { code, address, purpose }))) {
    await refuse(code === 'wrong' ? 'wrong code' : 'code used before');
    throw new Problem('second_factor_needed', 'the code is not right, or was used before', { field: 'code' });
  }
  return { userId: found.id, tenantId: found.tenant };
}

async function judgeSecondFactor(
  directory: Directory,
  account: UserAccount,
  code: string | undefined,
  address: string,
): Promise<RightCode | 'wrong' | null> {
  if (!account.secondFactor) {
    if (!account.twoFactorNeeded) return null;
    throw new Problem('second_factor_needed', 'set up your second factor first: sign in to the console');
  }
  if (code === undefined) throw new Problem('second_factor_needed', 'give a code of your second factor too');
  const of = { tenant: account.tenant, user: account.id };
  return (await judgeCode(directory, of, code, { address, confirmed: true })) ?? 'wrong';
}

/** @returns false when the code was used since it was judged */
function finish(
  { database }: Directory,
  account: UserAccount,
  { code, address, purpose }: { code: RightCode | null; address: string; purpose: 'look' | 'register' },
): Promise<boolean> {
  return database.transaction(async (tx) => {
    if (code && purpose === 'look') await forgetFailures(tx, code.attempt);
    else if (code && !(await takeCode(tx, { tenant: account.tenant, user: account.id }, code))) return false;
    await knowAddress(tx, account.key, address);
    return true;
  });
}

/** Registration keys are typed off a screen: case and surrounding spaces do not matter. */
function normalizeKey(key: string): string {
  return key.trim().toUpperCase();
}
