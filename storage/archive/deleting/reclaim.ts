/**
 * Takes away blocks and lists that nothing refers to and nobody has a claim on, in bounded batches that wait for
 * nobody. Blocks that were uploaded and never committed get here by settling.
 */
import { raiseAlert } from '../../catalog/checking/alerts.ts';
import {
  reclaimBlocks,
  reclaimLists,
  settleObjects,
  vaultsWithFreed,
  vaultsWithUnsettled,
} from '../../catalog/deleting/reclaiming.ts';
import { RefsDrift, takeRefs } from '../../catalog/refs.ts';
import { addUsage } from '../../catalog/usage.ts';
import type { Storage } from '../../storage.ts';
import { countRefs, toRefCounts } from '../writing/count-refs.ts';

export const reclaimBounds = {
  blocksPerBatch: 2_000,
  /** Four full lists name as many blocks as a commit may. */
  listsPerBatch: 4,
  /** A full object holds 8,192 blocks. */
  objectsPerBatch: 50,
};

export interface ReclaimOptions<Result = ReclaimResult> {
  signal?: AbortSignal;
  /** Told after each batch how far it has come. */
  onProgress?: (soFar: Result) => void;
}

export type ReclaimResult = { vaults: number; lists: number; blocks: number; bytes: number; drifts: number };
export type SettleResult = { objects: number; freed: number };

/** Everything that is due, in all vaults. */
export async function reclaimDue(storage: Storage, options: ReclaimOptions = {}): Promise<ReclaimResult> {
  const sum = { vaults: 0, lists: 0, blocks: 0, bytes: 0, drifts: 0 };
  for (const vault of await vaultsWithFreed(storage.database)) {
    options.signal?.throwIfAborted();
    sum.vaults++;
    try {
      await reclaimListsOf(storage, vault, sum, options);
    } catch (error) {
      if (!(error instanceof RefsDrift)) throw error;
      await raiseAlert(storage.database, {
        vault,
        kind: 'refs_drift',
        details: { found: 'reclaim', message: error.message },
      });
      sum.drifts++;
    }
    await reclaimBlocksOf(storage, vault, sum, options);
  }
  return sum;
}

/** @param sum counts the lists deleted. @throws RefsDrift */
async function reclaimListsOf(
  storage: Storage,
  vault: number,
  sum: ReclaimResult,
  options: ReclaimOptions,
): Promise<void> {
  const { claimWindowMs, freedMarginMs } = storage.settings;
  for (;;) {
    options.signal?.throwIfAborted();
    const batch = await storage.database.transaction(async (tx) => {
      const reclaimed = await reclaimLists(tx, vault, reclaimBounds.listsPerBatch);
      const freed = await takeRefs(tx, vault, toRefCounts(countRefs(reclaimed.blocks)), claimWindowMs + freedMarginMs);
      await addUsage(tx, vault, { referencedBytes: -freed.bytes });
      return reclaimed;
    });
    sum.lists += batch.blocks.length;
    if (batch.seen === 0) return;
    options.onProgress?.(sum);
  }
}

async function reclaimBlocksOf(
  storage: Storage,
  vault: number,
  sum: ReclaimResult,
  options: ReclaimOptions,
): Promise<void> {
  const settings = {
    objectDeleteDelayMs: storage.settings.objectDeleteDelayMs,
    limit: reclaimBounds.blocksPerBatch,
  };
  for (;;) {
    options.signal?.throwIfAborted();
    const batch = await storage.database.transaction((tx) => reclaimBlocks(tx, vault, settings));
    sum.blocks += batch.deleted;
    sum.bytes += batch.bytes;
    if (batch.seen === 0) return;
    options.onProgress?.(sum);
  }
}

/** Looks through objects that are two claim windows old for blocks that no commit came for. */
export async function settleDue(storage: Storage, options: ReclaimOptions<SettleResult> = {}): Promise<SettleResult> {
  const olderThanMs = 2 * storage.settings.claimWindowMs;
  const sum = { objects: 0, freed: 0 };
  for (const vault of await vaultsWithUnsettled(storage.database, olderThanMs)) {
    for (;;) {
      options.signal?.throwIfAborted();
      const batch = await storage.database.transaction((tx) =>
        settleObjects(tx, vault, { olderThanMs, limit: reclaimBounds.objectsPerBatch }),
      );
      sum.objects += batch.objects;
      sum.freed += batch.freed;
      if (batch.objects === 0) break;
      options.onProgress?.(sum);
    }
  }
  return sum;
}
