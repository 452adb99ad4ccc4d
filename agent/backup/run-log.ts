/**
 * What a run leaves out, told to everyone who needs it: the cache (so that `status` can answer, and so that what is
 * there stays there), the server (a thousand at a time), and the counts.
 */
import { limits } from '../../protocol/limits.ts';
import type { SkipReason } from '../../protocol/messages.ts';
import type { Client } from '../client/client.ts';
import type { Cache } from '../state/cache.ts';
import { type Progress, runCounts } from './progress.ts';

export interface LeftOut {
  path: Buffer;
  reason: SkipReason;
  detail: string;
  /** Nothing below it was looked at either. */
  subtree: boolean;
}

export class RunLog {
  readonly #client: Pick<Client, 'runProgress'>;
  readonly #cache: Cache;
  readonly #progress: Progress;
  readonly #target: { archive: number; run: number; generation: number };
  #untold: { path: Buffer; reason: SkipReason; detail: string }[] = [];
  #telling: Promise<void> | null = null;

  constructor(
    client: Pick<Client, 'runProgress'>,
    cache: Cache,
    progress: Progress,
    target: { archive: number; run: number; generation: number },
  ) {
    this.#client = client;
    this.#cache = cache;
    this.#progress = progress;
    this.#target = target;
  }

  leaveOut(left: LeftOut): void {
    const detail = left.detail.slice(0, limits.textMax);
    this.#cache.addSkipped({ ...left, detail }, this.#target.generation);
    // A pipe in a file's place means that the file is gone. Of everything else nobody knows, and it stays as it was.
    if (left.reason !== 'special_file') this.#cache.keep(left.path, left.subtree, this.#target.generation);
    if (left.reason === 'excluded') {
      this.#progress.counts.filesExcluded++; // the user's wish; the server need not know the names
      return;
    }
    this.#progress.counts.filesSkipped++;
    this.#untold.push({ path: left.path.subarray(0, limits.pathBytesMax * 2), reason: left.reason, detail });
  }

  /** Whether so much waits to be told that the run should pause for it. */
  get isFull(): boolean {
    return this.#untold.length >= limits.runSkippedMax;
  }

  /** Tells the server how far the run is, and what was left out since the last time. One telling at a time. */
  async tell(): Promise<void> {
    while (this.#telling) await this.#telling;
    const skipped = this.#takeUntold();
    this.#telling = this.#client
      .runProgress(this.#target.archive, this.#target.run, { counts: runCounts(this.#progress.counts), skipped })
      .finally(() => {
        this.#telling = null;
      });
    await this.#telling;
  }

  /** What the last message of the run still has to say, all but a page of it told before. */
  async takeLast(): Promise<{ path: Buffer; reason: SkipReason; detail: string }[]> {
    while (this.#telling || this.#untold.length > limits.runSkippedMax) await this.tell();
    return this.#takeUntold();
  }

  #takeUntold(): { path: Buffer; reason: SkipReason; detail: string }[] {
    return this.#untold.splice(0, limits.runSkippedMax);
  }
}
