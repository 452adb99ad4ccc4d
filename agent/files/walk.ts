/**
 * Walks roots depth first, folders before what lies in them, in memory that depends on the depth and not on the
 * number of files. Symlinks are reported and never followed, so there are no loops. On Linux every step starts from
 * an open folder, so that a folder exchanged for a symlink meanwhile leads nowhere.
 * Whatever is not seen is said: an unreadable or foreign folder with `subtree`, so that the engine keeps what it has.
 */
import { type BigIntStats, closeSync, type Dir, fstatSync, opendirSync, openSync } from 'node:fs';
import { open as openPath, readlink } from 'node:fs/promises';
import { encodeAttributes, linkTargetBytesMax } from '../../protocol/attributes.ts';
import type { SkipReason } from '../../protocol/messages.ts';
import { pathFault } from '../../protocol/paths.ts';
import { type Accounts, readAccounts } from './accounts.ts';
import { inodeKey, splitNanoseconds } from './attributes.ts';
import { lstat } from './calls.ts';
import { joinLocal, platformRules } from './path-rules.ts';
import { folderFlags, hasFolderNumbers, underHandle, withReachable } from './reach.ts';
import { isSparse, readError, statFields } from './read.ts';
import { ancestorsOf, inspectRoot, type Root } from './roots.ts';
import type { FileState, LocalPath, WalkEvent, WalkOptions } from './types.ts';
import { decodeWtf8 } from './wtf8.ts';

/** Entries of a folder looked at together: enough to keep the thread pool busy, few enough for 512 levels of them. */
const batchEntries = 128;

/** What a walk carries along. */
interface Walk {
  options: WalkOptions;
  accounts: Accounts;
  byNumber: boolean;
  /** Archive paths of all roots: a root inside another is left to its own turn. */
  rootKeys: Set<string>;
}

interface Folder {
  path: Buffer;
  localPath: LocalPath;
  device: bigint;
  dir: Dir;
  handle: { fd: number } | null;
  entries: Entry[];
}

interface Entry {
  path: Buffer;
  localPath: LocalPath;
  /** For system calls: relative to the open folder where that is possible. */
  reach: LocalPath;
  stat: BigIntStats | null;
  error: unknown;
}

/**
 * Everything at and below the roots, as events. Roots are absolute or relative to the working folder; a root's
 * ancestors are resolved (symlinks in them followed), each is given once.
 * @throws the signal's reason when it aborts
 */
export async function* walk(roots: readonly LocalPath[], options: WalkOptions): AsyncGenerator<WalkEvent> {
  const inspected = await Promise.all(roots.map((root) => inspectRoot(root)));
  const good = new Map<string, Root>();
  for (const root of inspected) {
    if ('failure' in root) yield { type: 'root-failed', path: root.path, reason: root.failure, detail: root.detail };
    else good.set(root.path.toString('latin1'), root);
  }
  const walking: Walk = {
    options,
    accounts: await readAccounts(),
    byNumber: options.folderHandles ?? (await hasFolderNumbers()),
    rootKeys: new Set(good.keys()),
  };
  const sorted = [...good.values()].sort((a, b) => Buffer.compare(a.path, b.path));
  const ancestors = new Set(sorted.flatMap((root) => ancestorsOf(root).map(({ path }) => path.toString('latin1'))));
  const given = new Set<string>();
  for (const root of sorted) {
    for (const { path, localPath } of ancestorsOf(root)) {
      const key = path.toString('latin1');
      if (given.has(key) || walking.rootKeys.has(key)) continue;
      given.add(key);
      const entry: Entry = { path, localPath, reach: localPath, stat: null, error: null };
      entry.stat = await statEntry(entry);
      // No rule applies to it: it is there because of what was asked for below it.
      yield entry.stat ? await fileEvent(walking, entry, entry.stat) : skipped(path, readError(entry.error), false);
    }
    for await (const event of walkRoot(walking, root)) {
      // A root inside this one may come later: its ancestors are known by then.
      if (event.type === 'file' && event.file.kind === 'directory') {
        const key = event.file.path.toString('latin1');
        if (ancestors.has(key)) given.add(key);
      }
      yield event;
    }
  }
}

