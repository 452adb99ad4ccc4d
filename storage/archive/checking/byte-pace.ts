/** Keeps work in the background at a set number of bytes a second, evenly: it saves up a second of them at most. */
import { setTimeout as delay } from 'node:timers/promises';

export interface PaceClock {
  /** Goes only forward. */
  nowMs(): number;
  /** Rejects when the signal is aborted meanwhile. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

export const systemPaceClock: PaceClock = {
  nowMs: () => performance.now(),
  sleep: async (ms, signal) => {
    await delay(ms, undefined, signal ? { signal } : {});
  },
};

/** What a slow read was behind is made up for, up to this. */
const savedMsMax = 1_000;
/** Shorter waits cost more than they even out. */
const waitMsMin = 5;

export class BytePace {
  private readonly bytesPerSecond: number;
  private readonly clock: PaceClock;
  private freeAtMs: number;

  constructor(bytesPerSecond: number, clock: PaceClock = systemPaceClock) {
    this.bytesPerSecond = bytesPerSecond;
    this.clock = clock;
    this.freeAtMs = clock.nowMs();
  }

  /** Call after so many bytes were read; resolves when the next may be. */
  async spent(bytes: number, signal?: AbortSignal): Promise<void> {
    const now = this.clock.nowMs();
    this.freeAtMs = Math.max(this.freeAtMs, now - savedMsMax) + (bytes / this.bytesPerSecond) * 1_000;
    const waitMs = this.freeAtMs - now;
    if (waitMs >= waitMsMin) await this.clock.sleep(waitMs, signal);
  }
}
