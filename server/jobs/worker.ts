/** Runs the jobs. Stopping gives the job at hand a bounded time to end; one that is cut runs again elsewhere. */
import { setTimeout as sleep } from 'node:timers/promises';
import { isJobName, type JobContext, jobDefinitions } from './definitions.ts';
import { openWorker, type QueueSettings, type Queues } from './queues.ts';

const closeTimeoutMs = 5_000;

export interface JobEvents {
  done(job: { name: string; id: string; ms: number; result: unknown }): void;
  failed(job: { name: string; id: string; error: Error }): void;
  /** A connection was lost; it is made anew. */
  error(error: Error): void;
}

export interface JobWorker {
  stop(timeoutMs: number): Promise<void>;
}

/** Schedules every job and starts working on them. */
export async function startWorker(
  settings: QueueSettings,
  queues: Queues,
  context: JobContext,
  events: JobEvents,
): Promise<JobWorker> {
  for (const [name, { everyMs }] of Object.entries(jobDefinitions))
    if (isJobName(name)) await queues.schedule(name, everyMs);

  const stopping = new AbortController();
  let atWork: Promise<unknown> = Promise.resolve();
  const worker = openWorker(settings, async (job, signal) => {
    // Left over in the queue from another version: nothing to do, and nothing lost, since facts are rows.
    if (!isJobName(job.name)) return {};
    const start = performance.now();
    const work = jobDefinitions[job.name].work(context, AbortSignal.any([signal, stopping.signal]));
    atWork = work.catch(() => {}); // one at a time (see openWorker)
    const result = await work;
    events.done({ ...job, ms: performance.now() - start, result });
    return result;
  });
  worker.on('error', (error) => {
    if (!stopping.signal.aborted) events.error(error);
  });
  worker.on('failed', (job, error) => events.failed({ name: job?.name ?? '', id: job?.id ?? '', error }));
  await worker.waitUntilReady();
  const running = worker.run().catch((error: Error) => events.error(error));

  return {
    async stop(timeoutMs) {
      stopping.abort(new Error('the worker is shutting down'));
      await endsWithin(atWork, timeoutMs);
      // Closing tells the queue; one that does not answer finds out by itself, when the job's lock lapses.
      const closed = worker.close().then(() => running);
      if (!(await endsWithin(closed, closeTimeoutMs))) await endsWithin(worker.close(true), 1_000);
    },
  };
}

async function endsWithin(work: Promise<unknown>, ms: number): Promise<boolean> {
  const timer = new AbortController();
  try {
    return await Promise.race([work.then(() => true), sleep(ms, false, { signal: timer.signal }).catch(() => false)]);
  } finally {
    timer.abort();
  }
}
