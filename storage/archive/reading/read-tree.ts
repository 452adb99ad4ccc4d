/**
 * Reads an archive as of a moment: one folder at a time for people, everything below a path for a restore, all
 * versions of a path for its history. A moment is turned into a seq first, so that what is read stays the same
 * while backups commit.
 */
import { limits } from '../../../protocol/limits.ts';
import type {
  HistoryAnswer,
  StoredVersion,
  ThinnedVersion,
  TreeAnswer,
  TreeEntry,
  VersionsFrame,
} from '../../../protocol/messages.ts';
import { joinPath, splitPath } from '../../../protocol/paths.ts';
import { Problem } from '../../../protocol/problems.ts';
import {
  type ChildRow,
  findMoment,
  followPath,
  isVisible,
  latestVersion,
  listFolders,
  listHistory,
  listLaterHistory,
  loadContents,
  lookAtName,
  nextContents,
  type VersionRow,
} from '../../catalog/reading/reading.ts';
import type { ArchiveRef, Storage } from '../../storage.ts';
import { keepMoment, lapsed, takeMoment } from './moment-lease.ts';
import { walkTree } from './walk-tree.ts';

const noArchive = () => new Problem('not_found', 'there is no such archive');
const noPath = () => new Problem('not_found', 'the archive holds no such path', { field: 'path' });

export interface TreeQuery {
  path: Buffer;
  /** null: now. */
  at: Date | null;
  deleted: boolean;
  /** The last name of the page before, or null for the first page. */
  after: Buffer | null;
  limit: number;
}

/**
 * One page of a folder.
 * @throws Problem not_found
 */
export async function readTree(storage: Storage, ref: ArchiveRef, query: TreeQuery): Promise<TreeAnswer> {
  const moment = await findMoment(storage.database, ref, query.at);
  if (!moment) throw noArchive();
  const names = splitPath(query.path);
  const ids = await followPath(storage.database, ref, names);
  if (ids.length < names.length) throw noPath();
  const folder = ids.at(-1) ?? 0;
  const entries: ChildRow[] = [];
  let after = query.after ?? Buffer.alloc(0);
  // A page of names may hold few that are visible, or none: go on until there is one to continue behind.
  for (let limit = query.limit + 1, more = true; more && entries.length <= query.limit; limit = limits.pageEntriesMax) {
    const [names] = await listFolders(storage.database, ref, [folder], { seq: moment.seq, after, limit });
    entries.push(...names!.filter((child) => isVisible(child, query.deleted)));
    more = names!.length === limit;
    after = names!.at(-1)?.name ?? after;
  }
  return { seq: moment.seq, entries: entries.slice(0, query.limit).map(treeEntry), more: entries.length > query.limit };
}

function treeEntry({ name, version }: ChildRow): TreeEntry {
  if (!version) return { name, kind: 'directory', size: 0, mtime: 0, seq: 0, committedAt: null, deleted: false };
  const { kind, size, mtime, seq, committedAt, deleted } = version;
  return { name, kind, size, mtime, seq, committedAt: committedAt.getTime(), deleted };
}

export interface VersionsQuery {
  path: Buffer;
  at: Date | null;
  /** Pins the moment: when a reader that was cut off goes on, or to begin at a seq. */
  seq: number | null;
  /** The path of the last version received, to go on behind it. */
  after: Buffer | null;
  deleted: boolean;
  /** The caller has leased `seq` already: that lease is lengthened, and never taken anew when it has ended. */
  leased?: boolean;
}

/** Bytes of attributes and blocks that are read and sent together. */
const frameWeightMax = 1024 * 1024;
const frameVersionsMax = 500;

/**
 * The state of a path and of everything below it as of a moment, folders before what lies in them, siblings in byte
 * order of names; and what was there of which retention has kept nothing up to then. Reads pages by key, so it may take days without holding anything open but its lease on the moment.
 * @throws Problem not_found, moment_lapsed, out_of_bounds, too_many_requests, before the first frame; moment_lapsed later
 */
export async function* streamVersions(
  storage: Storage,
  ref: ArchiveRef,
  query: VersionsQuery,
  signal?: AbortSignal,
): AsyncGenerator<VersionsFrame> {
  const { database } = storage;
  const moment = await takeMoment(storage, ref, {
    at: query.at,
    seq: query.seq,
    resumed: (query.after !== null || query.leased === true) && query.seq !== null,
  });
  if (!moment) throw noArchive();
  const { seq } = moment;
  using kept = keepMoment(storage, ref, seq);
  const names = splitPath(query.path);
  const ids = await followPath(database, ref, names);
  if (ids.length < names.length) throw noPath();
  yield { frame: 'begin', seq, at: moment.at.getTime() };

  let batch: Found[] = [];
  let weight = 0;
  const flush = async (): Promise<VersionsFrame> => {
    const found = batch.filter((each): each is FoundVersion => each.version !== null);
    const versions = await storedVersions(storage, ref, found);
    const thinned = await thinnedVersions(storage, ref, batch, seq);
    await kept.assertKept();
    if (versions.length < found.length) throw lapsed();
    const upTo = batch.at(-1)!.path;
    batch = [];
    weight = 0;
    return { frame: 'versions', versions, ...(thinned.length > 0 && { thinned, upTo }) };
  };
  for await (const found of versionsBelow(storage, ref, {
    names,
    fileId: ids.at(-1) ?? 0,
    seq,
    after: query.after,
    deleted: query.deleted,
    signal,
  })) {
    if (batch.length > 0 && (batch.length >= frameVersionsMax || weight + weightOf(found) > frameWeightMax))
      yield await flush();
    batch.push(found);
    weight += weightOf(found);
  }
  if (batch.length > 0) yield await flush();
  await kept.assertKept();
  yield { frame: 'end' };
}

