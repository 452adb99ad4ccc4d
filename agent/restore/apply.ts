/**
 * Gives restored files their attributes. Never setuid or setgid, and never an owner, unless asked by root: an archive
 * says who owned a file on another machine, which is no permission on this one.
 */
import type { BigIntStats } from 'node:fs';
import { chmod, lchown, lutimes, utimes } from 'node:fs/promises';
import type { Attributes } from '../../protocol/attributes.ts';
import type { Accounts } from '../files/accounts.ts';
import { utimesValue } from '../files/attributes.ts';
import type { Handle } from '../files/calls.ts';
import type { LocalPath } from '../files/types.ts';
import type { Folder } from './folders.ts';

/** Whom files belong to, and what their modes are; null: to whoever restores, with the archive's modes. */
export type Ownership = AsArchived | AsFolder;

export interface AsArchived {
  accounts: Accounts;
}

/** Nothing of the archive's: as of a new file in the folder `of`. Null: it stands there already, and keeps what it has. */
export interface AsFolder {
  umask: number;
  isRoot: boolean;
  of: BigIntStats | null;
}

/** The same for what is made in a folder; null: for what is not made. */
export function ownershipIn(ownership: Ownership | null, folder: Folder | null): Ownership | null {
  if (!ownership || !('umask' in ownership)) return ownership;
  let of = folder;
  while (of?.made && of.parent) of = of.parent; // one that was made just now is not what it is to be yet
  return { ...ownership, of: of?.found ?? null };
}

/** Owner, mode and times of an open file or folder, in the order in which none undoes another. */
export async function applyToHandle(
  handle: Pick<Handle, 'chown' | 'chmod' | 'utimes'>,
  kind: 'file' | 'directory',
  attributes: Attributes,
  mtimeMs: number,
  ownership: Ownership | null,
): Promise<void> {
  const owner = ownerOf(attributes, ownership);
  if (owner) await handle.chown(...owner); // clears setuid: before the mode
  const mode = modeOf(kind, attributes.mode, ownership);
  if (mode !== null) await handle.chmod(mode);
  const time = utimesValue(mtimeMs, attributes.mtimeNs);
  await handle.utimes(time, time);
}

/** The same for a folder that is not held open (macOS, Windows). Call its guard first. */
export async function applyToFolder(
  folder: Folder,
  attributes: Attributes,
  mtimeMs: number,
  ownership: Ownership | null,
): Promise<void> {
  if (folder.handle) return applyToHandle(folder.handle, 'directory', attributes, mtimeMs, ownership);
  await folder.guard();
  const owner = ownerOf(attributes, ownership);
  if (owner) await lchown(folder.localPath, ...owner);
  const mode = modeOf('directory', attributes.mode, ownership);
  if (mode !== null) await setMode(folder, mode);
  const time = utimesValue(mtimeMs, attributes.mtimeNs);
  await utimes(folder.localPath, time, time);
}

/** Mode, and owner, of a folder that was made and of which the archive says nothing. */
export async function applyAsNew(folder: Folder, ownership: Ownership | null): Promise<void> {
  const of = ownership && 'umask' in ownership ? ownership.of : null;
  await folder.guard();
  if (of && ownership && 'umask' in ownership) {
    const owner = ownerAsIn(of, ownership.isRoot);
    if (owner && folder.handle) await folder.handle.chown(...owner);
    else if (owner) await lchown(folder.localPath, ...owner);
  }
  await setMode(folder, (0o777 & ~process.umask()) | Number((of?.mode ?? 0n) & 0o2000n));
}

export async function setMode(folder: Folder, mode: number): Promise<void> {
  await folder.guard();
  if (folder.handle) await folder.handle.chmod(mode);
  else if (folder.platform !== 'win32') await chmod(folder.localPath, mode);
}

/** Owner and times of a symlink itself; it has no mode. */
export async function applyToSymlink(
  path: LocalPath,
  attributes: Attributes,
  mtimeMs: number,
  ownership: Ownership | null,
): Promise<void> {
  const owner = ownerOf(attributes, ownership);
  if (owner) await lchown(path, ...owner);
  const time = utimesValue(mtimeMs, attributes.mtimeNs);
  await lutimes(path, time, time);
}

/** The mode to set; null: it stays. */
export function modeOf(kind: 'file' | 'directory', mode: number, ownership: Ownership | null): number | null {
  if (ownership === null) return mode & (kind === 'directory' ? 0o1777 : 0o777);
  if ('accounts' in ownership) return mode;
  if (ownership.of === null) return null;
  if (kind === 'file') return 0o666 & ~ownership.umask;
  return (0o777 & ~ownership.umask) | Number(ownership.of.mode & 0o2000n); // which a folder hands on to those in it
}

/** Whether modes are set at all by it. */
export const setsMode = (ownership: Ownership | null): boolean => modeOf('directory', 0, ownership) !== null;

/** User and group to set; null: both stay. */
function ownerOf(attributes: Attributes, ownership: Ownership | null): [number, number] | null {
  if (ownership === null) return null;
  if ('umask' in ownership) return ownership.of && ownerAsIn(ownership.of, ownership.isRoot);
  // By name where this machine knows it, since numbers differ between machines; else by number.
  const { accounts } = ownership;
  const user = attributes.owner === undefined ? undefined : accounts.userId(attributes.owner);
  const group = attributes.group === undefined ? undefined : accounts.groupId(attributes.group);
  return [user ?? attributes.uid, group ?? attributes.gid];
}

/** Root gives to whoever owns the folder; others can only hand its group on. */
function ownerAsIn(folder: BigIntStats, isRoot: boolean): [number, number] | null {
  if (isRoot) return [Number(folder.uid), Number(folder.gid)];
  return (folder.mode & 0o2000n) !== 0n ? [-1, Number(folder.gid)] : null;
}
