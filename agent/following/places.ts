/**
 * Where what a command restores goes. Into a folder: one restore of all paths, each by its names below the folder that all of
 * them lie in. To the original places: one restore for each path. A folder that is there is restored into, so that files grow
 * in it and nothing is asked of the one above, which often is not ours to write to (/home); anything else into the folder
 * that it lay in.
 */
import type { RestoreCommand } from '../../protocol/commands.ts';
import { comparePaths, joinPath, printablePath, splitPath } from '../../protocol/paths.ts';
import { commonFolder, isAtOrBelow } from '../files/path-rules.ts';
import { isNotThere } from '../restore/asked-versions.ts';
import type { Folder } from '../restore/folders.ts';
import type { RestoreSource } from '../restore/types.ts';
import { NoWay, openWay, type WayOptions } from './open-way.ts';

export interface Place {
  /** In the order of an archive, none in another. */
  paths: Buffer[];
  /** The archive's folder that the target stands for. */
  base: Buffer;
  /** The target as a path of this machine, in the form of archives. */
  folder: Buffer;
  /** @throws NoWay */
  open: () => Promise<Folder>;
}

/** What places depend on. */
export interface Here {
  /** As Node calls the system. */
  systemPlatform: string;
  way?: Omit<WayOptions, 'make'>;
}

/** Why a command has no place on this machine; null: it has. */
export function placeFault(command: RestoreCommand, here: Here): string | null {
  if (!('original' in command.target)) return null;
  const own = ['linux', 'darwin', 'win32'].includes(here.systemPlatform) ? here.systemPlatform : 'other';
  if (command.sourcePlatform !== own)
    return (
      `these files are of a ${systemInWords(command.sourcePlatform)} system, and this is a ${systemInWords(own)} one: ` +
      'their original places are not here. Restore them to a folder'
    );
  if (own === 'win32' && command.paths.some((path) => splitPath(path).length === 0))
    return 'on Windows everything is restored drive by drive: choose the drives';
  return null;
}

const systemInWords = (platform: string): string =>
  ({ linux: 'Linux', darwin: 'macOS', win32: 'Windows' })[platform] ?? 'different Unix';

/** The restores that a command comes to, in order. Those to original places are looked at when it is their turn. */
export async function* placesOf(
  command: RestoreCommand,
  source: RestoreSource,
  here: Here,
  signal: AbortSignal,
): AsyncGenerator<Place> {
  const paths = withoutNested(command.paths);
  if ('folder' in command.target) {
    const { folder } = command.target;
    yield { paths, base: commonFolder(paths), folder, open: () => openWay(folder, { ...here.way, make: true }) };
    return;
  }
  for (const path of paths) yield await originalPlace(path, command, source, here, signal);
}

async function originalPlace(
  path: Buffer,
  command: RestoreCommand,
  source: RestoreSource,
  here: Here,
  signal: AbortSignal,
): Promise<Place> {
  const names = splitPath(path);
  const inPlace: Place = {
    paths: [path],
    base: path,
    folder: path,
    open: () => openWay(path, { ...here.way, make: true }),
  };
  if (names.length === 0) return inPlace;
  if ((await isFolderHere(path, here)) && (await isFolderThere(path, command, source, signal))) return inPlace;
  const above = joinPath(names.slice(0, -1));
  return { paths: [path], base: above, folder: above, open: () => openWay(above, { ...here.way, make: true }) };
}

async function isFolderHere(path: Buffer, here: Here): Promise<boolean> {
  try {
    await (await openWay(path, { ...here.way, make: false })).close();
    return true;
  } catch (error) {
    // What stands there and may not be looked at is for the restore to say.
    if (error instanceof NoWay) return false;
    throw error;
  }
}

/** Whether the archive has a folder at a path, or something below it; where it has nothing, the restore says so. */
async function isFolderThere(
  path: Buffer,
  { archive, seq, deleted }: RestoreCommand,
  source: RestoreSource,
  signal: AbortSignal,
): Promise<boolean> {
  try {
    const { versions } = await source.versions(archive, { path, seq, ...(deleted && { deleted }) }, signal);
    for await (const version of versions) return version.kind === 'directory' || !version.path.equals(path);
  } catch (error) {
    if (!isNotThere(error)) throw error;
  }
  return true;
}

/** The paths in the order in which an archive tells them, without those that lie below another. */
export function withoutNested(paths: readonly Buffer[]): Buffer[] {
  const sorted = paths.toSorted(comparePaths);
  const kept: Buffer[] = [];
  for (const path of sorted) if (kept.length === 0 || !isAtOrBelow(path, kept.at(-1)!)) kept.push(path);
  return kept;
}

/** Where it goes, in words. */
export function targetInWords({ target }: RestoreCommand): string {
  return 'original' in target ? 'the original places' : printablePath(target.folder);
}
