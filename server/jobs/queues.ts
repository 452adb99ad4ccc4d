/**
 * The job queues: on Redis where there is one, else on PostgreSQL in a schema of their own. Losing them loses nothing
 * but time. Together with worker.ts and dashboard.ts the only place that knows BullMQ.
 */
import { createPostgresBackend, type Job, Queue, Worker, withBackend } from 'bullmq';
import { type QueueName, queueNames } from './definitions.ts';
import { forgetOthers, keepScheduled, type SchedulingQueue } from './schedule.ts';

export type QueueSettings = { redisUrl: string } | { databaseUrl: string; migrate: boolean };

const onPostgres = withBackend(createPostgresBackend);
const answerTimeoutMs = 3_000;
const reconnectMsMax = 5_000;
/** Delayed jobs that are looked at for one that is late; those that wait for their repetition come between. */
const lateJobsMax = 20;

export interface QueueState {
  waiting: number;
  active: number;
  delayed: number;
  failed: number;
  /** How long the oldest job has been due without being begun; 0 when none is. Milliseconds. */
  oldestDueMs: number;
}

/** A job that repeats. */
export interface Scheduled {
  name: string;
  queue: QueueName;
  everyMs: number;
}

export interface Queues {
  /** Makes these repeat, once for all workers, and ends all other schedules. */
  schedule(jobs: readonly Scheduled[]): Promise<void>;
  /** Puts right what has happened to their schedules. @returns the names of those that had to be */
  keepScheduled(jobs: readonly Scheduled[]): Promise<string[]>;
  /** Puts a job in now; one with ids not while the same one waits or goes on already. */
  add(job: Pick<Scheduled, 'name' | 'queue'>, ids?: Record<string, number>): Promise<void>;
  /** @throws Error when they do not answer within three seconds */
  states(): Promise<Record<QueueName, QueueState>>;
  /** Resolves when the queues answer. @throws Error when they do not within three seconds */
  check(): Promise<void>;
  close(): Promise<void>;
  /** For the dashboard. */
  readonly bullmq: readonly Queue[];
}

/** Finished jobs are kept to be looked at, and no more than these. */
const defaultJobOptions = {
  attempts: 3,
  backoff: { type: 'exponential', delay: 5_000 },
  removeOnComplete: { count: 100 },
  removeOnFail: { count: 1_000 },
  stackTraceLimit: 10,
  sizeLimit: 64 * 1024,
};

/** Where BullMQ connects to. Its sessions are not the engine's: none of the engine's planner settings hold there. */
function postgresConnection(settings: { databaseUrl: string; migrate: boolean }, role: string, max: number) {
  return {
    connectionString: settings.databaseUrl,
    schema: 'jobs',
    migrate: settings.migrate,
    max,
    connectionTimeoutMillis: 10_000,
    idleTimeoutMillis: 60_000,
    keepAlive: true,
    application_name: `holdfast jobs ${role}`,
    options: '-c statement_timeout=30000 -c lock_timeout=10000 -c idle_in_transaction_session_timeout=30000',
  };
}

/**
 * A queue waits for a lost Redis, so that jobs are not refused during its restart; callers bound their own wait.
 * @param isOver whether this side is done with it: closing alone waits for a Redis that is away, and looks for it for ever
 */
function redisConnection(settings: { redisUrl: string }, isOver: () => boolean) {
  const retryStrategy = (times: number): number | null => (isOver() ? null : Math.min(times * 500, reconnectMsMax));
  return { url: settings.redisUrl, connectTimeout: 10_000, keepAlive: 10_000, retryStrategy };
}

function openQueue(name: QueueName, settings: QueueSettings, isOver: () => boolean): Queue {
  if ('redisUrl' in settings)
    return new Queue(name, { connection: redisConnection(settings, isOver), prefix: 'holdfast', defaultJobOptions });
  const connection = postgresConnection(settings, 'queue', 2);
  return new onPostgres.Queue(name, { connection, defaultJobOptions }) as unknown as Queue;
}

export type Processor = (job: Job, token: string, signal: AbortSignal) => Promise<unknown>;

class RedisWorker extends Worker {
  /** Closing one whose Redis is away never gets as far as this: its locks would be renewed for ever. */
  async abandon(): Promise<void> {
    await this.lockManager.close();
  }
}

/** Ends what keeps the process alive of a worker that did not close in time. */
export async function abandonWorker(worker: Worker): Promise<void> {
  if (worker instanceof RedisWorker) await worker.abandon();
}

/**
 * A worker of one queue that is not yet running. It works on `concurrency` jobs at a time.
 * @param isOver true from the moment on when a lost Redis is not looked for any more
 */
