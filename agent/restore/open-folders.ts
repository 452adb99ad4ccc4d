/**
 * The folders that have something under way in them. The one at the end of the manifest's path is where files go; a
 * folder gets its own mode and time once nothing in it is under way any more, since every file put in changes it.
 */
import { utimes } from 'node:fs/promises';
import type { Attributes } from '../../protocol/attributes.ts';
import type { StoredVersion } from '../../protocol/messages.ts';
import { splitNanoseconds, utimesValue } from '../files/attributes.ts';
import { isDriveName, restoredName } from '../files/path-rules.ts';
import type { LocalPath } from '../files/types.ts';
import { applyAsNew, applyToFolder, ownershipIn, setMode, setsMode } from './apply.ts';
import { type Folder, openChild } from './folders.ts';
import { leftOutBy, settingAttributes, type Work } from './work.ts';

export interface OpenFolder {
  folder: Folder;
  parent: OpenFolder | null;
  /** Its name in the archive and in the target. */
  archiveName: Buffer;
  name: LocalPath | null;
  path: Buffer;
  version: { stored: StoredVersion; attributes: Attributes } | null;
  /** Files and folders in it that are not done, and one while the manifest is still in it. */
  holds: number;
}

export function openTop(target: Folder, path: Buffer): OpenFolder {
  return { folder: target, parent: null, archiveName: Buffer.alloc(0), name: null, path, version: null, holds: 1 };
}

/** The folder of a name in a folder, made if need be. The caller gives it back with `release`. */
export async function openIn(
  work: Work,
  parent: OpenFolder,
  entry: { archiveName: Buffer; name: LocalPath; path: Buffer; version: OpenFolder['version'] },
): Promise<OpenFolder> {
  const folder = await openChild(parent.folder, entry.name);
  parent.holds++;
  const open = { folder, parent, ...entry, holds: 1 };
  // One that gets nothing from the archive has its mode at once: a restore that goes on after a kill finds it standing there,
  // and leaves it as it is.
  if (folder.made && !(entry.version && isFromArchive(work))) {
    try {
      await settingAttributes(work, entry.path, () => applyAsNew(folder, ownershipIn(work.ownership, folder.parent)));
    } catch (error) {
      await release(work, open).catch(() => undefined);
      throw error;
    }
  }
  return open;
}

const isFromArchive = ({ ownership }: Work): boolean => !(ownership && 'umask' in ownership);

/** One thing less is under way in the folder; the last one ends it, and so on upwards. */
export async function release(work: Work, open: OpenFolder): Promise<void> {
  const fatal: unknown[] = [];
  for (let at: OpenFolder | null = open; at; at = at.parent) {
    if (--at.holds > 0 || !at.parent) break;
    try {
      await finish(work, at).catch((error) => {
        work.ledger.notice(at!.path, 'attributes_not_set', leftOutBy(work, error).message);
      });
    } catch (error) {
      fatal.push(error); // the folders above are to be closed all the same
    }
    await at.folder.close();
  }
  if (fatal.length > 0) throw fatal[0];
}

/** Gives a folder its mode and time. */
export async function finish(work: Work, open: OpenFolder): Promise<void> {
  const { folder, version } = open;
  await settingAttributes(work, open.path, async () => {
    const ownership = ownershipIn(work.ownership, folder.made ? folder.parent : null);
    if (version && setsMode(ownership))
      return applyToFolder(folder, version.attributes, version.stored.mtime, ownership);
    // The archive says nothing about it, or nothing that counts: as it was, or as any new folder.
    if (folder.made) return applyAsNew(folder, ownership);
    await setMode(folder, Number(folder.found.mode & 0o7777n));
    if (version) return applyToFolder(folder, version.attributes, version.stored.mtime, ownership);
    const { ms, rest } = splitNanoseconds(folder.found.mtimeNs);
    const time = utimesValue(ms, rest);
    if (folder.handle) await folder.handle.utimes(time, time);
    else await utimes(folder.localPath, time, time);
  });
}

/** The name a file of the archive gets in a folder; told when it is another one. */
export function chooseName(work: Work, parent: OpenFolder, archiveName: Buffer, path: Buffer): LocalPath {
  const { folder } = parent;
  const drive = parent.parent === null && isDriveName(archiveName) && folder.platform === 'win32';
  const wanted = drive
    ? { name: archiveName.toString('latin1', 0, 1), changed: false }
    : restoredName(archiveName, folder.platform);
  const name = folder.take(wanted.name, wanted.changed);
  if (wanted.changed || name !== wanted.name) work.ledger.notice(path, 'name_changed', `restored as ${name}`);
  return name;
}

/** Names from the target down to a folder. */
export function namesTo(open: OpenFolder): LocalPath[] {
  const names: LocalPath[] = [];
  for (let at = open; at.parent; at = at.parent) names.unshift(at.name!);
  return names;
}
