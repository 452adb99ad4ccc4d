/**
 * Stores a batch of blocks as one object, once, however often it is sent.
 *
 * The order is: the object's row (writing), the object, the blocks' rows with the object turned live. So a block row
 * names bytes that are durable, and a key in the bucket has a row for as long as its bytes may exist. On any error
 * everything is left as it is: a COMMIT of unknown outcome may have happened, and only the end of the lease decides.
 */
import assert from 'node:assert/strict';
import { createHash, type Hash, randomBytes } from 'node:crypto';
import { hashAt, hashCount, hashKeyAt, joinHashes, sha256 } from '../../../protocol/hashes.ts';
import { Problem } from '../../../protocol/problems.ts';
import {
  type Admission,
  type BlockPlaces,
  claimHeldBlocks,
  findStayingBlocks,
  insertAdmittedObject,
  insertWritingObject,
  recordObject,
} from '../../catalog/writing/blocks.ts';
import type { Storage } from '../../storage.ts';
import { encodeFooter } from './object-footer.ts';

export interface UploadResult {
  /** Blocks and bytes written now, and those the vault already had (or that came twice in the request). */
  stored: number;
  storedBytes: number;
  known: number;
  knownBytes: number;
  /** Until when all of them stay, referenced or not. */
  until: Date;
}

export interface UploadOptions {
  signal?: AbortSignal;
  /** Looks for quotas of the vault, when there is something to store; null: it has none now. */
  findAdmission?: () => Promise<Admission | null>;
}

/** As many times as an upload starts again under a new key when its lease lapsed meanwhile. */
const keysMax = 4;

/**
 * @param header hashes (n x 32 bytes) and lengths of the blocks, in the order of the body
 * @param body the blocks' bytes, exactly as many as the lengths say; its chunks are kept until the object is stored
 * @throws Problem block_corrupt naming the block whose bytes do not hash to its name: then nothing was stored;
 *   quota_exceeded: then nothing was but what takes no more room, blocks that were damaged
 */
export async function uploadBlocks(
  storage: Storage,
  vault: number,
  header: { blocks: Buffer; lengths: readonly number[] },
  body: AsyncIterable<Uint8Array>,
  options: UploadOptions = {},
): Promise<UploadResult> {
  const { kept, until } = await claimHeldBlocks(storage.database, vault, header.blocks, storage.settings.claimWindowMs);
  const wanted = firstOfEach(header.blocks, (index) => !kept.has(index));
  const bytes = await readBlocks(header, body, new Set(wanted));

  const places = layOut(header, wanted);
  const stored = await storeBlocks(storage, vault, places, bytes, options);
  const allBytes = header.lengths.reduce((sum, length) => sum + length, 0);
  const storedBytes = stored === 0 ? 0 : places.lengths.reduce((sum, length) => sum + length, 0);
  return { stored, storedBytes, known: header.lengths.length - stored, knownBytes: allBytes - storedBytes, until };
}

/**
 * One block whose bytes have arrived and were hashed: of those whose name is known only with their last byte. What the
 * vault holds is not written again.
 * @param block.chunks its bytes, kept until the object is stored
 * @throws Problem quota_exceeded
 */
export async function storeHashedBlock(
  storage: Storage,
  vault: number,
  block: { hash: Buffer; length: number; chunks: readonly Uint8Array[] },
  options: UploadOptions = {},
): Promise<UploadResult> {
  const { hash, length, chunks } = block;
  const { kept, until } = await claimHeldBlocks(storage.database, vault, hash, storage.settings.claimWindowMs);
  const places = { hashes: hash, offsets: [0], lengths: [length] };
  const stored = kept.size > 0 ? 0 : await storeBlocks(storage, vault, places, [[...chunks]], options);
  const storedBytes = stored * length;
  return { stored, storedBytes, known: 1 - stored, knownBytes: length - storedBytes, until };
}

/** Positions of the first occurrence of every distinct hash that passes. */
function firstOfEach(hashes: Buffer, passes: (index: number) => boolean): number[] {
  const seen = new Set<string>();
  const positions: number[] = [];
  for (let i = 0; i < hashCount(hashes); i++) {
    const key = hashKeyAt(hashes, i);
    if (seen.has(key)) continue;
    seen.add(key);
    if (passes(i)) positions.push(i);
  }
  return positions;
}

/** Reads the whole body, checks every block against its name, and keeps the bytes of the wanted ones, by block in order. */
async function readBlocks(
  header: { blocks: Buffer; lengths: readonly number[] },
  body: AsyncIterable<Uint8Array>,
  wanted: ReadonlySet<number>,
): Promise<Uint8Array[][]> {
  const keep: Uint8Array[][] = [];
  let pieces: Uint8Array[] = [];
  let block = 0;
  let left = header.lengths[0] ?? 0;
  let hash: Hash | null = null;
  for await (let chunk of body) {
    while (chunk.byteLength > 0) {
      assert(block < header.lengths.length, 'the body is longer than its lengths say');
      const piece = chunk.byteLength <= left ? chunk : chunk.subarray(0, left);
      const whole = hash === null && piece.byteLength === left;
      if (wanted.has(block)) pieces.push(piece);
      if (!whole) {
        hash ??= createHash('sha256');
        hash.update(piece);
      }
      left -= piece.byteLength;
      chunk = chunk.subarray(piece.byteLength);
      if (left > 0) continue;
      const digest = whole ? sha256(piece) : hash!.digest();
      if (!digest.equals(hashAt(header.blocks, block))) throw corrupt(block, hashAt(header.blocks, block));
      hash = null;
      if (wanted.has(block)) {
        keep.push(pieces);
        pieces = [];
      }
      block++;
      left = header.lengths[block] ?? 0;
    }
  }
  if (block < header.lengths.length)
    throw new Problem('malformed_request', `the body ends inside block ${block}`, { field: 'body' });
  return keep;
}

