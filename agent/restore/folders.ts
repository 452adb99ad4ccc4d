/**
 * The folders of a restore's target, held so that nothing is ever written outside of it, whatever the manifest says
 * and whoever else works in the target. On Linux a folder is an open descriptor, reached name by name from the target
 * without following symlinks, and everything in it is done relative to that descriptor. Elsewhere the chain of folders
 * is looked at again just before each step (`guard`), which leaves a moment's gap and no more.
 */
import type { BigIntStats } from 'node:fs';
import { chmod, constants, type FileHandle, lstat, mkdir, open, realpath } from 'node:fs/promises';
import { foldName, joinLocal, markedName, platformRules } from '../files/path-rules.ts';
import { hasFolderNumbers, openFolder, underHandle } from '../files/reach.ts';
import type { LocalPath, Platform } from '../files/types.ts';
import { LeftOut, RestoreError } from './types.ts';

/** Linux's O_PATH, which Node does not name: opens a folder that may not be read, to change its mode. */
const O_PATH = 0o10000000;

export class Folder {
  readonly parent: Folder | null;
  readonly localPath: LocalPath;
  readonly platform: Platform;
  readonly handle: FileHandle | null;
  /** As it was found or made, before anything was put into it. */
  readonly found: BigIntStats;
  readonly made: boolean;
  /** A property of the file system; asked of the target once its staging folder is there. */
  caseSensitive: boolean;
  /** Names given in this folder, where two from the archive can meet. */
  readonly #taken = new Set<string>();

  constructor(fields: {
    parent: Folder | null;
    localPath: LocalPath;
    platform: Platform;
    handle: FileHandle | null;
    found: BigIntStats;
    made: boolean;
    caseSensitive: boolean;
  }) {
    this.parent = fields.parent;
    this.localPath = fields.localPath;
    this.platform = fields.platform;
    this.handle = fields.handle;
    this.found = fields.found;
    this.made = fields.made;
    this.caseSensitive = fields.caseSensitive;
  }

  /** Where a name of this folder is, for a system call that does not follow a last symlink. Call `guard` first. */
  at(name: LocalPath): LocalPath {
    return this.handle ? underHandle(this.handle, bufferOf(name)) : joinLocal(this.localPath, name, this.platform);
  }

  /**
   * Makes sure that the way here still leads through folders of the target, and only there.
   * @throws LeftOut parent_not_folder
   */
  async guard(): Promise<void> {
    if (this.handle) return;
    for (let at: Folder | null = this; at; at = at.parent) {
      const now = await lstat(at.localPath, { bigint: true }).catch(() => null);
      if (!now?.isDirectory() || now.ino !== at.found.ino || now.dev !== at.found.dev) {
        throw new LeftOut('parent_not_folder', 'a folder of the target was exchanged while restoring into it');
      }
    }
  }

  /** Whether the names given here have to be remembered, because the file system takes different ones for equal. */
  get #folds(): boolean {
    return !this.caseSensitive || this.platform !== 'linux';
  }

  /** Keeps a name from being given to a file of the archive. */
  reserve(name: LocalPath): void {
    this.#taken.add(foldName(name, this.platform, this.caseSensitive));
  }

  /** The name to use for a wanted one: itself, or numbered when this restore gave it to another file already. */
  take(wanted: LocalPath, altered: boolean): LocalPath {
    let name = wanted;
    for (let number = 2; this.#taken.has(foldName(name, this.platform, this.caseSensitive)); number++) {
      name = markedName(wanted, ` (${number})`, this.platform);
    }
    if (this.#folds || altered) this.reserve(name);
    return name;
  }

  async close(): Promise<void> {
    await this.handle?.close();
  }
}

