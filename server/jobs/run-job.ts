/**
 * Runs one job: checks its data, bounds its time, and tells how it ended. Knows nothing of queues. However a job ends,
 * what it did stays done; the rest is a later run's.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type JobDefinition, type JobResult, type JobRun, NotNow, noIds } from './definitions.ts';

/** Its data is not what the definition allows: no repetition makes it so. */
export class WrongJobData extends Error {
  override name = 'WrongJobData';
}

export interface JobOutcome {
  /**
   * `done`: all there was to do. `cut`: its time was over. `refused`: it may not be done now. `stopped`: the process is
   * stopping, or the job is another's now.
   */
  ended: 'done' | 'cut' | 'refused' | 'stopped';
  result: JobResult;
  /** Of one that was refused. */
  why?: string;
}

export interface JobCall<Context> {
  context: Context;
  data: unknown;
  /** Aborted when the job must end here. */
  stop: AbortSignal;
  progress: JobRun['progress'];
}

/** @throws WrongJobData, and whatever the work throws that was not asked to end */
export async function runJob<Context>(
  definition: Pick<JobDefinition<Context>, 'ids' | 'sliceMs' | 'work'>,
  { context, data, stop, progress }: JobCall<Context>,
): Promise<JobOutcome> {
  const ids = (definition.ids ?? noIds).safeParse(data);
  if (!ids.success) throw new WrongJobData('the data of this job is not what it takes: ids and nothing else');
  if (stop.aborted) return { ended: 'stopped', result: {} };

  const slice = new AbortController();
  const timer = new AbortController();
  if (definition.sliceMs !== null) {
    const over = sleep(definition.sliceMs, undefined, { signal: timer.signal, ref: false });
    over.then(
      () => slice.abort(new DOMException('the time of this run is over', 'AbortError')),
      () => {}, // it ended before
    );
  }
  const asked = AbortSignal.any([stop, slice.signal]);
  /** What work that ends by throwing has done: the metrics count it too. */
  let soFar: JobResult = {};
  const told = (numbers: JobResult): void => {
    soFar = { ...numbers };
    progress(soFar);
  };
  const endOf = (): JobOutcome['ended'] => (stop.aborted ? 'stopped' : slice.signal.aborted ? 'cut' : 'done');
  try {
    const result = await definition.work(context, { signal: asked, progress: told, ids: ids.data });
    return { ended: endOf(), result };
  } catch (error) {
    if (error instanceof NotNow) return { ended: 'refused', result: {}, why: error.message };
    if (!asked.aborted || !isAbort(error, asked)) throw error;
    return { ended: endOf(), result: soFar };
  } finally {
    timer.abort();
  }
}

/** Whether an error is the end that was asked for, or was caused by it. */
function isAbort(error: unknown, { reason }: AbortSignal): boolean {
  for (let cause = error, depth = 0; cause && depth < 5; cause = (cause as Error).cause, depth++)
    if (cause === reason || (cause as Error).name === 'AbortError') return true;
  return false;
}
