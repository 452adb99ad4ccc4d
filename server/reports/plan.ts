/** What pruning a device's archive would do: a line for each version with its reason, and the sum as the last line. */
import { type PlanSummary, reportPlan } from '../../storage/archive/retention/plan-report.ts';
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
}

export interface PlanEnd {
  /** Null: there is no policy to plan by, and nothing is deleted. */
  summary: PlanSummary | null;
  /** Why there is no policy. */
  unreadable?: string;
}

export interface PlanOptions {
  dueOnly: boolean;
  /** One to try out; left out: the one in force. */
  policy?: RetentionPolicy;
  signal?: AbortSignal;
}

export async function* planLines(
  storage: Storage,
  ref: ArchiveRef,
  options: PlanOptions,
): AsyncGenerator<PlanLine | PlanEnd> {
  let policy: RetentionPolicy;
  try {
    policy = options.policy ?? (await readEffectiveRetention(storage.database, ref)).policy;
  } catch (error) {
    if (!(error instanceof PolicyUnreadable)) throw error;
    yield { summary: null, unreadable: error.message };
    return;
  }
  const report = reportPlan(storage, ref, { readPolicy: async () => policy }, { ...options, policy });
  for (;;) {
    const { done, value } = await report.next();
    if (done) {
      if (value) yield { summary: value };
      return;
    }
    yield* linesOf(value, policy);
  }
}

function linesOf({ path, decisions }: PlannedFile, policy: RetentionPolicy): PlanLine[] {
  const shown = shownPath(path);
  return decisions.map(({ seq, committedAt, deleted, size, keep, reason }) => ({
    ...shown,
    seq,
    committedAt: moment(committedAt),
    deleted,
    size,
    keep,
    reason,
    because: explainReason(reason, policy),
  }));
}
