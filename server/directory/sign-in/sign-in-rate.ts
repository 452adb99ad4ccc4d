/**
 * Bounds how often a password can be guessed: failed sign-ins per user name and address, and per address whatever
 * the name. Kept in this process only, so with several replicas the bound holds per replica.
 */
import { Problem } from '../../../protocol/problems.ts';

const windowMs = 60_000;
/** An address tries many names: a company behind one address signs in many users, a guesser too. */
const perAddressFactor = 10;

export interface SignInRate {
  /**
   * Counts an attempt before it is judged, so that many at once do not slip through together.
   * @returns what to call when the attempt succeeded: it does not count then
   * @throws Problem too_many_requests
   */
  attempt(userName: string, address: string): () => void;
  /**
   * Counts a failure of a program that signs in by itself and goes on whatever it is answered: by a count of its own, so that
   * it keeps nobody at the same address from signing in.
   * @throws Problem too_many_requests
   */
  programFailed(address: string): void;
}

export interface SignInRateOptions {
  failuresPerMinute: number;
  /** Names and addresses remembered at most; the oldest are forgotten first. */
  entriesMax: number;
  /** Milliseconds of a monotonic clock. */
  now: () => number;
}

export function createSignInRate({ failuresPerMinute, entriesMax, now }: SignInRateOptions): SignInRate {
  // A count per minute and key. A Map keeps the order of insertion, which is the order of the windows' starts.
  const counts = new Map<string, { since: number; count: number }>();

  const take = (key: string, max: number): { count: number } => {
    const at = now();
    let entry = counts.get(key);
    if (entry && at - entry.since >= windowMs) {
      counts.delete(key);
      entry = undefined;
    }
    if (!entry) {
      if (counts.size >= entriesMax) counts.delete(counts.keys().next().value!);
      entry = { since: at, count: 0 };
      counts.set(key, entry);
    }
    if (entry.count >= max) {
      const retryAfterSeconds = Math.max(1, Math.ceil((entry.since + windowMs - at) / 1_000));
      throw new Problem('too_many_requests', 'too many failed sign-ins; wait a minute', { retryAfterSeconds });
    }
    entry.count++;
    return entry;
  };

  return {
    attempt(userName, address) {
      const byAddress = take(`address ${address}`, failuresPerMinute * perAddressFactor);
      let byUser: { count: number };
      try {
        byUser = take(`user ${userName.toLowerCase()} ${address}`, failuresPerMinute);
      } catch (error) {
        // Refused for one name: that is no guess at another's.
        byAddress.count--;
        throw error;
      }
      return () => {
        byAddress.count--;
        byUser.count--;
      };
    },

    programFailed(address) {
      take(`program ${address}`, failuresPerMinute);
    },
  };
}
