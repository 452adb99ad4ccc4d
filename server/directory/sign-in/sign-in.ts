/**
 * A user's sign-in to register a device, or to raise who can open the backups. Whatever part is wrong, the answer is the
 * same and takes the same work, so that nobody learns which names or keys exist. A device opens all that its user backed
 * up, so it takes the second factor too.
 *
 * What must stay true: a code is judged before the transaction of what it is given for, and used up in it, so that it is
 * not lost where that fails, and not good for two. Whoever gave none is asked again there, under the lock of the user's row:
 * between judging and the transaction a key service may take seconds.
 */
import { Problem } from '../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../storage/catalog/database.ts';
import type { Directory } from '../directory.ts';
import type { OwnSettings } from '../settings/effective.ts';
import { lockActiveUser } from '../users/people.ts';
import { findUserAccount, type TenantName, type UserAccount } from './accounts.ts';
import { judgePassword } from './judge-password.ts';
import { countAttempt, giveBackAttempt, knowAddress } from './lockout.ts';
import { judgeCode, type RightCode, takeCode } from './second-factor/codes.ts';
import { isSecondFactorWanted, ownSignInSettings } from './second-factor/wanted.ts';
import { recordRefusal, type SignInRefusal, whyClosed } from './sessions/acts-of-sign-in.ts';

const readAgain = statement(
  'directory.readAccountAgain',
  `SELECT u.password_hash AS "passwordHash", ${ownSignInSettings} AS settings,
          EXISTS (SELECT 1 FROM second_factors f WHERE f.user_id = u.user_id AND f.confirmed_at IS NOT NULL) AS "secondFactor"
     FROM users u JOIN organizations o ON o.organization_id = u.organization_id WHERE u.tenant_id = $1 AND u.user_id = $2`,
);

export interface SignedIn {
  userId: number;
  tenantId: number;
}

export interface SignInGiven {
  userName: string;
  password: string;
  /** Of the second factor, where there is one. */
  code?: string | undefined;
}

/** Whether this user has used this code already, for the very thing that is asked for again. */
export type IsSameAgain = (user: number, code: string) => boolean;

/** A sign-in that is right, and has used nothing up yet. */
export interface JudgedSignIn extends SignedIn {
  account: UserAccount;
  /** Null: none was needed, or it is the one that was used for the same thing before. */
  code: RightCode | null;
  /** The code is the one that was used for the same thing before. */
  isAgain: boolean;
  /** In the place of the password: they have just come by an identity provider. */
  byProvider: boolean;
  address: string;
}

export function signInFailed(): Problem {
  return new Problem('sign_in_failed', 'the registration key, user name or password is not right');
}

/**
 * @param address where the request came from
 * @throws Problem sign_in_failed, too_many_requests, second_factor_needed (`setUpFirst`: there is none to give a code of,
 *   and there has to be), password_change_needed
 */
export async function judgeSignIn(
  directory: Directory,
  tenant: TenantName,
  given: SignInGiven,
  address: string,
  isSameAgain?: IsSameAgain,
): Promise<JudgedSignIn> {
  const found = await findUserAccount(directory.database, tenant, given.userName);
  const closed = whyClosed(found);
  const { key, passwordHash } = found;
  const candidate = { userName: given.userName, key, passwordHash, open: closed === null };
  if (!(await judgePassword(directory, candidate, given.password, address)) || found.kind === 'none') {
    await recordRefusal(directory.database, found, address, { action, why: closed ?? 'wrong password' });
    throw signInFailed();
  }
  if (found.once) throw new Problem('password_change_needed', 'set a new password first: sign in to the console');
  return withCode(directory, found, given.code, { address, byProvider: false, isSameAgain });
}

/**
 * The same for somebody who has no password here and has just come by an identity provider, which is the caller's to ask.
 * Whether a second factor is wanted is the provider's business then; one they have here is asked for.
 * @throws Problem second_factor_needed, too_many_requests
 */
export async function judgeWithoutPassword(
  directory: Directory,
  account: UserAccount,
  code: string | undefined,
  address: string,
): Promise<JudgedSignIn> {
  return withCode(directory, account, code, { address, byProvider: true });
}

