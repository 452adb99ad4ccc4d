/** For the tests of the queues, on either backend: jobs that tell what becomes of them, and workers that run them. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { JobDefinition, JobResult, JobRun } from './definitions.ts';
import type { QueueSettings, Queues } from './queues.ts';
import type { JobOutcome } from './run-job.ts';
import { type JobWorker, startWorkerOf } from './worker.ts';

export type TestDefinitions = Record<string, JobDefinition<null>>;

export interface TestWorker extends JobWorker {
  done: ({ name: string } & JobOutcome)[];
  failed: { name: string; error: Error }[];
  rescheduled: string[];
  errors: Error[];
}

export async function startTestWorker(
  settings: QueueSettings,
  queues: Queues,
  definitions: TestDefinitions,
  scheduleCheckMs = 3_600_000,
): Promise<TestWorker> {
  const told: Pick<TestWorker, 'done' | 'failed' | 'rescheduled' | 'errors'> = {
    done: [],
    failed: [],
    rescheduled: [],
    errors: [],
  };
  const worker = await startWorkerOf({
    settings,
    queues,
    definitions,
    scheduleCheckMs,
    context: null,
    events: {
      ended: (job) => told.done.push(job),
      failed: (job) => told.failed.push(job),
      rescheduled: (names) => told.rescheduled.push(...names),
      error: (error) => told.errors.push(error),
    },
  });
  return { ...told, stop: (timeoutMs) => worker.stop(timeoutMs) };
}

/** A job on `housekeeping` that runs every hour, unless told otherwise. */
export function testJob(work: (run: JobRun) => Promise<JobResult>, more: Partial<JobDefinition<null>> = {}) {
  return {
    queue: 'housekeeping',
    everyMs: 3_600_000,
    sliceMs: null,
    ...more,
    work: (_, run) => work(run),
  } as JobDefinition<null>;
}

/** Work that ends only when it is told to, by throwing, as most do. */
export function endless(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const end = (): void => reject(signal.reason);
    if (signal.aborted) end();
    else signal.addEventListener('abort', end, { once: true });
  });
}

/** Waits, for a bounded time, until something is so. */
export async function until(isSo: () => boolean | Promise<boolean>, withinMs = 15_000): Promise<void> {
  for (const end = performance.now() + withinMs; !(await isSo()); await sleep(20))
    if (performance.now() > end) throw new Error(`not so within ${withinMs} ms: ${isSo}`);
}
