/**
 * Objects in memory, for tests of the engine. Keeps the whole contract except that nothing outlives the process.
 */
import { bodyPieces } from './object-body.ts';
import {
  type Cancellable,
  checkKey,
  checkKeyPrefix,
  checkPage,
  checkRange,
  type ObjectBody,
  type ObjectContent,
  type ObjectInfo,
  ObjectNotFound,
  type ObjectPage,
  type ObjectRange,
  ObjectRangeInvalid,
  type ObjectStore,
  type StoreInspection,
} from './object-store.ts';

export interface StoredObject {
  bytes: Buffer;
  modifiedAt: Date;
}

/** The bytes of an object or of a range of it; not a copy. @throws ObjectNotFound, ObjectRangeInvalid */
export function bytesOf(objects: ReadonlyMap<string, StoredObject>, key: string, range?: ObjectRange): Buffer {
  const stored = objects.get(key);
  if (!stored) throw new ObjectNotFound(key);
  if (!range) return stored.bytes;
  const end = checkRange(key, range).offset + range.length;
  if (end > stored.bytes.byteLength) throw new ObjectRangeInvalid(key, range);
  return stored.bytes.subarray(range.offset, end);
}

export function infoOf(objects: ReadonlyMap<string, StoredObject>, key: string): ObjectInfo | null {
  const stored = objects.get(key);
  return stored ? { key, length: stored.bytes.byteLength, modifiedAt: stored.modifiedAt } : null;
}

/** @param page as checkPage() gives it */
export function pageOf(
  objects: ReadonlyMap<string, StoredObject>,
  prefix: string,
  page: { after: string; limit: number },
): ObjectPage {
  // Keys are ASCII, so the order of code units is the order of bytes.
  const keys = [...objects.keys()].filter((key) => key.startsWith(prefix) && key > page.after).sort();
  return {
    objects: keys.slice(0, page.limit).map((key) => infoOf(objects, key)!),
    more: keys.length > page.limit,
  };
}

export class MemoryStore implements ObjectStore {
  private readonly objects = new Map<string, StoredObject>();
  private readonly now: () => Date;

  constructor(options: { now?: () => Date } = {}) {
    this.now = options.now ?? (() => new Date());
  }

  async put(key: string, body: ObjectBody, options: Cancellable = {}): Promise<void> {
    checkKey(key);
    const pieces: Uint8Array[] = [];
    for await (const piece of bodyPieces(key, body, options.signal)) pieces.push(piece);
    options.signal?.throwIfAborted();
    this.objects.set(key, { bytes: Buffer.concat(pieces, body.length), modifiedAt: this.now() });
  }

  async get(key: string, range?: ObjectRange, options: Cancellable = {}): Promise<ObjectContent> {
    checkKey(key);
    options.signal?.throwIfAborted();
    const bytes = bytesOf(this.objects, key, range);
    return { length: bytes.byteLength, stream: piecesOf(bytes, options.signal) };
  }

  async head(key: string): Promise<ObjectInfo | null> {
    return infoOf(this.objects, checkKey(key));
  }

  async delete(key: string): Promise<void> {
    this.objects.delete(checkKey(key));
  }

  async list(prefix: string, page: { after?: string; limit: number }): Promise<ObjectPage> {
    checkKeyPrefix(prefix);
    return pageOf(this.objects, prefix, checkPage(page));
  }

  async check(): Promise<void> {}

  async inspect(): Promise<StoreInspection> {
    return { kind: 'memory' };
  }

  async close(): Promise<void> {
    this.objects.clear();
  }

  /** Changes one stored bit, as a failing disk would. For tests of verify and heal; throws when there is no such byte. */
  flipBit(key: string, offset: number): void {
    const bytes = this.objects.get(key)?.bytes;
    if (!bytes || offset >= bytes.byteLength) throw new RangeError(`object ${key} has no byte ${offset}`);
    bytes[offset] = bytes[offset]! ^ 1;
  }
}

// Copies: what a caller does with what it was given must not reach the stored bytes.
async function* piecesOf(bytes: Buffer, signal?: AbortSignal): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.byteLength; at += 65_536) {
    signal?.throwIfAborted();
    yield Buffer.from(bytes.subarray(at, at + 65_536));
  }
}
