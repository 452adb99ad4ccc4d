/**
 * An object store in memory behind a network that fails: delays, errors before and after the effect, writes cut off, writes
 * and deletes that happen later than the caller was told they failed, listings of a moment ago, reads that stop at
 * every piece, or break. A call has two gates, before it leaves and before its answer is heard; whoever is killed
 * between the two leaves a request that may still arrive.
 */
import assert from 'node:assert/strict';
import { bytesOf, infoOf, pageOf, type StoredObject } from '../../storage/objects/memory-store.ts';
import { bodyPieces } from '../../storage/objects/object-body.ts';
import {
  type Cancellable,
  checkKey,
  checkKeyPrefix,
  checkPage,
  type ObjectBody,
  type ObjectContent,
  type ObjectInfo,
  type ObjectPage,
  type ObjectRange,
  type ObjectStore,
  ObjectStoreFault,
  type StoreInspection,
} from '../../storage/objects/object-store.ts';
import type { Random } from '../helpers/random.ts';
import type { Fault, Faults } from './faults.ts';
import type { Scheduler } from './scheduler.ts';

/** How late a listing may be. Whoever adopts has waited for longer, as for everything that was under way. */
const staleForMs = 30_000;

/** What the bucket holds. Outlives every process, and every catalog. */
export class Bucket {
  readonly objects = new Map<string, StoredObject>();
  /** Raised with every change, so that a check knows whether there is something new to look at. */
  changes = 0;
  /** Keys of objects that were deleted, whatever may still arrive for them. */
  readonly deleted = new Set<string>();
  /** Offsets of the bits that the world flipped, by key. */
  readonly flipped = new Map<string, number[]>();
  /** Keys that had some, until a late request put their object once more; and the scheduler's step of that. */
  readonly healed = new Map<string, number>();
  /** The listing of a moment ago, and when that was by the store's clock. */
  stale: { objects: Map<string, StoredObject>; atMs: number } = { objects: new Map(), atMs: 0 };
}

export interface StoreParts {
  bucket: Bucket;
  scheduler: Scheduler;
  faults: Faults;
  random: Random;
  /** The store's own clock, in ms. */
  nowMs: () => number;
  /** Told before a delete takes effect. */
  onDelete: (key: string) => void;
  /** Told before a put takes effect; `before` is what the key holds. */
  onPut: (key: string, bytes: Buffer, before: StoredObject | undefined) => void;
}

export class SimulatedStore implements ObjectStore {
  readonly #parts: StoreParts;

  constructor(parts: StoreParts) {
    this.#parts = parts;
  }

  async put(key: string, body: ObjectBody, options: Cancellable = {}): Promise<void> {
    checkKey(key);
    const { faults, random } = this.#parts;
    const pieces: Uint8Array[] = [];
    const torn = faults.strikes('storeTornWrite');
    for await (const piece of bodyPieces(key, body, options.signal)) {
      if (torn && random.chance(0.5)) {
        // Half of the body left the process. A store shows all of an object or nothing of it.
        throw injected(`put ${key}: the connection broke`);
      }
      pieces.push(Buffer.from(piece));
    }
    const bytes = Buffer.concat(pieces);
    assert.equal(bytes.byteLength, body.length);
    await this.#change(`put ${short(key)}`, 'storeLatePut', () => this.#apply(key, bytes));
    if (torn) throw injected(`put ${key}: the connection broke after the last byte`);
  }

