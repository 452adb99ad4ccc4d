/**
 * Starts a server in its order, and stops it in the opposite one. What each step opens is put on one stack at once, so
 * that a start that fails half way, or is interrupted, closes what it had opened. Every closing step has a bound.
 */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Fence, fenceDefaults, openFence } from '../../storage/archive/checking/fence.ts';
import { type Database, openDatabase } from '../../storage/catalog/database.ts';
import { checkCatalog, migrate } from '../../storage/catalog/migrate.ts';
import { catalogIsEmpty } from '../../storage/catalog/writing/blocks.ts';
import { openObjectStore } from '../../storage/objects/open-store.ts';
import { openStorage, type Storage } from '../../storage/storage.ts';
import type { Config } from '../config.ts';
import { type AuditKeys, openAuditKeyFile } from '../directory/audit/heads/audit-key.ts';
import { hasSignedHeads } from '../directory/audit/heads/log-rows.ts';
import { type Directory, openDirectory } from '../directory/directory.ts';
import { type KeyService, KeyServiceError } from '../directory/keys/key-service.ts';
import { openKeyService } from '../directory/keys/open-key-service.ts';
import { hasFileSealedRecords } from '../directory/keys/sealed/kinds.ts';
import { openBoundedLog } from '../embedded/bounded-log.ts';
import { ensureFirstPeople } from '../embedded/first-start.ts';
import type { EmbeddedPostgres } from '../embedded/postgres.ts';
import { type EmbeddedParts, startEmbedded } from '../embedded/start.ts';
import { garbageMetrics } from '../garbage-metrics.ts';
import { httpSettings, workerHttpSettings, workerStagingSettings } from '../http-settings.ts';
import { jobDefinitions } from '../jobs/definitions.ts';
import { openQueues, type QueueSettings, type Queues } from '../jobs/queues.ts';
import { quietly } from '../jobs/quiet.ts';
import { type JobEvents, startWorker } from '../jobs/worker.ts';
import { createLog, type Log } from '../log.ts';
import { createMetrics, type Metrics } from '../metrics.ts';
import { collectEarly } from '../restoring/flow/letting-go.ts';
import type { StopSignal } from '../signals.ts';
import { stagingMetrics } from '../staging-metrics.ts';
import { databaseSettings, objectStoreSettings, storageSettings } from '../storage-settings.ts';
import { announce } from './announce.ts';
import { openHttp, openProbes } from './open-http.ts';

export interface Roles {
  api: boolean;
  worker: boolean;
}

const logBytesMax = 10 * 1024 * 1024;
const closeTimeoutMs = 5_000;
const undefinedTable = '42P01'; // SQLSTATE
const notMigrated = 'the database has no schema yet: run "node server/main.ts migrate" with the same settings';

/**
 * Serves until a signal, or until something it cannot do without ends.
 * @param say prints a line for the operator
 * @returns the process's exit code
 * @throws Error when the start fails, in words for the operator
 */
export async function serve(
  config: Config,
  roles: Roles,
  stop: StopSignal,
  say: (line: string) => void,
): Promise<number> {
  const log = openLog(config);
  collectEarly();
  const closing = new AsyncDisposableStack();
  let running: Running;
  try {
    running = await start(config, roles, { log, closing, stop, say });
  } catch (error) {
    await closing.disposeAsync();
    if (stop.aborted.aborted) return 0; // interrupted while it started
    throw error;
  }
  const reason = await Promise.race([stop.received, running.failure.then((why) => ({ why }))]);
  const failed = typeof reason === 'object';
  if (failed) log.fatal(reason.why);
  if (failed) say(`Stopping: ${reason.why}`);
  else say(`Stopping (${reason}); once more ends at once`);
  running.embedded?.lock.describe({ stopping: true });
  const stoppingAt = performance.now();
  await closing.disposeAsync();
  log.info({ ms: Math.round(performance.now() - stoppingAt) }, 'stopped');
  say('Stopped.');
  return failed ? 1 : 0;
}

interface Starting {
  log: Log;
  closing: AsyncDisposableStack;
  stop: StopSignal;
  say: (line: string) => void;
}

interface Running {
  /** Resolves, with the reason, when the server cannot go on. */
  failure: Promise<string>;
  embedded: EmbeddedParts | null;
}

