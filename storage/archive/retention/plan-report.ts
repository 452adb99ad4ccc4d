/**
 * What pruning an archive would do, version by version and in sum: for a person who wants to know before, or who tries a
 * policy out. Changes nothing, and decides with the very function that the deleter does.
 */
import { readRetentionState } from '../../catalog/reading/histories.ts';
import type { ArchiveRef, Storage } from '../../storage.ts';
import type { ArchivePolicies } from './policies.ts';
import { capLeft, type PlannedFile, type PruneDeps, planFiles } from './prune.ts';

export interface PlanSummary {
  /** Files that have history. Those with one version that lives are not planned: nothing of them can go. */
  files: number;
  keep: number;
  expire: number;
  /** Plain bytes of the versions that would go. What that frees is less or nothing, as far as other versions have the same content. */
  expireBytes: number;
  /** A prune that would take more versions than this, what went today left out, takes none and raises an alert. */
  cap: number;
  /** Whether a prune would stop there, unless somebody has reviewed that alert. */
  overCap: boolean;
  /** Retention deletes nothing here until the alert about a suspicious run has been reviewed. */
  frozen: boolean;
  policies: ArchivePolicies;
}

/**
 * Every file that has history with what would become of each version, then the sum as the generator's result.
 * @param options.policies those to try out; left out: those in force
 * @param options.dueOnly only files whose plan may have changed since they were last planned
 * @returns null: there is no such archive
 */
export async function* reportPlan(
  storage: Storage,
  ref: ArchiveRef,
  deps: Pick<PruneDeps, 'readPolicies'>,
  options: { dueOnly: boolean; policies?: ArchivePolicies; signal?: AbortSignal },
): AsyncGenerator<PlannedFile, PlanSummary | null> {
  const before = await storage.database.transaction(async (tx) => {
    const state = await readRetentionState(tx, ref);
    return state && { state, policies: options.policies ?? (await deps.readPolicies(tx, ref)) };
  });
  if (!before) return null;
  const { state, policies } = before;
  const sum = { files: 0, keep: 0, expire: 0, expireBytes: 0 };
  // The same policies for the whole report, whatever is set meanwhile: its reasons are explained by them.
  for await (const file of planFiles(storage, ref, deps, { ...options, policies, withPaths: true })) {
    sum.files++;
    for (const { keep, size } of file.decisions) {
      if (keep) sum.keep++;
      else {
        sum.expire++;
        sum.expireBytes += size;
      }
    }
    yield file;
  }
  const cap = capLeft(storage, state);
  return { ...sum, cap, overCap: sum.expire > cap, frozen: state.frozen, policies };
}
