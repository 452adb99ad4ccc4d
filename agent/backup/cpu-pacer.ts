/** Keeps the agent below a share of one processor: it sleeps for as long as what it used exceeds its share. */
import { setTimeout as sleep } from 'node:timers/promises';

const pauseMsMax = 1_000;
/** Shorter sleeps cost more in switching than they give back. */
const pauseMsMin = 5;

export class CpuPacer {
  readonly #share: number;
  #usage = process.cpuUsage();
  #at = performance.now();

  /** @param share of one processor, above 0 (0.5: half of one; 2: two) */
  constructor(share: number) {
    this.#share = share;
  }

  /** Sleeps while more than the share was used. What threads use while it sleeps counts too, and is slept off later. */
  async pause(): Promise<void> {
    const used = process.cpuUsage(this.#usage);
    const waitMs = pauseMs((used.user + used.system) / 1000, performance.now() - this.#at, this.#share);
    if (waitMs >= pauseMsMin) await sleep(waitMs);
    if (waitMs > 0) return;
    // Time spent waiting for others is not saved up for a burst.
    this.#usage = process.cpuUsage();
    this.#at = performance.now();
  }
}

/** Milliseconds to sleep after so much processor time within so much real time. */
export function pauseMs(usedMs: number, elapsedMs: number, share: number): number {
  return Math.min(pauseMsMax, Math.max(0, usedMs / share - elapsedMs));
}
