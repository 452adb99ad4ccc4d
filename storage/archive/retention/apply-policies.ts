/**
 * Looks at every archive whether its retention policies or its holds are others than its files were last planned with, and
 * makes them due if so. Prune looks only where something is due, and under a new policy that may be files that were not.
 */
import { allArchives } from '../../catalog/reading/histories.ts';
import type { Storage } from '../../storage.ts';
import { PolicyUnreadable, tellingUnreadable } from './policy-unreadable.ts';
import { applyPolicy, type PruneDeps } from './prune.ts';

/** @returns archives looked at, those made due, and those whose policy cannot be read: nothing of these is deleted, and that is told */
export async function applyPolicies(
  storage: Storage,
  deps: Pick<PruneDeps, 'readPolicies'>,
  { signal }: { signal?: AbortSignal } = {},
): Promise<{ archives: number; changed: number; unreadable: number }> {
  const sum = { archives: 0, changed: 0, unreadable: 0 };
  for (const ref of await allArchives(storage.database)) {
    signal?.throwIfAborted();
    sum.archives++;
    try {
      if (await tellingUnreadable(storage, ref, () => applyPolicy(storage, ref, deps))) sum.changed++;
    } catch (error) {
      if (!(error instanceof PolicyUnreadable)) throw error;
      sum.unreadable++;
    }
  }
  return sum;
}
