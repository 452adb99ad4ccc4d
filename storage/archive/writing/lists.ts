/**
 * Lists: claimed, stored and given back. A list is stored only when the vault holds every block it names, and from then
 * on it keeps them: so a file that takes days to send anchors what it has sent, a list at a time, with a thousandth of
 * the names to claim. Stored again, it changes nothing but its claim.
 */
import { bitmapOf, hashAt, hashCount, hashKey, joinHashes, sha256 } from '../../../protocol/hashes.ts';
import { limits } from '../../../protocol/limits.ts';
import { Problem } from '../../../protocol/problems.ts';
import type { Transaction } from '../../catalog/database.ts';
import { addRefs } from '../../catalog/refs.ts';
import { addUsage } from '../../catalog/usage.ts';
import { findMissingBlocks } from '../../catalog/writing/commits.ts';
import {
  claimHeldLists,
  findLists,
  healLists,
  insertFreedLists,
  insertLists,
  type NewList,
} from '../../catalog/writing/lists.ts';
import type { Storage } from '../../storage.ts';
import { countRefs, toRefCounts } from './count-refs.ts';

/**
 * @param hashes n x 32 bytes; repeats are allowed
 * @returns a bit per list, 1 = send it (absent, or one of its blocks is damaged), and the moment until which the others stay
 */
export async function claimLists(
  storage: Storage,
  vault: number,
  hashes: Buffer,
): Promise<{ send: Buffer; until: Date }> {
  const { kept, until } = await claimHeldLists(storage.database, vault, hashes, storage.settings.claimWindowMs);
  return { send: bitmapOf(hashCount(hashes), (index) => !kept.has(index)), until };
}

export interface StoredLists {
  /** Lists that are new; the vault had the others, or they came twice. */
  stored: number;
  /** Until when all of them stay, referenced or not. */
  until: Date;
}

/**
 * Stores lists whose blocks the vault holds. Several transactions, each of a few lists: what one has stored stays when
 * a later one is refused.
 * @param lists at most `listBlocksMax` hashes each; repeats are allowed
 * @throws Problem list_corrupt { index, hash }; blocks_missing { missing: hex[] }, naming blocks to send first
 */
export async function storeLists(storage: Storage, vault: number, lists: readonly NewList[]): Promise<StoredLists> {
  lists.forEach(refuseCorrupt);
  const names = joinHashes(lists.map((list) => list.hash));
  const { kept, until } = await claimHeldLists(storage.database, vault, names, storage.settings.claimWindowMs);
  const wanted = new Map<string, NewList>();
  for (const [index, list] of lists.entries()) if (!kept.has(index)) wanted.set(hashKey(list.hash), list);

  let stored = 0;
  for (const batch of batchesOf([...wanted.values()])) stored += await storeBatch(storage, vault, batch);
  return { stored, until };
}

function refuseCorrupt({ hash, blocks }: NewList, index: number): void {
  const field = `lists.${index}`;
  const count = hashCount(blocks);
  if (!Number.isInteger(count) || count < 1 || count > limits.listBlocksMax)
    throw new Problem('out_of_bounds', `list ${index} holds ${count} hashes, 1 to ${limits.listBlocksMax}`, { field });
  if (sha256(blocks).equals(hash)) return;
  const name = hash.toString('hex');
  throw new Problem('list_corrupt', `list ${index} does not hash to ${name}`, { field, index, hash: name });
}

/** In the order of hashes; together a batch names at most as many blocks as a commit may, because it locks them. */
function batchesOf(lists: readonly NewList[]): NewList[][] {
  const batches: NewList[][] = [];
  let room = 0;
  for (const list of lists.toSorted((a, b) => Buffer.compare(a.hash, b.hash))) {
    const count = hashCount(list.blocks);
    if (count > room) {
      batches.push([]);
      room = limits.commitHashesMax;
    }
    batches.at(-1)!.push(list);
    room -= count;
  }
  return batches;
}

/** Rolls the transaction back; which blocks are missing is asked afterwards. */
class BlocksMissing extends Error {}

/** @returns how many of the lists are new */
async function storeBatch(storage: Storage, vault: number, lists: readonly NewList[]): Promise<number> {
  const { database, settings } = storage;
  try {
    return await database.transaction((tx) => enterLists(tx, vault, lists, settings.claimWindowMs));
  } catch (error) {
    if (!(error instanceof BlocksMissing)) throw error;
  }
  const named = toRefCounts(countRefs(lists.map((list) => list.blocks)));
  const missing = await findMissingBlocks(database, vault, named.hashes);
  // Somebody may have sent them between the two looks. Then the same lists, sent again, find them.
  if (missing.length === 0)
    throw new Problem('unavailable', 'a block arrived only just now; send these lists again', { retryAfterSeconds: 1 });
  throw new Problem(
    'blocks_missing',
    `${missing.length} of the blocks that lists name are not stored; send them first`,
    {
      field: 'lists',
      missing: missing.map((i) => hashAt(named.hashes, i).toString('hex')),
    },
  );
}

async function enterLists(
  tx: Transaction,
  vault: number,
  lists: readonly NewList[],
  claimWindowMs: number,
): Promise<number> {
  const { fresh, damaged } = await insertLists(tx, vault, lists, claimWindowMs);
  const counts = countRefs(lists.filter((list) => fresh.has(hashKey(list.hash))).map((list) => list.blocks));
  // A damaged list counts on its blocks already. They are locked with the others, to see that they are well again.
  const ill = lists.filter((list) => damaged.has(hashKey(list.hash)));
  for (const key of countRefs(ill.map((list) => list.blocks)).keys()) if (!counts.has(key)) counts.set(key, 0);
  const referenced = await addRefs(tx, vault, toRefCounts(counts));
  if (referenced === null) throw new BlocksMissing();
  if (ill.length > 0) await healLists(tx, vault, joinHashes(ill.map((list) => list.hash)));
  if (fresh.size === 0) return 0;
  const names = lists.filter((list) => fresh.has(hashKey(list.hash))).map((list) => list.hash);
  await insertFreedLists(tx, vault, joinHashes(names));
  await addUsage(tx, vault, { referencedBytes: referenced.bytes });
  return fresh.size;
}

/** Lists read in one statement: up to 1 MiB, and as much again on its way from the database. */
const listsAtOnce = 8;

/**
 * Lists back, in the order asked, a few at a time. A damaged list is given too: its hashes are right, and of its blocks
 * most are.
 * @param hashes n x 32 bytes; repeats are allowed
 * @returns the bytes of each list, or null for one the vault does not hold
 */
export async function* readLists(
  storage: Storage,
  vault: number,
  hashes: Buffer,
): AsyncGenerator<{ index: number; bytes: readonly Uint8Array[] | null }> {
  for (let first = 0; first < hashCount(hashes); first += listsAtOnce) {
    const asked = hashes.subarray(first * limits.hashBytes, (first + listsAtOnce) * limits.hashBytes);
    const found = await findLists(storage.database, vault, asked);
    for (let i = 0; i < hashCount(asked); i++) {
      const blocks = found.get(hashKey(hashAt(asked, i)));
      yield { index: first + i, bytes: blocks ? [blocks] : null };
    }
  }
}
