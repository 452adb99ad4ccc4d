/**
 * Takes away what is staged and not needed any more: expired, cancelled, broken, or left by a process that ended; and objects
 * that no row knows. The row says so first, and has no key from then on; then the objects go, under the fence; the row goes when
 * they are gone, and not before a put that was on its way must have ended. Nothing is deleted but below `<catalog>/staging/`.
 *
 * A row is there before its first object, so what is listed and has no row, asked for afterwards, never gets one.
 */
import type { Fence } from '../../../../storage/archive/checking/fence.ts';
import { deleteKeys } from '../../../../storage/archive/deleting/delete-objects.ts';
import { readFence } from '../../../../storage/catalog/checking/fence.ts';
import type { Storage } from '../../../../storage/storage.ts';
import { attemptOfKey, attemptPrefix, stagingPrefix } from '../../../restoring/staging/frames.ts';
import { deadStagedAfter, emptyStaged, endOldStaged, forgetStaged, knownAttempts, type StagedRow } from './rows.ts';

export type DeleteStagedResult = {
  /** Tries that are dead since now. */
  ended: number;
  /** Objects deleted. */
  deleted: number;
  /** Of those, of no row. */
  orphans: number;
  /** Tries of which nothing is left. */
  forgotten: number;
};

export interface DeleteStagedOptions {
  signal?: AbortSignal;
  onProgress?: (soFar: DeleteStagedResult) => void;
  /** For how long a put may still be on its way that was begun before its try was dead. */
  lateMs?: number;
  pageMax?: number;
}

type DeleteFence = Pick<Fence, 'assertHeld' | 'assertStillHeld'>;

/**
 * What cannot be deleted keeps nothing else from it.
 * @throws DeletingStopped when there is something to delete and the fence does not hold; at the end, what kept the first of
 *   those that stay from being deleted
 */
export async function deleteStaged(
  storage: Storage,
  fence: DeleteFence,
  { signal, onProgress, lateMs = 15 * 60_000, pageMax = 1_000 }: DeleteStagedOptions = {},
): Promise<DeleteStagedResult> {
  const { database } = storage;
  const total = { ended: 0, deleted: 0, orphans: 0, forgotten: 0 };
  const faults: unknown[] = [];
  for (let ended = -1; ended !== 0; ) {
    ended = await database.transaction(endOldStaged);
    total.ended += ended;
  }
  for (let after = 0; ; ) {
    const page = await deadStagedAfter(database, after, lateMs);
    for (const dead of page) {
      if (signal?.aborted) return total;
      const { deleted, fault } = await deleteObjectsOf(storage, fence, dead, pageMax);
      total.deleted += deleted;
      if (fault) {
        faults.push(fault);
        continue;
      }
      // Only what was looked for after that time, and not found, is known to be gone.
      await database.transaction(async (tx) => {
        fence.assertStillHeld(await readFence(tx));
        if (dead.isOld) await forgetStaged(tx, dead.id);
        else await emptyStaged(tx, dead.id);
      });
      if (dead.isOld) total.forgotten++;
      onProgress?.({ ...total });
    }
    if (page.length === 0) break;
    after = page.at(-1)!.id;
  }
  const { deleted: orphans, left } = await deleteOrphans(storage, fence, pageMax, signal);
  total.deleted += orphans;
  total.orphans += orphans;
  if (left > 0) faults.push(new Error(`the store does not delete ${left} staged objects that no row knows`));
  onProgress?.({ ...total });
  if (faults.length > 0) throw faults[0];
  return total;
}

/** Until there are none, or none that can be deleted. @throws DeletingStopped */
async function deleteObjectsOf(
  storage: Storage,
  fence: DeleteFence,
  { restore, attempt }: StagedRow,
  pageMax: number,
): Promise<{ deleted: number; fault: unknown }> {
  const prefix = attemptPrefix({ catalogId: storage.catalogId, restore, attempt });
  let deleted = 0;
  let left = 0;
  for (let after = prefix; ; ) {
    await fence.assertHeld();
    // On from where it was: what cannot be deleted does not hide the others.
    const page = await storage.objects.list(prefix, { after, limit: pageMax }).catch((fault: unknown) => ({ fault }));
    if ('fault' in page) return { deleted, fault: page.fault };
    const keys = page.objects.map(({ key }) => key);
    const gone = await deleteKeys(storage, keys);
    deleted += gone.size;
    if (keys.length === 0) break;
    // Some may have had no time; once more, until those are left that do not go.
    if (gone.size > 0) continue;
    left += keys.length;
    if (!page.more) break;
    after = keys.at(-1)!;
  }
  const fault = left > 0 ? new Error(`the store does not delete ${left} staged objects of restore ${restore}`) : null;
  return { deleted, fault };
}

async function deleteOrphans(
  storage: Storage,
  fence: DeleteFence,
  pageMax: number,
  signal: AbortSignal | undefined,
): Promise<{ deleted: number; left: number }> {
  const { catalogId, objects, database } = storage;
  const prefix = stagingPrefix(catalogId);
  let deleted = 0;
  let left = 0;
  for (let after = prefix; !signal?.aborted; ) {
    const { objects: page, more } = await objects.list(prefix, { after, limit: pageMax });
    const attempts = page.map(({ key }) => ({ key, attempt: attemptOfKey(catalogId, key) }));
    const named = [...new Set(attempts.flatMap(({ attempt }) => attempt ?? []))];
    const known = named.length > 0 ? await knownAttempts(database, named) : new Set<string>();
    // What is not named as ours is not ours to delete.
    const orphans = attempts.flatMap(({ key, attempt }) => (attempt !== null && !known.has(attempt) ? [key] : []));
    if (orphans.length > 0) {
      await fence.assertHeld();
      const gone = await deleteKeys(storage, orphans);
      deleted += gone.size;
      if (gone.size === 0) left += orphans.length;
    }
    const last = page.at(-1)?.key;
    if (!more || last === undefined) break;
    after = last;
  }
  return { deleted, left };
}
