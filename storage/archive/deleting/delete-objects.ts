/**
 * Deletes the bytes of dead objects from the store, and their rows after them. A transaction decided long before that
 * they may go; here a row is taken, the fence is asked, the bytes are deleted, and only then the row is. So for as long
 * as bytes may exist there is a row with their key, however often this is interrupted and repeated.
 *
 * The transactions that take and forget rows read the fence's row themselves: each may reach another server than the
 * look at the fence did, with an older state of the catalog. There an upload that has ended long ago is still writing,
 * past its lease, and an id may belong to another object.
 */
import { raiseAlert } from '../../catalog/checking/alerts.ts';
import { readFence } from '../../catalog/checking/fence.ts';
import {
  type DeadObject,
  endLapsedLeases,
  forgetObjects,
  takeDeadObjects,
  vaultsWithDueObjects,
} from '../../catalog/deleting/dead-objects.ts';
import type { Storage } from '../../storage.ts';
import type { Fence } from '../checking/fence.ts';

export type DeleteObjectsResult = {
  /** Objects whose bytes and rows are gone. */
  deleted: number;
  /** Objects that the store would not delete: tried again later. */
  failed: number;
  /** Leases that had lapsed. */
  swept: number;
};

export interface DeleteObjectsOptions {
  signal?: AbortSignal;
  /** Told after each batch how far it has come. */
  onProgress?: (soFar: DeleteObjectsResult) => void;
  /** Objects taken at once, between two looks at the fence. */
  batchMax?: number;
}

/** How long a batch may take before others try the same objects: deleting twice does no harm. */
const takenForMs = 10 * 60_000;
/** How long one look at the fence is good for. What is not deleted by then stays, and is due again. */
const lookGoodForMs = 60_000;
const requestsMax = 8;

/**
 * Deletes all that is due, of all vaults.
 * @throws DeletingStopped when there is something to delete and the fence does not hold
 */
export async function deleteDeadObjects(
  storage: Storage,
  fence: Fence,
  { signal, onProgress, batchMax = 200 }: DeleteObjectsOptions = {},
): Promise<DeleteObjectsResult> {
  const total = { deleted: 0, failed: 0, swept: 0 };
  for (let progress = true; progress; ) {
    progress = false;
    const vaults = await vaultsWithDueObjects(storage.database);
    // Before leases are ended too: after a restore, uploads of the moment of the backup are for "adopt" to finish.
    if (vaults.length > 0) await fence.assertHeld();
    for (const vault of vaults) {
      for (;;) {
        if (signal?.aborted) return total;
        const { swept, taken } = await takeBatch(storage, fence, vault, batchMax);
        const { deleted, failed } = await deleteBatch(storage, fence, vault, taken);
        total.swept += swept;
        total.deleted += deleted;
        total.failed += failed;
        onProgress?.(total);
        if (swept + taken.length > 0) progress = true;
        if (swept < batchMax && taken.length < batchMax) break;
      }
    }
  }
  return total;
}

/** Ends leases that lapsed, and takes dead objects, these among them. @throws DeletingStopped */
function takeBatch(
  { database }: Storage,
  fence: Fence,
  vault: number,
  limit: number,
): Promise<{ swept: number; taken: DeadObject[] }> {
  return database.transaction(async (tx) => {
    fence.assertStillHeld(await readFence(tx));
    const swept = await endLapsedLeases(tx, vault, limit);
    return { swept, taken: await takeDeadObjects(tx, vault, { limit, holdMs: takenForMs }) };
  });
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
  const deleted = await storage.database.transaction(async (tx) => {
    fence.assertStillHeld(await readFence(tx));
    return forgetObjects(tx, vault, ids);
  });
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
