/**
 * A registration code that a user makes for themself. An access token, which may have been taken from a log or a browser, is
 * good for minutes, and a device for ever: so whoever asks shows anew who they are, by their password and the code of their
 * second factor, or, without a password, by a session that has just begun at their identity provider.
 *
 * Lock order: as registration-codes.ts.
 */
import type { z } from 'zod';
import { Problem } from '../../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../../storage/catalog/database.ts';
import type { By } from '../../audit/act.ts';
import { recordAlone } from '../../audit/record.ts';
import type { Directory } from '../../directory.ts';
import type { Actor } from '../../roles/may.ts';
import { findUserAccount, type UserAccount } from '../../sign-in/accounts.ts';
import { type JudgedSignIn, judgeSignIn, judgeWithoutPassword, usedCode, useSignIn } from '../../sign-in/sign-in.ts';
import { lockActiveUser } from '../../users/people.ts';
import { findMade, type MadeCode, makeRegistrationCode, newRegistrationCode } from './registration-codes.ts';
import { freshMinutes, type OwnRegistrationCodeRequest } from './shapes.ts';

const isFresh = statement(
  'directory.isSessionFreshByProvider',
  `SELECT 1 FROM sessions WHERE tenant_id = $1 AND user_id = $2 AND session_id = $3 AND provider_id IS NOT NULL
      AND created_at >= now() - interval '${freshMinutes} minutes'`,
);

/** How somebody who is signed in shows anew who they are. */
type Proof = Pick<z.infer<typeof OwnRegistrationCodeRequest>, 'password' | 'code'>;

/** Whoever asks, as their access token says. */
export interface Asker {
  tenant: number;
  user: number;
  userName: string;
  session: number;
  actor: Actor;
}

/**
 * @param address where the request came from
 * @param code drawn before the transaction, and shown once
 * @throws Problem out_of_bounds (field `password`: it is not the present one); second_factor_needed (field `code`; or
 *   `setUpFirst`); password_change_needed; too_many_requests; forbidden without a password, when the session did not just
 *   begin at a provider; conflict when there is no password to be given, the user may not sign in, or has as many codes open
 *   as there may be
 */
export async function makeOwnRegistrationCode(
  directory: Directory,
  by: By,
  asker: Asker,
  request: z.infer<typeof OwnRegistrationCodeRequest>,
  address: string,
  code = newRegistrationCode(),
): Promise<MadeCode & { code: string }> {
  const { tenant, user, session, actor } = asker;
  const made = await withProof(
    directory,
    by,
    asker,
    { ...request, address },
    {
      made: (tx) => findMade(tx, code),
      make: (tx) => makeRegistrationCode(tx, by, { tenant, user, actor, session, minutes: request.minutes }, code),
    },
  );
  return { ...made, code };
}

/**
 * Makes something that lasts longer than an access token, for whoever has shown anew who they are.
 * @param work.made what a transaction of unknown outcome has made already; null: nothing
 * @throws Problem as makeOwnRegistrationCode does of the password, the code and the session
 */
export async function withProof<Made>(
  directory: Directory,
  by: By,
  asker: Asker,
  { address, ...proof }: Proof & { address: string },
  work: { made(tx: Transaction): Promise<Made | null>; make(tx: Transaction): Promise<Made> },
): Promise<Made> {
  const judged = await judge(directory, asker, proof, address).catch((error: unknown) => {
    throw toSignedIn(error);
  });
  const done = await directory.database
    .transaction(async (tx): Promise<{ made: Made } | 'not fresh' | 'used'> => {
      await lockActiveUser(tx, asker.user);
      const before = await work.made(tx);
      if (before) return { made: before };
      if (judged.byProvider && !(await hasJustCome(tx, asker))) return 'not fresh';
      if (!(await useSignIn(tx, judged))) return 'used';
      return { made: await work.make(tx) };
    })
    .catch((error: unknown) => {
      throw toSignedIn(error);
    });
  if (done === 'used') throw await usedCode(directory, judged);
  if (done === 'not fresh') throw await notFresh(directory, by, judged.account);
  return done.made;
}

async function judge(
  directory: Directory,
  { tenant, user, userName }: Asker,
  { password, code }: Proof,
  address: string,
): Promise<JudgedSignIn> {
  const account = await findUserAccount(directory.database, { id: tenant }, userName);
  if (account.kind === 'none' || account.id !== user) throw notThePassword(); // renamed at this very moment
  const hasPassword = account.passwordHash !== null && account.passwordAllowed;
  if (!hasPassword) {
    if (password !== null) throw new Problem('conflict', 'you have no password here', { field: 'password' });
    return judgeWithoutPassword(directory, account, code, address);
  }
  if (password === null) throw new Problem('out_of_bounds', 'give your password', { field: 'password' });
  return judgeSignIn(directory, { id: tenant }, { userName, password, code }, address);
}

async function hasJustCome(tx: Transaction, { tenant, user, session }: Asker): Promise<boolean> {
  return (await tx.query(isFresh, [tenant, user, session])).length > 0;
}

async function notFresh({ database }: Directory, by: By, { id, name, organization }: UserAccount): Promise<Problem> {
  await recordAlone(database, by, {
    action: 'user.make_registration_code',
    target: { kind: 'user', id, name },
    organization,
    result: 'refused',
    details: { why: `no sign-in at a provider in the last ${freshMinutes} minutes` },
  });
  return new Problem(
    'forbidden',
    `sign in at your identity provider again, and make the code within ${freshMinutes} minutes; or ask an administrator for one`,
  );
}

/** In words for whoever is signed in: it is not their token that is refused. */
function toSignedIn(error: unknown): unknown {
  if (!(error instanceof Problem)) return error;
  const { code, message, extras } = error;
  if (code === 'sign_in_failed') return notThePassword();
  if (code === 'second_factor_needed' && !extras.setUpFirst) return new Problem(code, message, { field: 'code' });
  return error;
}

function notThePassword(): Problem {
  return new Problem('out_of_bounds', 'this is not your present password', { field: 'password' });
}
