/**
 * Walks a selection: its paths in one order whatever order they came in, each with all below it, as of one seq. A file
 * deleted by then comes as it last was.
 */
import { limits } from '../../protocol/limits.ts';
import type { StoredVersion } from '../../protocol/messages.ts';
import { joinPath, pathFault, splitPath } from '../../protocol/paths.ts';
import { Problem } from '../../protocol/problems.ts';
import { isThinned, type ThinnedInPlace, ThinnedPlaces } from '../../protocol/thinned.ts';
import { readHistory, streamVersions } from '../../storage/archive/reading/read-tree.ts';
import type { ArchiveRef, Storage } from '../../storage/storage.ts';
import { selectionPathsMax } from './types.ts';

/**
 * The paths to walk: none lies within another.
 * @throws Problem path_invalid, out_of_bounds
 */
export function rootsOf(paths: readonly Uint8Array[]): Buffer[][] {
  if (paths.length === 0 || paths.length > selectionPathsMax)
    throw new Problem('out_of_bounds', `a selection has 1 to ${selectionPathsMax} paths`, { field: 'paths' });
  const roots: Buffer[][] = [];
  for (const [index, path] of paths.entries()) {
    const fault = pathFault(path);
    if (fault) throw new Problem('path_invalid', `path ${index} ${fault}`, { field: `paths.${index}` });
  }
  for (const names of paths.map(splitPath).sort(compareNames)) {
    const last = roots.at(-1);
    if (!last || !isBelow(names, last)) roots.push(names);
  }
  return roots;
}

/** How many names above the selection its entries do without: those of the folder that all of its paths lie in. */
export function namesAbove(roots: readonly (readonly Buffer[])[]): number {
  let above = Math.max(0, roots[0]!.length - 1);
  for (const names of roots) {
    let shared = 0;
    while (shared < above && shared < names.length - 1 && names[shared]!.equals(roots[0]![shared]!)) shared++;
    above = shared;
  }
  return above;
}

/** Level by level, as the archive is walked. */
function compareNames(a: readonly Buffer[], b: readonly Buffer[]): number {
  for (let i = 0; i < Math.min(a.length, b.length); i++) {
    const order = Buffer.compare(a[i]!, b[i]!);
    if (order !== 0) return order;
  }
  return a.length - b.length;
}

function isBelow(names: readonly Buffer[], top: readonly Buffer[]): boolean {
  return top.every((name, i) => names[i]?.equals(name) === true);
}

export interface Walk {
  roots: readonly (readonly Buffer[])[];
  seq: number;
  deleted: boolean;
}

/**
 * `version` null: it was deleted, and its content is gone; or, `thinned`, something was there, and retention has kept nothing of
 * it up to the moment.
 */
export interface Found {
  path: Buffer;
  version: StoredVersion | null;
  thinned?: boolean;
}

/** In the order of the archive, a page at a time. */
export type WalkPage = { missing: Buffer } | { found: readonly Found[] };

/** Histories of deleted files read at a time. */
const historiesAtOnce = 4;
/** Versions read of one at first: nearly always the one before the deletion is what it was. And then, when it is not. */
const firstPage = 4;
const nextPages = limits.pageEntriesMax;

/** The caller keeps the moment (keepMoment). @throws Problem moment_lapsed when its lease has ended all the same */
export async function* walkSelection(
  storage: Storage,
  ref: ArchiveRef,
  { roots, seq, deleted }: Walk,
  signal?: AbortSignal,
): AsyncGenerator<WalkPage> {
  for (const names of roots) {
    const path = joinPath(names);
    let isEmpty = true;
    const places = new ThinnedPlaces();
    try {
      // Never taken anew: what was current may be gone since the lease ended.
      const query = { path, at: null, seq, after: null, deleted, leased: true };
      for await (const frame of streamVersions(storage, ref, query, signal)) {
        signal?.throwIfAborted();
        if (frame.frame !== 'versions') continue;
        isEmpty = false;
        const versions = deleted
          ? await withContent(storage, ref, frame.versions, signal)
          : frame.versions.map(asFound);
        let next = 0;
        const found = places
          .page(frame.versions, frame.thinned ?? [])
          .flatMap((each) => (isThinned(each) ? asThinned(each) : versions[next++]!));
        yield { found };
      }
      yield { found: places.end().flatMap(asThinned) };
    } catch (error) {
      if (!isNoPath(error)) throw error;
    }
    if (isEmpty && names.length > 0) yield { missing: path };
  }
}

/** A folder of which something comes is made for that, as others of which nothing is known are. */
const asThinned = ({ path, comes }: ThinnedInPlace): Found[] => (comes ? [] : [{ path, version: null, thinned: true }]);
const asFound = (version: StoredVersion): { path: Buffer; version: StoredVersion } => ({ path: version.path, version });

function isNoPath(error: unknown): boolean {
  return error instanceof Problem && error.code === 'not_found' && error.extras.field === 'path';
}

/** The records of deletions exchanged for the versions before them. */
async function withContent(
  storage: Storage,
  ref: ArchiveRef,
  versions: readonly StoredVersion[],
  signal: AbortSignal | undefined,
): Promise<{ path: Buffer; version: StoredVersion | null }[]> {
  const found: { path: Buffer; version: StoredVersion | null }[] = versions.map(asFound);
  const gone = found.filter(({ version }) => version!.deleted);
  for (let i = 0; i < gone.length; i += historiesAtOnce) {
    const some = gone.slice(i, i + historiesAtOnce);
    const looks = some.map(async (each) => {
      each.version = await lastContent(storage, ref, each.version!, signal);
    });
    await Promise.all(looks);
  }
  return found;
}

async function lastContent(
  storage: Storage,
  ref: ArchiveRef,
  deletion: StoredVersion,
  signal: AbortSignal | undefined,
): Promise<StoredVersion | null> {
  for (let after = deletion.seq, limit = firstPage; ; limit = nextPages) {
    signal?.throwIfAborted();
    const page = await readHistory(storage, ref, { path: deletion.path, after, limit });
    const version = page.versions.find((each) => !each.deleted);
    if (version) return version;
    if (!page.more) return null;
    after = page.versions.at(-1)!.seq;
  }
}
