/** What pruning a device's archive would do: a line for each version with its reason, and the sum as the last line. */
import { assertShown } from '../../storage/archive/reading/shown-archive.ts';
import { type PlanSummary, reportPlan } from '../../storage/archive/retention/plan-report.ts';
import type { ArchivePolicies } from '../../storage/archive/retention/policies.ts';
import { PolicyUnreadable } from '../../storage/archive/retention/policy-unreadable.ts';
import type { PlannedFile } from '../../storage/archive/retention/prune.ts';
import { explainReason, type Reason, type RetentionPolicy } from '../../storage/archive/retention/retention.ts';
import type { ArchiveRef, Storage } from '../../storage/storage.ts';
import { readEffectiveRetention } from '../directory/retention.ts';
import { moment, type ShownPath, shownPath } from './shapes.ts';

export interface PlanLine extends ShownPath {
  seq: number;
  /** By the server's clock, which retention goes by. */
  committedAt: string | null;
  deleted: boolean;
  /** Plain bytes. */
  size: number;
  keep: boolean;
  /** For programs; `because` says the same to people. */
  reason: Reason;
  because: string;
  /** Whose policy gives the reason: the archive's own, or that of a backup plan. */
  by: string;
  /** Whose policies hold for the file: what any of them keeps stays. */
  policies: string[];
}

/** What was planned by: the policy of the archive, and those of plans for what lies in their folders. */
export interface PlanSum extends Omit<PlanSummary, 'policies'> {
  policy: RetentionPolicy;
  plans: { name: string; policy: RetentionPolicy }[];
}

export interface PlanEnd {
  /** Null: there is no policy to plan by, and nothing is deleted. */
  summary: PlanSum | null;
  /** Why there is no policy. */
  unreadable?: string;
}

export interface PlanOptions {
  dueOnly: boolean;
  /** One to try out instead of the archive's own; left out: the one in force. Plans are as they are. */
  policy?: RetentionPolicy;
  signal?: AbortSignal;
}

/** @throws Problem conflict when the archive has expired */
export async function* planLines(
  storage: Storage,
  ref: ArchiveRef,
  options: PlanOptions,
): AsyncGenerator<PlanLine | PlanEnd> {
  const { policy: tried, ...rest } = options;
  await assertShown(storage.database, ref);
  let policies: ArchivePolicies;
  try {
    ({ policies } = await readEffectiveRetention(storage.database, ref, tried && { tried }));
  } catch (error) {
    if (!(error instanceof PolicyUnreadable)) throw error;
    yield { summary: null, unreadable: error.message };
    return;
  }
  const report = reportPlan(storage, ref, { readPolicies: async () => policies }, { ...rest, policies });
  for (;;) {
    const { done, value } = await report.next();
    if (done) {
      if (value) yield { summary: sumOf(value) };
      return;
    }
    yield* linesOf(value);
  }
}

function sumOf({ policies, ...sum }: PlanSummary): PlanSum {
  return { ...sum, policy: policies.policy, plans: policies.folders.map(({ name, policy }) => ({ name, policy })) };
}

function linesOf({ path, policies, decisions }: PlannedFile): PlanLine[] {
  const shown = shownPath(path);
  const names = policies.map(({ name }) => name);
  return decisions.map(({ seq, committedAt, deleted, size, keep, reason, by }) => ({
    ...shown,
    seq,
    committedAt: moment(committedAt),
    deleted,
    size,
    keep,
    reason,
    because: explainReason(reason, by.policy),
    by: by.name,
    policies: names,
  }));
}
