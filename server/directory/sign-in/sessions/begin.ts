/**
 * Signs in a user or an operator: password, then the second factor where there is one, then a new password where one is
 * due, and a session. Whatever part of name and password is wrong, and whoever may not, the answer is the same after the
 * same work; that there is more to give is told only to whoever has the right password.
 *
 * Lock order: the user's or operator's row, then everything else, then the log's head. What was judged before the
 * transaction is looked at again under that lock: a password changed in between ends the attempt.
 */
import { Problem } from '../../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../../storage/catalog/database.ts';
import type { Directory } from '../../directory.ts';
import {
  type Account,
  findOperatorAccount,
  findUserAccount,
  type NoAccount,
  readTenantName,
  readUserName,
} from '../accounts.ts';
import { judgePassword } from '../judge-password.ts';
import { knowAddress } from '../lockout.ts';
import { assertPassword } from '../password-changes/password-rules.ts';
import { judgeCode, type RightCode, readSecondFactor, takeCode } from '../second-factor/codes.ts';
import { tokenHash } from '../tokens.ts';
import { byAccount, recordRefusal, recordSignIn, type SignInRefusal, whyClosed } from './acts-of-sign-in.ts';
import { createSession, endAll, type Owner, type SessionTokens } from './sessions.ts';
import type { DrawnTokens } from './tokens-of-session.ts';

const sql = {
  lockUser: statement(
    'directory.lockUserToSignIn',
    'SELECT password_hash AS "passwordHash" FROM users WHERE tenant_id = $1 AND user_id = $2 FOR NO KEY UPDATE',
  ),
  lockOperator: statement(
    'directory.lockOperatorToSignIn',
    'SELECT password_hash AS "passwordHash" FROM operators WHERE operator_id = $1 FOR NO KEY UPDATE',
  ),
  isMade: statement('directory.isSessionMade', 'SELECT 1 FROM sessions WHERE handle_sha256 = $1'),
  setUserPassword: statement(
    'directory.setUserPasswordAtSignIn',
    `UPDATE users SET password_hash = $3, password_changed_at = now(), password_once_until = NULL
      WHERE tenant_id = $1 AND user_id = $2`,
  ),
  setOperatorPassword: statement(
    'directory.setOperatorPasswordAtSignIn',
    'UPDATE operators SET password_hash = $2, password_changed_at = now(), version = version + 1 WHERE operator_id = $1',
  ),
};

export interface SignInGiven {
  /** As it was typed; undefined: the first tenant, or what stands before the slash in the name. */
  tenant?: string | undefined;
  userName: string;
  password: string;
  code?: string | undefined;
  newPassword?: string | undefined;
}

/** Where a sign-in comes from. */
export interface ComesFrom {
  address: string;
  /** What the client calls itself; null: nothing. */
  program: string | null;
  /** Our own page, which keeps the access token in a cookie. */
  browser?: boolean;
}

/**
 * Signs a user in. Whether they may at all is `console.login`, which the caller asks of the actor that the access token loads.
 * @throws Problem sign_in_failed; too_many_requests; second_factor_needed (no code, or a wrong one); password_change_needed;
 *   out_of_bounds { field: 'newPassword' }
 */
export async function signInUser(
  directory: Directory,
  given: SignInGiven,
  from: ComesFrom,
  drawn: DrawnTokens,
): Promise<SessionTokens> {
  const { tenant, userName } =
    given.tenant === undefined
      ? readUserName(given.userName)
      : { tenant: readTenantName(given.tenant), userName: given.userName };
  return begin(directory, await findUserAccount(directory.database, tenant, userName), given, from, drawn);
}

/**
 * Signs in one who runs the server.
 * @throws Problem sign_in_failed; too_many_requests; second_factor_needed (no code, or a wrong one); out_of_bounds { field:
 *   'newPassword' }
 */
export async function signInOperator(
  directory: Directory,
  given: Omit<SignInGiven, 'tenant'>,
  from: ComesFrom,
  drawn: DrawnTokens,
): Promise<SessionTokens> {
  return begin(directory, await findOperatorAccount(directory.database, given.userName), given, from, drawn);
}

