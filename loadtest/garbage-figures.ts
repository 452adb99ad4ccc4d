/** What a step of a worker cost, and how two compare. */

export interface StepCost<Result> {
  step: string;
  result: Result;
  seconds: number;
  workerCpuSeconds: number;
  /** Of all PostgreSQL's processes, those that clean up behind it included. */
  postgresCpuSeconds: number;
  walBytes: number;
  peakMemoryMiB: number;
}

/** Reclaims that found nothing due. */
export interface NothingDue {
  medianMs: number;
  p99Ms: number;
  maxMs: number;
  calls: number;
  /** Of each series of calls. */
  walBytesOfSeries: number[];
  /** Freed blocks that are not due yet. */
  waiting: number;
}

type Pruned = StepCost<{ versions?: number }>;

/** Shares of the one in the other. @throws Error when either deleted nothing */
export function compareCosts(
  few: Pruned,
  all: Pruned,
): { versions: number; seconds: number; cpuSeconds: number; walBytes: number } {
  const { versions: fewVersions = 0 } = few.result;
  const { versions: allVersions = 0 } = all.result;
  if (fewVersions === 0 || allVersions === 0) throw new Error('prune deleted nothing: there is nothing to compare');
  const cpuOf = (step: Pruned): number => step.workerCpuSeconds + step.postgresCpuSeconds;
  return {
    versions: fewVersions / allVersions,
    seconds: few.seconds / all.seconds,
    cpuSeconds: cpuOf(few) / cpuOf(all),
    walBytes: few.walBytes / all.walBytes,
  };
}
