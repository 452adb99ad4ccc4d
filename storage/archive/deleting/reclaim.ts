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

/** Everything that is due, in all vaults. */
export async function reclaimDue(
  storage: Storage,
  options: { signal?: AbortSignal } = {},
): Promise<{ vaults: number; lists: number; blocks: number; bytes: number; drifts: number }> {
  const sum = { vaults: 0, lists: 0, blocks: 0, bytes: 0, drifts: 0 };
  for (const vault of await vaultsWithFreed(storage.database)) {
    options.signal?.throwIfAborted();
    sum.vaults++;
    try {
      sum.lists += await reclaimListsOf(storage, vault, options);
    } catch (error) {
      if (!(error instanceof RefsDrift)) throw error;
      await raiseAlert(storage.database, {
        vault,
        kind: 'refs_drift',
        details: { found: 'reclaim', message: error.message },
      });
      sum.drifts++;
    }
    const { blocks, bytes } = await reclaimBlocksOf(storage, vault, options);
    sum.blocks += blocks;
    sum.bytes += bytes;
  }
  return sum;
}

/** @returns lists deleted. @throws RefsDrift */
async function reclaimListsOf(storage: Storage, vault: number, options: { signal?: AbortSignal }): Promise<number> {
  const { claimWindowMs, freedMarginMs } = storage.settings;
  for (let deleted = 0; ; ) {
    options.signal?.throwIfAborted();
    const batch = await storage.database.transaction(async (tx) => {
      const reclaimed = await reclaimLists(tx, vault, reclaimBounds.listsPerBatch);
      const freed = await takeRefs(tx, vault, toRefCounts(countRefs(reclaimed.blocks)), claimWindowMs + freedMarginMs);
      await addUsage(tx, vault, { referencedBytes: -freed.bytes });
      return reclaimed;
    });
    deleted += batch.blocks.length;
    if (batch.seen === 0) return deleted;
  }
}

async function reclaimBlocksOf(
  storage: Storage,
  vault: number,
  options: { signal?: AbortSignal },
): Promise<{ blocks: number; bytes: number }> {
  const settings = {
    objectDeleteDelayMs: storage.settings.objectDeleteDelayMs,
    limit: reclaimBounds.blocksPerBatch,
  };
  const sum = { blocks: 0, bytes: 0 };
  for (;;) {
    options.signal?.throwIfAborted();
    const batch = await storage.database.transaction((tx) => reclaimBlocks(tx, vault, settings));
    sum.blocks += batch.deleted;
    sum.bytes += batch.bytes;
    if (batch.seen === 0) return sum;
  }
}

/** Looks through objects that are two claim windows old for blocks that no commit came for. */
export async function settleDue(
  storage: Storage,
  options: { signal?: AbortSignal } = {},
): Promise<{ objects: number; freed: number }> {
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
    }
  }
  return sum;
}