async function begin(
  directory: Directory,
  found: Account | NoAccount,
  given: SignInGiven,
  from: ComesFrom,
  drawn: DrawnTokens,
): Promise<SessionTokens> {
  const { address } = from;
  const refuse = async (why: SignInRefusal): Promise<void> =>
    recordRefusal(directory.database, found, address, { why });

  const closed = whyClosed(found);
  const { key, passwordHash } = found;
  // By the name as it was typed: this process counts the same whoever it may be.
  const candidate = { userName: given.userName, key, passwordHash, open: closed === null };
  if (!(await judgePassword(directory, candidate, given.password, address)) || found.kind === 'none') {
    await refuse(closed ?? 'wrong password');
    throw signInFailed();
  }

  const code = await judgeSecondFactor(directory, found, given.code, address);
  if (code === 'wrong') {
    await refuse('wrong code');
    throw wrongCode();
  }
  const newHash = await judgeNewPassword(directory, found, given);

  const wanted = found.kind === 'user' ? found.twoFactorNeeded : directory.operatorSecondFactor;
  const judged: Judged = { code, newHash, limited: wanted && !found.secondFactor, from, drawn };
  const made = await directory.database.transaction((tx) => makeSession(tx, found, judged));
  if (typeof made !== 'string') return made;
  await refuse(made);
  throw made === 'code used before' ? wrongCode() : signInFailed();
}

async function judgeSecondFactor(
  directory: Directory,
  found: Account,
  code: string | undefined,
  address: string,
): Promise<RightCode | 'wrong' | null> {
  if (!found.secondFactor) return null;
  if (code === undefined) throw codeNeeded();
  return (await judgeCode(directory, ownerOf(found), code, { address, confirmed: true })) ?? 'wrong';
}

/** The hash of the new password; null when none is given. */
async function judgeNewPassword(
  { passwords }: Directory,
  found: Account,
  { password, newPassword }: SignInGiven,
): Promise<string | null> {
  if (newPassword === undefined) {
    if (found.kind === 'user' && found.once)
      throw new Problem('password_change_needed', 'this password is good for one thing: set a new one with it');
    return null;
  }
  const user = found.kind === 'user' ? found : null;
  const known = { userName: found.name, email: user?.email ?? null, tenantName: user?.tenantName ?? null };
  assertPassword(newPassword, known, 'newPassword');
  if (newPassword.normalize('NFC') === password.normalize('NFC'))
    throw new Problem('out_of_bounds', 'this is the password you have', { field: 'newPassword' });
  return passwords.hash(newPassword);
}

const ownerOf = (account: Account): Owner =>
  account.kind === 'user' ? { tenant: account.tenant, user: account.id } : { operator: account.id };

interface Judged {
  code: RightCode | null;
  newHash: string | null;
  /** A second factor is wanted, and there is none. */
  limited: boolean;
  from: ComesFrom;
  drawn: DrawnTokens;
}

/** @returns the reason when what was judged is not so any more */
async function makeSession(
  tx: Transaction,
  account: Account,
  { code, newHash, limited, from, drawn }: Judged,
): Promise<SessionTokens | SignInRefusal> {
  const owner = ownerOf(account);
  const [row] =
    owner.operator === undefined
      ? await tx.query<{ passwordHash: string | null }>(sql.lockUser, [owner.tenant, owner.user])
      : await tx.query<{ passwordHash: string | null }>(sql.lockOperator, [owner.operator]);
  // Made already, by a COMMIT whose outcome was not known: nothing is judged or used up again.
  const again = (await tx.query(sql.isMade, [tokenHash(drawn.handle)])).length > 0;
  if (!again) {
    if (row?.passwordHash !== account.passwordHash) return 'wrong password';
    // Put into force since it was looked for: under this lock, as whatever changes it.
    if (!code && (await readSecondFactor(tx, owner))?.confirmed) throw codeNeeded();
    if (code && !(await takeCode(tx, owner, code))) return 'code used before';
    if (newHash) await setPassword(tx, owner, newHash);
  }
  const { madeNow, ...tokens } = await createSession(tx, { owner, limited, provider: null, ...from }, drawn);
  if (madeNow) {
    await knowAddress(tx, account.key, from.address);
    const how = `password${code ? ('step' in code ? ' and code' : ' and recovery code') : ''}`;
    await recordSignIn(tx, byAccount(account, from.address), {
      session: tokens.session,
      organization: account.kind === 'user' ? account.organization : null,
      with: newHash ? `${how}, which was changed` : how,
      limited,
    });
  }
  return tokens;
}

/** A new password ends what was signed in with the old one. */
async function setPassword(tx: Transaction, owner: Owner, hash: string): Promise<void> {
  if (owner.operator === undefined) await tx.query(sql.setUserPassword, [owner.tenant, owner.user, hash]);
  else await tx.query(sql.setOperatorPassword, [owner.operator, hash]);
  await endAll(tx, owner, null);
}

function codeNeeded(): Problem {
  return new Problem('second_factor_needed', 'give a code of your second factor too');
}

function wrongCode(): Problem {
  return new Problem('second_factor_needed', 'the code is not right, or was used before', { field: 'code' });
}

export function signInFailed(): Problem {
  return new Problem('sign_in_failed', 'the tenant, user name or password is not right', {
    type: 'urn:holdfast:problem:user_sign_in',
    title: 'The tenant, user name or password is not right',
  });
}