function corrupt(index: number, hash: Buffer): Problem {
  return new Problem(
    'block_corrupt',
    `block ${index} does not hash to ${hash.toString('hex')}; nothing of this upload was stored`,
    {
      field: `blocks.${index}`,
      index,
      hash: hash.toString('hex'),
    },
  );
}

function layOut(header: { blocks: Buffer; lengths: readonly number[] }, wanted: readonly number[]): BlockPlaces {
  const lengths = wanted.map((i) => header.lengths[i]!);
  const offsets: number[] = [];
  let at = 0;
  for (const length of lengths) {
    offsets.push(at);
    at += length;
  }
  return { hashes: joinHashes(wanted.map((i) => hashAt(header.blocks, i))), offsets, lengths };
}

/**
 * A damaged block is taken whatever the quota says: it takes the place of bytes that are counted already. Where the upload
 * as a whole is refused, these alone are stored.
 * @returns how many of the blocks were new
 */
async function storeBlocks(
  storage: Storage,
  vault: number,
  places: BlockPlaces,
  bytes: readonly Uint8Array[][],
  options: UploadOptions,
): Promise<number> {
  if (bytes.length === 0) return 0;
  try {
    return await storeObject(storage, vault, places, bytes, options);
  } catch (error) {
    if (!(error instanceof Problem && error.code === 'quota_exceeded')) throw error;
    const staying = await stayingBlocks(storage, vault, places);
    const damaged = bytes.flatMap((_, i) => (staying.has(hashKeyAt(places.hashes, i)) ? [i] : []));
    if (damaged.length > 0) {
      const alone = layOut({ blocks: places.hashes, lengths: places.lengths }, damaged);
      const theirs = damaged.map((i) => bytes[i]!);
      await storeObject(storage, vault, alone, theirs, options);
    }
    throw error;
  }
}

/** @returns how many of the blocks were new */
async function storeObject(
  storage: Storage,
  vault: number,
  places: BlockPlaces,
  bytes: readonly Uint8Array[][],
  options: UploadOptions,
): Promise<number> {
  const { database, objects, settings } = storage;
  const footer = encodeFooter(places.hashes, places.lengths);
  const sizeBytes = places.lengths.reduce((sum, length) => sum + length, 0) + footer.byteLength;
  for (let attempt = 0; attempt < keysMax; attempt++) {
    const key = objectKey(storage.catalogId, vault, footer);
    const objectId = await enterObject(storage, vault, { key, sizeBytes, places }, options);
    await objects.put(
      key,
      { length: sizeBytes, chunks: [...bytes.flat(), footer] },
      options.signal ? { signal: options.signal } : {},
    );
    const stored = await database.transaction((tx) => recordObject(tx, { vault, objectId, key }, places, settings));
    if (stored !== null) return stored;
  }
  throw new Problem('unavailable', 'the upload took longer than its lease, again and again', { retryAfterSeconds: 30 });
}

/** Enters the object's row, and with it the bytes in flight. @throws Problem quota_exceeded: then there is no row */
async function enterObject(
  storage: Storage,
  vault: number,
  { key, sizeBytes, places }: { key: string; sizeBytes: number; places: BlockPlaces },
  { findAdmission }: UploadOptions,
): Promise<number> {
  const { database, settings, catalogId } = storage;
  const blockBytes = places.lengths.reduce((sum, length) => sum + length, 0);
  const object = { vault, key, sizeBytes, leaseMs: settings.uploadLeaseMs, catalogId, chargedBytes: blockBytes };
  const admit = (await findAdmission?.()) ?? null;
  if (admit === null) return insertWritingObject(database, object);
  const staying = await stayingBlocks(storage, vault, places);
  const isNew = (i: number): boolean => !staying.has(hashKeyAt(places.hashes, i));
  object.chargedBytes = places.lengths.reduce((sum, length, i) => (isNew(i) ? sum + length : sum), 0);
  return object.chargedBytes === 0
    ? insertWritingObject(database, object)
    : insertAdmittedObject(database, object, admit);
}

function stayingBlocks({ database, settings }: Storage, vault: number, { hashes }: BlockPlaces): Promise<Set<string>> {
  return findStayingBlocks(database, vault, hashes, settings.uploadLeaseMs);
}

/** Content-addressed, and never used twice: the generation is fresh for every attempt. */
export function objectKey(catalogId: string, vault: number, footer: Buffer): string {
  return `${catalogId}/blocks/${vault}/${sha256(footer).toString('hex')}.${randomBytes(8).toString('hex')}`;
}
