/**
 * Objects as files under one folder, for the embedded default and for one machine with good disks.
 * A file gets its name only when its bytes are on disk, and a put returns only when the name is too, so that after a
 * crash at any point an object is there whole or not at all. The layout is in `directory-layout.ts`.
 */
import { randomUUID } from 'node:crypto';
import { constants } from 'node:fs';
import {
  type FileHandle,
  lstat,
  mkdir,
  open,
  opendir,
  readdir,
  realpath,
  rename,
  statfs,
  unlink,
} from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { directoryFault } from './directory-faults.ts';
import { type FolderGroup, groupFolder, groupMembers, mayHold, placeOf } from './directory-layout.ts';
import { claimStore, requireMarker, storeMissing } from './directory-marker.ts';
import { DurableFolders, fsyncParent } from './durable-folders.ts';
import { bodyPieces, chunksLength, pieceGroups, releasingStream } from './object-body.ts';
import {
  type Cancellable,
  checkKey,
  checkKeyPrefix,
  checkPage,
  checkRange,
  type ObjectBody,
  type ObjectContent,
  type ObjectInfo,
  ObjectLengthMismatch,
  ObjectNotFound,
  type ObjectPage,
  type ObjectRange,
  ObjectRangeInvalid,
  type ObjectStore,
  type StoreInspection,
} from './object-store.ts';

export interface DirectoryStoreOptions {
  /** The store's folder. Its parent must exist. */
  path: string;
  /** The catalog whose objects these are; a store of another is refused. Absent: whichever it is. */
  catalogId?: string | undefined;
  /**
   * Whether a store may be made where there is none. Only for a catalog that never stored an object: otherwise the
   * store is there, and an empty folder is the place of a disk that is not mounted. Default false.
   */
  create?: boolean | undefined;
  /** Files in `temp/` older than this are taken for leftovers of a crash. Default: a day; an upload's lease is an hour. */
  tempAgeMaxMs?: number;
  now?: () => Date;
}

const dayMs = 24 * 60 * 60 * 1_000;
/** Bytes handed to one writev: large enough that system calls do not show, small enough to notice an abort. */
const writeBytes = 4 * 1024 * 1024;
/** Bytes of one read. */
const readBytes = 512 * 1024;
/** A write handed this many buffers is one system call (IOV_MAX on Linux and macOS). */
const writeBuffersMax = 1_024;

/**
 * Opens the store, and removes what a crash left in `temp/`.
 * @throws Error in words for the operator when there is no store and none may be made, when it is another catalog's or
 *   of a newer layout, or when the folder holds something else
 */
export async function openDirectoryStore(options: DirectoryStoreOptions): Promise<DirectoryStore> {
  const given = resolve(options.path);
  if (options.create) await makeRoot(given);
  // The root itself may be a link, to another disk for example; below it none is followed.
  const root = await realpath(given).catch((cause: NodeJS.ErrnoException) => {
    throw cause.code === 'ENOENT' ? storeMissing(given, cause) : cause;
  });
  await claimStore(root, { catalogId: options.catalogId, create: options.create ?? false });
  const folders = new DurableFolders(root);
  const temp = await folders.make(['temp']);
  await folders.make(['objects']);
  const now = options.now ?? (() => new Date());
  await sweepTemp(temp, now().getTime() - (options.tempAgeMaxMs ?? dayMs));
  return new DirectoryStore(root, folders);
}

