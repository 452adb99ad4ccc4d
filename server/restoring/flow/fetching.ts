/**
 * Content on its way: steps are gathered into units whose blocks are fetched together, many small files at a time, a
 * part of a large one at a time. Units are asked for in order while there is room in the window, and the next ones are
 * on their way while one is written. A block is checked against its name as it comes; one that is wrong is read once
 * more, alone, and marked as damaged when it is wrong again.
 */
import { createHash } from 'node:crypto';
import { hashCount, hashFromKey, hashKey, hashKeyAt, joinHashes } from '../../../protocol/hashes.ts';
import { limits } from '../../../protocol/limits.ts';
import { type ReaderSaw, rereadDoubted } from '../../../storage/archive/checking/doubted-block.ts';
import type { Fence } from '../../../storage/archive/checking/fence.ts';
import { fetchBlocks } from '../../../storage/archive/reading/read-blocks.ts';
import { ObjectRangeInvalid } from '../../../storage/objects/object-store.ts';
import type { Storage } from '../../../storage/storage.ts';
import type { Step } from '../steps.ts';
import { breathe } from './breathe.ts';
import type { Window } from './window.ts';

/** Units asked for at a time. Each is one stream from the store with the next range under way. */
const fetchesMax = 2;
const unitStepsMax = 500;
/** What a step weighs beside its content, about. */
const stepBytes = 1_024;

interface Wanted {
  bytes: number;
  /** Times that it is still to be taken. */
  uses: number;
  /** Undefined until it came; null: it cannot be had. */
  sealed: Buffer | null | undefined;
}

/** Bytes of a step itself. */
function weightOf(step: Step): number {
  if (!('item' in step)) return stepBytes + step.path.byteLength;
  const { path, attributes, blocks, lists } = step.item.version;
  if (step.do === 'part') return stepBytes + path.byteLength + step.blocks.byteLength;
  return stepBytes + path.byteLength + attributes.byteLength + blocks.byteLength + lists.byteLength;
}

export class Unit {
  readonly steps: Step[] = [];
  readonly #wanted = new Map<string, Wanted>();
  #stepsBytes = 0;
  #sealedBytes = 0;
  /** By how much files that are written whole take more than their blocks. */
  #inflatedBytes = 0;
  #freed = 0;
  /** All of its blocks came, or are known not to. */
  ready: Promise<void> = Promise.resolve();

  add(step: Step): void {
    this.steps.push(step);
    this.#stepsBytes += weightOf(step);
    if (step.do !== 'file' && step.do !== 'part') return;
    let sealedBytes = 0;
    for (let i = 0; i < hashCount(step.blocks); i++) {
      const key = hashKeyAt(step.blocks, i);
      sealedBytes += step.lengths.get(key) ?? 0;
      const wanted = this.#wanted.get(key);
      if (wanted) {
        wanted.uses++;
        continue;
      }
      const bytes = step.lengths.get(key) ?? 0;
      this.#wanted.set(key, { bytes, uses: 1, sealed: undefined });
      this.#sealedBytes += bytes;
    }
    if (step.do === 'file') this.#inflatedBytes += Math.max(0, step.item.version.size - sealedBytes);
  }

  /** Whether another step has to go into another unit. */
  isFull(unitBytes: number): boolean {
    return (
      this.roomBytes >= unitBytes || this.#wanted.size >= limits.fetchBlocksMax || this.steps.length >= unitStepsMax
    );
  }

  /** Whether it would be much larger with the step than a unit should be. */
  isCrowdedBy(step: Step, unitBytes: number): boolean {
    if (this.steps.length === 0) return false;
    const bytes = this.roomBytes + weightOf(step);
    if (step.do !== 'file' && step.do !== 'part') return bytes > unitBytes;
    let sealedBytes = 0;
    for (let i = 0; i < hashCount(step.blocks); i++) sealedBytes += step.lengths.get(hashKeyAt(step.blocks, i)) ?? 0;
    return bytes + (step.do === 'file' ? Math.max(sealedBytes, step.item.version.size) : sealedBytes) > unitBytes;
  }

  /** Bytes to reserve for it. */
  get bytes(): number {
    return this.#sealedBytes + this.#stepsBytes;
  }

  /** What it may take at any time until it is written, but for the one or two blocks of a large file that are being opened. */
  get roomBytes(): number {
    return this.bytes + this.#inflatedBytes;
  }

