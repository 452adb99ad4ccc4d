/**
 * Deletes the bytes of dead objects from the store, and their rows after them. A transaction decided long before that
 * they may go; here a row is taken, the fence is asked, the bytes are deleted, and only then the row is. So for as long
 * as bytes may exist there is a row with their key, however often this is interrupted and repeated.
 */
import { raiseAlert } from '../../catalog/checking/alerts.ts';
import {
  type DeadObject,
  endLapsedLeases,
  forgetObjects,
  takeDeadObjects,
  vaultsWithDueObjects,
} from '../../catalog/deleting/dead-objects.ts';
import type { Storage } from '../../storage.ts';
import type { Fence } from '../checking/fence.ts';

export interface DeleteObjectsOptions {
  signal?: AbortSignal;
  /** Objects taken at once, between two looks at the fence. */
  batchMax?: number;
}

/** How long a batch may take before others try the same objects: deleting twice does no harm. */
const takenForMs = 10 * 60_000;
/** How long one look at the fence is good for. What is not deleted by then stays, and is due again. */
const lookGoodForMs = 60_000;
const requestsMax = 8;

/**
 * @returns objects whose bytes and rows are gone; objects the store would not delete, which are tried again later; leases
 *   that had lapsed
 * @throws DeletingStopped when there is something to delete and the fence does not hold
 */
export async function deleteDeadObjects(
  storage: Storage,
  fence: Fence,
  { signal, batchMax = 200 }: DeleteObjectsOptions = {},
): Promise<{ deleted: number; failed: number; swept: number }> {
  const total = { deleted: 0, failed: 0, swept: 0 };
  for (let progress = true; progress; ) {
    progress = false;
    const vaults = await vaultsWithDueObjects(storage.database);
    // Before leases are ended too: after a restore, uploads of the moment of the backup are for "adopt" to finish.
    if (vaults.length > 0) await fence.assertHeld();
    for (const vault of vaults) {
      for (;;) {
        if (signal?.aborted) return total;
        const swept = await endLapsedLeases(storage.database, vault, batchMax);
        const taken = await takeDeadObjects(storage.database, vault, { limit: batchMax, holdMs: takenForMs });
        const { deleted, failed } = await deleteBatch(storage, fence, vault, taken);
        total.swept += swept;
        total.deleted += deleted;
        total.failed += failed;
        if (swept + taken.length > 0) progress = true;
        if (swept < batchMax && taken.length < batchMax) break;
      }
    }
  }
  return total;
}

async function deleteBatch(
  storage: Storage,
  fence: Fence,
  vault: number,
  taken: readonly DeadObject[],
): Promise<{ deleted: number; failed: number }> {
  if (taken.length === 0) return { deleted: 0, failed: 0 };
  const named = taken.filter((object) => object.named);
  if (named.length > 0) await tellNamed(storage, vault, named);
  const free = taken.filter((object) => !object.named);

  // After "adopt --own-prefix" rows of before lead to another catalog's prefix: what lies there is not ours to delete.
  const isOurs = (key: string): boolean => key.startsWith(`${storage.catalogId}/`);
  await fence.assertHeld();
  const deletedKeys = await deleteKeys(storage, free.map((object) => object.key).filter(isOurs));
  const gone = free.filter((object) => !isOurs(object.key) || deletedKeys.has(object.key));
  const ids = gone.map((object) => object.objectId);
  const deleted = await storage.database.transaction((tx) => forgetObjects(tx, vault, ids));
  return { deleted, failed: taken.length - gone.length };
}

/**
 * Deletes keys, which the caller has authorised and looked at the fence for just now.
 * @returns those that are gone; of the others nobody knows
 */
export async function deleteKeys(storage: Storage, keys: readonly string[]): Promise<Set<string>> {
  const gone = new Set<string>();
  const left = keys.values();
  const until = performance.now() + lookGoodForMs;
  const work = async (): Promise<void> => {
    for (const key of left) {
      if (performance.now() > until) return;
      const deleted = await storage.objects.delete(key).then(
        () => true,
        () => false,
      );
      if (deleted) gone.add(key);
    }
  };
  await Promise.all(Array.from({ length: requestsMax }, work));
  return gone;
}

/** A dead object that a block row names is a bug of ours. Its bytes stay. */
async function tellNamed(storage: Storage, vault: number, named: readonly DeadObject[]): Promise<void> {
  const details = { what: 'dead objects that block rows name', keys: named.slice(0, 100).map((object) => object.key) };
  await raiseAlert(storage.database, { vault, kind: 'refs_drift', details });
}
