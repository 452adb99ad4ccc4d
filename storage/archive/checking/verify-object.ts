/** One object, read whole and held against the rows of its blocks. Streams: memory is a few pieces of the store's. */
import { createHash, type Hash } from 'node:crypto';
import { sha256 } from '../../../protocol/hashes.ts';
import { limits } from '../../../protocol/limits.ts';
import { isObjectLive, type ObjectToRead } from '../../catalog/checking/checking.ts';
import { allBlocksOfObject, blocksOfObjects, type PlacedBlock } from '../../catalog/deleting/compacting.ts';
import { ObjectNotFound } from '../../objects/object-store.ts';
import type { Storage } from '../../storage.ts';
import { footerLength } from '../writing/object-footer.ts';
import type { BytePace } from './byte-pace.ts';
import type { Fence } from './fence.ts';

export interface Finding {
  /** Blocks looked at. */
  blocks: number;
  /** Bytes read. */
  bytes: number;
  /** Blocks whose bytes, at the place of their row, are not theirs. */
  bad: PlacedBlock[];
  /** Blocks that are marked damaged, and whose bytes are theirs all the same: the store lied when they were marked. */
  well: PlacedBlock[];
  /** What the object says of itself, for a rebuild, is damaged. */
  footerDamaged: boolean;
}

const nothing: Finding = { blocks: 0, bytes: 0, bad: [], well: [], footerDamaged: false };
const footerBytesMax = limits.uploadBlocksMax * 36 + 8;

/**
 * Reads an object and hashes each of its blocks.
 * @returns null when it could not be read whole: that says nothing about its blocks
 */
export async function readWholeObject(
  storage: Storage,
  fence: Pick<Fence, 'isOurBucket'>,
  vault: number,
  object: ObjectToRead,
  pace: BytePace,
  signal?: AbortSignal,
): Promise<Finding | null> {
  const blocks = await allBlocksOfObject(storage.database, vault, object.objectId);
  const places = new PlaceHasher(blocks);
  const tail: Uint8Array[] = [];
  try {
    const content = await storage.objects.get(object.key, undefined, signal ? { signal } : {});
    for await (const piece of content.stream) {
      places.update(piece);
      if (places.bytes > object.sizeBytes - footerBytesMax) tail.push(piece);
      await pace.spent(piece.byteLength, signal);
    }
    if (places.bytes !== content.length) return null;
    // Shorter than it was stored: it is so only if the store, asked again, says the same.
    if (places.bytes !== object.sizeBytes && (await storage.objects.head(object.key))?.length !== places.bytes)
      return null;
  } catch (error) {
    if (!(error instanceof ObjectNotFound)) return null;
    if (!(await isObjectLive(storage.database, vault, object.objectId))) return nothing; // it died meanwhile
    const isGone = await isMissing(storage, fence, vault, object).catch(() => false);
    return isGone ? { ...nothing, ...(await blocksOfMissing(storage, vault, object)) } : null;
  }
  const footerDamaged = !isFooterOf(object.key, Buffer.concat(tail));
  const wrong = new Set<PlacedBlock>(places.finish());
  return {
    blocks: blocks.length,
    bytes: places.bytes,
    bad: blocks.filter((block) => !block.damaged && wrong.has(block)),
    well: blocks.filter((block) => block.damaged && !wrong.has(block)),
    footerDamaged,
  };
}

/**
 * Whether an object that should be there is not: its row is still live, the store says so twice more, and shows the
 * fence object. An object that died since is just gone, and one in another bucket was never looked for in the right one.
 */
export async function isMissing(
  storage: Storage,
  fence: Pick<Fence, 'isOurBucket'>,
  vault: number,
  object: { objectId: number; key: string },
): Promise<boolean> {
  if (!(await isObjectLive(storage.database, vault, object.objectId))) return false;
  for (let look = 0; look < 2; look++) if (await storage.objects.head(object.key)) return false;
  return fence.isOurBucket();
}

async function blocksOfMissing(
  storage: Storage,
  vault: number,
  object: { objectId: number },
): Promise<Pick<Finding, 'blocks' | 'bad'>> {
  const bad = await blocksOfObjects(storage.database, vault, [object.objectId]);
  return { blocks: bad.length, bad };
}

/** The name of an object is the digest of its footer. */
function isFooterOf(key: string, tail: Buffer): boolean {
  try {
    const footer = tail.subarray(tail.byteLength - footerLength(tail.subarray(-8)));
    return key.includes(`/${sha256(footer).toString('hex')}.`);
  } catch {
    return false; // it ends in something else
  }
}

/** Hashes places of a stream of bytes as they come by. Places may touch or even overlap: rows are not trusted. */
export class PlaceHasher {
  /** Bytes that came by. */
  bytes = 0;
  private readonly waiting: PlacedBlock[];
  private active: { block: PlacedBlock; hash: Hash }[] = [];
  private next = 0;
  private readonly bad: PlacedBlock[] = [];

  constructor(blocks: readonly PlacedBlock[]) {
    this.waiting = [...blocks].sort((a, b) => a.offset - b.offset);
  }

  update(piece: Uint8Array): void {
    const start = this.bytes;
    const end = start + piece.byteLength;
    for (; this.next < this.waiting.length && this.waiting[this.next]!.offset < end; this.next++)
      this.active.push({ block: this.waiting[this.next]!, hash: createHash('sha256') });
    this.active = this.active.filter(({ block, hash }) => {
      const blockEnd = block.offset + block.length;
      hash.update(piece.subarray(Math.max(block.offset - start, 0), Math.min(blockEnd, end) - start));
      if (blockEnd > end) return true;
      if (!hash.digest().equals(block.hash)) this.bad.push(block);
      return false;
    });
    this.bytes = end;
  }

  /** Blocks whose bytes were not theirs, or did not all come. */
  finish(): PlacedBlock[] {
    return [...this.bad, ...this.active.map(({ block }) => block), ...this.waiting.slice(this.next)];
  }
}
