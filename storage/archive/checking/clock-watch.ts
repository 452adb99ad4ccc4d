/**
 * Whether the database's clock goes as fast as a clock that nobody can set. One that jumps ahead would make prune
 * expire years of history; so whoever deletes asks here, and what was seen is not forgotten while the process lives:
 * it is mended by the clock jumping back, or by an operator who looks at it and starts the process again.
 */

/** A clock may be this much faster or slower for ever, as quartz is: 100 ppm are 9 s a day. */
const driftShare = 0.0001;

export class ClockWatch {
  private readonly toleranceMs: number;
  /** Database's clock less monotonic clock, as it should be now. */
  private offsetMs: number | null = null;
  private lastMonotonicMs = 0;
  private apartMs = 0;

  constructor(options: { toleranceMs: number }) {
    this.toleranceMs = options.toleranceMs;
  }

  /** Notes a time of the database and the monotonic time at which it was read. */
  observe(databaseMs: number, monotonicMs: number): void {
    const offsetMs = databaseMs - monotonicMs;
    this.offsetMs ??= offsetMs;
    const elapsedMs = Math.max(0, monotonicMs - this.lastMonotonicMs);
    this.lastMonotonicMs = monotonicMs;
    const slack = elapsedMs * driftShare;
    this.offsetMs += Math.min(slack, Math.max(-slack, offsetMs - this.offsetMs));
    this.apartMs = offsetMs - this.offsetMs;
  }

  /** How far the database's clock is ahead (or, negative, behind) of where it should be; 0 within the tolerance. */
  get jumpMs(): number {
    return Math.abs(this.apartMs) > this.toleranceMs ? this.apartMs : 0;
  }
}
