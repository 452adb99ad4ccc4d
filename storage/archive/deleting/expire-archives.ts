/**
 * Ends archives that nobody has reactivated: past its date a cold one expires, and is shown to nobody; some days later its
 * versions are deleted, through the one deleter. What a hold covers or a reader looks at stays, and the archive with it.
 *
 * Whether an archive is expired, and since when, is asked again in every batch under the archive's lock: a
 * reactivation, or another date, ends the deleting with the batch that is under way.
 */
import { closeAlertsOf, raiseAlert } from '../../catalog/checking/alerts.ts';
import { readFence } from '../../catalog/checking/fence.ts';
import { expireArchiveRows, filesAfter, longExpiredArchives, vaultsToExpire } from '../../catalog/deleting/cold.ts';
import { RefsDrift } from '../../catalog/refs.ts';
import type { ArchiveRef, Storage } from '../../storage.ts';
import { DeletingStopped } from '../checking/fence.ts';
import type { PruneDeps } from '../retention/prune.ts';
import type { FileVersion } from '../retention/retention.ts';
import { type BatchResult, type Deleter, deleteVersionsBatch } from './delete-versions.ts';

/** For so long an expired archive can be recovered. */
export const expiredDaysKept = 20;

/** Files looked at in one batch, at most. */
const filesPerBatch = 500;
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
  let fault: unknown;
  for (const ref of await longExpiredArchives(database, expiredDaysKept)) {
    const onBatch = (batch: BatchResult): void => {
      sum.files += batch.files;
      sum.versions += batch.versions;
      sum.bytes += batch.bytes;
      onProgress?.({ ...sum });
    };
    try {
      await emptyArchive(storage, ref, deps, { ...(signal && { signal }), onBatch });
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

/** Deletes all versions of an archive that has been expired long enough, except those that something pins. */
async function emptyArchive(
  storage: Storage,
  ref: ArchiveRef,
  deps: Deps,
  options: { signal?: AbortSignal; onBatch: (batch: BatchResult) => void },
): Promise<void> {
  for (let after = 0; ; ) {
    options.signal?.throwIfAborted();
    await deps.assertMayDelete();
    const asked = expiryDeleter(ref, deps, after);
    const batch = await deleteVersionsBatch(storage, ref, asked.deleter).catch((error: unknown) => {
      if (error instanceof RefsDrift) return tellDrift(storage, ref, error);
      throw error;
    });
    if (batch.files === 0) break;
    options.onBatch(batch);
    after = asked.next(batch) ?? after;
  }
  await closeAlertsOf(storage.database, { ...ref, kind: 'expiry_cap' }, 'the archive has expired');
}

async function tellDrift(storage: Storage, ref: ArchiveRef, drift: RefsDrift): Promise<never> {
  const details = { found: 'expiry', message: drift.message };
  await raiseAlert(storage.database, { ...ref, kind: 'refs_drift', details });
  throw drift;
}

interface Asked {
  deleter: Deleter;
  /** Behind which file to go on; null: not all was deleted that could be, so look at the same files again. */
  next(batch: BatchResult): number | null;
}

/** All that nothing pins; the record of a deletion only when nothing older stays, which it hides. */
export function expiring(versions: readonly FileVersion[]): number[] {
  const firstPinned = versions.findIndex(({ pinned }) => pinned);
  const hides = (i: number): boolean => versions[i]!.deleted && firstPinned >= 0 && firstPinned < i;
  return versions.filter(({ pinned }, i) => !pinned && !hides(i)).map(({ seq }) => seq);
}

function expiryDeleter(ref: ArchiveRef, deps: Deps, after: number): Asked {
  // Of the attempt that was committed: each begins anew.
  let candidates: number[] = [];
  let decided = { files: 0, versions: 0 };
  const deleter: Deleter = {
    budget: Number.POSITIVE_INFINITY,
    assertStillHeld: (read) => deps.assertStillHeld(read),
    async prepare(_tx, archive) {
      decided = { files: 0, versions: 0 };
      const { state, expiredAt, now } = archive;
      if (state !== 'expired' || !expiredAt) return null;
      if (now.getTime() - expiredAt.getTime() < expiredDaysKept * dayMs) return null;
      return (versions) => {
        const expire = expiring(versions);
        decided.files++;
        decided.versions += expire.length;
        return { expire, nextChangeAt: null };
      };
    },
    async candidates(tx) {
      candidates = await filesAfter(tx, ref, { after, limit: filesPerBatch });
      return candidates;
    },
  };
  return {
    deleter,
    // Files whose versions are pinned, and folders of such, stay: the next batch begins behind them.
    next: (batch) =>
      decided.files === batch.files && decided.versions === batch.versions ? candidates[batch.files - 1]! : null,
  };
}