async function start(config: Config, roles: Roles, starting: Starting): Promise<Running> {
  const { log, closing, stop, say } = starting;
  for (const name of config.unknownVariables) say(`${name} looks like a setting and is none (see: config)`);
  const embedded = config.embedded ? await openEmbedded(config, closing, say) : null;
  stop.aborted.throwIfAborted();
  const databaseUrl = embedded?.databaseUrl ?? config.databaseUrl!; // the configuration asks for it otherwise
  if (config.embedded) await migrate(databaseUrl, (line) => log.info(line));

  const database = openDatabase(databaseSettings(config, databaseUrl));
  closing.defer(() => bounded('database', database.close(), log));
  const { catalogId } = await checkCatalog(database).catch((cause) => {
    throw (cause as { code?: string }).code === undefinedTable ? new Error(notMigrated, { cause }) : cause;
  });
  const isNew = await catalogIsEmpty(database);
  const objects = await openObjectStore(objectStoreSettings(config), { catalogId, create: isNew });
  closing.defer(() => bounded('object store', objects.close(), log));
  const storage = await openStorage({ database, objects, settings: storageSettings(config) });
  stop.aborted.throwIfAborted();

  const queueSettings: QueueSettings = config.redisUrl
    ? { redisUrl: config.redisUrl }
    : { databaseUrl, migrate: config.embedded };
  const queues = await openQueues(queueSettings, quietWarning(log, 'job queue'));
  closing.defer(() => queues.close());
  const metrics = createMetrics();
  const directory = roles.api ? await openOwnDirectory(config, database, starting) : null;
  const ofWorker = roles.worker ? (directory ?? openWorkersDirectory(config, database, starting)) : null;
  const jobs = { config, storage, directory: ofWorker, queueSettings, queues, metrics };
  const fence = roles.worker ? await openJobs(jobs, starting) : null;
  stop.aborted.throwIfAborted();

  const bounds = { leaveMs: config.leaveTimeoutMs, drainMs: config.shutdownTimeoutMs };
  if (directory) {
    const settings = httpSettings(config, embedded?.certificate ?? null);
    const address = await openHttp({ settings, storage, directory, queues, metrics, log, fence, ...bounds }, closing);
    announce(config, settings, address, embedded, say);
  } else if (config.workerPort !== undefined) {
    const settings = workerHttpSettings(config, config.workerPort);
    const parts = { settings, storage, queues, metrics, log, fence, leaveMs: 0, drainMs: 1_000 };
    const { port } = await openProbes(parts, closing);
    say(`Holdfast worker: ready, probes on port ${port}`);
  } else say('Holdfast worker: ready');

  return { embedded, failure: embedded?.postgres ? postgresEnded(embedded.postgres, config) : new Promise(() => {}) };
}

async function postgresEnded({ ended }: EmbeddedPostgres, config: Config): Promise<string> {
  return `the embedded PostgreSQL ended (${await ended}); see ${join(config.data, 'postgres.log')}`;
}

function openLog(config: Config): Log {
  const file = config.logFile ?? (config.embedded && process.stdout.isTTY ? join(config.data, 'server.log') : null);
  if (!file) return createLog(config.logLevel);
  const bounded = openBoundedLog(file, logBytesMax);
  return createLog(config.logLevel, { write: (line) => bounded.append(Buffer.from(line)) });
}

async function openEmbedded(
  config: Config,
  closing: AsyncDisposableStack,
  say: (line: string) => void,
): Promise<EmbeddedParts> {
  const parts = await startEmbedded(config, say);
  closing.defer(() => parts.lock.release());
  closing.defer(() => parts.postgres?.stop());
  return parts;
}

async function openOwnDirectory(config: Config, database: Database, starting: Starting): Promise<Directory> {
  const { passwordHashesMax, signInsPerMinute, operatorSecondFactor } = config;
  const createFile = config.embedded && config.keyService === 'file' && !(await hasFileSealedRecords(database));
  const keys = openKeyService(config, { createFile });
  void sayIfNotSealing(keys, starting);
  const directory = openDirectory({ database, keys, passwordHashesMax, signInsPerMinute, operatorSecondFactor });
  if (config.embedded) {
    const { operator } = await ensureFirstPeople(config.data, directory);
    if (!operator)
      starting.say('Nobody runs this server yet: make an operator with "node server/main.ts operators add NAME"');
  }
  return directory;
}

