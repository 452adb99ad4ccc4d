/**
 * A server without the jobs, so that backups can be measured without any: the role `api` on a database of its own, as it
 * runs beside workers. Its certificate, key and first tenant are made by a start of the embedded default.
 */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Program, startProgram } from './child-process.ts';
import { type ServerProcess, startServer } from './server-process.ts';

const serverMain = fileURLToPath(new URL('../server/main.ts', import.meta.url));
const startTimeoutMs = 60_000;
const stopTimeoutMs = 60_000;

export interface ApiOptions {
  data: string;
  /** Of a database that is migrated. */
  databaseUrl: string;
  onStart: (program: Program) => void;
}

/** Makes the data folder, and the first tenant in the database. Nothing of it runs when this resolves. */
export async function prepareServer({ data, databaseUrl, onStart }: ApiOptions): Promise<ServerProcess> {
  const server = await startServer({ data, settings: { HOLDFAST_DATABASE_URL: databaseUrl }, onStart });
  await server.stop();
  return server;
}

/** Resolves when it takes requests. @param prepared what `prepareServer` made */
export async function startApi(
  prepared: ServerProcess,
  { data, databaseUrl, onStart }: ApiOptions,
): Promise<ServerProcess> {
  const { cert, key } = prepared.certificateFiles;
  const startedAt = performance.now();
  const program = startProgram(serverMain, ['api'], {
    environment: {
      HOLDFAST_DATABASE_URL: databaseUrl,
      HOLDFAST_OBJECTS_FOLDER: join(data, 'objects'),
      HOLDFAST_KEY_FILE: join(data, 'server-key'),
      HOLDFAST_TLS_CERTIFICATE: cert,
      HOLDFAST_TLS_KEY: key,
      HOLDFAST_HOST: '127.0.0.1',
      HOLDFAST_PORT: '0',
      HOLDFAST_LOG_FILE: join(data, 'api.log'),
      // Uploads of 4 KiB blocks are with their headers slightly above the default: one would wait for the other.
      HOLDFAST_UPLOAD_BUDGET: '128MiB',
    },
  });
  onStart(program);
  const [, url] = await program.says(/listening on (\S+)/, startTimeoutMs);
  return {
    ...prepared,
    pid: program.pid,
    url: url!,
    startedInMs: performance.now() - startedAt,
    stop: () => program.stop(stopTimeoutMs),
  };
}
