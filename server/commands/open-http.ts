/** The HTTP side of a server: from the parts to the open port, and its ordered end put on the stack. */
import { checkCatalog } from '../../storage/catalog/migrate.ts';
import type { Storage } from '../../storage/storage.ts';
import type { Directory } from '../directory/directory.ts';
import { createHttpServer, type HttpServer } from '../http/http-server.ts';
import type { HttpSettings } from '../http/settings.ts';
import type { Queues } from '../jobs/queues.ts';
import type { Log } from '../log.ts';
import { createMetrics } from '../metrics.ts';

export interface HttpParts {
  settings: HttpSettings;
  storage: Storage;
  directory: Directory;
  queues: Queues;
  log: Log;
  leaveMs: number;
  drainMs: number;
}

/** @throws Error that says which port, and what to set */
export async function openHttp(parts: HttpParts, closing: AsyncDisposableStack): Promise<{ port: number }> {
  const { settings, storage, directory, queues, log, leaveMs, drainMs } = parts;
  const metrics = createMetrics();
  metrics.observe({ queue: async () => ({ ...(await queues.counts()) }) });
  const readiness = {
    database: () => checkCatalog(storage.database),
    objects: () => storage.objects.check(),
    queue: () => queues.check(),
  };
  const server = createHttpServer({ storage, directory, metrics, log, readiness, settings });
  const address = await listen(server, settings);
  closing.defer(async () => {
    const { cut, ms } = await server.shutDown({ leaveMs, drainMs });
    log.info({ cut, ms: Math.round(ms) }, 'connections closed');
  });
  return address;
}

async function listen(server: HttpServer, { host, port }: HttpSettings): Promise<{ port: number }> {
  try {
    return await server.listen();
  } catch (cause) {
    throw new Error(explainListenError(cause as NodeJS.ErrnoException, { host, port }), { cause });
  }
}

/** What an operator can do about a port that cannot be had. */
export function explainListenError(
  error: NodeJS.ErrnoException,
  { host, port }: { host: string; port: number },
): string {
  const where = `port ${port} on ${host}`;
  switch (error.code) {
    case 'EADDRINUSE':
      return `${where} is in use by another program: set HOLDFAST_PORT to a free port, or to 0 to have one chosen`;
    case 'EACCES':
      return `${where} needs rights this user does not have: set HOLDFAST_PORT to 1024 or higher`;
    case 'EADDRNOTAVAIL':
    case 'ENOTFOUND':
      return `${host} is no address of this machine: set HOLDFAST_HOST`;
    default:
      return `cannot listen on ${where}: ${error.message}`;
  }
}
