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
  readFile,
  realpath,
  rename,
  statfs,
  unlink,
} from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { type FolderGroup, groupFolder, groupMembers, layoutMarker, mayHold, placeOf } from './directory-layout.ts';
import { DurableFolders, fsyncFolder, fsyncParent } from './durable-folders.ts';
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
  /** The store's folder. It is made if it does not exist; its parent must. */
  path: string;
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
/** Names that may stand in a folder that is about to become a store: a fresh disk's own, and an opening that crashed. */
const freshNames = /^(lost\+found|layout.*)$/;

/**
 * Opens the store, making its folder if need be, and removes what a crash left in `temp/`. Throws when the folder
 * holds something else, or objects in a newer layout.
 */
export async function openDirectoryStore(options: DirectoryStoreOptions): Promise<DirectoryStore> {
  const given = resolve(options.path);
  await mkdir(given, { mode: 0o700 }).then(
    () => fsyncParent(given),
    (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error;
    },
  );
  // The root itself may be a link, to another disk for example; below it none is followed.
  const root = await realpath(given);
  await claimLayout(root);
  const folders = new DurableFolders(root);
  const temp = await folders.make(['temp']);
  await folders.make(['objects']);
  const now = options.now ?? (() => new Date());
  await sweepTemp(temp, now().getTime() - (options.tempAgeMaxMs ?? dayMs));
  return new DirectoryStore(root, folders);
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
    try {
      await writeWhole(temp, (file) => writeBody(file, key, body, options.signal));
      const folder = await this.folders.make(['objects', ...place.folders]);
      options.signal?.throwIfAborted();
      await rename(temp, join(folder, place.file));
      await this.folders.sync(folder);
    } catch (error) {
      await unlink(temp).catch(() => {});
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') this.folders.forget();
      throw error;
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
      throw error;
    }
  }

  async head(key: string): Promise<ObjectInfo | null> {
    const path = await this.findObject(key);
    return path ? infoOf(key, path) : null;
  }

  async delete(key: string): Promise<void> {
    const place = placeOf(checkKey(key));
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
    return { objects, more: false };
  }

  /** Proves that the disk takes and keeps a write. */
  async check(): Promise<void> {
    const probe = join(this.root, 'temp', `check-${randomUUID()}`);
    try {
      await writeWhole(probe, (file) => writeAll(file, [Buffer.from('ready?')]));
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
    const path = await this.findObject(key);
    if (!path) throw new ObjectNotFound(key);
    try {
      return await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') throw new ObjectNotFound(key, { cause: error });
      throw error;
    }
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

/** Makes the folder a store of this layout, or makes sure that it is one. */
async function claimLayout(root: string): Promise<void> {
  const marker = join(root, 'layout');
  const found = await readFile(marker, 'utf8').catch(ignoreMissing);
  if (found === layoutMarker) return;
  if (found !== undefined) {
    throw new Error(
      `${root} holds objects in a layout that this version does not know: ${JSON.stringify(found.slice(0, 80))}`,
    );
  }
  const strangers = (await readdir(root)).filter((name) => !freshNames.test(name));
  if (strangers.length > 0) throw new Error(`${root} is not an object store and not empty: it holds ${strangers[0]}`);
  const fresh = join(root, `layout.${randomUUID()}`);
  await writeWhole(fresh, (file) => writeAll(file, [Buffer.from(layoutMarker)]));
  await rename(fresh, marker);
  await fsyncFolder(root);
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
    const { bytesRead } = await file.read(buffer, 0, buffer.byteLength, at);
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
