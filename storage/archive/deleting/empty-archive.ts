/**
 * Deletes all versions of an archive, through the one deleter, file by file. What a hold covers or a reader looks at stays,
 * with the record of a deletion that hides it.
 *
 * Whether the archive is to be emptied is asked again in every batch, under the archive's lock: what takes that back
 * ends it with the batch that is under way.
 */
import { raiseAlert } from '../../catalog/checking/alerts.ts';
import type { Transaction } from '../../catalog/database.ts';
import { filesAfter } from '../../catalog/deleting/cold.ts';
import type { DeletingArchive } from '../../catalog/deleting/deleting.ts';
import { RefsDrift } from '../../catalog/refs.ts';
import type { ArchiveRef, Storage } from '../../storage.ts';
import type { PruneDeps } from '../retention/prune.ts';
import type { FileVersion } from '../retention/retention.ts';
import { type BatchResult, type Deleter, deleteVersionsBatch, type FileDecision } from './delete-versions.ts';

/** Files looked at in one batch, at most. */
const filesPerBatch = 500;

export interface EmptyDeps extends Pick<PruneDeps, 'assertMayDelete' | 'assertStillHeld'> {
  /** Whether all of it may go now, asked inside the transaction and after the locks of vault and archive. */
  mayEmpty(tx: Transaction, archive: DeletingArchive): Promise<boolean>;
  /** Who empties it, for an alert about counts that do not close. */
  by: 'expiry' | 'tenant';
}

/** @throws DeletingStopped, RefsDrift (of which an alert tells), and the signal's reason between two batches */
export async function emptyArchive(
  storage: Storage,
  ref: ArchiveRef,
  deps: EmptyDeps,
  options: { signal?: AbortSignal; onBatch: (batch: BatchResult) => void },
): Promise<void> {
  for (let after = 0; ; ) {
    options.signal?.throwIfAborted();
    await deps.assertMayDelete();
    const asked = emptyingDeleter(ref, deps, after);
    const batch = await deleteVersionsBatch(storage, ref, asked.deleter).catch((error: unknown) => {
      if (error instanceof RefsDrift) return tellDrift(storage, ref, deps.by, error);
      throw error;
    });
    if (batch.files === 0) return;
    options.onBatch(batch);
    after = asked.next(batch) ?? after;
  }
}

async function tellDrift(storage: Storage, ref: ArchiveRef, found: string, drift: RefsDrift): Promise<never> {
  const details = { found, message: drift.message };
  await raiseAlert(storage.database, { ...ref, kind: 'refs_drift', details });
  throw drift;
}

/** All that nothing pins; the record of a deletion only when nothing older stays, which it hides. */
export function expiring(versions: readonly FileVersion[]): number[] {
  const firstPinned = versions.findIndex(({ pinned }) => pinned);
  const hides = (i: number): boolean => versions[i]!.deleted && firstPinned >= 0 && firstPinned < i;
  return versions.filter(({ pinned }, i) => !pinned && !hides(i)).map(({ seq }) => seq);
}

interface Asked {
  deleter: Deleter;
  /** Behind which file to go on; null: not all was deleted that could be, so look at the same files again. */
  next(batch: BatchResult): number | null;
}

function emptyingDeleter(ref: ArchiveRef, deps: EmptyDeps, after: number): Asked {
  // Of the attempt that was committed: each begins anew.
  let candidates: number[] = [];
  let decided = { files: 0, versions: 0 };
  const deleter: Deleter = {
    budget: Number.POSITIVE_INFINITY,
    assertStillHeld: (read) => deps.assertStillHeld(read),
    async prepare(tx, archive) {
      decided = { files: 0, versions: 0 };
      if (!(await deps.mayEmpty(tx, archive))) return null;
      const decide = (versions: readonly FileVersion[]): FileDecision => {
        const expire = expiring(versions);
        decided.files++;
        decided.versions += expire.length;
        return { expire, nextChangeAt: null };
      };
      return { looksAtPaths: false, decide };
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
