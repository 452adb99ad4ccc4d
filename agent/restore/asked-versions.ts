/**
 * The versions a restore is asked for, path after path, all as of one moment. What was deleted by then comes as it last was:
 * its version before the deletion is asked for one by one, a few at a time, in the order of the list.
 */
import type { StoredVersion } from '../../protocol/messages.ts';
import { Problem } from '../../protocol/problems.ts';
import type { ThinnedInPlace } from '../../protocol/thinned.ts';
import type { RestoreOptions, RestoreSource } from './types.ts';

/** `path`: what was asked for, and `version` something at or below it; `gone`: why nothing can be had of it. */
export type AskedVersion =
  | { path: Buffer; version: StoredVersion; gone?: undefined }
  | { path: Buffer; gone: string; version?: undefined };

/** Histories asked for at once: enough to hide a line's delay, few beside what a restore fetches. */
const lookaheadMax = 16;
/** A deletion follows a version that is none; the rest is for archives that say otherwise. */
const historyPage = 8;

/** @throws the client's errors; not_found when the only path is not in the archive */
export async function askVersions(
  options: RestoreOptions,
  signal: AbortSignal,
  onThinned: (thinned: ThinnedInPlace) => void,
): Promise<{ seq: number; at: number; versions: AsyncIterable<AskedVersion> }> {
  const { client, archive, at, deleted } = options;
  const paths = options.path instanceof Uint8Array ? [options.path] : options.path;
  let { seq } = options;
  const ask = (path: Buffer) =>
    client.versions(archive, { path, at, seq, ...(deleted && { deleted }) }, signal, onThinned);
  const first = await ask(paths[0]!).catch((error: unknown) => {
    if (paths.length === 1 || seq === undefined || !isNotThere(error)) throw error;
    return { seq, at: at ?? Date.now(), versions: null };
  });
  ({ seq } = first);

  async function* all(): AsyncGenerator<AskedVersion> {
    for (const [index, path] of paths.entries()) {
      const versions = index === 0 ? first.versions : await versionsOrNone(ask(path));
      if (versions === null) yield { path, gone: 'the archive does not hold it as of this moment' };
      else if (deleted) yield* asTheyWere(client, archive, path, versions);
      else for await (const version of versions) yield { path, version };
    }
  }
  return { seq: first.seq, at: first.at, versions: all() };
}

async function versionsOrNone(
  asked: Promise<{ versions: AsyncIterable<StoredVersion> }>,
): Promise<AsyncIterable<StoredVersion> | null> {
  try {
    return (await asked).versions;
  } catch (error) {
    if (isNotThere(error)) return null;
    throw error;
  }
}

/** That the archive has no such path. That the archive is not there, or no more for this device, names no field. */
export const isNotThere = (error: unknown): boolean =>
  error instanceof Problem && error.code === 'not_found' && error.extras.field === 'path';

async function* asTheyWere(
  client: RestoreSource,
  archive: number,
  path: Buffer,
  versions: AsyncIterable<StoredVersion>,
): AsyncGenerator<AskedVersion> {
  const waiting: Promise<AskedVersion>[] = [];
  for await (const version of versions) {
    const found = version.deleted ? lastBefore(client, archive, path, version) : Promise.resolve({ path, version });
    found.catch(() => undefined); // whoever takes its turn sees it
    waiting.push(found);
    if (waiting.length >= lookaheadMax) yield await waiting.shift()!;
  }
  for (const found of waiting) yield await found;
}

async function lastBefore(
  client: RestoreSource,
  archive: number,
  path: Buffer,
  deletion: StoredVersion,
): Promise<AskedVersion> {
  if (!client.history) throw new Error('this source tells no histories');
  const query = { path: deletion.path, after: deletion.seq, limit: historyPage };
  const { versions } = await client.history(archive, query).catch((error: unknown) => {
    if (isNotThere(error)) return { versions: [] };
    throw error;
  });
  const version = versions.find((each) => !each.deleted && each.seq < deletion.seq && each.path.equals(deletion.path));
  return version ? { path, version } : { path: deletion.path, gone: 'it was deleted, and no version of it is kept' };
}
