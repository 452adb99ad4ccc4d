/**
 * Every job there is: how often it runs and what it does. A job carries ids, never facts: it can run twice, be lost or
 * run after a crash, and that costs time only, because what must happen is a row.
 */
import { abandonStaleRuns } from '../../storage/archive/runs.ts';
import type { Storage } from '../../storage/storage.ts';

/** What jobs work on. */
export interface JobContext {
  storage: Storage;
  /** After this long without a word from its agent, a run is abandoned. */
  runSilenceMs: number;
}

export interface JobDefinition {
  /** Milliseconds between two runs. */
  everyMs: number;
  /** @returns what the job's record shows: a few numbers */
  work(context: JobContext, signal: AbortSignal): Promise<Record<string, number>>;
}

export type JobName = 'abandon-stale-runs';

export const jobDefinitions: Readonly<Record<JobName, JobDefinition>> = {
  'abandon-stale-runs': {
    everyMs: 60_000,
    work: async ({ storage, runSilenceMs }) => ({
      abandoned: await abandonStaleRuns(storage, { olderThanMs: runSilenceMs }),
    }),
  },
};

export function isJobName(name: string): name is JobName {
  return Object.hasOwn(jobDefinitions, name);
}
