/**
 * Judges a password, bounded twice: by this process per name and address, which costs nothing, and by the database per
 * account, which holds across replicas. An account that does not exist takes the same way and the same work.
 */
import type { Directory } from '../directory.ts';
import { countAttempt, forgetFailures, giveBackAttempt } from './lockout.ts';

export interface Candidate {
  /** As it was given: what this process counts by. */
  userName: string;
  /** Of the account (accounts.ts). */
  key: Buffer;
  /** Null: there is no such account, or it has no password; then no password is right. */
  passwordHash: string | null;
  /** Whether a right password would let in, as far as is known; when not, it counts as a wrong one. */
  open: boolean;
}

/**
 * @param address where the request came from
 * @returns whether the password is right and the account open
 * @throws Problem too_many_requests, without having looked at the password
 */
export async function judgePassword(
  { database, signIns, passwords }: Directory,
  { userName, key, passwordHash, open }: Candidate,
  password: string,
  address: string,
): Promise<boolean> {
  const forgive = signIns.attempt(userName, address);
  const attempt = await countAttempt(database, { account: key, what: 'password', address });
  let right: boolean;
  try {
    right = (await passwords.verify(password, passwordHash)) && open;
  } catch (error) {
    forgive(); // it was not judged: too many waited
    await giveBackAttempt(database, attempt);
    throw error;
  }
  if (!right) return false;
  forgive();
  await forgetFailures(database, attempt);
  return true;
}