  get hashes(): Buffer[] {
    return [...this.#wanted.keys()].map(hashFromKey);
  }

  came(hash: Buffer, sealed: Buffer | null): void {
    this.#wanted.get(hashKey(hash))!.sealed = sealed;
  }

  isAwaited(hash: Buffer): boolean {
    return this.#wanted.get(hashKey(hash))!.sealed === undefined;
  }

  /** A block's sealed bytes, or null; with the last use of it its room is free. */
  take(hash: Buffer, window: Window): Buffer | null {
    const wanted = this.#wanted.get(hashKey(hash))!;
    const { sealed } = wanted;
    if (--wanted.uses === 0) {
      wanted.sealed = null;
      this.#freed += wanted.bytes;
      window.free(wanted.bytes);
    }
    return sealed ?? null;
  }

  /** Whether a block's sealed bytes were taken for the last time. */
  isSpent(hash: Buffer): boolean {
    return this.#wanted.get(hashKey(hash))!.uses === 0;
  }

  /** Frees what is left. */
  end(window: Window): void {
    window.free(this.bytes - this.#freed);
    window.done(this.roomBytes);
    this.#freed = this.bytes;
    this.#wanted.clear();
  }
}

export interface Fetching {
  storage: Storage;
  vault: number;
  fence: Pick<Fence, 'isOurBucket'>;
  window: Window;
  saw: ReaderSaw;
  signal: AbortSignal;
}

/** Steps gathered into units. */
async function* unitsOf(steps: AsyncIterable<Step>, window: Window): AsyncGenerator<Unit> {
  let unit = new Unit();
  for await (const step of steps) {
    const { unitBytes } = window;
    if (unit.isCrowdedBy(step, unitBytes)) {
      yield unit;
      unit = new Unit();
    }
    unit.add(step);
    if (!unit.isFull(unitBytes)) continue;
    yield unit;
    unit = new Unit();
  }
  if (unit.steps.length > 0) yield unit;
}

/**
 * The units of steps, in order, each fetched. Runs ahead of its reader as far as the window allows; ended, by its
 * reader or by the signal, it leaves nothing under way.
 */
export async function* fetchedUnits(fetching: Fetching, steps: AsyncGenerator<Step>): AsyncGenerator<Unit> {
  const { window } = fetching;
  const ended = new AbortController();
  const signal = AbortSignal.any([fetching.signal, ended.signal]);
  const ahead: Unit[] = [];
  const underWay = new Set<Promise<void>>();
  const state: { isDone: boolean; failure: { error: unknown } | null; wake: () => void } = {
    isDone: false,
    failure: null,
    wake: () => {},
  };
  const run = async (): Promise<void> => {
    for await (const unit of unitsOf(steps, window)) {
      await window.reserve(unit.bytes, signal, unit.roomBytes);
      while (underWay.size >= fetchesMax) await Promise.race(underWay);
      signal.throwIfAborted();
      unit.ready = fetchUnit({ ...fetching, signal }, unit);
      const settled: Promise<void> = unit.ready.catch(() => {}).finally(() => underWay.delete(settled));
      underWay.add(settled);
      ahead.push(unit);
      state.wake();
    }
  };
  const running = run()
    .catch((error: unknown) => {
      state.failure = { error };
    })
    .finally(() => {
      state.isDone = true;
      state.wake();
    });
  try {
    for (;;) {
      while (ahead.length === 0 && !state.isDone) {
        const { promise, resolve } = Promise.withResolvers<void>();
        state.wake = resolve;
        await promise;
      }
      const unit = ahead.shift();
      if (!unit) break;
      await unit.ready;
      yield unit;
      unit.end(window);
    }
    if (state.failure) throw state.failure.error;
  } finally {
    ended.abort(new Error('nobody reads the restore any more'));
    await running;
    await Promise.allSettled(underWay);
  }
}

/** Fetches all blocks of a unit. @throws what the store or the database throws */
async function fetchUnit(fetching: Fetching, unit: Unit): Promise<void> {
  const { storage, vault, saw, signal } = fetching;
  const { hashes } = unit;
  if (hashes.length === 0) return;
  try {
    for await (const { index, bytes } of fetchBlocks(storage, vault, joinHashes(hashes), { signal })) {
      saw.blocks++;
      if (bytes === null) continue;
      const digest = createHash('sha256');
      for (const piece of bytes) {
        digest.update(piece);
        await breathe();
      }
      if (digest.digest().equals(hashes[index]!)) unit.came(hashes[index]!, Buffer.concat(bytes));
    }
  } catch (error) {
    // An object that is shorter than its rows say fails every block asked for with it; each is looked at alone.
    if (signal.aborted || !(error instanceof ObjectRangeInvalid)) throw error;
  }
  for (const hash of hashes) {
    if (!unit.isAwaited(hash)) continue;
    unit.came(hash, await rereadDoubted(storage, fetching.fence, vault, hash, saw, { signal }));
  }
}
