/**
 * When to send a request again, and after how long. Every request of the agent protocol can be repeated, so the
 * question is only whether it may help: a lost connection and "try later" do, a refusal does not.
 */
import { Problem } from '../../protocol/problems.ts';
import { ConnectionLost } from './errors.ts';

export interface RetryPolicy {
  /** Milliseconds from a request's first failure after which its error is given to the caller. 0: never retry. */
  giveUpAfterMs: number;
  firstDelayMs: number;
  delayMsMax: number;
}

/** Ten minutes: longer than a server's restart or upgrade, shorter than a person's patience with a hanging command. */
export const defaultRetryPolicy: RetryPolicy = { giveUpAfterMs: 600_000, firstDelayMs: 250, delayMsMax: 30_000 };

/** A server that asks for more than this is not waited for longer. */
const retryAfterMsMax = 120_000;
/** A server that failed on the same request this often will fail again. */
const internalAttemptsMax = 5;

export interface Failure {
  error: unknown;
  /** Failures of this request so far, this one included. */
  failures: number;
  /** Milliseconds since the first of them. */
  sinceFirstMs: number;
  /** 0 <= random < 1. */
  random: number;
}

/** Milliseconds to wait before the request is sent again; null when it should not be. */
export function retryDelayMs(policy: RetryPolicy, failure: Failure): number | null {
  const { error, failures, sinceFirstMs, random } = failure;
  if (!isRetryable(error, failures)) return null;
  const backoff = backoffMs(policy, failures, random);
  const asked = error instanceof Problem ? Math.min(retryAfterMsMax, (error.extras.retryAfterSeconds ?? 0) * 1000) : 0;
  const delay = Math.max(backoff, asked > 0 ? asked + backoff * random : 0);
  return sinceFirstMs + delay > policy.giveUpAfterMs ? null : delay;
}

/**
 * Milliseconds until something is tried again. Half fixed, half random: agents that lost the same server do not come back
 * together, and none comes back at once.
 * @param failures in a row, at least 1
 * @param random 0 <= random < 1
 */
export function backoffMs(
  { firstDelayMs, delayMsMax }: Pick<RetryPolicy, 'firstDelayMs' | 'delayMsMax'>,
  failures: number,
  random: number,
): number {
  const ceiling = Math.min(delayMsMax, firstDelayMs * 2 ** (failures - 1));
  return ceiling / 2 + (ceiling / 2) * random;
}

function isRetryable(error: unknown, failures: number): boolean {
  if (error instanceof ConnectionLost) return true;
  if (!(error instanceof Problem)) return false;
  // Somebody has to make room first, and that takes longer than anybody waits.
  if (error.code === 'quota_exceeded') return false;
  if (error.status === 408 || error.status === 429 || error.status === 503) return true;
  return error.status >= 500 && failures < internalAttemptsMax;
}
