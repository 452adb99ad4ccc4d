/**
 * Where files grow until they are whole: a folder `.holdfast-restore` in the target, out of sight and of everyone
 * else's reach. A file gets its name only when every byte of it has been verified. What an interrupted restore leaves
 * here the next one goes on with; a restore that ends takes the folder away.
 */
import { constants, lstat, mkdir, open, opendir, rmdir, unlink } from 'node:fs/promises';
import * as calls from '../files/calls.ts';
import { openFolder } from '../files/reach.ts';
import { Folder } from './folders.ts';
import { RestoreError } from './types.ts';

export const stagingName = '.holdfast-restore';
const lockName = 'lock';
const partSuffix = '.part';
/** Unfinished files remembered from an earlier restore: more than it can have had in work. */
const leftoversMax = 100_000;

/** Staging folders this process holds, by device and inode: its own number in a lock says nothing (containers reuse it). */
const held = new Set<string>();

export interface Staging {
  folder: Folder;
  /** Names of unfinished files an earlier restore left. */
  leftovers: Set<string>;
}

/**
 * Opens the target's staging folder and locks it.
 * @throws RestoreError target_busy while another restore works in this target, target_unsafe when somebody else owns
 *   the folder or something else has its name
 */
export async function openStaging(target: Folder): Promise<Staging> {
  const path = target.at(nameOf(target, stagingName));
  await mkdir(path, 0o700).catch((error) => {
    if (error.code !== 'EEXIST')
      throw new RestoreError('target_failed', `cannot write into the target: ${error.message}`, { cause: error });
  });
  const handle = target.handle ? await openFolder(path as Buffer).catch(() => null) : null;
  const found = handle ? await handle.stat({ bigint: true }) : await lstat(path, { bigint: true });
  const mine = process.geteuid === undefined || Number(found.uid) === process.geteuid();
  if (!found.isDirectory() || !mine || ((found.mode & 0o022n) !== 0n && target.platform !== 'win32')) {
    await handle?.close();
    throw new RestoreError(
      'target_unsafe',
      `${stagingName} in the target is not a folder of yours that only you can write to; remove it first`,
    );
  }
  const folder = new Folder({
    parent: target,
    localPath:
      target.platform === 'win32'
        ? `${target.localPath}\\${stagingName}`
        : Buffer.concat([target.localPath as Buffer, Buffer.from(`/${stagingName}`)]),
    platform: target.platform,
    handle,
    found,
    made: false,
    caseSensitive: target.caseSensitive,
  });
  try {
    await lock(folder);
    return { folder, leftovers: await listLeftovers(folder) };
  } catch (error) {
    await folder.close();
    throw error;
  }
}

/** Whether the target's file system tells names apart by case, asked of a name that is there. */
export async function isCaseSensitive(target: Folder): Promise<boolean> {
  const [lower, upper] = await Promise.all(
    [stagingName, stagingName.toUpperCase()].map((name) =>
      lstat(target.at(nameOf(target, name)), { bigint: true }).catch(() => null),
    ),
  );
  return !(lower && upper && lower.ino === upper.ino && lower.dev === upper.dev);
}

/** An unfinished file: in the staging folder, or beside its name where that is on another file system. */
export interface Part {
  folder: Folder;
  name: string;
  /** An earlier restore began it. */
  begun: boolean;
}

export function partFor(staging: Staging, destination: Folder, key: string): Part {
  if (destination.found.dev === staging.folder.found.dev) {
    return { folder: staging.folder, name: key + partSuffix, begun: staging.leftovers.has(key + partSuffix) };
  }
  return { folder: destination, name: `${stagingName}-${key}${partSuffix}`, begun: false };
}

/**
 * Opens an unfinished file for writing, and never through a link: it is ours alone.
 * @param small it is written in one go
 */
export async function openPart(part: Part, small: boolean): Promise<calls.Handle> {
  await part.folder.guard();
  const path = part.folder.at(nameOf(part.folder, part.name));
  const nofollow = constants.O_NOFOLLOW ?? 0;
  if (part.begun) {
    const handle = await calls.open(path, constants.O_RDWR | nofollow, { small: false }).catch(() => null);
    const stat = await handle?.stat({ bigint: true });
    if (handle && stat?.isFile() && stat.nlink === 1n) return handle;
    await handle?.close();
  }
  const flags = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | nofollow;
  try {
    return await calls.open(path, flags, { mode: 0o600, small });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    await unlink(path); // not what an earlier restore left, or left by one that we cannot go on with
    return calls.open(path, flags, { mode: 0o600, small });
  }
}

export async function removePart(part: Part): Promise<void> {
  await unlink(part.folder.at(nameOf(part.folder, part.name))).catch(() => undefined);
}

/** Ends the restore's work here. `keep` leaves unfinished files for the next one. */
export async function closeStaging(target: Folder, staging: Staging, options: { keep: boolean }): Promise<void> {
  const { folder } = staging;
  try {
    if (!options.keep) for (const name of await listLeftovers(folder)) await removePart({ folder, name, begun: true });
    await unlink(folder.at(nameOf(folder, lockName))).catch(() => undefined);
    // Fails when unfinished files are left: then it stays.
    await rmdir(target.at(nameOf(target, stagingName))).catch(() => undefined);
  } finally {
    held.delete(heldKey(folder));
    await folder.close();
  }
}

/** One restore per target at a time: two would write into each other's unfinished files. */
async function lock(folder: Folder): Promise<void> {
  const path = folder.at(nameOf(folder, lockName));
  for (let attempt = 0; ; attempt++) {
    try {
      const handle = await open(path, 'wx', 0o600);
      await handle.writeFile(String(process.pid));
      await handle.close();
      held.add(heldKey(folder));
      return;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
    const holder = await lockHolder(folder);
    if (attempt > 0 || (holder !== null && isHolding(folder, holder))) {
      throw new RestoreError(
        'target_busy',
        `another restore (process ${holder}) works in this target; if it does not, remove ${stagingName}/${lockName} there`,
      );
    }
    await unlink(path).catch(() => undefined);
  }
}

async function lockHolder(folder: Folder): Promise<number | null> {
  const handle = await open(
    folder.at(nameOf(folder, lockName)),
    constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0),
  ).catch(() => null);
  if (!handle) return null;
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(16), 0, 16, 0);
    const pid = Number(buffer.toString('latin1', 0, bytesRead));
    return Number.isSafeInteger(pid) && pid > 0 ? pid : null;
  } finally {
    await handle.close();
  }
}

function heldKey(folder: Folder): string {
  return `${folder.found.dev}:${folder.found.ino}`;
}

function isHolding(folder: Folder, pid: number): boolean {
  if (pid === process.pid) return held.has(heldKey(folder));
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

async function listLeftovers(folder: Folder): Promise<Set<string>> {
  const names = new Set<string>();
  const path = folder.handle ? `/proc/self/fd/${folder.handle.fd}` : folder.localPath;
  for await (const entry of await opendir(path as string)) {
    if (entry.isFile() && entry.name.endsWith(partSuffix) && names.size < leftoversMax) names.add(entry.name);
  }
  return names;
}

export function nameOf(folder: Folder, name: string): Buffer | string {
  return folder.platform === 'win32' ? name : Buffer.from(name);
}