async function* walkRoot(walking: Walk, root: Root): AsyncGenerator<WalkEvent> {
  const entry: Entry = {
    path: root.path,
    localPath: root.localPath,
    reach: root.localPath,
    stat: root.stat,
    error: null,
  };
  if (!root.stat.isDirectory()) {
    yield {
      type: 'root',
      path: root.path,
      localPath: root.localPath,
      kind: 'file',
      device: root.stat.dev,
      empty: false,
    };
    yield await fileEvent(walking, entry, root.stat);
    return;
  }
  const stack: Folder[] = [];
  try {
    try {
      stack.push(await openEntry(walking, entry, root.stat));
      await readEntries(stack[0]!);
    } catch (error) {
      yield { type: 'root-failed', path: root.path, reason: 'unreadable', detail: readError(error).message };
      return;
    }
    const empty = stack[0]!.entries.length === 0;
    yield { type: 'root', path: root.path, localPath: root.localPath, kind: 'directory', device: root.stat.dev, empty };
    // '/' is where all paths begin; the archive holds no version of it.
    if (root.path.byteLength > 1) yield await fileEvent(walking, entry, root.stat);
    yield* walkFolders(walking, stack, root.stat.dev);
  } finally {
    for (const folder of stack) closeFolder(folder);
  }
}

async function* walkFolders(walking: Walk, stack: Folder[], rootDevice: bigint): AsyncGenerator<WalkEvent> {
  for (let folder = stack.at(-1); folder; folder = stack.at(-1)) {
    walking.options.signal?.throwIfAborted();
    const entry = folder.entries.shift() ?? (await refill(folder));
    if (entry === null || 'type' in entry) {
      if (entry) yield entry;
      closeFolder(stack.pop()!);
      continue;
    }
    if (walking.rootKeys.has(entry.path.toString('latin1'))) continue;
    const event = await lookAt(walking, entry);
    yield event;
    if (event.type !== 'file' || event.file.kind !== 'directory') continue;
    const next = await enter(walking, entry, rootDevice);
    if (next === null) continue;
    if ('type' in next) yield next;
    else stack.push(next);
  }
}

/** The next entry after another read; null at the folder's end; an event when it cannot be read on. */
async function refill(folder: Folder): Promise<Entry | WalkEvent | null> {
  try {
    await readEntries(folder);
  } catch (error) {
    return skipped(folder.path, readError(error), true);
  }
  return folder.entries.shift() ?? null;
}

/** Goes into a folder that was just reported; an event says why not. */
async function enter(walking: Walk, entry: Entry, rootDevice: bigint): Promise<Folder | WalkEvent> {
  const stat = entry.stat!;
  if (walking.options.oneFileSystem && stat.dev !== rootDevice) {
    return skipped(entry.path, { reason: 'other_file_system', message: 'another file system is mounted there' }, true);
  }
  try {
    const folder = await openEntry(walking, entry, stat);
    if (!walking.options.excludes.cacheTags || !(await hasCacheTag(folder))) return folder;
    closeFolder(folder);
    return skipped(entry.path, { reason: 'excluded', message: 'it holds a CACHEDIR.TAG' }, true);
  } catch (error) {
    return skipped(entry.path, readError(error), true);
  }
}

/** What an entry is: a file, folder or symlink, or why it is left out. */
async function lookAt(walking: Walk, entry: Entry): Promise<WalkEvent> {
  const fault = pathFault(entry.path);
  if (fault) return skipped(entry.path, { reason: 'name_not_storable', message: `its path ${fault}` }, true);
  const { stat } = entry;
  if (!stat) return skipped(entry.path, readError(entry.error), true);
  const kind = stat.isFile() ? 'file' : stat.isDirectory() ? 'directory' : stat.isSymbolicLink() ? 'symlink' : null;
  const rule = walking.options.excludes.match(entry.path, kind ?? 'file');
  if (rule) return skipped(entry.path, { reason: 'excluded', message: rule }, kind === 'directory');
  if (!kind) return skipped(entry.path, { reason: 'special_file', message: specialName(stat) }, false);
  return fileEvent(walking, entry, stat);
}

async function fileEvent(walking: Walk, entry: Entry, stat: BigIntStats): Promise<WalkEvent> {
  const kind = stat.isFile() ? 'file' : stat.isDirectory() ? 'directory' : 'symlink';
  let target: Buffer | undefined;
  if (kind === 'symlink') {
    try {
      target = await withReachable(entry.reach, (path) => readlink(path, 'buffer'));
    } catch (error) {
      return skipped(entry.path, readError(error), false);
    }
    if (target.byteLength > linkTargetBytesMax) {
      return skipped(
        entry.path,
        { reason: 'name_not_storable', message: `its target is longer than ${linkTargetBytesMax} bytes` },
        false,
      );
    }
  }
  const file: FileState = {
    path: entry.path,
    localPath: entry.localPath,
    kind,
    ...statFields(stat),
    attributes: attributesOf(walking.accounts, stat, target),
  };
  return { type: 'file', file };
}

