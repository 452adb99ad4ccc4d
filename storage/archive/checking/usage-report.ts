/** What vaults hold, and the same summed up a tree. Figures are exact to the transaction, and nothing is scanned for them. */
import { readVaultUsage, reclaimableBytes, type VaultUsage } from '../../catalog/usage.ts';
import type { Storage } from '../../storage.ts';

export interface Usage {
  /** Plain bytes of every version kept: what all of it would take if it were restored. */
  logicalBytes: number;
  /** Bytes in the object store. */
  storedBytes: number;
  /** Of those, bytes that no version needs: deleting and compacting give them back by themselves. */
  reclaimableBytes: number;
  versions: number;
}

export const noUsage: Usage = { logicalBytes: 0, storedBytes: 0, reclaimableBytes: 0, versions: 0 };

export async function usageOfVault(storage: Pick<Storage, 'database'>, vault: number): Promise<Usage> {
  return toUsage(await readVaultUsage(storage.database, vault));
}

export function toUsage(usage: VaultUsage): Usage {
  const { logicalBytes, objectBytes, versions } = usage;
  return { logicalBytes, storedBytes: objectBytes, reclaimableBytes: reclaimableBytes(usage), versions };
}

export function addedUsage(a: Usage, b: Usage): Usage {
  return {
    logicalBytes: a.logicalBytes + b.logicalBytes,
    storedBytes: a.storedBytes + b.storedBytes,
    reclaimableBytes: a.reclaimableBytes + b.reclaimableBytes,
    versions: a.versions + b.versions,
  };
}

/**
 * Sums up a forest: for each node its own usage and that of everything below it. A node whose parent is not among
 * them counts as a root. Nodes may come in any order; their number is all that bounds the depth.
 * @returns in the order given
 */
export function rollUp<Node extends { id: number; parentId: number | null; own: Usage }>(
  nodes: readonly Node[],
): (Node & { total: Usage })[] {
  const totals = new Map(nodes.map(({ id, own }) => [id, own]));
  const parents = new Map(nodes.map(({ id, parentId }) => [id, parentId]));
  const open = new Map<number, number>(); // children not yet added to it
  for (const { parentId } of nodes) if (parentId !== null) open.set(parentId, (open.get(parentId) ?? 0) + 1);
  // Leaves first; each node is added to its parent when nothing is to be added to it any more.
  const ready = nodes.filter(({ id }) => !open.has(id)).map(({ id }) => id);
  for (const id of ready) {
    const parent = parents.get(id) ?? null;
    if (parent === null || !totals.has(parent)) continue;
    totals.set(parent, addedUsage(totals.get(parent)!, totals.get(id)!));
    const left = open.get(parent)! - 1;
    open.set(parent, left);
    if (left === 0) ready.push(parent);
  }
  return nodes.map((node) => ({ ...node, total: totals.get(node.id)! }));
}
