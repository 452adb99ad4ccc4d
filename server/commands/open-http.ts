/** The ports of a server: from the parts to the open port, and its ordered end put on the stack. */
import { type Fence, readStopAlert } from '../../storage/archive/checking/fence.ts';
import { checkCatalog } from '../../storage/catalog/migrate.ts';
import type { Storage } from '../../storage/storage.ts';
import type { Directory } from '../directory/directory.ts';
import type { Dashboard, StartJob } from '../http/deps.ts';
import { createHttpServer, type HttpServer } from '../http/http-server.ts';
import { createProbeServer } from '../http/probe-server.ts';
import { dashboardPath } from '../http/routes/dashboard.ts';
import type { HttpSettings } from '../http/settings.ts';
import { jobDefinitions } from '../jobs/definitions.ts';
import type { Queues } from '../jobs/queues.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';

export interface ProbeParts {
  settings: HttpSettings;
  storage: Storage;
  queues: Queues;
  metrics: Metrics;
  log: Log;
  leaveMs: number;
  drainMs: number;
  /** Where this process has one: what it says goes into /readyz. */
  fence: Fence | null;
}

export interface HttpParts extends ProbeParts {
  directory: Directory;
}

/** The agent protocol, the JSON API, the dashboard and the probes. @throws Error that says which port, and what to set */
export async function openHttp(parts: HttpParts, closing: AsyncDisposableStack): Promise<{ port: number }> {
  const { settings, storage, directory, queues, metrics, log } = parts;
  metrics.observe({ queues: () => queues.states() });
  const readiness = readinessOf(parts);
  const dashboard = dashboardOf(queues, log);
  const startJob = starterOf(queues, log);
  const server = createHttpServer({ storage, directory, metrics, log, readiness, settings, dashboard, startJob });
  return open(server, parts, closing, 'HOLDFAST_PORT');
}

/** A worker's port: the probes alone. @throws Error that says which port, and what to set */
export async function openProbes(parts: ProbeParts, closing: AsyncDisposableStack): Promise<{ port: number }> {
  const { settings, storage, queues, metrics, log } = parts;
  metrics.observe({ queues: () => queues.states() });
  const server = createProbeServer({ storage, metrics, log, readiness: readinessOf(parts), settings });
  return open(server, parts, closing, 'HOLDFAST_WORKER_PORT');
}

function readinessOf({ storage, queues, fence }: ProbeParts) {
  return {
    database: () => checkCatalog(storage.database),
    objects: () => storage.objects.check(),
    queue: () => queues.check(),
    // Stopped or not, it is ready: backups and restores go on.
    deleting: async () => ({ tell: fence ? fence.state() : await readStopAlert(storage).catch(() => null) }),
  };
}

/** A queue that is away takes it later, or never: its rows are looked at every minute. */
function starterOf(queues: Queues, log: Log): StartJob {
  return (name, ids) => {
    const { queue } = jobDefinitions[name];
    queues.add({ name, queue }, ids).catch((err: unknown) => log.warn({ err, job: name }, 'job not put in'));
  };
}

/** Loaded when it is first looked at: most processes never show it. */
function dashboardOf(queues: Queues, log: Log): Dashboard {
  let made: Promise<Dashboard> | null = null;
  const make = async (): Promise<Dashboard> => {
    const { createDashboard } = await import('../jobs/dashboard.ts');
    const onError = (err: Error): void => log.error({ err }, 'queue dashboard');
    return createDashboard(queues, { path: dashboardPath, onError }) as unknown as Dashboard;
  };
  return async (ctx, next) => {
    made ??= make();
    return (await made)(ctx, next);
  };
}

async function open(
  server: HttpServer,
  { settings, log, leaveMs, drainMs }: ProbeParts,
  closing: AsyncDisposableStack,
  portVariable: string,
): Promise<{ port: number }> {
  const address = await server.listen().catch((cause) => {
    throw new Error(explainListenError(cause as NodeJS.ErrnoException, settings, portVariable), { cause });
  });
  closing.defer(async () => {
    const { cut, ms } = await server.shutDown({ leaveMs, drainMs });
    log.info({ cut, ms: Math.round(ms) }, 'connections closed');
  });
  return address;
}

/** What an operator can do about a port that cannot be had. */
function explainListenError(
  error: NodeJS.ErrnoException,
  { host, port }: { host: string; port: number },
  portVariable: string,
): string {
  const where = `port ${port} on ${host}`;
  switch (error.code) {
    case 'EADDRINUSE':
      return `${where} is in use by another program: set ${portVariable} to a free port, or to 0 to have one chosen`;
    case 'EACCES':
      return `${where} needs rights this user does not have: set ${portVariable} to 1024 or higher`;
    case 'EADDRNOTAVAIL':
    case 'ENOTFOUND':
      return `${host} is no address of this machine: set HOLDFAST_HOST`;
    default:
      return `cannot listen on ${where}: ${error.message}`;
  }
}
