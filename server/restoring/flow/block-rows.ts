/**
 * What the rows say of a version's blocks before one is read: their names, lengths, and whether all are there and none
 * is marked as damaged.
 */
import { hashAt, hashCount, hashKey, hashKeyAt, sha256 } from '../../../protocol/hashes.ts';
import { limits } from '../../../protocol/limits.ts';
import type { StoredVersion } from '../../../protocol/messages.ts';
import { sealedBounds } from '../../../protocol/sealing/index.ts';
import { findBlockPlaces } from '../../../storage/catalog/writing/blocks.ts';
import { findLists } from '../../../storage/catalog/writing/lists.ts';
import type { Storage } from '../../../storage/storage.ts';
import { LeftOut, type LeftOutReason } from '../types.ts';

/** Sealed bytes of blocks by hashKey; a block that is absent or marked is not in it. */
export type BlockLengths = Map<string, number>;
export type Named = Pick<StoredVersion, 'blocks' | 'lists' | 'size'>;

/** Hashes looked up in one statement. */
const lookUpMax = limits.fetchBlocksMax;

/** Sealed bytes for plain ones: padding adds 12 % at most, and header, prefix and tag some bytes to each block. */
const sealedShareMax = 1.2;
const sealedBlockMore = 128;

/** @param hashes n x 32 bytes; repeats are allowed */
export async function lengthsOf(
  storage: Storage,
  vault: number,
  hashes: Buffer,
  signal?: AbortSignal,
): Promise<BlockLengths> {
  const lengths: BlockLengths = new Map();
  for (const some of inLookUps(hashes)) {
    signal?.throwIfAborted();
    const places = await findBlockPlaces(storage.database, vault, some);
    for (const { index, length } of places) lengths.set(hashKeyAt(some, index), length);
  }
  return lengths;
}

function* inLookUps(hashes: Buffer): Generator<Buffer> {
  const step = lookUpMax * limits.hashBytes;
  for (let at = 0; at < hashes.byteLength; at += step) yield hashes.subarray(at, at + step);
}

/**
 * The names of a version's blocks in order, a look-up's worth at a time; the names in lists are checked against theirs.
 * @throws LeftOut content_damaged when a list is not there, or is another
 */
export async function* blockNames(storage: Storage, vault: number, { blocks, lists }: Named): AsyncGenerator<Buffer> {
  yield* inLookUps(blocks);
  for (let i = 0; i < hashCount(lists); i++) {
    const name = hashAt(lists, i);
    const found = (await findLists(storage.database, vault, name)).get(hashKey(name));
    if (!found || !sha256(found).equals(name)) throw new LeftOut('content_damaged');
    yield* inLookUps(found);
  }
}

/**
 * What is wrong with a content by the lengths of its blocks, looked at in their order. A version says how large it is
 * and a row how long a block is; whoever commits can name blocks of gigabytes for a byte, and nobody is to fetch them.
 */
export class ContentByRows {
  readonly #size: number;
  #blocks = 0;
  /** Sealed bytes so far; a block that comes again counts again. */
  bytes = 0;

  constructor(size: number) {
    this.#size = size;
  }

  /** @param length undefined: the block is absent, or marked */
  add(length: number | undefined): LeftOutReason | null {
    if (length === undefined) return 'content_damaged';
    this.#blocks++;
    this.bytes += length;
    // A block holds a byte at least. And one that is longer than any that opens is never asked for.
    const isFine =
      this.#blocks <= this.#size &&
      this.bytes <= this.#size * sealedShareMax + this.#blocks * sealedBlockMore &&
      length <= sealedBounds.block.plainBytesMax * sealedShareMax;
    return isFine ? null : 'content_mismatch';
  }
}

/**
 * Why by its rows a version's content cannot be given back; null: it is all there, though what was never read may be
 * damaged all the same.
 */
export async function faultByRows(
  storage: Storage,
  vault: number,
  version: Named,
  signal?: AbortSignal,
): Promise<LeftOutReason | null> {
  const content = new ContentByRows(version.size);
  try {
    for await (const names of blockNames(storage, vault, version)) {
      signal?.throwIfAborted();
      const fault = faultOf(content, names, await lengthsOf(storage, vault, names));
      if (fault) return fault;
    }
    return null;
  } catch (error) {
    if (error instanceof LeftOut) return error.reason;
    throw error;
  }
}

/** The first fault of blocks that come next. */
export function faultOf(content: ContentByRows, names: Buffer, lengths: BlockLengths): LeftOutReason | null {
  for (let i = 0; i < hashCount(names); i++) {
    const fault = content.add(lengths.get(hashKeyAt(names, i)));
    if (fault) return fault;
  }
  return null;
}

/** Which of several versions are whole by their rows. Those that name their blocks themselves are looked up together. */
export async function wholeByRows(
  storage: Storage,
  vault: number,
  versions: readonly Named[],
  signal?: AbortSignal,
): Promise<boolean[]> {
  const lengths = await lengthsOf(storage, vault, Buffer.concat(versions.map((version) => version.blocks)), signal);
  const whole: boolean[] = [];
  for (const version of versions) {
    const inLists = version.lists.byteLength > 0;
    const fault = inLists
      ? await faultByRows(storage, vault, version, signal)
      : faultOf(new ContentByRows(version.size), version.blocks, lengths);
    whole.push(fault === null);
  }
  return whole;
}
