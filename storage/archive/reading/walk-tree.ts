/**
 * Walks the folders of an archive depth first, in byte order of names, parents before children, a page at a time, and
 * can go on behind any path. Holds one page per level, and of all but the deepest levels a short one.
 */
import type { ChildRow } from '../../catalog/reading/reading.ts';

export interface TreeSource {
  /** The children of each folder whose names are greater than `after`, at most `limit` each. */
  list(folders: readonly number[], after: Buffer, limit: number): Promise<ChildRow[][]>;
  /** The ids along names below the folder the walk began at, as far as they exist. */
  follow(names: readonly Buffer[]): Promise<number[]>;
}

interface Level {
  folder: number;
  /** Names from the start of the walk to this folder. */
  names: Buffer[];
  queue: ChildRow[];
  /** Whether the queue holds all that is left of this folder. */
  complete: boolean;
  /** The last name taken from the queue or before it. */
  after: Buffer;
  /** First pages of folders further down the queue, read ahead in one statement. */
  ahead: Map<number, ChildRow[]>;
}

const pageRows = 1_000;
/** Folders whose first page is read in one statement: small folders are most of a tree, and a statement each is slow. */
const aheadFolders = 64;
const aheadRows = 64;
const first = Buffer.alloc(0);

/**
 * @param start the folder to begin in; it is not itself given
 * @param resume names below it: everything up to and with that path, but not what lies in it, is left out
 */
export async function* walkTree(
  source: TreeSource,
  start: number,
  resume: readonly Buffer[],
): AsyncGenerator<ChildRow & { names: Buffer[] }> {
  const levels = await openLevels(source, start, resume);
  for (let level = levels.at(-1); level; level = levels.at(-1)) {
    if (level.queue.length === 0 && !level.complete) await refill(source, level);
    const child = level.queue.shift();
    if (!child) {
      levels.pop();
      continue;
    }
    level.after = child.name;
    const names = [...level.names, child.name];
    yield { ...child, names };
    if (!child.isFolder) continue;
    levels.push(await enter(source, level, child, names));
    const above = levels.at(-1 - wholeLevels);
    if (above) shorten(above);
  }
}

/** Levels that keep all they have read: a device may make folders hundreds deep, and each as wide as it likes. */
const wholeLevels = 4;
const shortRows = 32;

/** Lets go of what is needed only when the walk comes back up; it is read again then. */
function shorten(level: Level): void {
  level.ahead.clear();
  if (level.queue.length <= shortRows) return;
  level.queue.length = shortRows;
  level.complete = false;
}

async function openLevels(source: TreeSource, start: number, resume: readonly Buffer[]): Promise<Level[]> {
  const ids = [start, ...(resume.length > 0 ? await source.follow(resume) : [])];
  // ids[d] is the folder at depth d of the resumed path; its next child is behind resume[d], or its first at the end.
  return ids.map((folder, depth) => ({
    folder,
    names: resume.slice(0, depth),
    queue: [],
    complete: false,
    after: resume[depth] ?? first,
    ahead: new Map(),
  }));
}

async function refill(source: TreeSource, level: Level): Promise<void> {
  const [rows] = await source.list([level.folder], level.after, pageRows);
  level.queue = rows!;
  level.complete = rows!.length < pageRows;
}

async function enter(source: TreeSource, parent: Level, child: ChildRow, names: Buffer[]): Promise<Level> {
  if (!parent.ahead.has(child.fileId)) {
    const folders = [child, ...parent.queue.filter((row) => row.isFolder).slice(0, aheadFolders - 1)].map(
      (row) => row.fileId,
    );
    const pages = await source.list(folders, first, aheadRows);
    parent.ahead = new Map(folders.map((folder, i) => [folder, pages[i]!]));
  }
  const queue = parent.ahead.get(child.fileId)!;
  parent.ahead.delete(child.fileId);
  return {
    folder: child.fileId,
    names,
    queue,
    complete: queue.length < aheadRows,
    after: queue.at(-1)?.name ?? first,
    ahead: new Map(),
  };
}
