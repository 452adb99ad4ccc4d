/**
 * Runs the jobs, and keeps them scheduled. Stopping gives the jobs at hand a bounded time to end; one that is cut runs
 * again, here or elsewhere.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { DelayedError, type Job, UnrecoverableError, type Worker } from 'bullmq';
import { fenceDefaults } from '../../storage/archive/checking/fence.ts';
import {
  type JobContext,
  type JobDefinition,
  type JobResult,
  jobDefinitions,
  type QueueName,
  queueNames,
} from './definitions.ts';
import { abandonWorker, openWorker, type QueueSettings, type Queues, type Scheduled } from './queues.ts';
import { type JobOutcome, runJob, WrongJobData } from './run-job.ts';

const closeTimeoutMs = 5_000;
const progressEveryMs = 1_000;
/** Each holds a window and two parts (http/staging-settings.ts). */
const restoresAtATime = 2;
/** A job that was stopped with its process is tried again after this long. */
const againMs = 1_000;

export interface JobEvents {
  ended(job: { name: string; id: string; ms: number } & JobOutcome): void;
  failed(job: { name: string; id: string; ms: number; error: Error }): void;
  /** These had lost their schedule, and have it again. */
  rescheduled(names: readonly string[]): void;
  /** A connection was lost, which is made anew; or something else that the worker gets over. */
  error(error: Error): void;
}

export interface JobWorker {
  stop(timeoutMs: number): Promise<void>;
}

export interface WorkerParts<Context> {
  settings: QueueSettings;
  queues: Queues;
  context: Context;
  events: JobEvents;
  definitions: Readonly<Record<string, JobDefinition<Context>>>;
  /** How often to look whether every job is still scheduled. */
  scheduleCheckMs: number;
  /** Done at once, and then every so often, for as long as the worker works: the fence's. Throws nothing. */
  beat?: { everyMs: number; work(): Promise<unknown> };
}

/** Schedules every job and starts working on them. */
export function startWorker(
  parts: Pick<WorkerParts<JobContext>, 'settings' | 'queues' | 'context' | 'events'>,
): Promise<JobWorker> {
  const beat = { everyMs: fenceDefaults.beatMs, work: () => parts.context.fence.beat() };
  return startWorkerOf({ definitions: jobDefinitions, scheduleCheckMs: 60_000, beat, ...parts });
}

/** The same with any jobs, for tests. */
export async function startWorkerOf<Context>(parts: WorkerParts<Context>): Promise<JobWorker> {
  const { settings, queues, events, definitions, scheduleCheckMs } = parts;
  const stopping = new AbortController();
  let over = false;
  const atWork = new Set<Promise<unknown>>();
  /** Failures that are in the log already. */
  const told = new WeakSet<Error>();
  const jobs = Object.entries(definitions).map(([name, { queue, everyMs }]) => ({ name, queue, everyMs }));
  const onError = (error: Error): void => {
    if (!stopping.signal.aborted) events.error(error);
  };

  await queues.schedule(jobs);
  const workers = queueNames.map((queue) => openQueueWorker(queue, { settings, jobs, isOver: () => over }, process));
  for (const worker of workers) {
    worker.on('error', onError);
    // Given up by the queue itself: it was begun too often, and never ended.
    worker.on('failed', (job, error) => {
      if (job && !told.has(error)) events.failed({ name: job.name, id: job.id ?? '', ms: 0, error });
    });
  }
  try {
    await Promise.all(workers.map((worker) => worker.waitUntilReady()));
  } catch (error) {
    over = true;
    await endsWithin(Promise.all(workers.map((worker) => worker.close(true))), closeTimeoutMs);
    throw error;
  }
  const running = workers.map((worker) => worker.run().catch(onError));
  const beating = parts.beat && repeat(parts.beat.everyMs, stopping.signal, parts.beat.work, { atOnce: true });
  const scheduling = repeat(scheduleCheckMs, stopping.signal, async () => {
    const names = await queues.keepScheduled(jobs).catch(onError);
    if (names && names.length > 0) events.rescheduled(names);
  });

  /** @returns what the job's record shows */
  async function process(queue: QueueName, job: Job, token: string, cancelled: AbortSignal): Promise<JobResult> {
    const definition = Object.hasOwn(definitions, job.name) ? definitions[job.name]! : null;
    // Left over in the queue from another version: nothing to do, and nothing lost, since facts are rows.
    if (definition?.queue !== queue) return {};
    const startedAt = performance.now();
    const work = runJob(definition, {
      context: parts.context,
      data: job.data,
      stop: AbortSignal.any([cancelled, stopping.signal]),
      progress: reportedTo(job),
    });
    const outcome = await tracked(atWork, work).catch((error: Error) => {
      events.failed({ name: job.name, id: job.id ?? '', ms: performance.now() - startedAt, error });
      const final = error instanceof WrongJobData ? new UnrecoverableError(error.message) : error;
      told.add(final);
      throw final;
    });
    if (outcome.ended === 'stopped') {
      await job.moveToDelayed(Date.now() + againMs, token);
      throw new DelayedError();
    }
    events.ended({ name: job.name, id: job.id ?? '', ms: performance.now() - startedAt, ...outcome });
    return outcome.ended === 'done' ? outcome.result : { ...outcome.result, [outcome.ended]: 1 };
  }

  return {
    async stop(timeoutMs) {
      // From here on no job is begun; those at hand are told to end, and have their time.
      const closed = Promise.all(workers.map((worker) => worker.close())).then(() => Promise.all(running));
      stopping.abort(new DOMException('the worker is shutting down', 'AbortError'));
      await endsWithin(Promise.all([...atWork, scheduling, beating]), timeoutMs);
      // Closing tells the queue; one that does not answer finds out by itself, when the job's lock lapses.
      const hasClosed = await endsWithin(closed, closeTimeoutMs);
      over = true;
      if (!hasClosed) await Promise.all(workers.map(abandonWorker));
    },
  };
}

