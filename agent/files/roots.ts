/**
 * The places a backup starts from. A root that cannot be trusted to be what the user meant fails by name: nothing is
 * backed up from it, and nothing below it is taken as deleted.
 */
import type { BigIntStats } from 'node:fs';
import { lstat, realpath } from 'node:fs/promises';
import { resolve } from 'node:path';
import { joinPath, pathFault, splitPath } from '../../protocol/paths.ts';
import { PathRuleError, platformRules, toArchivePath, toLocalPath } from './path-rules.ts';
import type { LocalPath, RootFailure } from './types.ts';

export interface Root {
  path: Buffer;
  localPath: LocalPath;
  stat: BigIntStats;
}

export interface FailedRoot {
  path: Buffer;
  failure: RootFailure;
  detail: string;
}

/**
 * The archive path a local path has or would have: made absolute, with symlinks in its folders resolved as far as
 * they exist, so that a backup and a later restore mean the same place.
 * @throws PathRuleError when the archive cannot hold it
 */
export async function resolveArchivePath(localPath: LocalPath): Promise<Buffer> {
  const absolute = makeAbsolute(localPath);
  const missing: string[] = [];
  for (let at = absolute; ; ) {
    try {
      const real = await realpath(at, { encoding: 'buffer' });
      const base = toArchivePath(localOf(real), platformRules(process.platform));
      return joinPath([...splitPath(base), ...missing.reverse().map((name) => Buffer.from(name, 'latin1'))]);
    } catch (error) {
      if (error instanceof PathRuleError) throw error;
      const text = at.toString('latin1');
      const cut = Math.max(text.lastIndexOf('/'), process.platform === 'win32' ? text.lastIndexOf('\\') : -1);
      if (cut <= 0) return toArchivePath(localOf(absolute), platformRules(process.platform));
      missing.push(text.slice(cut + 1));
      at = at.subarray(0, cut);
    }
  }
}

/** Looks at a root without opening it. */
export async function inspectRoot(given: LocalPath): Promise<Root | FailedRoot> {
  const absolute = makeAbsolute(given);
  const platform = platformRules(process.platform);
  const failed = (failure: RootFailure, detail: string): FailedRoot => ({
    path: nameForReport(absolute),
    failure,
    detail,
  });
  try {
    const first = await lstat(absolute, { bigint: true });
    if (first.isSymbolicLink()) {
      const target = await realpath(absolute).catch(() => 'a place that does not exist');
      return failed('symbolic_link', `it is a symbolic link to ${target}; name that instead`);
    }
    if (!first.isDirectory() && !first.isFile())
      return failed('not_a_folder_or_file', 'it is neither a folder nor a file');
    const localPath = localOf(await realpath(absolute, { encoding: 'buffer' }));
    const path = toArchivePath(localPath, platform);
    return { path, localPath, stat: await lstat(localPath, { bigint: true }) };
  } catch (error) {
    if (error instanceof PathRuleError) return failed('name_not_storable', error.message);
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return failed('missing', 'there is nothing at this path');
    return failed('unreadable', code ?? String(error));
  }
}

/** The folders above a root, outermost first, without the archive's own root. */
export function ancestorsOf(root: { path: Buffer }): { path: Buffer; localPath: LocalPath }[] {
  const platform = platformRules(process.platform);
  const names = splitPath(root.path);
  const ancestors: { path: Buffer; localPath: LocalPath }[] = [];
  for (let depth = 1; depth < names.length; depth++) {
    const path = joinPath(names.slice(0, depth));
    try {
      ancestors.push({ path, localPath: toLocalPath(path, platform) });
    } catch {
      // '/UNC' and '/UNC/server' are no folders of any machine: the versions below them stand without.
    }
  }
  return ancestors;
}

function makeAbsolute(given: LocalPath): Buffer {
  if (typeof given === 'string') return Buffer.from(resolve(given), 'utf8');
  return given[0] === 0x2f || process.platform === 'win32'
    ? given
    : Buffer.concat([Buffer.from(`${resolve('.')}/`), given]);
}

function localOf(path: Buffer): LocalPath {
  return process.platform === 'win32' ? path.toString('utf8') : path;
}

/** A failed root still has a name in the report and, where the archive could hold it, one to keep versions under. */
function nameForReport(absolute: Buffer): Buffer {
  try {
    return toArchivePath(localOf(absolute), platformRules(process.platform));
  } catch {
    return pathFault(absolute) === null ? absolute : Buffer.concat([Buffer.of(0x2f), absolute]);
  }
}
