/**
 * Brings the cache back to what the archive holds: after the server was restored to an earlier state, after a purge,
 * when an answer was lost for good, and on a machine that has no cache. Rows that say the same as the archive keep
 * what they know of the disk; the others are learnt, and files of which the archive shows nothing are stored anew.
 */
import { sha256 } from '../../protocol/hashes.ts';
import type { StoredVersion } from '../../protocol/messages.ts';
import { Problem } from '../../protocol/problems.ts';
import { type Keyring, open, SealError, verifyVersionOf } from '../../protocol/sealing/index.ts';
import type { Client } from '../client/client.ts';
import type { Cache } from '../state/cache.ts';

export interface ReconcileWorld {
  client: Pick<Client, 'versions'>;
  cache: Cache;
  keys: Keyring;
  vault: number;
  archive: number;
}

/** @returns paths the archive holds, and paths the cache forgot because the archive does not */
export async function reconcile(
  world: ReconcileWorld,
  signal?: AbortSignal,
): Promise<{ held: number; forgotten: number }> {
  const mark = world.cache.nextMark();
  // A cache that showed the archive once had a row for all that was not deleted from this very disk. One that never
  // did may belong to a machine onto which nothing was restored yet: what it lacks is not deleted.
  const generationIfNew = world.cache.archiveMark().knownSeq > 0 ? 1 : 0;
  let held = 0;
  try {
    const { versions } = await world.client.versions(world.archive, {}, signal);
    for await (const version of versions) {
      if (version.deleted) continue;
      // A server that shows what we never committed must not make us believe that a file is stored.
      if (!isOurs(world, version)) continue;
      const { path, kind, size, mtime, blocks, lists } = version;
      const digest = attributesDigest(world, version.attributes);
      world.cache.reconcileVersion(
        { path, kind, size, mtimeMs: mtime, blocks, lists, attributesDigest: digest },
        version.seq,
        mark,
        generationIfNew,
      );
      held++;
    }
  } catch (error) {
    if (!(error instanceof Problem && error.code === 'not_found')) throw error; // an archive without a version has no root
  }
  return { held, forgotten: world.cache.forgetUnmarked(mark) };
}

/** Whether an agent with one of our keys committed it to this archive. */
function isOurs({ keys, archive }: ReconcileWorld, version: StoredVersion): boolean {
  try {
    return verifyVersionOf(keys, archive, version);
  } catch (error) {
    if (error instanceof SealError) return false;
    throw error;
  }
}

/** What the cache compares attributes by. Those we cannot open compare with nothing: the file is stored anew. */
function attributesDigest(world: ReconcileWorld, sealed: Buffer): Buffer {
  try {
    return sha256(open(world.keys.for(sealed), { type: 'attributes', vault: world.vault }, sealed));
  } catch (error) {
    if (error instanceof SealError) return Buffer.alloc(0);
    throw error;
  }
}
