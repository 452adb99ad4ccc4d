/**
 * How fast a sender sends, counting only the time in which it was its turn. The rate is that of the last second or
 * so of its turns: a fast start does not excuse a stall, and a pause of ours does not count against anyone.
 */
/** Six slices of a fifth of the time: five whole ones and the one that is being filled. */
const bucketCount = 6;

export class RateMeter {
  readonly #overMs: number;
  readonly #bucketMs: number;
  readonly #bytesPerSecondMin: number;
  /** Milliseconds of the sender's turns that are over, and the start of the present one. */
  #activeMs = 0;
  #resumedAt: number | null = null;
  #arrivedAtActiveMs = 0;
  /** Bytes of the last `bucketCount` slices of active time, as a ring; `#slice` numbers the newest. */
  readonly #buckets: number[] = new Array(bucketCount).fill(0);
  #slice = 0;

  /** @param settings.overMs over how long the rate is taken; before that nobody is slow */
  constructor(settings: { overMs: number; bytesPerSecondMin: number }) {
    this.#overMs = settings.overMs;
    this.#bucketMs = settings.overMs / (bucketCount - 1);
    this.#bytesPerSecondMin = settings.bytesPerSecondMin;
  }

  resume(now: number): void {
    this.#resumedAt ??= now;
  }

  pause(now: number): void {
    this.#activeMs = this.activeMs(now);
    this.#resumedAt = null;
  }

  /** Time that was nobody's: taken off the present turn. */
  forgive(ms: number, now: number): void {
    if (this.#resumedAt !== null) this.#resumedAt = Math.min(now, this.#resumedAt + ms);
  }

  add(bytes: number, now: number): void {
    const active = this.activeMs(now);
    this.#arrivedAtActiveMs = active;
    this.#advance(active);
    this.#buckets[this.#slice % bucketCount]! += bytes;
  }

  /** How long it has been the sender's turn in all. */
  activeMs(now: number): number {
    return this.#activeMs + (this.#resumedAt === null ? 0 : now - this.#resumedAt);
  }

  /** For how much of its turn nothing has come. */
  silentMs(now: number): number {
    return Math.max(0, this.activeMs(now) - this.#arrivedAtActiveMs);
  }

  isSlow(now: number): boolean {
    const active = this.activeMs(now);
    if (active < this.#overMs) return false;
    this.#advance(active);
    const coveredMs = active - (this.#slice - bucketCount + 1) * this.#bucketMs;
    const bytes = this.#buckets.reduce((sum, each) => sum + each, 0);
    return (bytes / coveredMs) * 1_000 < this.#bytesPerSecondMin;
  }

  #advance(active: number): void {
    const slice = Math.floor(active / this.#bucketMs);
    const first = Math.max(this.#slice + 1, slice - bucketCount + 1);
    for (let each = first; each <= slice; each++) this.#buckets[each % bucketCount] = 0;
    this.#slice = Math.max(this.#slice, slice);
  }
}