type Process = (queue: QueueName, job: Job, token: string, cancelled: AbortSignal) => Promise<JobResult>;

function openQueueWorker(
  queue: QueueName,
  { settings, jobs, isOver }: { settings: QueueSettings; jobs: readonly Scheduled[]; isOver: () => boolean },
  process: Process,
): Worker {
  // As many at a time as there are kinds of jobs that may take long: each kind is at hand once, and none waits for another.
  const kinds = jobs.filter((job) => job.queue === queue).length;
  const concurrency = queue === 'housekeeping' ? 1 : Math.max(queue === 'restoring' ? restoresAtATime : 1, kinds);
  /** Jobs at hand in this process. A second of the same kind and about the same has nothing to do that the first does not do. */
  const names = new Set<string>();
  const worker = openWorker({ name: queue, concurrency, isOver }, settings, async (job, token, cancelled) => {
    const key = `${job.name} ${JSON.stringify(job.data)}`;
    if (names.has(key)) return { skipped: 1 };
    names.add(key);
    try {
      return await process(queue, job, token, cancelled);
    } finally {
      names.delete(key);
    }
  });
  // The queue was emptied, or took this process for dead: the job is another's.
  worker.on('lockRenewalFailed', (ids) => {
    for (const id of ids) worker.cancelJob(id, 'its lock is lost');
  });
  return worker;
}

/** Writes a job's progress to its record, no more often than anybody looks. What is not written is not missed. */
function reportedTo(job: Job): (numbers: JobResult) => void {
  let last = Number.NEGATIVE_INFINITY;
  return (numbers) => {
    const now = performance.now();
    if (now - last < progressEveryMs) return;
    last = now;
    job.updateProgress({ ...numbers }).catch(() => {});
  };
}

async function repeat(
  everyMs: number,
  signal: AbortSignal,
  work: () => Promise<unknown>,
  { atOnce = false } = {},
): Promise<void> {
  if (atOnce) await work();
  while (!signal.aborted) {
    await sleep(everyMs, undefined, { signal, ref: false }).catch(() => {});
    if (!signal.aborted) await work();
  }
}

function tracked<T>(all: Set<Promise<unknown>>, work: Promise<T>): Promise<T> {
  const ended = work.then(
    () => {},
    () => {},
  );
  all.add(ended);
  ended.then(() => all.delete(ended));
  return work;
}

async function endsWithin(work: Promise<unknown>, ms: number): Promise<boolean> {
  const timer = new AbortController();
  try {
    const ended = work.then(
      () => true,
      () => true,
    );
    return await Promise.race([ended, sleep(ms, false, { signal: timer.signal }).catch(() => false)]);
  } finally {
    timer.abort();
  }
}
