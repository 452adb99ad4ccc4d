/**
 * Where files grow until they are whole: a folder `.holdfast-restore` in the target, out of sight and of everyone
 * else's reach. A file gets its name only when every byte of it has been verified. What an interrupted restore leaves
 * here the next one goes on with; a restore that ends takes the folder away.
 */
import { constants, lstat, mkdir, opendir, rmdir, unlink } from 'node:fs/promises';
import * as calls from '../files/calls.ts';
import { openFolder } from '../files/reach.ts';
import { Folder, nameOf } from './folders.ts';
import { lockStaging, partSuffix, stagingName, unlockStaging } from './staging-lock.ts';
import { RestoreError } from './types.ts';

/** Unfinished files remembered from an earlier restore: more than it can have had in work. */
const leftoversMax = 100_000;

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
  await mkdir(target.at(nameOf(target, stagingName)), 0o700).catch((error) => {
    if (error.code !== 'EEXIST')
      throw new RestoreError('target_failed', `cannot write into the target: ${error.message}`, { cause: error });
  });
  return openThere(target, { toTidy: false });
}

/**
 * Opens and locks the staging folder that an earlier restore left, on a full disk too.
 * @returns null: it left none
 * @throws as `openStaging`; the system's errors
 */
export async function openLeftStaging(target: Folder): Promise<Staging | null> {
  try {
    await lstat(target.at(nameOf(target, stagingName)));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
  return openThere(target, { toTidy: true });
}

async function openThere(target: Folder, { toTidy }: { toTidy: boolean }): Promise<Staging> {
  const path = target.at(nameOf(target, stagingName));
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
    await lockStaging(folder, { toTidy });
    try {
      return { folder, leftovers: await listLeftovers(folder) };
    } catch (error) {
      await unlockStaging(folder);
      throw error;
    }
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
  } finally {
    // The folder stays when unfinished files are left.
    await unlockStaging(folder, () => rmdir(target.at(nameOf(target, stagingName))));
    await folder.close();
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
