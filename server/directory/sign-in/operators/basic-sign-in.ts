/**
 * An operator's sign-in by name and password on every request, as browsers send them to the queues' dashboard. Wrong names,
 * wrong passwords and operators who are blocked are answered alike and take the same work; a password that was right is
 * known again for a minute without that work, and whether its owner still may is asked every time.
 */
import { createHmac, randomBytes } from 'node:crypto';
import { Problem } from '../../../../protocol/problems.ts';
import { record } from '../../audit/record.ts';
import type { Directory } from '../../directory.ts';
import { findOperatorAccount, type OperatorAccount } from '../accounts.ts';
import { judgePassword } from '../judge-password.ts';
import { knowAddress } from '../lockout.ts';
import { byAccount, recordRefusal, whyClosed } from '../sessions/acts-of-sign-in.ts';

export interface Operator {
  id: number;
  name: string;
}

/**
 * What a 401 to an operator carries. Its code is a device's too; a type of its own, as a title belongs to a type and not to
 * an occurrence (RFC 9457, 3.1.4).
 */
export const operatorSignIn = {
  type: 'urn:holdfast:problem:operator_sign_in',
  title: "An operator's name and password are needed",
};

/** Of sign-ins without a session, in the audit log: once a minute at most, as long as the password is known. */
const action = 'operator.sign_in';

/**
 * @param address where the request came from, for the bounds on failed sign-ins
 * @throws Problem sign_in_failed, too_many_requests; second_factor_needed where the password is right and not enough
 */
export async function admitOperator(
  directory: Directory,
  { userName, password }: { userName: string; password: string },
  address: string,
): Promise<Operator> {
  const { database } = directory;
  const found = await findOperatorAccount(database, userName);
  const { key, passwordHash } = found;
  const closed = whyClosed(found);
  const codeNeeded = found.kind === 'operator' && (found.secondFactor || directory.operatorSecondFactor);
  const right = await directory.credentials.isRight({ userName, password, passwordHash, address }, async () => {
    const candidate = { userName, key, passwordHash, open: closed === null };
    const judged = await judgePassword(directory, candidate, password, address);
    if (!judged || found.kind === 'none')
      await recordRefusal(database, found, address, { action, why: closed ?? 'wrong password' });
    else if (codeNeeded) await recordRefusal(database, found, address, { action, why: 'no code' });
    else await noteSignIn(directory, found, address);
    return judged;
  });
  if (found.kind === 'none' || !right || closed !== null)
    throw new Problem('sign_in_failed', 'the name or password is not right', operatorSignIn);
  // Asked every time, also while the password is known: one may have been put into force since.
  if (codeNeeded)
    throw new Problem('second_factor_needed', 'your password alone is not enough: sign in at /admin/sign-in', {
      type: operatorSignIn.type,
    });
  return { id: found.id, name: found.name };
}

async function noteSignIn({ database }: Directory, account: OperatorAccount, address: string): Promise<void> {
  await database.transaction(async (tx) => {
    await knowAddress(tx, account.key, address);
    await record(tx, byAccount(account, address), {
      action,
      target: null,
      organization: null,
      result: 'done',
      details: { with: 'password' },
    });
  });
}

export interface Credential {
  userName: string;
  password: string;
  /** What it was compared with: when that changes, nothing is known any more. */
  passwordHash: string | null;
  address: string;
}

/** Passwords that were right a moment ago, by a keyed hash that dies with the process. */
export interface Credentials {
  /** Asks `judge` unless it said yes to the same a moment ago; those who ask while it is asked share its answer. */
  isRight(credential: Credential, judge: () => Promise<boolean>): Promise<boolean>;
}

export interface CredentialOptions {
  forMs: number;
  /** Remembered at most; the oldest are forgotten first. */
  entriesMax: number;
  /** Milliseconds of a monotonic clock. */
  now: () => number;
}

export function createCredentials({ forMs, entriesMax, now }: CredentialOptions): Credentials {
  const key = randomBytes(32);
  const knownUntil = new Map<string, number>();
  const asked = new Map<string, Promise<boolean>>();

  return {
    async isRight({ userName, password, passwordHash, address }, judge) {
      const digest = (...parts: (string | null)[]): string =>
        createHmac('sha256', key).update(JSON.stringify(parts)).digest('base64');
      const known = digest(userName, password, passwordHash);
      if ((knownUntil.get(known) ?? Number.NEGATIVE_INFINITY) > now()) return true;
      knownUntil.delete(known);
      // By address too: each address's guesses are counted as its own.
      const asking = digest(userName, password, passwordHash, address);
      let answer = asked.get(asking);
      if (!answer) {
        answer = judge().finally(() => asked.delete(asking));
        asked.set(asking, answer);
      }
      const right = await answer;
      if (right && passwordHash !== null && !knownUntil.has(known)) {
        if (knownUntil.size >= entriesMax) knownUntil.delete(knownUntil.keys().next().value!);
        knownUntil.set(known, now() + forMs);
      }
      return right;
    },
  };
}
