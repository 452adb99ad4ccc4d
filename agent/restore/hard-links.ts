/**
 * Files that were one file with several names become one again. Remembers, in bounded memory, where the first name of
 * each was restored; a second name with the same content is linked to it instead of being fetched.
 */
import { link, lstat, unlink } from 'node:fs/promises';
import type { Attributes } from '../../protocol/attributes.ts';
import { sha256 } from '../../protocol/hashes.ts';
import type { StoredVersion } from '../../protocol/messages.ts';

import type { LocalPath } from '../files/types.ts';
import { type Folder, findFolder } from './folders.ts';

/** Files with several names whose other names are still to come; beyond it the oldest is restored as separate files. */
const rememberedMax = 100_000;

export interface FirstName {
  /** Names from the target to the folder it is in. */
  folders: LocalPath[];
  name: LocalPath;
  device: bigint;
  inode: bigint;
}

interface Entry {
  /** Null when the first name could not be restored. */
  first: Promise<FirstName | null>;
  namesLeft: number;
}

export class HardLinks {
  readonly #entries = new Map<string, Entry>();

  /** The first name of the same file with the same content, if one was begun. */
  find(version: StoredVersion, attributes: Attributes): Promise<FirstName | null> | null {
    const key = linkKey(version, attributes);
    const entry = key === null ? undefined : this.#entries.get(key);
    if (!entry) return null;
    if (--entry.namesLeft <= 0) this.#entries.delete(key!);
    return entry.first;
  }

  /** Remembers a file being restored as the first name; the answer is to be called with where it went. */
  begin(version: StoredVersion, attributes: Attributes): (first: FirstName | null) => void {
    const key = linkKey(version, attributes);
    if (key === null) return () => undefined;
    const { promise, resolve } = Promise.withResolvers<FirstName | null>();
    this.#entries.set(key, { first: promise, namesLeft: (attributes.links ?? 2) - 1 });
    if (this.#entries.size > rememberedMax) this.#entries.delete(this.#entries.keys().next().value!);
    return (first) => {
      if (first === null && this.#entries.get(key)?.first === promise) this.#entries.delete(key);
      resolve(first);
    };
  }
}

/** Names of one inode backed up at different moments may differ in content: those are two files now. */
function linkKey(version: StoredVersion, attributes: Attributes): string | null {
  if (!attributes.inode || version.kind !== 'file') return null;
  const content = sha256(Buffer.concat([version.blocks, version.lists]));
  return `${attributes.inode.toString('hex')}:${version.size}:${content.toString('hex')}`;
}

/**
 * Gives a restored file one more name, if nothing has that name.
 * @returns false when it cannot be done, or what stands at the first name is no longer what was restored there
 */
export async function linkTo(target: Folder, first: FirstName, folder: Folder, name: LocalPath): Promise<boolean> {
  const source = await findFolder(target, first.folders);
  if (!source) return false;
  try {
    await source.guard();
    await folder.guard();
    await link(source.at(first.name), folder.at(name));
    const linked = await lstat(folder.at(name), { bigint: true });
    if (linked.isFile() && linked.dev === first.device && linked.ino === first.inode) return true;
    await unlink(folder.at(name));
    return false;
  } catch {
    return false; // no hard links here, or too many: the content is fetched instead
  } finally {
    if (source !== target) await source.close();
  }
}
