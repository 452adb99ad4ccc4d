/**
 * Gives restored files their attributes. Never setuid or setgid, and never an owner, unless asked by root: an archive
 * says who owned a file on another machine, which is no permission on this one.
 */
import { chmod, lchown, lutimes, utimes } from 'node:fs/promises';
import type { Attributes } from '../../protocol/attributes.ts';
import type { Accounts } from '../files/accounts.ts';
import { utimesValue } from '../files/attributes.ts';
import type { Handle } from '../files/calls.ts';
import type { LocalPath } from '../files/types.ts';
import type { Folder } from './folders.ts';

/** Whom files belong to; null leaves them with whoever restores. */
export interface Ownership {
  accounts: Accounts;
}

/** Owner, mode and times of an open file or folder, in the order in which none undoes another. */
export async function applyToHandle(
  handle: Pick<Handle, 'chown' | 'chmod' | 'utimes'>,
  kind: 'file' | 'directory',
  attributes: Attributes,
  mtimeMs: number,
  ownership: Ownership | null,
): Promise<void> {
  if (ownership) await handle.chown(...ownerOf(attributes, ownership)); // clears setuid: before the mode
  await handle.chmod(allowedMode(kind, attributes.mode, ownership));
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
  if (ownership) await lchown(folder.localPath, ...ownerOf(attributes, ownership));
  if (folder.platform !== 'win32') await chmod(folder.localPath, allowedMode('directory', attributes.mode, ownership));
  const time = utimesValue(mtimeMs, attributes.mtimeNs);
  await utimes(folder.localPath, time, time);
}

/** Owner and times of a symlink itself; it has no mode. */
export async function applyToSymlink(
  path: LocalPath,
  attributes: Attributes,
  mtimeMs: number,
  ownership: Ownership | null,
): Promise<void> {
  if (ownership) await lchown(path, ...ownerOf(attributes, ownership));
  const time = utimesValue(mtimeMs, attributes.mtimeNs);
  await lutimes(path, time, time);
}

export function allowedMode(kind: 'file' | 'directory', mode: number, ownership: Ownership | null): number {
  if (ownership) return mode;
  return mode & (kind === 'directory' ? 0o1777 : 0o777);
}

/** By name where this machine knows it, since numbers differ between machines; else by number. */
function ownerOf(attributes: Attributes, { accounts }: Ownership): [number, number] {
  const user = attributes.owner === undefined ? undefined : accounts.userId(attributes.owner);
  const group = attributes.group === undefined ? undefined : accounts.groupId(attributes.group);
  return [user ?? attributes.uid, group ?? attributes.gid];
}
