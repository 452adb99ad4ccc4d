/**
 * From a damaged block to what a person and an agent can do about it. An agent is told the paths whose latest version
 * needs the block: it reads those files again, claims, is asked for the block, and sends it. What no agent can heal (the
 * file has changed since, or is gone) is for the administrator: which files, which of their moments, and which are whole.
 */
import { joinPath } from '../../../protocol/paths.ts';
import { closeAlertsOf, raiseAlert } from '../../catalog/checking/alerts.ts';
import {
  countDamage,
  type DamageCount,
  damagedFiles,
  damagedLists,
  filesDamagedNow,
  forgetHealed,
  healWholeLists,
  type Moment,
  markListsDamaged,
  readMoments,
  searchLists,
  searchVersions,
  setSearched,
  unsearchedDamage,
  type VersionKey,
  vaultsWithDamage,
} from '../../catalog/checking/damage.ts';
import { readPathNames } from '../../catalog/deleting/deleting.ts';
import { archivesOfVault } from '../../catalog/reading/histories.ts';
import type { ArchiveRef, Storage } from '../../storage.ts';

/** Lists looked through in one statement: 32 x 4,096 look-ups of a block. */
const listsPage = 32;
/** Versions looked through in one statement: at most so many, and so many bytes of hashes, a look-up for each 32. */
const versionsPage = { versionsMax: 1_000, hashBytesMax: 1024 * 1024 };
const damagePage = 1_000;

/** Damaged files of one archive that an agent is told in one go. When it has healed them, it is told of the next. */
const pathsToHealMax = 10_000;
/** Newest versions of a file that are described. */
const momentsMax = 1_000;

/**
 * After blocks were marked: drops what has healed, marks lists that name damaged blocks, finds the versions that name
 * either, and raises or closes the alert of each vault. Interrupted, it starts that vault again.
 */
export async function findDamageUsers(
  storage: Storage,
  { signal }: { signal?: AbortSignal } = {},
): Promise<{ vaults: number; lists: number; healed: number; pages: number }> {
  const total = { vaults: 0, lists: 0, healed: 0, pages: 0 };
  for (const vault of await vaultsWithDamage(storage.database)) {
    if (signal?.aborted) break;
    total.vaults++;
    total.healed += await forgetWhatHealed(storage, vault);
    total.lists += await markListsOfVault(storage, vault, signal);
    total.pages += await searchVault(storage, vault, signal);
    await tell(storage, vault);
  }
  return total;
}

async function forgetWhatHealed({ database }: Storage, vault: number): Promise<number> {
  let forgotten = 0;
  for (let after: Buffer | null = Buffer.alloc(0); after; ) {
    const page: { after: Buffer; limit: number } = { after, limit: damagePage };
    const lists = await damagedLists(database, vault, page);
    if (lists.byteLength > 0) await database.transaction((tx) => healWholeLists(tx, vault, lists));
    const done = await database.transaction((tx) => forgetHealed(tx, vault, page));
    forgotten += done.forgotten;
    after = done.last;
  }
  return forgotten;
}

/** Only when something is new: a list that is entered later names undamaged blocks only. */
async function markListsOfVault({ database }: Storage, vault: number, signal?: AbortSignal): Promise<number> {
  let marked = 0;
  if ((await unsearchedDamage(database, vault, 1)).byteLength === 0) return marked;
  for (let after: Buffer = Buffer.alloc(0); !signal?.aborted; ) {
    const page = await searchLists(database, vault, { after, limit: listsPage });
    if (!page) break;
    marked += await database.transaction((tx) => markListsDamaged(tx, vault, page.naming));
    after = page.last;
  }
  return marked;
}

/** Blocks and lists are both marked by now, so no version that names one can be committed while this looks. */
async function searchVault({ database }: Storage, vault: number, signal?: AbortSignal): Promise<number> {
  let pages = 0;
  const hashes = await unsearchedDamage(database, vault, 100_000);
  if (hashes.byteLength === 0) return pages;
  for (const ref of await archivesOfVault(database, vault)) {
    for (let after: VersionKey | null = { fileId: 0, seq: 0 }; after; pages++) {
      if (signal?.aborted) return pages;
      after = await searchVersions(database, ref, { after, ...versionsPage });
    }
  }
  await setSearched(database, vault, hashes);
  return pages;
}

async function tell({ database }: Storage, vault: number): Promise<void> {
  const { blocks, unsearched, oldestFoundAt } = await countDamage(database, vault);
  if (blocks > 0) await raiseAlert(database, { vault, kind: 'damaged', details: { blocks, oldestFoundAt } });
  else if (unsearched === 0)
    await closeAlertsOf(database, { vault, kind: 'damaged' }, 'all damaged blocks were sent again');
}

/**
 * Paths of files that exist and whose latest version names damaged blocks, also through lists, in byte order.
 * @param page.after paths up to this one are left out
 */
export async function listDamagedPaths(
  storage: Storage,
  ref: ArchiveRef,
  page: { after: Uint8Array; limit: number },
): Promise<{ paths: Buffer[]; more: boolean }> {
  const files = await filesDamagedNow(storage.database, ref, pathsToHealMax);
  if (files.length === 0) return { paths: [], more: false };
  const names = await readPathNames(storage.database, ref, files);
  const paths = [...names.values()]
    .map(joinPath)
    .filter((path) => path.compare(page.after) > 0)
    .sort(Buffer.compare);
  return { paths: paths.slice(0, page.limit), more: paths.length > page.limit };
}

/** Whether an agent can heal something of this archive: `damaged` in the answer to the start of a run. */
export async function hasDamagedPaths(storage: Storage, ref: ArchiveRef): Promise<boolean> {
  return (await filesDamagedNow(storage.database, ref, 1)).length > 0;
}

export interface DamagedFile {
  archive: number;
  fileId: number;
  path: Buffer;
  /** Its newest versions, at most 1,000, newest first: which can be restored, and which cannot. */
  moments: Moment[];
  /** The next backup of the file heals it, if the file has not changed since. */
  latestDamaged: boolean;
}

export interface DamageReport extends DamageCount {
  files: DamagedFile[];
  /** Where the next page begins; null: there is none. */
  next: { archive: number; fileId: number } | null;
}

/** For the administrator: a page of the files that damaged blocks touch, with their moments. */
export async function describeDamage(
  storage: Storage,
  vault: number,
  page: { after?: { archive: number; fileId: number }; limit: number },
): Promise<DamageReport> {
  const { database } = storage;
  const after = page.after ?? { archive: 0, fileId: 0 };
  const files: DamagedFile[] = [];
  let left = page.limit;
  let next: DamageReport['next'] = null;
  for (const ref of await archivesOfVault(database, vault)) {
    if (ref.archive < after.archive || left === 0) continue;
    const from = ref.archive === after.archive ? after.fileId : 0;
    const ids = await damagedFiles(database, ref, { after: from, limit: left });
    left -= ids.length;
    next = { archive: ref.archive, fileId: ids.at(-1) ?? from };
    const names = await readPathNames(database, ref, ids);
    for (const fileId of ids) {
      const moments = await readMoments(database, ref, fileId, momentsMax);
      if (!moments.some((moment) => moment.damaged)) continue; // healed, or pruned
      const path = joinPath(names.get(fileId) ?? []);
      files.push({ archive: ref.archive, fileId, path, moments, latestDamaged: moments[0]!.damaged });
    }
  }
  return { ...(await countDamage(database, vault)), files, next: left === 0 ? next : null };
}