/** Opens the target itself, which the user named: here symlinks are followed, once. */
export async function openTarget(options: {
  to: string | (() => Promise<Folder>);
  caseSensitive?: boolean;
  folderHandles?: boolean;
}): Promise<Folder> {
  const { to, caseSensitive = true, folderHandles = await hasFolderNumbers() } = options;
  if (typeof to !== 'string') {
    const target = await to();
    target.caseSensitive = caseSensitive;
    return target;
  }
  const platform = platformRules(process.platform);
  try {
    await mkdir(to, { recursive: true });
    const real = await realpath(to, { encoding: 'buffer' });
    const localPath = platform === 'win32' ? real.toString('utf8') : real;
    const handle = folderHandles ? await openFolder(real) : null;
    const found = handle ? await handle.stat({ bigint: true }) : await lstat(localPath, { bigint: true });
    return new Folder({ parent: null, localPath, platform, handle, found, made: false, caseSensitive });
  } catch (error) {
    throw new RestoreError('target_failed', `cannot restore into ${to}: ${(error as Error).message}`, { cause: error });
  }
}

/**
 * A folder in a folder, made if it is not there, open to us even if its mode says otherwise (the caller sets the mode
 * when its content is there).
 * @throws LeftOut parent_not_folder when something else has the name
 */
export async function openChild(parent: Folder, name: LocalPath): Promise<Folder> {
  await parent.guard();
  const path = parent.at(name);
  let made = false;
  try {
    await mkdir(path, 0o700);
    made = true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
  const there = await lstat(path, { bigint: true });
  if (!there.isDirectory()) throw new LeftOut('parent_not_folder', 'something that is not a folder has its name');
  const localPath = joinLocal(parent.localPath, name, parent.platform);
  const base = { parent, localPath, platform: parent.platform, made, caseSensitive: parent.caseSensitive };
  if (!parent.handle) {
    if ((there.mode & 0o700n) !== 0o700n)
      await chmod(path, Number(there.mode & 0o7777n) | 0o700).catch(() => undefined);
    return new Folder({ ...base, handle: null, found: there });
  }
  const handle = await openThough(path as Buffer);
  try {
    const found = await handle.stat({ bigint: true });
    // What lstat saw is what its mode and times were before `openThough` may have opened it up.
    const same = found.ino === there.ino && found.dev === there.dev;
    if ((found.mode & 0o700n) !== 0o700n)
      await handle.chmod(Number(found.mode & 0o7777n) | 0o700).catch(() => undefined);
    return new Folder({ ...base, handle, found: same ? there : found });
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** Opens a folder of the target again by the names that lead to it, without making any. Null when they no longer do. */
export async function findFolder(target: Folder, names: readonly LocalPath[]): Promise<Folder | null> {
  let at = target;
  for (const name of names) {
    const next = await openExisting(at, name).catch(() => null);
    if (at !== target) await at.close();
    if (!next) return null;
    at = next;
  }
  return at;
}

/** A folder that is there; null: something else is. Throws where nothing is. */
async function openExisting(parent: Folder, name: LocalPath): Promise<Folder | null> {
  const path = parent.at(name);
  const handle = parent.handle ? await openFolder(path as Buffer) : null;
  const found = handle ? await handle.stat({ bigint: true }) : await lstat(path, { bigint: true });
  if (!found.isDirectory()) return null;
  const localPath = joinLocal(parent.localPath, name, parent.platform);
  return new Folder({
    parent,
    localPath,
    platform: parent.platform,
    handle,
    found,
    made: false,
    caseSensitive: parent.caseSensitive,
  });
}

/** Opens a folder that an earlier restore may have given a mode without read permission. */
async function openThough(path: Buffer): Promise<FileHandle> {
  try {
    return await openFolder(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ELOOP' || code === 'ENOTDIR')
      throw new LeftOut('parent_not_folder', 'something that is not a folder has its name', { cause: error });
    if (code !== 'EACCES') throw error;
    const closed = await open(path, O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW);
    try {
      await chmod(underHandle(closed), 0o700);
      return await openFolder(underHandle(closed, Buffer.from('.')));
    } finally {
      await closed.close();
    }
  }
}

/** A name of ours, as the system of the folder takes names. */
export function nameOf(folder: Folder, name: string): Buffer | string {
  return folder.platform === 'win32' ? name : Buffer.from(name);
}

function bufferOf(name: LocalPath): Buffer {
  return typeof name === 'string' ? Buffer.from(name) : name;
}
