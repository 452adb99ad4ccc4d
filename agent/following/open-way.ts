/**
 * The way to a folder that somebody else named: from the machine's root, name by name. Folders are as they are, whoever owns
 * them; a symbolic link is followed only where nobody but root and whoever runs the agent can have put it. So a link that
 * an administrator set up (/home to /var/home) leads on, and one that somebody laid where root is about to write does not.
 * From the folder that is reached on, restores go through no link at all (agent/restore/folders.ts).
 */
import type { BigIntStats } from 'node:fs';
import { constants, type FileHandle, lstat, mkdir, open, readlink } from 'node:fs/promises';
import { printablePath, splitPath } from '../../protocol/paths.ts';
import { platformRules, restoredName, toLocalPath } from '../files/path-rules.ts';
import { hasFolderNumbers, openFolder, underHandle } from '../files/reach.ts';
import type { LocalPath, Platform } from '../files/types.ts';
import { Folder } from '../restore/folders.ts';
import { printable } from '../restore/place.ts';

/** Linux's O_PATH, which Node does not name: a folder on the way may be one that cannot be listed. */
const O_PATH = 0o10000000;
/** As many as Linux follows. */
const linksMax = 40;

/** Why there is no way, in words for people. */
export class NoWay extends Error {
  readonly reason: 'missing' | 'not_folder' | 'link_refused' | 'not_allowed' | 'not_here';

  constructor(reason: NoWay['reason'], message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'NoWay';
    this.reason = reason;
  }
}

export interface WayOptions {
  /** Makes the folders that are missing, as any new ones. */
  make: boolean;
  /** Who runs the agent; null where there are no numbers for that (Windows: no link is followed then). */
  uid?: number | null;
  folderHandles?: boolean;
}

/**
 * Opens the folder of an archive path, as such paths are on this machine ('/C:/Users' on Windows). The caller closes it.
 * @throws NoWay; the system's errors
 */
export async function openWay(path: Buffer, options: WayOptions): Promise<Folder> {
  const platform = platformRules(process.platform);
  const { make, uid = process.geteuid?.() ?? null, folderHandles = await hasFolderNumbers() } = options;
  const { root, names } = startOf(path, platform);
  const chain: Folder[] = [await openRoot(root, platform, folderHandles)];
  const left = [...names].reverse();
  try {
    for (let links = 0; left.length > 0; ) {
      const name = left.pop()!;
      const at = chain.at(-1)!;
      if (isName(name, '..')) {
        if (chain.length > 1) await chain.pop()!.close();
        continue;
      }
      const there = await findOrMake(at, name, make, uid);
      if (!there.isSymbolicLink()) {
        chain.push(await stepInto(at, name, there, left.length === 0));
        continue;
      }
      if (++links > linksMax) throw new NoWay('link_refused', `${printable(at, name)}: too many symbolic links`);
      checkLink(at, name, there, uid);
      const target = await readlink(at.at(name), 'buffer');
      const names = splitPath(Buffer.concat([Buffer.from('/'), target])).filter(
        (each) => each.byteLength > 0 && !isName(each, '.'),
      );
      left.push(...names.reverse());
      if (target[0] === 0x2f) for (const folder of chain.splice(1)) await folder.close();
    }
    return await readable(chain);
  } catch (error) {
    for (const folder of chain) await folder.close().catch(() => undefined);
    throw explain(error, path);
  }
}

