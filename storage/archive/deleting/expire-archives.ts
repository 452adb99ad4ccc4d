/**
 * Ends archives that nobody has reactivated: past its date a cold one expires, and is shown to nobody; some days later its
 * versions are deleted, through the one deleter. What a hold covers or a reader looks at stays, and the archive with it.
 *
 * Whether an archive is expired, and since when, is asked again in every batch under the archive's lock: a
 * reactivation, or another date, ends the deleting with the batch that is under way.
 */
import { closeAlertsOf } from '../../catalog/checking/alerts.ts';
import { readFence } from '../../catalog/checking/fence.ts';
import { expireArchiveRows, longExpiredArchives, vaultsToExpire } from '../../catalog/deleting/cold.ts';
import type { DeletingArchive } from '../../catalog/deleting/deleting.ts';
import type { Storage } from '../../storage.ts';
import { DeletingStopped } from '../checking/fence.ts';
import type { PruneDeps } from '../retention/prune.ts';
import type { BatchResult } from './delete-versions.ts';
import { type EmptyDeps, emptyArchive } from './empty-archive.ts';

/** For so long an expired archive can be recovered. */
export const expiredDaysKept = 20;

const dayMs = 86_400_000;

export interface ExpireResult {
  /** Archives that became expired. */
  expired: number;
  /** Archives that were gone through, to delete what nothing keeps. */
  emptied: number;
  files: number;
  versions: number;
  bytes: number;
}

type Deps = Pick<PruneDeps, 'assertMayDelete' | 'assertStillHeld'>;

/**
 * An archive with a fault keeps no other from its turn.
 * @throws the first fault, at the end; DeletingStopped and an abort at once
 */
export async function expireArchives(
  storage: Storage,
  deps: Deps,
  options: { signal?: AbortSignal; onProgress?: (soFar: Record<string, number>) => void } = {},
): Promise<Record<string, number>> {
  const { database } = storage;
  const { signal, onProgress } = options;
  const sum: ExpireResult = { expired: 0, emptied: 0, files: 0, versions: 0, bytes: 0 };
  for (const vault of await vaultsToExpire(database)) {
    signal?.throwIfAborted();
    await deps.assertMayDelete();
    sum.expired += await database.transaction(async (tx) => {
      deps.assertStillHeld(await readFence(tx));
      return (await expireArchiveRows(tx, vault)).length;
    });
  }
  const emptying: EmptyDeps = { ...deps, by: 'expiry', mayEmpty: async (_tx, archive) => isLongExpired(archive) };
  let fault: unknown;
  for (const ref of await longExpiredArchives(database, expiredDaysKept)) {
    const onBatch = (batch: BatchResult): void => {
      sum.files += batch.files;
      sum.versions += batch.versions;
      sum.bytes += batch.bytes;
      onProgress?.({ ...sum });
    };
    try {
      await emptyArchive(storage, ref, emptying, { ...(signal && { signal }), onBatch });
      await closeAlertsOf(database, { ...ref, kind: 'expiry_cap' }, 'the archive has expired');
      sum.emptied++;
    } catch (error) {
      signal?.throwIfAborted();
      if (error instanceof DeletingStopped) throw error;
      fault ??= error;
    }
  }
  if (fault) throw fault;
  return { ...sum };
}

function isLongExpired({ state, expiredAt, now }: DeletingArchive): boolean {
  return state === 'expired' && expiredAt !== null && now.getTime() - expiredAt.getTime() >= expiredDaysKept * dayMs;
}
