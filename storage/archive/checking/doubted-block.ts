/**
 * A reader got bytes for a block that are not its own, or none. The block is read once more, alone and whole, at the
 * place where its row says it lies: what was only a moment's trouble ends there, and what is wrong again is marked.
 *
 * The same holds as for verify: nothing is marked but after a complete read of its place, or after the store said
 * twice that the object is not there and showed the fence object; and nothing when a reader finds more than bit rot
 * explains, or more than it explains was marked in the vault within a day, until a person has looked: readers come again
 * and again, and each begins to count anew.
 */
import { sha256 } from '../../../protocol/hashes.ts';
import {
  countMarkedLately,
  type DoubtedPlace,
  findPlaceNow,
  markBlocksDamaged,
} from '../../catalog/checking/mark-damaged.ts';
import { ObjectNotFound, ObjectRangeInvalid } from '../../objects/object-store.ts';
import type { Storage } from '../../storage.ts';
import type { Fence } from './fence.ts';
import { isPlausible, mayGoOn, tellSuspicious } from './verify.ts';
import { isMissing } from './verify-object.ts';

/** What one reader has seen so far; the caller counts blocks, this counts what was found damaged. */
export interface ReaderSaw {
  blocks: number;
  damaged: number;
}

/** Marks of a day beyond these are not counted: no reader sees the hundredfold of blocks. */
const marksLookedAt = 100_000;

/** A store that answers "not there" for a block that compaction has just moved is asked at its new place. */
const looksMax = 3;

/**
 * @returns the block's bytes, when they are right after all; else null, and the block is marked, or was already, or the
 *   vault does not hold it, or too much looks damaged to believe it (then an alert says so)
 * @throws what the store or the database throws: that says nothing about the block
 */
export async function rereadDoubted(
  storage: Storage,
  fence: Pick<Fence, 'isOurBucket'>,
  vault: number,
  hash: Buffer,
  saw: ReaderSaw,
  options: { signal?: AbortSignal } = {},
): Promise<Buffer | null> {
  for (let look = 1; look <= looksMax; look++) {
    const place = await findPlaceNow(storage.database, vault, hash);
    if (!place) return null;
    const found = await readPlace(storage, place, options);
    if (found === 'gone' && !(await isMissing(storage, fence, vault, place))) continue;
    if (Buffer.isBuffer(found) && sha256(found).equals(hash)) return found;
    saw.damaged++;
    const marked = await countMarkedLately(storage.database, vault, marksLookedAt);
    const isBitRot = isPlausible(saw.damaged, saw.blocks) && isPlausible(marked + 1, saw.blocks);
    if (isBitRot || (await mayGoOn(storage, vault)))
      await storage.database.transaction((tx) => markBlocksDamaged(tx, vault, [place]));
    else await tellSuspicious(storage, vault, { damaged: saw.damaged, blocks: saw.blocks, objects: 0 });
    return null;
  }
  return null;
}

/** The bytes at a place; 'gone': there is no such object. Nothing when the object ends before: asked again, it still does. */
async function readPlace(
  { objects }: Storage,
  { key, offset, length }: DoubtedPlace,
  options: { signal?: AbortSignal },
): Promise<Buffer | 'gone' | null> {
  try {
    const content = await objects.get(key, { offset, length }, options);
    const pieces: Uint8Array[] = [];
    for await (const piece of content.stream) pieces.push(piece);
    return Buffer.concat(pieces);
  } catch (error) {
    if (error instanceof ObjectNotFound) return 'gone';
    if (!(error instanceof ObjectRangeInvalid)) throw error;
    const info = await objects.head(key);
    if (info && info.length >= offset + length) throw error;
    return info ? null : 'gone';
  }
}