async function makeRoot(path: string): Promise<void> {
  try {
    await mkdir(path, { mode: 0o700 });
    await fsyncParent(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
}

export class DirectoryStore implements ObjectStore {
  private readonly root: string;
  private readonly folders: DurableFolders;

  /** Use `openDirectoryStore`. */
  constructor(root: string, folders: DurableFolders) {
    this.root = root;
    this.folders = folders;
  }

  async put(key: string, body: ObjectBody, options: Cancellable = {}): Promise<void> {
    const place = placeOf(checkKey(key));
    const temp = join(this.root, 'temp', randomUUID());
    await requireMarker(this.root);
    try {
      await writeWhole(temp, (file) => writeBody(file, key, body, options.signal));
      const folder = await this.folders.make(['objects', ...place.folders]);
      options.signal?.throwIfAborted();
      await rename(temp, join(folder, place.file));
      await this.folders.sync(folder);
    } catch (error) {
      await unlink(temp).catch(() => {});
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') {
        this.folders.forget();
        await requireMarker(this.root);
      }
      throw directoryFault(`put ${key}`, error);
    }
  }

  async get(key: string, range?: ObjectRange, options: Cancellable = {}): Promise<ObjectContent> {
    checkKey(key);
    if (range) checkRange(key, range);
    options.signal?.throwIfAborted();
    const file = await this.openObject(key);
    try {
      const { size } = await file.stat();
      if (range && range.offset + range.length > size) throw new ObjectRangeInvalid(key, range);
      const { offset, length } = range ?? { offset: 0, length: size };
      const stream = releasingStream(readPieces(file, key, { offset, length }, options.signal), () => file.close());
      return { length, stream };
    } catch (error) {
      await file.close();
      throw directoryFault(`get ${key}`, error);
    }
  }

  async head(key: string): Promise<ObjectInfo | null> {
    const path = await this.findObject(key);
    const info = path === null ? null : await infoOf(key, path);
    if (!info) await requireMarker(this.root);
    return info;
  }

  async delete(key: string): Promise<void> {
    const place = placeOf(checkKey(key));
    await requireMarker(this.root);
    const folder = await this.folders.find(['objects', ...place.folders]);
    if (!folder) return;
    await unlink(join(folder, place.file)).catch(ignoreMissing);
    // Also when it was gone already: whoever removed it may have died before making that durable.
    await this.folders.sync(folder).catch(ignoreMissing);
  }

  async list(prefix: string, page: { after?: string; limit: number }): Promise<ObjectPage> {
    checkKeyPrefix(prefix);
    const { after, limit } = checkPage(page);
    const objects: ObjectInfo[] = [];
    for await (const { key, path } of this.walk(join(this.root, 'objects'), '', { prefix, after })) {
      if (objects.length === limit) return { objects, more: true };
      const info = await infoOf(key, path);
      if (info) objects.push(info);
    }
    // That there is no more is only true of a store that is still there.
    await requireMarker(this.root);
    return { objects, more: false };
  }

  /** Proves that the store's disk is there, and takes and keeps a write. */
  async check(): Promise<void> {
    await requireMarker(this.root);
    const probe = join(this.root, 'temp', `check-${randomUUID()}`);
    try {
      await writeWhole(probe, (file) => writeAll(file, [Buffer.from('ready?')]));
    } catch (error) {
      throw directoryFault('check', error);
    } finally {
      await unlink(probe).catch(ignoreMissing);
    }
  }

  async inspect(): Promise<StoreInspection> {
    const space = await statfs(this.root);
    return { kind: 'directory', freeBytes: space.bavail * space.bsize };
  }

  async close(): Promise<void> {}

  private async findObject(key: string): Promise<string | null> {
    const place = placeOf(checkKey(key));
    const folder = await this.folders.find(['objects', ...place.folders]);
    return folder && join(folder, place.file);
  }

  private async openObject(key: string): Promise<FileHandle> {
    try {
      const path = await this.findObject(key);
      if (path) return await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw directoryFault(`get ${key}`, error);
    }
    // That one object is missing is damage, and told as such; a store that is missing as a whole is not.
    await requireMarker(this.root);
    throw new ObjectNotFound(key);
  }

  /** The wanted keys below a folder whose own key is `base`, in order. Holds one group's names per level in memory. */
  private async *walk(
    folder: string,
    base: string,
    wanted: { prefix: string; after: string },
  ): AsyncGenerator<{ key: string; path: string }> {
    for (const group of groupFolder(await readFolder(folder))) {
      if (!mayHold(base + group.start, wanted)) continue;
      for (const member of groupMembers(group, await readFiles(folder, group))) {
        const key = base + member.rest;
        if ('folder' in member) {
          if (mayHold(key, wanted)) yield* this.walk(join(folder, member.folder), key, wanted);
        } else if (key.startsWith(wanted.prefix) && key > wanted.after) {
          yield { key, path: join(folder, group.fanOut!, member.file) };
        }
      }
    }
  }
}

/** Writes a new file and makes its bytes durable; its name is not yet. On an error the file may be left behind. */
async function writeWhole(path: string, write: (file: FileHandle) => Promise<void>): Promise<void> {
  const file = await open(path, 'wx', 0o600);
  try {
    await write(file);
    // fdatasync also writes what is needed to read the bytes back: the length and where they are.
    await file.datasync();
  } finally {
    await file.close();
  }
}

async function writeBody(file: FileHandle, key: string, body: ObjectBody, signal?: AbortSignal): Promise<void> {
  if ('chunks' in body) {
    // Thousands of small chunks go to the system as they are: no iteration and no copy in between.
    if (chunksLength(body.chunks) !== body.length) throw new ObjectLengthMismatch(key, body.length);
    for (let at = 0; at < body.chunks.length; at += writeBuffersMax) {
      signal?.throwIfAborted();
      await writeAll(file, body.chunks.slice(at, at + writeBuffersMax));
    }
    return;
  }
  for await (const group of pieceGroups(bodyPieces(key, body, signal), writeBytes)) {
    for (let at = 0; at < group.length; at += writeBuffersMax)
      await writeAll(file, group.slice(at, at + writeBuffersMax));
  }
}

/** Writes all buffers: writev may write fewer bytes than asked, on a disk that is nearly full for example. */
async function writeAll(file: FileHandle, buffers: Uint8Array[]): Promise<void> {
  let rest = buffers;
  while (rest.length > 0) {
    let { bytesWritten } = await file.writev(rest);
    if (bytesWritten === 0 && chunksLength(rest) > 0) throw new Error('the file takes no more bytes');
    let index = 0;
    while (index < rest.length && bytesWritten >= rest[index]!.byteLength) bytesWritten -= rest[index++]!.byteLength;
    rest = rest.slice(index);
    if (bytesWritten > 0) rest[0] = rest[0]!.subarray(bytesWritten);
  }
}

async function* readPieces(
  file: FileHandle,
  key: string,
  range: { offset: number; length: number },
  signal?: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const end = range.offset + range.length;
  for (let at = range.offset; at < end; ) {
    signal?.throwIfAborted();
    const buffer = Buffer.allocUnsafeSlow(Math.min(readBytes, end - at));
    const { bytesRead } = await file.read(buffer, 0, buffer.byteLength, at).catch((error) => {
      throw directoryFault(`get ${key}`, error);
    });
    if (bytesRead === 0) throw new Error(`object ${key} ends at ${at} of ${end} bytes`);
    at += bytesRead;
    yield buffer.subarray(0, bytesRead);
  }
}

async function infoOf(key: string, path: string): Promise<ObjectInfo | null> {
  const found = await lstat(path).catch(ignoreMissing);
  return found?.isFile() ? { key, length: found.size, modifiedAt: found.mtime } : null;
}

async function readFolder(folder: string): Promise<{ name: string; isFolder: boolean }[]> {
  const entries = (await readdir(folder, { withFileTypes: true }).catch(ignoreMissing)) ?? [];
  return entries.map((entry) => ({ name: entry.name, isFolder: entry.isDirectory() }));
}

async function readFiles(folder: string, group: FolderGroup): Promise<string[]> {
  if (!group.fanOut) return [];
  const entries = (await readdir(join(folder, group.fanOut), { withFileTypes: true }).catch(ignoreMissing)) ?? [];
  return entries.filter((entry) => entry.isFile()).map((entry) => entry.name);
}

/** Removes old files; a young one may belong to a put that is under way in another process. */
async function sweepTemp(temp: string, before: number): Promise<void> {
  for await (const entry of await opendir(temp)) {
    const path = join(temp, basename(entry.name));
    const found = await lstat(path).catch(ignoreMissing);
    if (found?.isFile() && found.mtimeMs < before) await unlink(path).catch(ignoreMissing);
  }
}

function ignoreMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error;
}
