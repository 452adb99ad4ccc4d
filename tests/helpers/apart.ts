/** A server as most who run it have it: one process answers, and others work. */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { startChild } from './child.ts';
import { nodeArguments, type RunningServer, startServer } from './server.ts';

const main = fileURLToPath(new URL('../../server/main.ts', import.meta.url));
const apiServer = fileURLToPath(new URL('./api-server.child.ts', import.meta.url));
/** As the image has it. */
const surroundings = { MALLOC_ARENA_MAX: '2' };
const readyTimeoutMs = 60_000;

/** Answers, and brings PostgreSQL along. */
export function startApiServer(environment: Record<string, string> = {}): Promise<RunningServer> {
  return startServer({ environment: { ...surroundings, ...environment }, command: [...nodeArguments, apiServer] });
}

export interface RunningWorker {
  readonly pid: number;
  readonly said: string;
  kill(signal: NodeJS.Signals): Promise<unknown>;
}

/** Works for that server. */
export async function startWorkerOf(
  server: RunningServer,
  environment: Record<string, string> = {},
): Promise<RunningWorker> {
  const { child, said, ready, ended } = startChild([...nodeArguments, main, 'worker'], {
    name: 'worker',
    environment: {
      ...surroundings,
      PATH: process.env.PATH,
      HOME: server.data,
      npm_lifecycle_event: 'worker',
      HOLDFAST_DATABASE_URL: server.databaseUrl,
      HOLDFAST_OBJECTS_FOLDER: join(server.data, 'objects'),
      HOLDFAST_KEY_FILE: join(server.data, 'server-key'),
      HOLDFAST_LOG_LEVEL: 'warn',
      ...environment,
    },
    says: /Holdfast worker: ready/,
    readyTimeoutMs,
  });
  const kill = (signal: NodeJS.Signals): Promise<unknown> => {
    child.kill(signal);
    return ended;
  };
  try {
    await ready;
  } catch (error) {
    await kill('SIGKILL');
    throw error;
  }
  return {
    pid: child.pid!,
    get said() {
      return said();
    },
    kill,
  };
}