function attributesOf(accounts: Accounts, stat: BigIntStats, target: Buffer | undefined): Buffer {
  const linked = stat.isFile() && stat.nlink > 1n;
  return encodeAttributes({
    mode: Number(stat.mode) & 0o7777,
    uid: Number(stat.uid),
    gid: Number(stat.gid),
    owner: accounts.userName(Number(stat.uid)),
    group: accounts.groupName(Number(stat.gid)),
    mtimeNs: splitNanoseconds(stat.mtimeNs).rest,
    target,
    inode: linked ? inodeKey(stat.dev, stat.ino) : undefined,
    links: linked ? Number(stat.nlink) : undefined,
    sparse: isSparse(stat),
  });
}

/**
 * Opens a folder that was just looked at. With calls that wait: its inode is in memory, so they take microseconds, and
 * for a tree of many small folders the turns through the thread pool would cost more than all the rest.
 */
async function openEntry(walking: Walk, entry: Entry, stat: BigIntStats): Promise<Folder> {
  const base = { path: entry.path, localPath: entry.localPath, device: stat.dev, entries: [] };
  const dirOptions = { encoding: 'buffer' as BufferEncoding, bufferSize: batchEntries };
  if (!walking.byNumber) {
    const dir = await withReachable(entry.reach, async (path) => opendirSync(path as string, dirOptions));
    return { ...base, dir, handle: null };
  }
  const fd = await withReachable(entry.reach, async (path) => openSync(path, folderFlags));
  try {
    const now = fstatSync(fd, { bigint: true });
    if (now.dev !== stat.dev || now.ino !== stat.ino) throw Object.assign(new Error('exchanged'), { code: 'ENOENT' });
    return { ...base, dir: opendirSync(underHandle({ fd }) as never as string, dirOptions), handle: { fd } };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** Reads the folder's next entries and looks at them together. */
async function readEntries(folder: Folder): Promise<void> {
  const names: Buffer[] = [];
  while (names.length < batchEntries) {
    const found = await folder.dir.read();
    if (!found) break;
    names.push(found.name as never as Buffer);
  }
  folder.entries = await Promise.all(
    names.map(async (name) => {
      const entry = entryOf(folder, name);
      // A path past the archive's bounds is not worth a call: lookAt says so.
      if (pathFault(entry.path) === null) entry.stat = await statEntry(entry);
      return entry;
    }),
  );
}

function entryOf(folder: Folder, name: Buffer): Entry {
  const platform = platformRules(process.platform);
  const local = platform === 'win32' ? (decodeWtf8(name) ?? name.toString('utf8')) : name;
  const localPath = joinLocal(folder.localPath, local, platform);
  const slash = folder.path.byteLength > 1 ? [Buffer.of(0x2f)] : [];
  return {
    path: Buffer.concat([folder.path, ...slash, name]),
    localPath,
    reach: folder.handle ? underHandle(folder.handle, name) : localPath,
    stat: null,
    error: null,
  };
}

async function statEntry(entry: Entry): Promise<BigIntStats | null> {
  try {
    return await withReachable(entry.reach, lstat);
  } catch (error) {
    entry.error = error;
    return null;
  }
}

const cacheTagSignature = Buffer.from('Signature: 8a477f597d28d172789f06886806bc55');

async function hasCacheTag(folder: Folder): Promise<boolean> {
  const tag = Buffer.from('CACHEDIR.TAG');
  const reach = folder.handle
    ? underHandle(folder.handle, tag)
    : joinLocal(folder.localPath, tag.toString(), platformRules(process.platform));
  try {
    const stat = await withReachable(reach, lstat);
    if (!stat.isFile()) return false;
    const handle = await withReachable(reach, (path) => openPath(path, 'r'));
    try {
      const { buffer, bytesRead } = await handle.read(
        Buffer.alloc(cacheTagSignature.byteLength),
        0,
        cacheTagSignature.byteLength,
        0,
      );
      return buffer.subarray(0, bytesRead).equals(cacheTagSignature);
    } finally {
      await handle.close();
    }
  } catch {
    return false; // no tag, or none that can be read: the folder is backed up
  }
}

function closeFolder(folder: Folder): void {
  folder.dir.closeSync();
  if (folder.handle) closeSync(folder.handle.fd);
}

function skipped(path: Buffer, why: { reason: SkipReason; message: string }, subtree: boolean): WalkEvent {
  return { type: 'skipped', path, reason: why.reason, detail: why.message, subtree };
}

function specialName(stat: BigIntStats): string {
  if (stat.isFIFO()) return 'a pipe';
  if (stat.isSocket()) return 'a socket';
  if (stat.isBlockDevice()) return 'a block device';
  if (stat.isCharacterDevice()) return 'a character device';
  return 'neither file, folder nor symlink';
}
