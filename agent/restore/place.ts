/**
 * Gives finished files their names. What stands at a name is never replaced in silence: it is left if identical,
 * renamed aside, or replaced because the user said so; and a file that appears at the last moment is found by the
 * system call itself (link(2) refuses a name that exists).
 */
import type { BigIntStats } from 'node:fs';
import { rename, rmdir } from 'node:fs/promises';
import { link, lstat, unlink } from '../files/calls.ts';
import { markedName } from '../files/path-rules.ts';
import type { LocalPath } from '../files/types.ts';
import type { Folder } from './folders.ts';
import { type ExistingPolicy, RestoreError } from './types.ts';

/** Tries before giving up on a name that others keep taking. */
const attemptsMax = 20;

/** What stands at a name; null when nothing does. Symlinks are not followed. */
export async function standingAt(folder: Folder, name: LocalPath): Promise<BigIntStats | null> {
  await folder.guard();
  try {
    return await lstat(folder.at(name));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}

export type Cleared = 'free' | 'keep' | 'replace' | { renamedTo: LocalPath } | 'removed_folder';

/**
 * Makes way for a file at a name where something different stands.
 * @returns 'keep' when the existing one stays, 'replace' when it may be renamed over
 * @throws RestoreError exists, by the policy `fail`
 */
export async function makeWay(folder: Folder, name: LocalPath, policy: ExistingPolicy): Promise<Cleared> {
  const standing = await standingAt(folder, name);
  if (!standing) return 'free';
  if (policy === 'keep') return 'keep';
  if (policy === 'fail') throw new RestoreError('exists', `${printable(folder, name)} exists and differs`);
  if (policy === 'overwrite') {
    if (!standing.isDirectory()) return 'replace';
    // Never a tree for a file: only a folder that holds nothing goes.
    if (
      await rmdir(folder.at(name)).then(
        () => true,
        () => false,
      )
    )
      return 'removed_folder';
  }
  for (let number = 1; number <= attemptsMax; number++) {
    const mark = number === 1 ? ' (before restore)' : ` (before restore ${number})`;
    const aside = markedName(name, mark, folder.platform);
    if (await moveIfFree(folder.at(name), folder.at(aside))) {
      folder.reserve(aside);
      return { renamedTo: aside };
    }
  }
  throw new RestoreError('exists', `${printable(folder, name)} exists and ${attemptsMax} older ones stand beside it`);
}

/**
 * Moves a file to a name if nothing has that name.
 * @returns false when something has it
 */
export async function moveIfFree(from: LocalPath, to: LocalPath): Promise<boolean> {
  try {
    await link(from, to);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST') return false;
    // No hard links here (FAT, some network file systems), not on folders, not on files of others: look, then rename.
    if (
      !['EPERM', 'EACCES', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK', 'EISDIR', 'EINVAL', 'UNKNOWN'].includes(
        code ?? '',
      )
    )
      throw error;
    const taken = await lstat(to).then(
      () => true,
      (failure) => failure.code !== 'ENOENT',
    );
    if (taken) return false;
    await rename(from, to);
    return true;
  }
  await unlink(from);
  return true;
}

export function printable(folder: Folder, name: LocalPath): string {
  return `${folder.localPath}${folder.platform === 'win32' ? '\\' : '/'}${name}`;
}