function startOf(path: Buffer, platform: Platform): { root: LocalPath; names: LocalPath[] } {
  const all = splitPath(path);
  if (platform !== 'win32') return { root: Buffer.from('/'), names: all };
  try {
    toLocalPath(path, platform);
    const top = all[0]?.toString('latin1') === 'UNC' ? 3 : 1;
    const root = toLocalPath(Buffer.concat(all.slice(0, top).flatMap((name) => [Buffer.from('/'), name])), platform);
    return { root, names: all.slice(top).map((name) => restoredName(name, platform).name) };
  } catch (error) {
    throw new NoWay('not_here', `${printablePath(path)} is not a path of this system: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

async function openRoot(root: LocalPath, platform: Platform, handles: boolean): Promise<Folder> {
  const handle = handles ? await openOnTheWay(root as Buffer) : null;
  const found = handle ? await handle.stat({ bigint: true }) : await lstat(root, { bigint: true });
  return new Folder({ parent: null, localPath: root, platform, handle, found, made: false, caseSensitive: true });
}

async function findOrMake(at: Folder, name: LocalPath, make: boolean, uid: number | null): Promise<BigIntStats> {
  const look = async (): Promise<BigIntStats | null> =>
    lstat(at.at(name), { bigint: true }).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return null;
      throw error;
    });
  const there = await look();
  if (there) return there;
  if (!make) throw new NoWay('missing', `there is no ${printable(at, name)}`);
  await mkdir(at.at(name)).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error;
  });
  const made = await look();
  if (!made) throw new NoWay('missing', `${printable(at, name)} was made, and is gone`);
  // What root makes on the way to somebody's files is theirs, like the folder that it is made in.
  if (uid === 0 && made.isDirectory() && made.uid === 0n && at.found.uid !== 0n) {
    const step = await stepInto(at, name, made, false);
    try {
      if (step.handle)
        await openedAgain(step.handle, (handle) => handle.chown(Number(at.found.uid), Number(at.found.gid)));
    } finally {
      await step.close();
    }
  }
  return made;
}

/** Calls that change a folder are not for one opened by O_PATH. */
async function openedAgain(handle: FileHandle, use: (handle: FileHandle) => Promise<void>): Promise<void> {
  const again = await openFolder(underHandle(handle, Buffer.from('.')));
  try {
    await use(again);
  } finally {
    await again.close();
  }
}

async function stepInto(at: Folder, name: LocalPath, there: BigIntStats, last: boolean): Promise<Folder> {
  if (!there.isDirectory()) throw new NoWay('not_folder', `${printable(at, name)} is not a folder`);
  const path = at.at(name);
  const handle = at.handle ? await (last ? openFolder(path as Buffer) : openOnTheWay(path as Buffer)) : null;
  const found = handle ? await handle.stat({ bigint: true }) : there;
  const { platform, caseSensitive } = at;
  const localPath =
    platform === 'win32'
      ? String(at.localPath).replace(/\\?$/, `\\${name}`)
      : below(at.localPath as Buffer, name as Buffer);
  return new Folder({ parent: at, localPath, platform, handle, found, made: false, caseSensitive });
}

function below(folder: Buffer, name: Buffer): Buffer {
  return Buffer.concat(folder.byteLength === 1 ? [folder, name] : [folder, Buffer.from('/'), name]);
}

function openOnTheWay(path: Buffer): Promise<FileHandle> {
  return open(path, O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW);
}

/**
 * A link is trusted that is root's or ours, in a folder that is root's or ours and that nobody else can put a link into; in
 * one like /tmp, whose sticky bit keeps others from exchanging it, all the same.
 */
function checkLink(at: Folder, name: LocalPath, link: BigIntStats, uid: number | null): void {
  const ours = (owner: bigint): boolean => owner === 0n || (uid !== null && owner === BigInt(uid));
  const { found } = at;
  const closed = (found.mode & 0o022n) === 0n || (found.mode & 0o1000n) !== 0n;
  if (uid !== null && ours(link.uid) && ours(found.uid) && closed) return;
  throw new NoWay(
    'link_refused',
    `${printable(at, name)} is a symbolic link that somebody else could have put there, and is not followed; name the folder that it leads to`,
  );
}

/** Ends the way: the last folder is one that can be listed, and the handles of those above it are not needed any more. */
async function readable(chain: Folder[]): Promise<Folder> {
  const end = chain.at(-1)!;
  const opened = end.handle ? await openFolder(underHandle(end.handle, Buffer.from('.'))) : null;
  for (const folder of chain) await folder.close();
  if (!opened) return end;
  const { parent, localPath, platform, found, made, caseSensitive } = end;
  return new Folder({ parent, localPath, platform, handle: opened, found, made, caseSensitive });
}

function explain(error: unknown, path: Buffer): unknown {
  const { code, syscall, message } = error as NodeJS.ErrnoException;
  if (typeof code !== 'string' || typeof syscall !== 'string') return error;
  const where = printablePath(path);
  if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS')
    return new NoWay('not_allowed', `the agent may not go or write to ${where} (${code})`, { cause: error });
  if (code === 'ENOTDIR' || code === 'ELOOP')
    return new NoWay('not_folder', `${where} is not a folder`, { cause: error });
  if (code === 'ENOENT') return new NoWay('missing', `there is no ${where}`, { cause: error });
  return new Error(`${where} cannot be opened: ${message}`, { cause: error });
}

const isName = (name: LocalPath, text: string): boolean => name.length === text.length && name.toString() === text;
