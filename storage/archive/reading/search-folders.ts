/**
 * What a search knows of the folders that its hits lie in. Each is looked up once, with those above it, and linked to the
 * one above; so many bytes of them are kept.
 */
import { joinPath } from '../../../protocol/paths.ts';
import { type Candidate, type Candidates, candidatesAmong } from '../../catalog/reading/search.ts';
import type { ArchiveRef, Storage } from '../../storage.ts';
import { everyName, type PathQuery, type PathState } from './search-pattern.ts';
import { foldName } from './search-text.ts';
import { Turn } from './search-work.ts';

export interface KnownFolder {
  /** Null: the root. */
  above: KnownFolder | null;
  name: Buffer;
  /** It is the folder that is searched, or lies below it. */
  isSearched: boolean;
  /** Where the names so far lead to in the pattern; null: the search is not about paths. */
  state: PathState | null;
}

/** A file, and the folder it lies in; null: that is gone. */
export interface Placed {
  file: Candidate;
  folder: KnownFolder | null;
}

export interface SearchFoldersOptions {
  ref: ArchiveRef;
  seq: number;
  /** The folder that is searched; 0: the root. */
  folder: number;
  paths: PathQuery | null;
  signal?: AbortSignal;
  /** What is kept, and what is read at a time unless it is of few files, stay about below it. */
  bytesMax?: number;
}

/** Folders of so few files are read whatever they take: a path has 512 names, and 32 KiB of them. */
const fewFiles = 8;
const togetherMax = 1_000;

export class SearchFolders {
  readonly #storage: Storage;
  readonly #about: SearchFoldersOptions;
  readonly #bytesMax: number;
  readonly #known = new Map<number, KnownFolder>();
  #keptBytes = 0;
  /** Files of which the folders are read at a time: fewer where they lie deep. */
  #together = togetherMax;

  constructor(storage: Storage, about: SearchFoldersOptions) {
    this.#storage = storage;
    this.#about = about;
    this.#bytesMax = about.bytesMax ?? 8 * 1024 * 1024;
  }

  /**
   * The files, in their order, with their folders; in as many parts as it takes to hold little of them at a time: keep
   * none of a part when the next is asked for.
   */
  async *placesOf(files: readonly Candidate[]): AsyncGenerator<Placed[]> {
    for (let at = 0; at < files.length; ) {
      this.#startAnew();
      const some = files.slice(at, at + this.#together);
      const rows = await this.#read(some);
      if (!rows) {
        this.#together = Math.max(fewFiles, some.length >> 1);
        continue;
      }
      const places: Placed[] = [];
      const turn = new Turn(this.#about.signal);
      for (const file of some) places.push({ file, folder: await this.#link(file.parentId, rows, turn) });
      at += some.length;
      this.#together = Math.min(togetherMax, this.#together * 2);
      yield places;
    }
  }

  /** Looks up the folders of files that are not known yet; with too much of them to keep, it may know few of them afterwards. */
  async learn(candidates: Candidates): Promise<void> {
    const unknown = new Map<number, Candidate>();
    const turn = new Turn(this.#about.signal);
    for (const at = candidates.first(); at.isThere; at.next()) {
      const id = at.parentId;
      if (!this.#known.has(id) && !unknown.has(id)) unknown.set(id, at.candidate());
      if (turn.isOver) await turn.next();
    }
    for await (const _ of this.placesOf([...unknown.values()]));
  }

  /** Whether it is known that nothing right in this folder is searched for. */
  isOut(folder: number): boolean {
    const known = this.#known.get(folder);
    return known !== undefined && (!known.isSearched || known.state?.length === 0);
  }

  #startAnew(): void {
    if (this.#keptBytes > this.#bytesMax) {
      this.#known.clear();
      this.#keptBytes = 0;
    }
    const { paths, folder } = this.#about;
    if (!this.#known.has(0))
      this.#known.set(0, { above: null, name: nameless, isSearched: folder === 0, state: paths?.start ?? null });
  }

  /**
   * The rows of folders that are not known yet, and of what is above them, a level at a time. Null: they take too much,
   * and are of more than a few files.
   */
  async #read(files: readonly Candidate[]): Promise<Map<number, Candidate> | null> {
    const { ref, seq, signal } = this.#about;
    const rows = new Map<number, Candidate>();
    let bytes = 0;
    const unknown = (some: readonly Candidate[]): number[] => [
      ...new Set(some.map(({ parentId }) => parentId).filter((id) => !this.#known.has(id) && !rows.has(id))),
    ];
    for (let level = unknown(files); level.length > 0; ) {
      signal?.throwIfAborted();
      const about = { seq, names: everyName.prefilter };
      const read = await candidatesAmong(this.#storage.database, ref, level, about);
      for (const row of read) {
        rows.set(row.fileId, row);
        bytes += bytesOf(row.name);
      }
      if (bytes > this.#bytesMax && files.length > fewFiles) return null;
      level = unknown(read);
    }
    return rows;
  }

  async #link(id: number, rows: ReadonlyMap<number, Candidate>, turn: Turn): Promise<KnownFolder | null> {
    const chain: Candidate[] = [];
    let at = id;
    while (!this.#known.has(at)) {
      const row = rows.get(at);
      if (!row) return null;
      chain.push(row);
      at = row.parentId;
    }
    let above = this.#known.get(at)!;
    const { paths, folder } = this.#about;
    for (const { fileId, name } of chain.reverse()) {
      const known: KnownFolder = {
        above,
        name: Buffer.from(name), // not a view of all that came with it
        isSearched: above.isSearched || fileId === folder,
        state: above.state && paths!.enter(above.state, foldName(name)),
      };
      this.#known.set(fileId, known);
      this.#keptBytes += bytesOf(name);
      above = known;
      if (turn.isOver) await turn.next();
    }
    return above;
  }
}

const bytesOf = (name: Buffer): number => 200 + name.byteLength;

const nameless = Buffer.alloc(0);

export function pathIn(folder: KnownFolder, name: Buffer): Buffer {
  const names = [name];
  for (let at = folder; at.above; at = at.above) names.push(at.name);
  return joinPath(names.reverse());
}
