/**
 * Rewrites objects of which less than half is still in use (and those marked for it, however full): several at a time
 * become one new object, so that what is left of many becomes large again.
 *
 * Every block is hashed on the way: one whose bytes are not its own stays where it is and keeps its old object alive;
 * verify reads that object next, and judges whether it is damage or a store that lies. The old objects die in the
 * transaction that moves their last block; readers that looked up a block before look it up once more when its object is
 * gone.
 */
import { joinHashes, sha256 } from '../../../protocol/hashes.ts';
import { limits } from '../../../protocol/limits.ts';
import {
  blocksOfObjects,
  moveBlocks,
  type PlacedBlock,
  type SparseObject,
  sparseObjects,
  vaultsWithSparseObjects,
  verifyNext,
} from '../../catalog/deleting/compacting.ts';
import { insertWritingObject } from '../../catalog/writing/blocks.ts';
import type { Storage } from '../../storage.ts';
import { readPlaces } from '../reading/read-blocks.ts';
import { encodeFooter, footerBytes } from '../writing/object-footer.ts';
import { objectKey } from '../writing/upload.ts';

export type CompactResult = {
  objects: number;
  blocks: number;
  bytes: number;
  /** Blocks whose bytes were not theirs: verify looks into that. */
  damaged: number;
  /** Blocks whose object could not be read at their place: verify looks into that. */
  unread: number;
};

/** Objects looked at together. */
const pageObjects = 200;

/** Compacts everything that is sparse, in all vaults. */
export async function compactDue(
  storage: Storage,
  options: { signal?: AbortSignal; onProgress?: (soFar: CompactResult & { vaults: number }) => void } = {},
): Promise<CompactResult & { vaults: number }> {
  const sum = { vaults: 0, objects: 0, blocks: 0, bytes: 0, damaged: 0, unread: 0 };
  let failure: unknown;
  for (const vault of await vaultsWithSparseObjects(storage.database)) {
    sum.vaults++;
    for (let after = 0; ; ) {
      options.signal?.throwIfAborted();
      const page = await sparseObjects(storage.database, vault, after, pageObjects);
      if (page.length === 0) break;
      after = page.at(-1)!.objectId;
      for (const group of groupsThatFit(page)) {
        options.signal?.throwIfAborted();
        const done = await compactObjects(storage, vault, group, options).catch((error: unknown) => {
          failure ??= error; // one object that cannot be read keeps no other from being compacted
          return null;
        });
        options.signal?.throwIfAborted();
        if (!done) continue;
        sum.objects += done.objects;
        sum.blocks += done.blocks;
        sum.bytes += done.bytes;
        sum.damaged += done.damaged;
        sum.unread += done.unread;
        options.onProgress?.(sum);
      }
    }
  }
  if (failure) throw failure;
  return sum;
}

/** What one new object holds: as many bytes as an upload may. */
function groupsThatFit(objects: readonly SparseObject[]): SparseObject[][] {
  const groups: SparseObject[][] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const object of objects) {
    if (bytes + object.liveBytes > limits.uploadBytesMax) {
      groups.push([]);
      bytes = 0;
    }
    groups.at(-1)!.push(object);
    bytes += object.liveBytes;
  }
  return groups;
}

/** Several objects of one vault into one. Holds their blocks in memory: at most `uploadBytesMax`, or one large block. */
export async function compactObjects(
  storage: Storage,
  vault: number,
  objects: readonly SparseObject[],
  options: { signal?: AbortSignal } = {},
): Promise<CompactResult> {
  const result: CompactResult = { objects: 0, blocks: 0, bytes: 0, damaged: 0, unread: 0 };
  const keys = new Map(objects.map((object) => [object.objectId, object.key]));
  const found = await blocksOfObjects(storage.database, vault, [...keys.keys()]);
  const blocks = found.slice(0, limits.uploadBlocksMax);
  if (!isWorthWriting(blocks, objects)) return result;
  const read = await readWhole(storage, blocks, keys, options);
  const bad = blocks.filter((block, i) => read[i] && !isItself(block, read[i]));
  const good = blocks.flatMap((block, i) => (read[i] && isItself(block, read[i]) ? [{ block, bytes: read[i] }] : []));
  result.damaged = bad.length;
  result.unread = read.filter((bytes) => bytes === null).length;
  if (bad.length > 0) await verifyNext(storage.database, vault, [...new Set(bad.map((block) => block.objectId))]);
  if (good.length === 0) return result;

  const hashes = joinHashes(good.map(({ block }) => block.hash));
  const footer = encodeFooter(
    hashes,
    good.map(({ block }) => block.length),
  );
  let at = 0;
  const moves = good.map(({ block }) => {
    const move = { objectId: block.objectId, oldOffset: block.offset, newOffset: at };
    at += block.length;
    return move;
  });
  const sizeBytes = at + footer.byteLength;
  const key = objectKey(storage.catalogId, vault, footer);
  const leaseMs = storage.settings.uploadLeaseMs;
  const objectId = await insertWritingObject(storage.database, {
    vault,
    key,
    sizeBytes,
    leaseMs,
    catalogId: storage.catalogId,
  });
  const chunks = [...good.flatMap(({ bytes }) => bytes), footer];
  await storage.objects.put(key, { length: sizeBytes, chunks }, options);
  const moved = await storage.database.transaction((tx) =>
    moveBlocks(tx, { vault, objectId, key }, hashes, moves, storage.settings),
  );
  return { ...result, objects: objects.length, blocks: moved ?? 0, bytes: moved === null ? 0 : at };
}

/** Of very small blocks the footer is most of an object, and no rewriting makes it denser. */
function isWorthWriting(blocks: readonly PlacedBlock[], objects: readonly SparseObject[]): boolean {
  const sizeBytes = blocks.reduce((sum, block) => sum + block.length, footerBytes(blocks.length));
  const oldBytes = objects.reduce((sum, object) => sum + object.sizeBytes, 0);
  return sizeBytes <= 0.75 * oldBytes || objects.some((object) => object.rewrite);
}

async function readWhole(
  storage: Storage,
  blocks: readonly PlacedBlock[],
  keys: ReadonlyMap<number, string>,
  options: { signal?: AbortSignal },
): Promise<(readonly Uint8Array[] | null)[]> {
  const places = blocks.map((block, index) => ({
    index,
    key: keys.get(block.objectId)!,
    offset: block.offset,
    length: block.length,
  }));
  const read = new Array<readonly Uint8Array[] | null>(blocks.length).fill(null);
  for await (const { index, bytes } of readPlaces(storage, places, [], options)) read[index] = bytes;
  return read;
}

function isItself(block: PlacedBlock, bytes: readonly Uint8Array[]): boolean {
  return sha256(Buffer.concat(bytes)).equals(block.hash);
}
