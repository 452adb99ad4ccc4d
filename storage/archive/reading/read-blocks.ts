/**
 * Gives blocks back. What is asked for in one request is grouped by object and neighbouring blocks are read as one
 * range; the next range is on its way while one is sent.
 *
 * A reader holds no lock. Between looking a block up and reading it, compaction may have moved it and its old object
 * may be gone: on a 404 the place is looked up once more, and only then is the block called absent.
 */
import { hashAt, hashCount } from '../../../protocol/hashes.ts';
import { type BlockPlace, findBlockPlaces } from '../../catalog/writing/blocks.ts';
import { ObjectNotFound } from '../../objects/object-store.ts';
import type { Storage } from '../../storage.ts';

/** Bytes of a block, or null when the vault does not hold it undamaged. */
export async function blockLength(storage: Storage, vault: number, hash: Buffer): Promise<number | null> {
  const [place] = await findBlockPlaces(storage.database, vault, hash);
  return place?.length ?? null;
}

/**
 * One block, or a range of it that lies inside.
 * @returns null when the vault does not hold it, or its object is gone
 */
export async function readBlock(
  storage: Storage,
  vault: number,
  hash: Buffer,
  range?: { offset: number; length: number },
  options: { signal?: AbortSignal } = {},
): Promise<{ length: number; stream: AsyncIterable<Uint8Array> } | null> {
  for (let look = 1; ; look++) {
    const [place] = await findBlockPlaces(storage.database, vault, hash);
    if (!place) return null;
    const { offset, length } = range ?? { offset: 0, length: place.length };
    try {
      const content = await storage.objects.get(place.key, { offset: place.offset + offset, length }, options);
      return { length, stream: content.stream };
    } catch (error) {
      if (!(error instanceof ObjectNotFound)) throw error;
      if (look === 2) return null;
    }
  }
}

export interface FetchedBlock {
  /** Position of the hash in the request. */
  index: number;
  /** The block's bytes, in pieces as the store gave them; null: the vault does not hold it undamaged, or it is gone. */
  bytes: readonly Uint8Array[] | null;
}

/**
 * Many blocks, in the order in which they lie in the store: by object, by offset. Every index comes once. Holds one
 * block at a time, and what the store reads ahead.
 * @param hashes n x 32 bytes; repeats are allowed
 */
export async function* fetchBlocks(
  storage: Storage,
  vault: number,
  hashes: Buffer,
  options: { signal?: AbortSignal } = {},
): AsyncGenerator<FetchedBlock> {
  const places = await findBlockPlaces(storage.database, vault, hashes);
  const found = new Set(places.map((place) => place.index));
  for (let index = 0; index < hashCount(hashes); index++) if (!found.has(index)) yield { index, bytes: null };

  const moved: number[] = [];
  yield* readPlaces(storage, places, moved, options);
  if (moved.length === 0) return;

  const again = Buffer.concat(moved.map((index) => hashAt(hashes, index)));
  const newPlaces = (await findBlockPlaces(storage.database, vault, again)).map((place) => ({
    ...place,
    index: moved[place.index]!,
  }));
  const gone: number[] = [];
  yield* readPlaces(storage, newPlaces, gone, options);
  const placed = new Set(newPlaces.map((place) => place.index));
  for (const index of [...gone, ...moved.filter((each) => !placed.has(each))]) yield { index, bytes: null };
}

/** The bytes at places, as they lie in the store. @param missing gets the indexes of places whose object is not there */
export function readPlaces(
  storage: Storage,
  places: readonly BlockPlace[],
  missing: number[],
  options: { signal?: AbortSignal },
): AsyncGenerator<FetchedBlock> {
  return readRanges(storage, mergeRanges(places), missing, options);
}

interface Range {
  key: string;
  offset: number;
  length: number;
  /** By offset; the same place more than once when its hash was asked for more than once. */
  blocks: BlockPlace[];
}

/** A gap up to this is read and thrown away: cheaper than another request. */
const gapBytesMax = 64 * 1024;
/** Longer ranges would not be faster, and a reader that leaves would leave more behind. */
const rangeBytesMax = 8 * 1024 * 1024;

/** Groups places into ranges of an object, neighbours together. A single block may be longer than a range should be. */
export function mergeRanges(places: readonly BlockPlace[]): Range[] {
  const sorted = [...places].sort((a, b) => (a.key === b.key ? a.offset - b.offset : a.key < b.key ? -1 : 1));
  const ranges: Range[] = [];
  for (const place of sorted) {
    const last = ranges.at(-1);
    const end = place.offset + place.length;
    const joins =
      last &&
      last.key === place.key &&
      place.offset - (last.offset + last.length) <= gapBytesMax &&
      end - last.offset <= rangeBytesMax;
    if (joins) {
      last.length = Math.max(last.length, end - last.offset);
      last.blocks.push(place);
    } else ranges.push({ key: place.key, offset: place.offset, length: place.length, blocks: [place] });
  }
  return ranges;
}

/** Reads ranges one after the other; the next one is asked for while one is read. */
async function* readRanges(
  storage: Storage,
  ranges: readonly Range[],
  missing: number[],
  options: { signal?: AbortSignal },
): AsyncGenerator<FetchedBlock> {
  const ask = (range: Range | undefined): Promise<AsyncIterator<Uint8Array> | null> => {
    const asked = range ? openRange(storage, range, options) : Promise.resolve(null);
    asked.catch(() => {}); // it is awaited below, unless the reader has left by then
    return asked;
  };
  let next = ask(ranges[0]);
  try {
    for (const [i, range] of ranges.entries()) {
      const stream = await next;
      next = ask(ranges[i + 1]);
      if (stream) yield* takeApart(range, stream);
      else missing.push(...range.blocks.map((block) => block.index));
    }
  } finally {
    const unread = await next.catch(() => null);
    await unread?.return?.();
  }
}

/** @returns null when there is no such object */
async function openRange(
  storage: Storage,
  { key, offset, length }: Range,
  options: { signal?: AbortSignal },
): Promise<AsyncIterator<Uint8Array> | null> {
  try {
    const content = await storage.objects.get(key, { offset, length }, options);
    return content.stream[Symbol.asyncIterator]();
  } catch (error) {
    if (error instanceof ObjectNotFound) return null;
    throw error;
  }
}

/** The blocks of a range from its bytes, without joining them. Ends the stream, whoever leaves first. */
async function* takeApart(range: Range, stream: AsyncIterator<Uint8Array>): AsyncGenerator<FetchedBlock> {
  let at = range.offset;
  let chunk: Uint8Array = new Uint8Array(0);
  const take = async (bytes: number): Promise<Uint8Array[]> => {
    const pieces: Uint8Array[] = [];
    for (let left = bytes; left > 0; ) {
      if (chunk.byteLength === 0) {
        const read = await stream.next();
        if (read.done) throw new Error(`object ${range.key} ended ${left} bytes early`);
        chunk = read.value;
      }
      const piece = chunk.subarray(0, left);
      chunk = chunk.subarray(piece.byteLength);
      left -= piece.byteLength;
      pieces.push(piece);
    }
    at += bytes;
    return pieces;
  };
  try {
    let last = { offset: -1, bytes: [] as Uint8Array[] };
    for (const { index, offset, length } of range.blocks) {
      if (last.offset !== offset) {
        await take(offset - at);
        last = { offset, bytes: await take(length) };
      }
      yield { index, bytes: last.bytes };
    }
  } finally {
    await stream.return?.();
  }
}
