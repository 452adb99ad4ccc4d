/**
 * Holds the bucket against the rows, both ways, vault by vault.
 *
 * A key without a row never gets one: a row is there before the first byte of its object, and leaves after the last. So
 * the bucket is listed first and the catalog asked afterwards, and what it does not know is deleted at once, under the
 * fence; no margin of time, no clock. The other way round a live row whose key was not listed is looked for by name
 * before its blocks are called damaged.
 */
import { findObjectKeys, liveObjectsBetween, readNow, vaultsAfter } from '../../catalog/checking/checking.ts';
import { readFence } from '../../catalog/checking/fence.ts';
import { markBlocksDamaged } from '../../catalog/checking/mark-damaged.ts';
import { blocksOfObjects } from '../../catalog/deleting/compacting.ts';
import type { Storage } from '../../storage.ts';
import { deleteKeys } from '../deleting/delete-objects.ts';
import { findDamageUsers } from './damage.ts';
import type { Fence } from './fence.ts';
import { isPlausible, mayGoOn, tellSuspicious } from './verify.ts';
import { isMissing } from './verify-object.ts';

export interface CompareOptions {
  signal?: AbortSignal;
  /** Told after each vault how far it has come. */
  onProgress?: (soFar: CompareResult) => void;
  /** Keys in one page of the listing. Default 1,000, as many as S3 gives. */
  pageMax?: number;
}

export type CompareResult = {
  /** Objects in the bucket under this catalog's prefix. */
  listed: number;
  /** Of those, deleted because no row knows them. */
  orphansDeleted: number;
  /** Of those, not named as an object of ours is: left alone. */
  strange: number;
  /** Live rows without an object. */
  missing: number;
  /** Blocks marked damaged because their object is missing. */
  markedDamaged: number;
  /** Vaults of which too much is missing to mark it before somebody has looked. */
  stopped: number;
};

const vaultsPage = 100;
const rowsPage = 1_000;
/** Missing objects of a vault that one comparison looks for by name; the next finds the others. */
const missingMax = 1_000;

/**
 * @throws DeletingStopped when there is an orphan and the fence does not hold
 */
export async function compareBucket(
  storage: Storage,
  fence: Fence,
  { signal, onProgress, pageMax = 1_000 }: CompareOptions = {},
): Promise<CompareResult> {
  const total = { listed: 0, orphansDeleted: 0, strange: 0, missing: 0, markedDamaged: 0, stopped: 0 };
  const known = new Set<number>();
  const compare = async (vault: number): Promise<void> => {
    const done = await compareVault(storage, fence, vault, { pageMax, ...(signal && { signal }) });
    for (const key of Object.keys(total) as (keyof CompareResult)[]) total[key] += done[key];
    onProgress?.(total);
  };
  for (let after = 0; ; ) {
    const page = await vaultsAfter(storage.database, after, vaultsPage);
    for (const vault of page) {
      if (signal?.aborted) return total;
      known.add(vault);
      await compare(vault);
    }
    if (page.length < vaultsPage) break;
    after = page.at(-1)!;
  }
  for await (const vault of vaultsInBucket(storage, known)) {
    if (signal?.aborted) return total;
    await compare(vault);
  }
  if (total.markedDamaged > 0) await findDamageUsers(storage, signal ? { signal } : {});
  return total;
}

const blocksPrefix = (catalogId: string): string => `${catalogId}/blocks/`;

/** The vault of an object's key, or null when it is not named as an object of ours is. */
export function vaultOfKey(catalogId: string, key: string): number | null {
  const rest = key.startsWith(blocksPrefix(catalogId)) ? key.slice(blocksPrefix(catalogId).length) : '';
  const found = /^([1-9][0-9]{0,15})\/[0-9a-f]{64}\.[0-9a-f]{16}$/.exec(rest);
  return found ? Number(found[1]) : null;
}

/** The vaults there are objects of, apart from those given: one request each, which skips the rest of its objects. */
export async function* vaultsInBucket(
  { objects, catalogId }: Storage,
  except: ReadonlySet<number>,
): AsyncGenerator<number> {
  const prefix = blocksPrefix(catalogId);
  for (let after = prefix; ; ) {
    const { objects: page } = await objects.list(prefix, { after, limit: 1 });
    const first = page[0];
    if (!first) return;
    const vault = vaultOfKey(catalogId, first.key);
    if (vault !== null && !except.has(vault)) yield vault;
    // 'z' comes after every digit of an object's name, so the next key is another vault's.
    const endOfVault = vault === null ? '' : `${prefix}${vault}/z`;
    after = first.key > endOfVault ? first.key : endOfVault;
  }
}