/** What a worker opens backups with, to stage restores. Null: it cannot; everything else it can. */
function openWorkersDirectory(config: Config, database: Database, { say }: Starting): Directory | null {
  try {
    const { passwordHashesMax, signInsPerMinute } = config;
    const keys = openKeyService(config, { createFile: false });
    return openDirectory({ database, keys, passwordHashesMax, signInsPerMinute });
  } catch (error) {
    if (!(error instanceof KeyServiceError)) throw error;
    say(`This worker stages no restores, for it cannot open the keys of backups: ${error.message}`);
    return null;
  }
}

/** Backups of devices that are registered go on without the key service, so the server starts without it too. */
async function sayIfNotSealing(keys: KeyService, { log, say }: Starting): Promise<void> {
  try {
    await keys.check();
  } catch (error) {
    log.warn({ err: error }, 'key service');
    say(`Vault keys cannot be sealed now, so no user can begin to back up: ${(error as Error).message}`);
  }
}

async function openJobs(
  parts: {
    config: Config;
    storage: Storage;
    directory: Directory | null;
    queueSettings: QueueSettings;
    queues: Queues;
    metrics: Metrics;
  },
  { log, closing, say }: Starting,
): Promise<Fence> {
  const { config, storage, directory, queueSettings, queues, metrics } = parts;
  const fence = openFence(storage, fenceDefaults);
  metrics.observe({
    fence: () => fence.state(),
    numbers: [...garbageMetrics(storage.database), ...stagingMetrics(storage.database)],
  });
  const worker = await startWorker({
    settings: queueSettings,
    queues,
    context: {
      storage,
      fence,
      runSilenceMs: config.runSilenceMs,
      backgroundShare: config.backgroundPercent / 100,
      verifyBytesPerSecond: config.verifyRateBytes,
      verifyEveryMs: config.verifyEveryMs,
      restoreHistoryMs: config.restoreHistoryDays * 86_400_000,
      auditKeys: await openAuditKeys(config, storage.database, say),
      staging: directory && {
        directory,
        settings: workerStagingSettings(config),
        onFault: (error) => log.warn({ err: error }, 'staging'),
      },
      startJob: (name, ids) => queues.add({ name, queue: jobDefinitions[name].queue }, ids),
    },
    events: jobEvents(log, metrics),
  });
  closing.defer(() => worker.stop(config.shutdownTimeoutMs));
  return fence;
}

/** Backups and the log itself go on without a key that signs it. */
async function openAuditKeys(
  config: Config,
  database: Database,
  say: (line: string) => void,
): Promise<AuditKeys | null> {
  const keys = openAuditKeyFile(config.auditKeyFile, { create: config.embedded && !(await hasSignedHeads(database)) });
  if (!keys?.signer)
    say(`The audit log is not signed: there is no private key in ${config.auditKeyFile} (HOLDFAST_AUDIT_KEY_FILE)`);
  return keys;
}

function jobEvents(log: Log, metrics: Metrics): JobEvents {
  return {
    ended: ({ name, id, ms, ended, result, why }) => {
      if (ended !== 'stopped') metrics.job({ job: name, ended, seconds: ms / 1_000, result });
      log.debug({ job: name, id, ms: Math.round(ms), ended, result, why }, 'job ended');
    },
    failed: ({ name, id, ms, error }) => {
      metrics.job({ job: name, ended: 'failed', seconds: ms / 1_000, result: {} });
      log.error({ job: name, id, ms: Math.round(ms), err: error }, 'job failed');
    },
    rescheduled: (jobs) => log.warn({ jobs }, 'jobs had lost their schedule, and have it again'),
    error: quietWarning(log, 'job worker'),
  };
}

const quietMs = 30_000;

function quietWarning(log: Log, what: string): (error: Error) => void {
  return quietly((error, repeated) => log.warn({ err: error, repeated }, what), quietMs);
}

/** A closing step that hangs must not keep the next from running. */
async function bounded(what: string, work: Promise<unknown>, log: Log): Promise<void> {
  const timer = new AbortController();
  const late = sleep(closeTimeoutMs, true, { signal: timer.signal }).catch(() => false);
  try {
    if ((await Promise.race([work.then(() => false), late])) === true)
      log.warn(`the ${what} did not close within ${closeTimeoutMs / 1_000} s`);
  } catch (error) {
    log.warn({ err: error }, `closing the ${what}`);
  } finally {
    timer.abort();
  }
}
