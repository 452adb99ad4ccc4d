/**
 * Names in a folder of this machine, for somebody who chooses where to restore to: a page in the order of their bytes, in
 * memory for a page however many there are. Everything is looked at from outside: no file is opened, and no link followed but
 * those on the way to the folder itself.
 */
import { access, constants, lstat, opendir } from 'node:fs/promises';
import type { BrowseCommand, BrowseEntry, browseFaults, CommandAnswerRequest } from '../../protocol/commands.ts';
import { limits } from '../../protocol/limits.ts';
import { joinPath, printablePath } from '../../protocol/paths.ts';
import { joinLocal, nameBytes, PathRuleError, toArchivePath, toLocalPath } from '../files/path-rules.ts';
import { withReachable } from '../files/reach.ts';
import type { LocalPath, Platform } from '../files/types.ts';

/** Names read at a time. */
const batchEntries = 1_000;
/** Names looked at side by side: on a disk that does not answer each keeps one of Node's four threads for files. */
const looksAtOnce = 2;

export interface BrowseHere {
  platform: Platform;
  /** Where people's files are, beside the roots. */
  homes: readonly string[];
}

interface Found {
  /** As it is told. */
  name: Buffer;
  localPath: LocalPath;
}

type FaultCode = (typeof browseFaults)[number];

/** The answer to a browse; what goes wrong is part of it. @param signal nobody waits for it any more */
export async function browseFolder(
  command: Pick<BrowseCommand, 'path' | 'after' | 'limit'>,
  here: BrowseHere,
  signal?: AbortSignal,
): Promise<CommandAnswerRequest> {
  const path = command.path ?? joinPath([]);
  const page = new FirstNames(command.after, command.limit);
  try {
    if (command.path === null || (here.platform === 'win32' && path.byteLength === 1)) {
      for (const found of await topPlaces(here, signal)) page.add(found);
    } else await readNames(path, here.platform, page, signal);
    const { found, more } = page.end();
    return { path, entries: await lookAtAll(found, look, signal), next: more ? found.at(-1)!.name : null };
  } catch (error) {
    return { fault: faultOf(error, path) };
  }
}

/** In their order, without those that went away. @param lookAt may never come to an end: then no more than one other is begun */
export async function lookAtAll<Name>(
  names: readonly Name[],
  lookAt: (name: Name) => Promise<BrowseEntry | null>,
  signal?: AbortSignal,
): Promise<BrowseEntry[]> {
  const entries: BrowseEntry[] = [];
  for (let at = 0; at < names.length; at += looksAtOnce) {
    signal?.throwIfAborted();
    const looked = await Promise.all(names.slice(at, at + looksAtOnce).map(lookAt));
    entries.push(...looked.filter((entry) => entry !== null));
  }
  return entries;
}

/** The first names after one, of all that are added, in the order of their bytes. */
export class FirstNames {
  readonly #after: Buffer | null;
  readonly #limit: number;
  #kept: Found[] = [];
  /** Nothing from here on is among the first. */
  #bound: Buffer | null = null;

  constructor(after: Buffer | null, limit: number) {
    this.#after = after;
    this.#limit = limit;
  }

  /** Names in memory. */
  get kept(): number {
    return this.#kept.length;
  }

  add(found: Found): void {
    const { name } = found;
    if (this.#after && Buffer.compare(name, this.#after) <= 0) return;
    if (this.#bound && Buffer.compare(name, this.#bound) > 0) return;
    this.#kept.push(found);
    if (this.#kept.length >= 2 * (this.#limit + 1)) this.#cut();
  }

  end(): { found: Found[]; more: boolean } {
    this.#cut();
    return { found: this.#kept.slice(0, this.#limit), more: this.#kept.length > this.#limit };
  }

  /** One more than asked for stays: whether there are more is part of the answer. */
  #cut(): void {
    this.#kept.sort((a, b) => Buffer.compare(a.name, b.name));
    this.#kept.splice(this.#limit + 1);
    if (this.#kept.length > this.#limit) this.#bound = this.#kept.at(-1)!.name;
  }
}

async function readNames(path: Buffer, platform: Platform, page: FirstNames, signal?: AbortSignal): Promise<void> {
  const local = toLocalPath(path, platform);
  const options = { encoding: 'buffer' as BufferEncoding, bufferSize: batchEntries };
  const folder = await withReachable(local, (reach) => opendir(reach as string, platform === 'win32' ? {} : options));
  for await (const entry of folder) {
    const name = entry.name as LocalPath;
    page.add({ name: nameBytes(name), localPath: joinLocal(local, name, platform) });
    signal?.throwIfAborted();
  }
}

/** Where to begin: whole paths. */
async function topPlaces({ platform, homes }: BrowseHere, signal?: AbortSignal): Promise<Found[]> {
  const places: LocalPath[] = platform === 'win32' ? await drives(isThere, signal) : [Buffer.from('/')];
  for (const home of homes) places.push(platform === 'win32' ? home : Buffer.from(home));
  return places.map((localPath) => ({ name: toArchivePath(localPath, platform), localPath }));
}

const isThere = (drive: string): Promise<boolean> => lstat(drive).then(Boolean, () => false);

/** One after the other: a drive of a server that is away keeps one thread, and those behind it none. */
export async function drives(isThere: (drive: string) => Promise<boolean>, signal?: AbortSignal): Promise<string[]> {
  const there: string[] = [];
  for (let letter = 0; letter < 26; letter++) {
    signal?.throwIfAborted();
    const drive = `${String.fromCharCode(65 + letter)}:\\`;
    if (await isThere(drive)) there.push(drive);
  }
  return there;
}

/** Null: it went away. */
async function look({ name, localPath }: Found): Promise<BrowseEntry | null> {
  try {
    return await withReachable(localPath, async (reach) => {
      const stat = await lstat(reach);
      const folder = stat.isDirectory();
      const kind = folder ? 'directory' : stat.isFile() ? 'file' : stat.isSymbolicLink() ? 'symlink' : 'other';
      const entry = { name, kind, size: kind === 'file' ? stat.size : 0, mtime: Math.floor(stat.mtimeMs) } as const;
      if (!folder) return entry;
      const writable = await access(reach, constants.W_OK | constants.X_OK).then(
        () => true,
        () => false,
      );
      return writable ? entry : { ...entry, readOnly: true };
    });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    return { name, kind: 'other', size: 0, mtime: 0, readOnly: true };
  }
}

interface Fault {
  code: FaultCode;
  detail: string;
}

/** In words of a bounded length. */
export function faultAt(path: Buffer, code: FaultCode, words: string): Fault {
  const where = printablePath(path).slice(0, limits.textMax / 2);
  return { code, detail: `${where}: ${words}`.replaceAll('\0', '').slice(0, limits.textMax).toWellFormed() };
}

function faultOf(error: unknown, path: Buffer): Fault {
  const told = (code: FaultCode, words: string): Fault => faultAt(path, code, words);
  if (error instanceof PathRuleError) return told('not_found', `${error.message}, on this system`);
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === 'ENOENT') return told('not_found', 'there is nothing at this path');
  if (code === 'ENOTDIR') return told('not_folder', 'it is not a folder');
  if (code === 'EACCES' || code === 'EPERM') return told('not_allowed', 'the agent may not read it');
  return told('failed', code ?? message);
}
