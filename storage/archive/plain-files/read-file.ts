/**
 * Gives the bytes of a file of a plain archive back, or a range of them, a block after the other, as the store gives them.
 *
 * A block that is read whole is hashed on its way, and its last bytes are held back until they are known to be right: an
 * answer that has its end has no wrong byte in it. One that is not its name is looked at once more, and marked as damaged if it
 * is wrong again, as other readers do (checking/doubted-block.ts). Of a part of a block nobody can say that without reading
 * the rest; whoever asks for parts has authenticated encryption of their own within them.
 */
import { createHash } from 'node:crypto';
import { hashAt, hashCount, hashKeyAt } from '../../../protocol/hashes.ts';
import { Problem } from '../../../protocol/problems.ts';
import { findBlockPlaces } from '../../catalog/writing/blocks.ts';
import type { PlainFileRow } from '../../catalog/writing/plain-files.ts';
import { ObjectRangeInvalid } from '../../objects/object-store.ts';
import type { Storage } from '../../storage.ts';
import { type ReaderSaw, rereadDoubted } from '../checking/doubted-block.ts';
import type { Fence } from '../checking/fence.ts';
import { blockLength, readBlock } from '../reading/read-blocks.ts';

interface FileRange {
  /** Bytes from the beginning of the file, and how many: all of them within it. */
  offset: number;
  length: number;
}

interface Part {
  hash: Buffer;
  /** Within the block. */
  range: FileRange;
  isWhole: boolean;
}

/**
 * @param file as `statFile` told
 * @yields exactly `range.length` bytes, unless it throws
 * @throws Problem not_found (a block of it is damaged or gone), unavailable (what is stored was wrong just now: ask again)
 */
export async function* readFile(
  storage: Storage,
  fence: Pick<Fence, 'isOurBucket'>,
  vault: number,
  file: PlainFileRow,
  range: FileRange,
  options: { signal?: AbortSignal } = {},
): AsyncGenerator<Uint8Array> {
  const saw: ReaderSaw = { blocks: 0, damaged: 0 };
  for (const part of await partsOf(storage, vault, file, range)) {
    saw.blocks++;
    let isRight = false;
    try {
      const block = await readBlock(storage, vault, part.hash, part.range, options);
      if (block) isRight = yield* part.isWhole ? checked(block.stream, part.hash) : asItIs(block.stream);
    } catch (error) {
      // The object is shorter than its rows say.
      if (!(error instanceof ObjectRangeInvalid)) throw error;
    }
    if (isRight) continue;
    await rereadDoubted(storage, fence, vault, part.hash, saw, options);
    if ((await blockLength(storage, vault, part.hash)) === null) throw damaged();
    throw new Problem('unavailable', 'what is stored of this file was not what it should be', { retryAfterSeconds: 1 });
  }
}

function damaged(): Problem {
  return new Problem('not_found', 'a part of this file is damaged, and was not sent again since');
}

/** Where the blocks of a file lie in it. Of one block that needs no look: it is as long as the file. */
async function partsOf(
  { database }: Storage,
  vault: number,
  { size, blocks }: PlainFileRow,
  range: FileRange,
): Promise<Part[]> {
  if (range.length === 0) return [];
  const lengths = new Map<string, number>();
  if (hashCount(blocks) === 1) lengths.set(hashKeyAt(blocks, 0), size);
  else
    for (const { index, length } of await findBlockPlaces(database, vault, blocks))
      lengths.set(hashKeyAt(blocks, index), length);
  const parts: Part[] = [];
  const end = range.offset + range.length;
  let at = 0;
  for (let i = 0; i < hashCount(blocks) && at < end; i++) {
    const length = lengths.get(hashKeyAt(blocks, i));
    if (length === undefined) throw damaged();
    const from = Math.max(range.offset, at);
    const to = Math.min(end, at + length);
    const isWhole = from === at && to === at + length;
    if (from < to) parts.push({ hash: hashAt(blocks, i), range: { offset: from - at, length: to - from }, isWhole });
    at += length;
  }
  return parts;
}

/** @returns whether the bytes hash to the block's name; only then are the last of them given */
async function* checked(stream: AsyncIterable<Uint8Array>, hash: Buffer): AsyncGenerator<Uint8Array, boolean> {
  const digest = createHash('sha256');
  let last: Uint8Array | null = null;
  for await (const chunk of stream) {
    if (last) yield last;
    digest.update(chunk);
    last = chunk;
  }
  if (!last || !digest.digest().equals(hash)) return false;
  yield last;
  return true;
}

async function* asItIs(stream: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, boolean> {
  yield* stream;
  return true;
}
