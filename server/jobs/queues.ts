/**
 * The job queue: on Redis where there is one, else on PostgreSQL in a schema of its own. Losing it loses nothing but
 * time. Together with worker.ts the only place that knows BullMQ.
 */
import { createPostgresBackend, Queue, Worker, withBackend } from 'bullmq';
import type { JobName } from './definitions.ts';

export type QueueSettings = { redisUrl: string } | { databaseUrl: string; migrate: boolean };

const onPostgres = withBackend(createPostgresBackend);

export const queueName = 'housekeeping';
const checkTimeoutMs = 3_000;

export type Processor = (job: { name: string; id: string }, signal: AbortSignal) => Promise<unknown>;

export interface QueueCounts {
  waiting: number;
  active: number;
  delayed: number;
  failed: number;
}

export interface Queues {
  /** Makes a job run every so often, once for all workers. Repeating it changes nothing. */
  schedule(name: JobName, everyMs: number): Promise<void>;
  /** Puts a job in now. */
  add(name: JobName): Promise<void>;
  counts(): Promise<QueueCounts>;
  /** Resolves when the queue answers. @throws Error when it does not within three seconds */
  check(): Promise<void>;
  close(): Promise<void>;
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
function postgresConnection(settings: { databaseUrl: string; migrate: boolean }, role: string) {
  return {
    connectionString: settings.databaseUrl,
    schema: 'jobs',
    migrate: settings.migrate,
    max: 3,
    connectionTimeoutMillis: 10_000,
    idleTimeoutMillis: 60_000,
    keepAlive: true,
    application_name: `holdfast jobs ${role}`,
    options: '-c statement_timeout=30000 -c lock_timeout=10000 -c idle_in_transaction_session_timeout=30000',
  };
}

/** A queue waits for a lost Redis, so that jobs are not refused during its restart; callers bound their own wait. */
function redisConnection(settings: { redisUrl: string }) {
  return { url: settings.redisUrl, connectTimeout: 10_000, keepAlive: 10_000 };
}

function openQueue(settings: QueueSettings) {
  if ('redisUrl' in settings)
    return new Queue(queueName, { connection: redisConnection(settings), prefix: 'holdfast', defaultJobOptions });
  return new onPostgres.Queue(queueName, { connection: postgresConnection(settings, 'queue'), defaultJobOptions });
}

/** A worker that is not yet running. */
export function openWorker(settings: QueueSettings, processor: Processor) {
  const process = (
    job: { name: string; id?: string | undefined },
    _token?: string,
    signal?: AbortSignal,
  ): Promise<unknown> => processor({ name: job.name, id: job.id ?? '' }, signal ?? new AbortController().signal);
  const options = {
    autorun: false,
    concurrency: 1,
    // A worker that dies gives its job up after this long; one that lives renews it.
    lockDuration: 30_000,
    stalledInterval: 30_000,
    maxStalledCount: 3,
    removeOnComplete: defaultJobOptions.removeOnComplete,
    removeOnFail: defaultJobOptions.removeOnFail,
  };
  if ('redisUrl' in settings)
    return new Worker(queueName, process, { ...options, connection: redisConnection(settings), prefix: 'holdfast' });
  return new onPostgres.Worker(queueName, process, {
    ...options,
    connection: postgresConnection({ ...settings, migrate: false }, 'worker'),
  });
}

/**
 * Opens the queue, and makes its tables where `migrate` says so.
 * @param onError told of connections lost; BullMQ makes new ones by itself
 */
export async function openQueues(settings: QueueSettings, onError: (error: Error) => void): Promise<Queues> {
  const queue = openQueue(settings);
  let closing = false;
  queue.on('error', (error: Error) => {
    // Connections that are being closed may be cut by a PostgreSQL that is stopping, too.
    if (!closing) onError(error);
  });
  try {
    await within(30_000, queue.waitUntilReady(), 'the job queue did not become ready');
  } catch (error) {
    await within(5_000, queue.close(), 'close').catch(() => {});
    throw error;
  }
  return {
    async schedule(name, everyMs) {
      await queue.upsertJobScheduler(name, { every: everyMs }, { name, data: {} });
    },
    async add(name) {
      await queue.add(name, {});
    },
    async counts() {
      const {
        waiting = 0,
        active = 0,
        delayed = 0,
        failed = 0,
      } = await queue.getJobCounts('waiting', 'active', 'delayed', 'failed');
      return { waiting, active, delayed, failed };
    },
    async check() {
      await within(checkTimeoutMs, queue.getJobCounts('active'), 'the job queue does not answer');
    },
    async close() {
      closing = true;
      await within(5_000, queue.close(), 'the job queue did not close').catch(onError);
    },
  };
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
