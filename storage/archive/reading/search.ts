/**
 * Searches an archive as of a moment: by name or pattern, below a folder, by kind, size and time, deleted files too or not.
 * It goes over the files in the order of their numbers (in which they first came), a bounded range at a time and each in
 * statements of its own, tells what it has found after every one, and goes on behind any hit.
 *
 * Nothing is leased: what retention takes away meanwhile is not found, or found as the version before.
 */
import { splitPath } from '../../../protocol/paths.ts';
import { Problem } from '../../../protocol/problems.ts';
import { followPath } from '../../catalog/reading/reading.ts';
import {
  type Candidate,
  Candidates,
  candidatesAmong,
  candidatesInRange,
  fewFiles,
  findShown,
  listChildIds,
  rangeFilesMax,
  type Shown,
  type ShownFilters,
} from '../../catalog/reading/search.ts';
import type { ArchiveRef, Storage } from '../../storage.ts';
import { chooseMoment, type MomentAsked } from './browse.ts';
import { bytesOfTokens, type MayMatch, writingsOfAll } from './search-bytes.ts';
import { type KnownFolder, type Placed, pathIn, SearchFolders } from './search-folders.ts';
import { everyName, type NameQuery, queryOfPart, queryOfPattern } from './search-pattern.ts';
import { foldName } from './search-text.ts';
import { type LeftOut, namedAmong, Turn } from './search-work.ts';

export interface SearchQuery {
  /** Only what lies below it. */
  path: Buffer;
  moment: MomentAsked;
  /** At most one of them; null: every name. */
  name: string | null;
  pattern: string | null;
  filters: ShownFilters;
  deleted: boolean;
  /** The number of the last file that was searched; null: from the first. */
  after: number | null;
  /** Hits, of which this many end the search. */
  limit: number;
  signal?: AbortSignal;
}

export interface Hit extends Shown {
  fileId: number;
  path: Buffer;
}

/** A step of a search. */
export interface Searched {
  hits: Hit[];
  /** All up to this file was searched; null: all there is. */
  upTo: number | null;
}

export interface Search {
  seq: number;
  prunedAt: Date | null;
  /** Ends when the limit was reached or all was searched, which the last one says. */
  steps: AsyncGenerator<Searched>;
}

/**
 * @throws Problem not_found, out_of_bounds or malformed_request before the first step
 */
export async function searchArchive(storage: Storage, ref: ArchiveRef, query: SearchQuery): Promise<Search> {
  const names = namesOf(query);
  const { seq, prunedAt, lastFileId } = await chooseMoment(storage, ref, query.moment);
  const path = splitPath(query.path);
  const ids = await followPath(storage.database, ref, path);
  if (ids.length < path.length) throw new Problem('not_found', 'the archive holds no such path', { field: 'path' });
  const searching: Searching = { storage, ref, query, names, seq, folder: ids.at(-1) ?? 0, lastFileId };
  return { seq, prunedAt, steps: withinLimit(query.limit, stepsOf(searching)) };
}

function namesOf({ name, pattern }: SearchQuery): NameQuery {
  if (name !== null && pattern !== null)
    throw new Problem('malformed_request', 'a search is by name or by pattern, not both', { field: 'pattern' });
  if (name !== null) return queryOfPart(name);
  return pattern === null ? everyName : queryOfPattern(pattern);
}

interface Searching {
  storage: Storage;
  ref: ArchiveRef;
  query: SearchQuery;
  names: NameQuery;
  seq: number;
  /** The id of the folder to search below; 0: the root. */
  folder: number;
  lastFileId: number;
}

async function* withinLimit(limit: number, steps: AsyncIterable<Searched>): AsyncGenerator<Searched> {
  let left = limit;
  for await (const { hits, upTo } of steps) {
    if (hits.length < left || (hits.length === left && upTo === null)) {
      left -= hits.length;
      yield { hits, upTo };
      continue;
    }
    const last = hits.slice(0, left);
    // Nothing is left of the limit and perhaps of the archive, too: whoever goes on behind the last hit will see.
    yield { hits: last, upTo: last.at(-1)!.fileId };
    return;
  }
}

async function* stepsOf(searching: Searching): AsyncGenerator<Searched> {
  const { storage, ref, query, names, seq, folder } = searching;
  const about = { ref, seq, folder, paths: names.paths, signal: query.signal };
  const folders = new SearchFolders(storage, about);
  const leftOut: LeftOut = { mayMatch: await bytesOf(names), isOut: (id) => folders.isOut(id) };
  for await (const page of candidatesOf(searching)) {
    // Then most of what lies elsewhere is left out without a look at it.
    if (!isAnywhere(searching) && page.candidates instanceof Candidates) await folders.learn(page.candidates);
    for await (const { named, upTo } of namedAmong(page.candidates, names, leftOut, query.signal)) {
      const end = upTo ?? page.upTo;
      for (let at = 0; at < named.length; at += lookedAtTogether) {
        query.signal?.throwIfAborted();
        const some = named.slice(at, at + lookedAtTogether);
        const isLast = at + lookedAtTogether >= named.length;
        yield { hits: await hitsAmong(searching, folders, some), upTo: isLast ? end : some.at(-1)!.fileId };
      }
      if (named.length === 0) yield { hits: [], upTo: end };
    }
  }
}

