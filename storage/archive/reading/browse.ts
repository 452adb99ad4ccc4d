/**
 * Reads an archive for people who look around in it: a page of a folder, and the versions of a file, as of a moment that is
 * named by its seq, so that pages that follow show the same while backups commit.
 *
 * Nothing is leased, for somebody who looks around would hold moments for hours, and commits wait for whoever takes one.
 * So what retention takes away in between is missing from a page, or the version before shows in its place; each
 * answer says when versions were last deleted (`prunedAt`), and a restore takes a lease and counts for itself.
 */
import { limits } from '../../../protocol/limits.ts';
import { splitPath } from '../../../protocol/paths.ts';
import { Problem } from '../../../protocol/problems.ts';
import {
  type ChildRow,
  findMoment,
  followPath,
  isVisible,
  listFolders,
  listHistory,
  type VersionRow,
} from '../../catalog/reading/reading.ts';
import { findArchiveToBrowse, findShown, noFilters, type Shown } from '../../catalog/reading/search.ts';
import type { ArchiveRef, Storage } from '../../storage.ts';
import { assertShown } from './shown-archive.ts';

/** At most one of the two; neither: now. */
export interface MomentAsked {
  at: Date | null;
  seq: number | null;
}

export interface BrowsedMoment {
  seq: number;
  prunedAt: Date | null;
  lastFileId: number;
}

/** @throws Problem not_found; conflict when it has expired; out_of_bounds for a seq that was not given out yet */
export async function chooseMoment(
  { database }: Storage,
  ref: ArchiveRef,
  { at, seq }: MomentAsked,
): Promise<BrowsedMoment> {
  await assertShown(database, ref);
  const archive = await findArchiveToBrowse(database, ref);
  if (!archive) throw new Problem('not_found', 'there is no such archive');
  const { newestSeq, prunedAt, lastFileId } = archive;
  if (seq !== null && seq > newestSeq)
    throw new Problem('out_of_bounds', `the archive's newest seq is ${newestSeq}`, { field: 'seq', newest: newestSeq });
  const then = seq === null && at ? ((await findMoment(database, ref, at))?.seq ?? 0) : newestSeq;
  // What was committed since the archive was looked at is of no file that is known here.
  return { seq: seq ?? Math.min(then, newestSeq), prunedAt, lastFileId };
}

export interface BrowseQuery {
  path: Buffer;
  moment: MomentAsked;
  deleted: boolean;
  /** The last name that was looked at for the page before; null: the first page. */
  after: Buffer | null;
  limit: number;
}

export interface BrowsedEntry extends Shown {
  name: Buffer;
}

export interface BrowsedPage {
  seq: number;
  prunedAt: Date | null;
  entries: BrowsedEntry[];
  /** The name to go on behind; null: that was all. */
  next: Buffer | null;
}

/**
 * Names looked at for a page, visible or not. In a folder of which most was deleted a page may come short, or empty, and
 * still have one behind it: so the first one comes in time, whatever there is to be passed over.
 */
const namesPerPageMax = 10_000;

/**
 * One page of a folder, in byte order of names.
 * @throws Problem not_found, out_of_bounds
 */
export async function browseFolder(storage: Storage, ref: ArchiveRef, query: BrowseQuery): Promise<BrowsedPage> {
  const { seq, prunedAt } = await chooseMoment(storage, ref, query.moment);
  const folder = (await idsAlong(storage, ref, query.path)).at(-1) ?? 0;
  const children: ChildRow[] = [];
  let next = query.after;
  let looked = 0;
  // One name more than the page holds says whether there is another.
  for (let limit = query.limit + 1, more = true; more && children.length <= query.limit; ) {
    const page = { seq, after: next ?? Buffer.alloc(0), limit };
    const [rows] = await listFolders(storage.database, ref, [folder], page);
    children.push(...rows!.filter((child) => isVisible(child, query.deleted)));
    looked += rows!.length;
    more = rows!.length === limit;
    next = more ? rows!.at(-1)!.name : null;
    if (looked >= namesPerPageMax) break;
    limit = limits.pageEntriesMax;
  }
  const shown = children.slice(0, query.limit);
  if (children.length > query.limit) next = shown.at(-1)!.name;
  return { seq, prunedAt, entries: await entriesOf(storage, ref, seq, shown), next };
}

/** What was deleted is shown as it last was. */
async function entriesOf(
  storage: Storage,
  ref: ArchiveRef,
  seq: number,
  children: readonly ChildRow[],
): Promise<BrowsedEntry[]> {
  const gone = children.filter(({ version }) => version?.deleted);
  const before = new Map<number, Shown>();
  for (const { i, ...each } of await findShown(storage.database, ref, gone, { seq, deleted: true, filters: noFilters }))
    before.set(gone[i]!.fileId, each);
  return children.map((child) => ({ name: child.name, ...(before.get(child.fileId) ?? shownOf(child)) }));
}

function shownOf({ version, isFolder: hasEntries }: ChildRow): Shown {
  if (!version)
    return { kind: 'directory', size: 0, mtime: null, seq: null, committedAt: null, hasEntries, deletedAt: null };
  const { kind, size, mtime, seq, committedAt, deleted } = version;
  return { kind, size, mtime, seq, committedAt, hasEntries, deletedAt: deleted ? committedAt : null };
}

/** @throws Problem not_found */
async function idsAlong({ database }: Storage, ref: ArchiveRef, path: Buffer): Promise<number[]> {
  const names = splitPath(path);
  const ids = await followPath(database, ref, names);
  if (ids.length < names.length) throw new Problem('not_found', 'the archive holds no such path', { field: 'path' });
  return ids;
}

export interface BrowsedVersions {
  seq: number;
  prunedAt: Date | null;
  versions: VersionRow[];
  /** The seq to go on below; null: that was all. */
  next: number | null;
}

/**
 * Versions of a path up to a moment, newest first, the records of its deletions among them. None: the root, or a folder
 * that is known only by what lies in it.
 * @param query.below the `next` of the page before; null: the first page
 * @throws Problem not_found, out_of_bounds
 */
export async function browseVersions(
  storage: Storage,
  ref: ArchiveRef,
  query: { path: Buffer; moment: MomentAsked; below: number | null; limit: number },
): Promise<BrowsedVersions> {
  const { seq, prunedAt } = await chooseMoment(storage, ref, query.moment);
  const file = (await idsAlong(storage, ref, query.path)).at(-1);
  if (file === undefined) return { seq, prunedAt, versions: [], next: null };
  const below = Math.min(query.below ?? seq + 1, seq + 1);
  const rows = await listHistory(storage.database, ref, file, { below, limit: query.limit + 1 });
  const versions = rows.slice(0, query.limit);
  return { seq, prunedAt, versions, next: rows.length > query.limit ? versions.at(-1)!.seq : null };
}