async function compareVault(
  storage: Storage,
  fence: Fence,
  vault: number,
  { signal, pageMax }: { signal?: AbortSignal; pageMax: number },
): Promise<CompareResult> {
  const result = { listed: 0, orphansDeleted: 0, strange: 0, missing: 0, markedDamaged: 0, stopped: 0 };
  const prefix = `${blocksPrefix(storage.catalogId)}${vault}/`;
  const gone: { objectId: number; key: string }[] = [];
  for (let after = prefix; !signal?.aborted; ) {
    const listedSince = await readNow(storage.database);
    const page = await storage.objects.list(prefix, { after, limit: pageMax });
    const listed = page.objects.map((object) => object.key);
    // In a later statement than the listing: what was listed and is not known now never will be.
    const known = await findObjectKeys(storage.database, vault, listed);
    const unknown = listed.filter((key) => !known.has(key));
    const orphans = unknown.filter((key) => vaultOfKey(storage.catalogId, key) === vault);
    result.listed += listed.length;
    result.strange += unknown.length - orphans.length;
    result.orphansDeleted += await deleteOrphans(storage, fence, vault, orphans);

    if (page.more && listed.length === 0) throw new Error('the store lists nothing and says that there is more');
    const upTo = page.more ? listed.at(-1)! : `${prefix}z`;
    const range = { after, upTo, liveBefore: listedSince, listed: new Set(listed), limit: missingMax - gone.length };
    gone.push(...(await missingBetween(storage, fence, vault, range)));
    if (!page.more) break;
    after = upTo;
  }
  result.missing = gone.length;
  const marked = await markMissing(storage, vault, gone, result.listed + gone.length);
  return marked === null ? { ...result, stopped: 1 } : { ...result, markedDamaged: marked };
}

/**
 * Deletes what no row knows. Asked once more, in a transaction that shows which state of the catalog answers: after a
 * failover an older one may have been asked the first time, which does not know what is newer. @throws DeletingStopped
 */
async function deleteOrphans(storage: Storage, fence: Fence, vault: number, keys: readonly string[]): Promise<number> {
  if (keys.length === 0) return 0;
  await fence.assertHeld();
  const known = await storage.database.transaction(async (tx) => {
    fence.assertStillHeld(await readFence(tx));
    return findObjectKeys(tx, vault, keys);
  });
  const orphans = keys.filter((key) => !known.has(key));
  return (await deleteKeys(storage, orphans)).size;
}

/** Live objects of a range of keys that were not listed, and are not found by name either. */
async function missingBetween(
  storage: Storage,
  fence: Fence,
  vault: number,
  range: { after: string; upTo: string; liveBefore: Date; listed: ReadonlySet<string>; limit: number },
): Promise<{ objectId: number; key: string }[]> {
  const gone: { objectId: number; key: string }[] = [];
  const { upTo, liveBefore } = range;
  for (let after = range.after; gone.length < range.limit; ) {
    const page = { after, upTo, liveBefore, limit: rowsPage };
    const rows = await liveObjectsBetween(storage.database, vault, page);
    for (const row of rows) {
      if (gone.length >= range.limit) break;
      if (!range.listed.has(row.key) && (await isMissing(storage, fence, vault, row))) gone.push(row);
    }
    if (rows.length < rowsPage) break;
    after = rows.at(-1)!.key;
  }
  return gone;
}

/** @returns blocks marked; null when so much is missing that a person has to look first */
async function markMissing(
  storage: Storage,
  vault: number,
  gone: readonly { objectId: number }[],
  objects: number,
): Promise<number | null> {
  if (!isPlausible(gone.length, objects) && !(await mayGoOn(storage, vault))) {
    await tellSuspicious(storage, vault, { missingObjects: gone.length, objects });
    return null;
  }
  let marked = 0;
  for (const { objectId } of gone) {
    const blocks = await blocksOfObjects(storage.database, vault, [objectId]);
    marked += (await storage.database.transaction((tx) => markBlocksDamaged(tx, vault, blocks))).length;
  }
  return marked;
}