type FoundVersion = { path: Buffer; version: VersionRow };
/** `fileId`: of what was there, and is not kept as it was. */
type Found = FoundVersion | { path: Buffer; version: null; fileId: number; folder: boolean };

/** Bytes of a version in a message, or a little more. */
function weightOf({ path, version }: Found): number {
  return path.byteLength + (version?.weight ?? 0) + 200;
}

interface Below {
  names: Buffer[];
  fileId: number;
  seq: number;
  after: Buffer | null;
  deleted: boolean;
  signal: AbortSignal | undefined;
}

async function* versionsBelow(storage: Storage, ref: ArchiveRef, below: Below): AsyncGenerator<Found> {
  const { fileId, seq } = below;
  if (fileId !== 0 && below.after === null) {
    const own = await latestVersion(storage.database, ref, fileId, seq);
    const path = joinPath(below.names);
    if (own && (!own.deleted || below.deleted)) yield { path, version: own };
    const name = own ? null : await lookAtName(storage.database, ref, fileId, seq);
    if (name?.wasThere) yield { path, version: null, fileId, folder: name.isFolder };
  }
  const resume = below.after === null ? [] : namesBelow(below.names, below.after);
  // Asked for each page of names: there may be millions that are not visible, and nothing is given away until one is.
  const list = async (folders: readonly number[], after: Buffer, limit: number): Promise<ChildRow[][]> => {
    below.signal?.throwIfAborted();
    return listFolders(storage.database, ref, folders, { seq: below.seq, after, limit });
  };
  const follow = async (names: readonly Buffer[]): Promise<number[]> => {
    const ids = await followPath(storage.database, ref, [...below.names, ...names]);
    return ids.slice(below.names.length);
  };
  for await (const child of walkTree({ list, follow }, below.fileId, resume)) {
    if (!child.thinned && !(child.version && isVisible(child, below.deleted))) continue;
    const path = joinPath([...below.names, ...child.names]);
    yield child.version
      ? { path, version: child.version }
      : { path, version: null, fileId: child.fileId, folder: child.isFolder };
  }
}

function namesBelow(base: readonly Buffer[], path: Buffer): Buffer[] {
  const names = splitPath(path);
  if (base.some((name, i) => !names[i]?.equals(name))) {
    throw new Problem('path_invalid', 'the path to go on after does not lie below the path asked for', {
      field: 'after',
    });
  }
  return names.slice(base.length);
}

/** Versions whole, as they are sent. One that was deleted since its row was listed is left out. */
async function storedVersions(
  storage: Storage,
  ref: ArchiveRef,
  batch: readonly { path: Buffer; version: VersionRow }[],
): Promise<StoredVersion[]> {
  const contents = await loadContents(
    storage.database,
    ref,
    batch.map(({ version }) => version),
  );
  return batch.flatMap(({ path, version }, i) => {
    const rest = contents[i];
    if (!rest) return [];
    const { kind, deleted, size, mtime, seq, committedAt } = version;
    return [{ path, kind, deleted, size, mtime, seq, committedAt: committedAt.getTime(), ...rest }];
  });
}

async function thinnedVersions(
  storage: Storage,
  ref: ArchiveRef,
  batch: readonly Found[],
  seq: number,
): Promise<ThinnedVersion[]> {
  const thinned = batch.flatMap((each) => (each.version === null ? [each] : []));
  if (thinned.length === 0) return [];
  const files = thinned.map(({ fileId }) => fileId);
  const next = await nextContents(storage.database, ref, files, seq);
  return thinned.map(({ path, folder }, i) => {
    const version = next[i];
    return { path, folder, next: version ? { seq: version.seq, committedAt: version.committedAt.getTime() } : null };
  });
}

/**
 * Versions of one path, newest first.
 * @param query.after the seq of the last version received, or null for the first page
 * @throws Problem not_found
 */
export async function readHistory(
  storage: Storage,
  ref: ArchiveRef,
  query: { path: Buffer; after: number | null; limit: number },
): Promise<HistoryAnswer> {
  const moment = await findMoment(storage.database, ref, null);
  if (!moment) throw noArchive();
  const names = splitPath(query.path);
  const ids = await followPath(storage.database, ref, names);
  if (names.length === 0 || ids.length < names.length) throw noPath();
  const rows = await listHistory(storage.database, ref, ids.at(-1)!, {
    below: query.after ?? moment.seq + 1,
    limit: Math.min(query.limit, limits.pageEntriesMax) + 1,
  });
  const page = withinWeight(query.path, rows.slice(0, query.limit));
  return {
    versions: await storedVersions(
      storage,
      ref,
      page.map((version) => ({ path: query.path, version })),
    ),
    more: page.length < rows.length,
  };
}

/**
 * Versions of one path behind a seq, oldest first.
 * @throws Problem not_found
 */
export async function readLaterHistory(
  storage: Storage,
  ref: ArchiveRef,
  query: { path: Buffer; above: number; limit: number },
): Promise<StoredVersion[]> {
  const names = splitPath(query.path);
  const ids = await followPath(storage.database, ref, names);
  if (names.length === 0 || ids.length < names.length) throw noPath();
  const rows = await listLaterHistory(storage.database, ref, ids.at(-1)!, query);
  return storedVersions(
    storage,
    ref,
    withinWeight(query.path, rows).map((version) => ({ path: query.path, version })),
  );
}

/** As many rows as one message should hold, and at least one. */
function withinWeight(path: Buffer, rows: VersionRow[]): VersionRow[] {
  let weight = 0;
  const end = rows.findIndex((row, i) => {
    weight += weightOf({ path, version: row });
    return i > 0 && weight > frameWeightMax;
  });
  return end < 0 ? rows : rows.slice(0, end);
}
