/**
 * Holds uploads to a rate. A token bucket of one second: short bursts pass, the average does not exceed the limit.
 */
import { setTimeout as sleep } from 'node:timers/promises';

/** Bytes given out at once, so that a low limit trickles instead of stopping for seconds. */
export const pieceBytesMax = 64 * 1024;

export class BandwidthLimiter {
  readonly #bytesPerSecond: number;
  readonly #now: () => number;
  #tokens: number;
  #at: number;
  #turn: Promise<void> = Promise.resolve();

  /**
   * @param bytesPerSecond above 0
   * @param now milliseconds of a monotonic clock
   */
  constructor(bytesPerSecond: number, now: () => number = () => performance.now()) {
    this.#bytesPerSecond = bytesPerSecond;
    this.#now = now;
    this.#tokens = Math.min(bytesPerSecond, pieceBytesMax);
    this.#at = now();
  }

  /** Milliseconds until `bytes` may go, which are taken at once. Callers wait in the order they asked. */
  reserve(bytes: number): number {
    const now = this.#now();
    this.#tokens = Math.min(this.#bytesPerSecond, this.#tokens + ((now - this.#at) * this.#bytesPerSecond) / 1000);
    this.#at = now;
    this.#tokens -= bytes;
    return this.#tokens >= 0 ? 0 : (-this.#tokens * 1000) / this.#bytesPerSecond;
  }

  /** Resolves when `bytes` may be sent. */
  take(bytes: number, signal?: AbortSignal): Promise<void> {
    const turn = this.#turn.then(async () => {
      const waitMs = this.reserve(bytes);
      if (waitMs > 0) await sleep(waitMs, undefined, { signal });
    });
    this.#turn = turn.catch(() => undefined);
    return turn;
  }
}