  async get(key: string, range?: ObjectRange, options: Cancellable = {}): Promise<ObjectContent> {
    await this.#before(`get ${short(key)}`);
    checkKey(key);
    options.signal?.throwIfAborted();
    const bytes = bytesOf(this.#parts.bucket.objects, key, range);
    return { length: bytes.byteLength, stream: this.#stream(key, Buffer.from(bytes)) };
  }

  async head(key: string): Promise<ObjectInfo | null> {
    await this.#before(`head ${short(key)}`);
    return infoOf(this.#parts.bucket.objects, checkKey(key));
  }

  delete(key: string): Promise<void> {
    checkKey(key);
    return this.#change(`delete ${short(key)}`, 'storeLateDelete', () => this.#remove(key));
  }

  async list(prefix: string, page: { after?: string; limit: number }): Promise<ObjectPage> {
    checkKeyPrefix(prefix);
    const checked = checkPage(page);
    await this.#before(`list ${short(prefix)}`);
    const { bucket, faults } = this.#parts;
    const isRecent = this.#parts.nowMs() - bucket.stale.atMs < staleForMs;
    const objects = isRecent && faults.strikes('storeStaleList') ? bucket.stale.objects : bucket.objects;
    const listed = pageOf(objects, prefix, checked);
    await this.#parts.scheduler.gate('list: answer');
    return listed;
  }

  async check(): Promise<void> {}

  async inspect(): Promise<StoreInspection> {
    return { kind: 'simulated' };
  }

  async close(): Promise<void> {}

  async #before(call: string): Promise<void> {
    const { scheduler, faults, random } = this.#parts;
    if (faults.strikes('storeDelay')) scheduler.task().asleepUntil = scheduler.steps + 20 + random.below(100);
    await scheduler.gate(call);
    if (faults.strikes('storeErrorBefore')) throw injected(`${call}: failed`);
  }

  async #change(call: string, late: Fault, effect: () => void): Promise<void> {
    const { scheduler, faults, random } = this.#parts;
    // A request that left a process just before that was killed.
    await scheduler.gate(call, () => {
      if (!random.chance(0.5)) return;
      faults.count('landedAfterCrash');
      scheduler.later(`${call} of a killed process`, effect, this.#lateness());
    });
    if (faults.strikes('storeErrorBefore')) throw injected(`${call}: failed`);
    if (faults.strikes(late)) {
      scheduler.later(call, effect, this.#lateness());
      throw injected(`${call}: no answer, and it comes later`);
    }
    effect();
    if (faults.strikes('storeDelay')) scheduler.task().asleepUntil = scheduler.steps + 20 + random.below(250);
    await scheduler.gate(`${call}: answer`);
    if (faults.strikes('storeErrorAfter')) throw injected(`${call}: no answer, but it was done`);
  }

  /** In steps. Some of what is late comes when everybody has long given it up. */
  #lateness(): number {
    const { random } = this.#parts;
    return random.chance(0.6) ? 0 : random.below(1_500);
  }

  #apply(key: string, bytes: Buffer): void {
    const { bucket, faults, onPut } = this.#parts;
    if (bucket.deleted.has(key)) faults.count('putAfterDelete');
    onPut(key, bytes, bucket.objects.get(key));
    this.#remember();
    bucket.objects.set(key, { bytes, modifiedAt: new Date(this.#parts.nowMs()) });
    bucket.changes++;
  }

  #remove(key: string): void {
    const { bucket, onDelete } = this.#parts;
    onDelete(key);
    this.#remember();
    bucket.deleted.add(key);
    if (bucket.objects.delete(key)) bucket.changes++;
  }

  #remember(): void {
    const { bucket, random, nowMs } = this.#parts;
    if (random.chance(0.2)) bucket.stale = { objects: new Map(bucket.objects), atMs: nowMs() };
  }

  async *#stream(key: string, bytes: Buffer): AsyncGenerator<Uint8Array> {
    const { scheduler, faults, random } = this.#parts;
    const slow = faults.strikes('storeSlowRead');
    const tornAt = faults.strikes('storeTornRead') ? random.below(bytes.byteLength) : null;
    const pieceBytes = slow ? Math.ceil(bytes.byteLength / 4) : bytes.byteLength;
    for (let at = 0; at < bytes.byteLength; at += pieceBytes) {
      if (slow) await scheduler.gate(`read ${short(key)} at ${at}`);
      const end = Math.min(bytes.byteLength, at + pieceBytes);
      if (tornAt !== null && tornAt < end) {
        if (tornAt > at) yield bytes.subarray(at, tornAt);
        throw injected(`get ${key}: broke after ${tornAt} bytes`);
      }
      yield bytes.subarray(at, end);
    }
  }
}

/** A catalog's id and a digest are long; their beginnings tell enough in a trace. */
const short = (key: string): string => key.replace(/^[0-9a-f-]{36}\//, '').replace(/([0-9a-f]{8})[0-9a-f]{56}/, '$1');

function injected(message: string): ObjectStoreFault {
  return new ObjectStoreFault(message, { retryable: true, code: 'Injected' });
}