interface Asking {
  address: string;
  byProvider: boolean;
  isSameAgain?: IsSameAgain | undefined;
}

async function withCode(
  directory: Directory,
  account: UserAccount,
  given: string | undefined,
  asking: Asking,
): Promise<JudgedSignIn> {
  const { address, byProvider } = asking;
  const code = await judgeSecondFactor(directory, account, given, asking);
  if (code === 'wrong') throw await refusedCode(directory, account, address, 'wrong code');
  const isAgain = code === 'same again';
  const { id: userId, tenant: tenantId } = account;
  return { userId, tenantId, account, code: isAgain ? null : code, isAgain, byProvider, address };
}

/** As it is in the log. */
const action = 'device.sign_in';

/**
 * Uses a sign-in up, in the transaction of what it is for. The user's row is locked, and the tenant's for sharing.
 * @returns false when its code was used since it was judged
 * @throws Problem sign_in_failed when the password was changed since; second_factor_needed when no code was asked for, and
 *   since then there is a second factor, or one is wanted
 */
export async function useSignIn(tx: Transaction, judged: JudgedSignIn): Promise<boolean> {
  const { account, code, isAgain, byProvider, address } = judged;
  const [row] = await tx.query<Again>(readAgain, [account.tenant, account.id]);
  if (row?.passwordHash !== account.passwordHash) throw signInFailed();
  if (!code && !isAgain) {
    if (row.secondFactor) throw codeNeeded();
    if (!byProvider && isSecondFactorWanted(row.settings)) throw setUpFirst();
  }
  if (code && !(await takeCode(tx, { tenant: account.tenant, user: account.id }, code))) return false;
  // By a provider they have shown nothing here that whoever has their session does not have.
  if (!byProvider) await knowAddress(tx, account.key, address);
  return true;
}

interface Again {
  passwordHash: string | null;
  secondFactor: boolean;
  settings: OwnSettings[];
}

/** Writes down that a code was used since it was judged. @returns what to throw */
export function usedCode(directory: Directory, { account, address }: JudgedSignIn): Promise<Problem> {
  return refusedCode(directory, account, address, 'code used before');
}

/** Signs in for what uses the code up by itself. @throws as `judgeSignIn` */
export async function signInAt(
  directory: Directory,
  tenant: TenantName,
  given: SignInGiven,
  address: string,
): Promise<SignedIn> {
  const judged = await judgeSignIn(directory, tenant, given, address);
  const used = await directory.database.transaction(async (tx) => {
    if (!(await lockActiveUser(tx, judged.userId))) throw signInFailed();
    return useSignIn(tx, judged);
  });
  if (!used) throw await usedCode(directory, judged);
  return { userId: judged.userId, tenantId: judged.tenantId };
}

async function judgeSecondFactor(
  directory: Directory,
  account: UserAccount,
  code: string | undefined,
  { address, byProvider, isSameAgain }: Asking,
): Promise<RightCode | 'wrong' | 'same again' | null> {
  if (!account.secondFactor) {
    if (byProvider || !account.twoFactorNeeded) return null;
    throw setUpFirst();
  }
  if (code === undefined) throw codeNeeded();
  if (isSameAgain?.(account.id, code)) {
    // While the account waits, it is not seen to be the right one. What failed before stays counted: it can be given again
    // and again, so it would give a guesser ten new tries each time.
    const attempt = await countAttempt(directory.database, { account: account.key, what: 'code', address });
    await giveBackAttempt(directory.database, attempt);
    return 'same again';
  }
  const of = { tenant: account.tenant, user: account.id };
  return (await judgeCode(directory, of, code, { address, confirmed: true })) ?? 'wrong';
}

function codeNeeded(): Problem {
  return new Problem('second_factor_needed', 'give a code of your second factor too');
}

function setUpFirst(): Problem {
  const detail = 'set up your second factor first: sign in to the console';
  return new Problem('second_factor_needed', detail, { setUpFirst: true });
}

async function refusedCode(
  { database }: Directory,
  account: UserAccount,
  address: string,
  why: SignInRefusal,
): Promise<Problem> {
  await recordRefusal(database, account, address, { action, why });
  return new Problem('second_factor_needed', 'the code is not right, or was used before', { field: 'code' });
}