export function openWorker(
  { name, concurrency, isOver }: { name: QueueName; concurrency: number; isOver: () => boolean },
  settings: QueueSettings,
  processor: Processor,
): Worker {
  // BullMQ makes a signal for whoever takes three arguments.
  const process = (job: Job, token?: string, signal?: AbortSignal): Promise<unknown> =>
    processor(job, token ?? '', signal ?? new AbortController().signal);
  const options = {
    autorun: false,
    concurrency,
    // A worker that dies gives its job up after this long; one that lives renews it.
    lockDuration: 30_000,
    stalledInterval: 30_000,
    maxStalledCount: 3,
    removeOnComplete: defaultJobOptions.removeOnComplete,
    removeOnFail: defaultJobOptions.removeOnFail,
  };
  if ('redisUrl' in settings)
    return new RedisWorker(name, process, {
      ...options,
      connection: redisConnection(settings, isOver),
      prefix: 'holdfast',
    });
  const connection = postgresConnection({ ...settings, migrate: false }, 'worker', 3);
  return new onPostgres.Worker(name, process as never, { ...options, connection }) as unknown as Worker;
}

/**
 * Opens the queues, and makes their tables where `migrate` says so.
 * @param onError told of connections lost; BullMQ makes new ones by itself
 */
export async function openQueues(settings: QueueSettings, onError: (error: Error) => void): Promise<Queues> {
  const opened = new Map<QueueName, Queue>();
  let closing = false;
  const open = async (name: QueueName, own: QueueSettings): Promise<void> => {
    const queue = openQueue(name, own, () => closing);
    opened.set(name, queue);
    queue.on('error', (error: Error) => {
      // Connections that are being closed may be cut by a PostgreSQL that is stopping, too.
      if (!closing) onError(error);
    });
    await within(30_000, queue.waitUntilReady(), 'the job queue did not become ready');
  };
  const close = async (): Promise<void> => {
    closing = true;
    const closed = [...opened.values()].map((queue) => queue.close());
    await within(5_000, Promise.all(closed), 'the job queue did not close');
  };
  try {
    // The tables are the same for all; only the first makes them.
    const [first, ...rest] = queueNames;
    await open(first!, settings);
    const migrated = 'redisUrl' in settings ? settings : { ...settings, migrate: false };
    for (const name of rest) await open(name, migrated);
  } catch (error) {
    await close().catch(() => {});
    throw error;
  }
  const queueOf = (name: QueueName): Queue => opened.get(name)!;
  const scheduling = (name: QueueName): SchedulingQueue => queueOf(name) as unknown as SchedulingQueue;

  const keep = async (jobs: readonly Scheduled[]): Promise<string[]> => {
    const mended: string[] = [];
    for (const job of jobs) if (await keepScheduled(scheduling(job.queue), job)) mended.push(job.name);
    return mended;
  };
  return {
    bullmq: [...opened.values()],
    async schedule(jobs) {
      for (const name of queueNames) {
        const own = jobs.filter(({ queue }) => queue === name).map((job) => job.name);
        await forgetOthers(scheduling(name), new Set(own));
      }
      await keep(jobs);
    },
    keepScheduled: keep,
    async add({ name, queue }, ids = {}) {
      const hasIds = Object.keys(ids).length > 0;
      // Forgotten by the queue with the job's end, and when it is emptied.
      await queueOf(queue).add(name, ids, hasIds ? { deduplication: { id: `${name} ${JSON.stringify(ids)}` } } : {});
    },
    async states() {
      const states = queueNames.map(async (name) => [name, await stateOf(queueOf(name))] as const);
      const all = await within(answerTimeoutMs, Promise.all(states), 'the job queue does not answer');
      return Object.fromEntries(all) as Record<QueueName, QueueState>;
    },
    async check() {
      const answers = queueNames.map((name) => queueOf(name).getJobCounts('active'));
      await within(answerTimeoutMs, Promise.all(answers), 'the job queue does not answer');
    },
    close: () => close().catch(onError),
  };
}

async function stateOf(queue: Queue): Promise<QueueState> {
  const counts = await queue.getJobCounts('waiting', 'active', 'delayed', 'failed');
  const { waiting = 0, active = 0, delayed = 0, failed = 0 } = counts;
  // Newest first: the only order in which both backends give a part of those that wait.
  const oldest = waiting > 0 ? await queue.getJobs(['waiting'], waiting - 1, waiting - 1, false) : [];
  // Without a worker nobody moves jobs whose time has come to those that wait.
  const late = delayed > 0 ? await queue.getJobs(['delayed'], 0, lateJobsMax - 1, true) : [];
  // The delay of a repetition counts from its failure, which is not kept: only first attempts tell when they are due.
  const due = [...oldest, ...late.filter(({ attemptsMade }) => attemptsMade === 0)];
  const since = Math.min(...due.map(({ timestamp, delay }) => timestamp + (delay ?? 0)));
  return { waiting, active, delayed, failed, oldestDueMs: Math.max(0, Date.now() - since) };
}

/** Makes the queue's tables, for the command `migrate`. */
export async function migrateQueue(databaseUrl: string): Promise<void> {
  const queues = await openQueues({ databaseUrl, migrate: true }, () => {});
  await queues.close();
}

async function within<T>(ms: number, work: Promise<T>, otherwise: string): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error(`${otherwise} within ${ms / 1_000} s`)), ms);
  work.catch(() => {}); // when late, its own failure has no listener any more
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