/** Where the database knows none of its bytes, all names come. */
async function bytesOf({ prefilter, tokens }: NameQuery): Promise<MayMatch | null> {
  if (prefilter.like !== null || !tokens.some(({ kind }) => kind === 'character')) return null;
  return bytesOfTokens(tokens, await writingsOfAll());
}

/** Each may have a path of 32 KiB. */
const lookedAtTogether = 1_000;

async function hitsAmong(searching: Searching, folders: SearchFolders, named: readonly Candidate[]): Promise<Hit[]> {
  const { query, names } = searching;
  const hits: Hit[] = [];
  const turn = new Turn(query.signal);
  const add = async ({ i: _, ...shown }: Shown & { i: number }, { file, folder }: Placed): Promise<void> => {
    // Without a folder it was pruned since, with all that lay in it.
    if (folder) hits.push({ ...shown, fileId: file.fileId, path: pathIn(folder, file.name) });
    if (turn.isOver) await turn.next();
  };
  // Where any place will do, it is asked for what is found only; else first, for most folders are known.
  if (isAnywhere(searching)) {
    const shown = await shownAmong(searching, named);
    let at = 0;
    for await (const places of folders.placesOf(shown.map(({ i }) => named[i]!)))
      for (const placed of places) await add(shown[at++]!, placed);
    return hits;
  }
  for await (const places of folders.placesOf(named)) {
    const placed: Placed[] = [];
    for (const each of places) {
      if (isAt(each.folder, each.file.name, names)) placed.push(each);
      if (turn.isOver) await turn.next();
    }
    const files = placed.map(({ file }) => file);
    for (const shown of await shownAmong(searching, files)) await add(shown, placed[shown.i]!);
  }
  return hits;
}

function shownAmong({ storage, ref, query, seq }: Searching, files: readonly Candidate[]) {
  return findShown(storage.database, ref, files, { seq, deleted: query.deleted, filters: query.filters });
}

function isAnywhere({ names, folder }: Searching): boolean {
  return folder === 0 && names.paths === null;
}

function isAt(folder: KnownFolder | null, name: Buffer, { paths }: NameQuery): boolean {
  if (!folder?.isSearched) return false;
  return !folder.state || paths!.accepts(folder.state, foldName(name));
}

/** Names that are looked up by the numbers of their files in one statement: at the most 4 MiB of them. */
const amongMax = 2_000;
/** Files that one statement looks at: a few first, so that what is near is found at once. */
const rangeFirst = 5_000;

interface Page {
  candidates: Candidates | readonly Candidate[];
  upTo: number | null;
}

/** Every file whose bytes do not rule it out, in the order of their numbers. */
async function* candidatesOf(searching: Searching): AsyncGenerator<Page> {
  const { storage, ref, query, names, seq, folder, lastFileId } = searching;
  const about = { seq, names: names.prefilter };
  const few = folder === 0 ? null : await idsBelow(searching);
  let after = query.after ?? 0;
  if (few) {
    const ids = few.filter((id) => id > after).sort((a, b) => a - b);
    for (let at = 0; at < ids.length; at += amongMax) {
      query.signal?.throwIfAborted();
      const some = ids.slice(at, at + amongMax);
      const isLast = at + amongMax >= ids.length;
      yield {
        candidates: await candidatesAmong(storage.database, ref, some, about),
        upTo: isLast ? null : some.at(-1)!,
      };
    }
    if (ids.length === 0) yield { candidates: [], upTo: null };
    return;
  }
  const read = async (from: number, length: number): Promise<{ candidates: Candidates; upTo: number }> => {
    for (let files = length; ; files = Math.max(fewFiles, files >> 1)) {
      const upTo = Math.min(from + files, lastFileId);
      const candidates = await candidatesInRange(storage.database, ref, { after: from, upTo }, about);
      if (candidates) return { candidates, upTo };
      query.signal?.throwIfAborted();
      if (files <= fewFiles) throw new Error(`${files} names take more than they can`);
    }
  };
  let length = rangeFirst;
  let ahead: ReturnType<typeof read> | null = null;
  do {
    query.signal?.throwIfAborted();
    const page: Awaited<ReturnType<typeof read>> = await (ahead ?? read(after, length));
    // Twice what there was room for: where names are long, the database does not make many times that for nothing.
    length = Math.min((page.upTo - after) * 2, rangeFilesMax);
    after = page.upTo;
    // The database goes on while these are looked at.
    ahead = after < lastFileId ? read(after, length) : null;
    ahead?.catch(() => {}); // told when it is waited for, if somebody still does
    yield { candidates: page.candidates, upTo: after < lastFileId ? after : null };
  } while (after < lastFileId);
}

/** So many files below a folder are listed one by one; more than that, and the archive is gone over as a whole. */
const fewFilesMax = 5_000;
const statementsMax = 64;
const foldersTogether = 64;

/** The files below the folder, when they are few; null when they are not. */
async function idsBelow({ storage, ref, folder, query }: Searching): Promise<number[] | null> {
  const ids: number[] = [];
  const folders = [folder];
  for (let statements = 0; folders.length > 0; statements++) {
    if (statements === statementsMax) return null;
    query.signal?.throwIfAborted();
    const left = fewFilesMax - ids.length;
    const children = await listChildIds(storage.database, ref, folders.splice(0, foldersTogether), left + 1);
    if (children.length > left) return null;
    for (const { fileId, isFolder } of children) {
      ids.push(fileId);
      if (isFolder) folders.push(fileId);
    }
  }
  return ids;
}
