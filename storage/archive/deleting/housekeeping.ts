/** Small things that gather and must not grow for ever. Each is idempotent, and costs only time when it is not done. */

import { trimDeletes } from '../../catalog/plain-figures.ts';
import { allArchives } from '../../catalog/reading/histories.ts';
import { forgetLeases } from '../../catalog/reading/leases.ts';
import { foldRowsMax, foldVaultUsage, vaultsWithUnfoldedUsage } from '../../catalog/usage.ts';
import { trimCommitsOf } from '../../catalog/writing/commits.ts';
import type { Storage } from '../../storage.ts';

/** Adds up what vaults hold from the differences that transactions left. */
export async function foldUsage(
  storage: Storage,
  options: { signal?: AbortSignal } = {},
): Promise<{ vaults: number; rows: number }> {
  const sum = { vaults: 0, rows: 0 };
  for (const vault of await vaultsWithUnfoldedUsage(storage.database)) {
    for (let folded = foldRowsMax; folded === foldRowsMax; sum.rows += folded) {
      options.signal?.throwIfAborted();
      folded = await foldVaultUsage(storage.database, vault);
    }
    sum.vaults++;
  }
  return sum;
}

/**
 * Forgets commits older than `keepMs`; an archive's newest stays for ever, for its agent names it when it comes back.
 * A commit that is forgotten and sent once more would be made again: so keep them longer than any agent retries.
 */
export async function trimCommits(
  storage: Storage,
  options: { keepMs: number; signal?: AbortSignal },
): Promise<{ commits: number }> {
  let commits = 0;
  for (const ref of await allArchives(storage.database)) {
    options.signal?.throwIfAborted();
    commits += await trimCommitsOf(storage.database, ref, options.keepMs);
  }
  return { commits };
}

/** Forgets how much was deleted in repositories on days longer ago than anybody looks. */
export async function forgetDeleteDays(storage: Storage): Promise<{ days: number }> {
  return { days: await trimDeletes(storage.database) };
}

/** Forgets the leases of readers that have ended. */
export async function forgetLapsedLeases(storage: Storage): Promise<{ leases: number }> {
  return { leases: await forgetLeases(storage.database) };
}
