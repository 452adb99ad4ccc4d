/**
 * A real server for one run of a load test or the demo: the embedded default, started by its real entry point as a
 * process of its own, on a scratch folder and a port of the kernel's choice, on the loopback interface only.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Program, startProgram } from './child-process.ts';
import { serverNodeArguments } from './load-program.ts';

const serverMain = fileURLToPath(new URL('../server/main.ts', import.meta.url));
/** A first start makes a database cluster; on a busy machine that takes a while. */
const startTimeoutMs = 120_000;
/** Longer than the server's own bounds: requests, then PostgreSQL's checkpoint. */
const stopTimeoutMs = 75_000;

export interface ServerProcess {
  pid: number;
  data: string;
  url: string;
  certificateSha256: string;
  /** PEM files of the certificate it shows. */
  certificateFiles: { cert: string; key: string };
  registrationKey: string;
  userName: string;
  password: string;
  startedInMs: number;
  stop(): Promise<void>;
}

export interface ServerOptions {
  /** Its data folder; made if missing. */
  data: string;
  /** HOLDFAST_... settings beside those given here. */
  settings?: Record<string, string>;
  nodeArguments?: readonly string[];
  /** Told of the process as soon as there is one, so that it can be stopped while it starts. */
  onStart?: (program: Program) => void;
}

/** Resolves when the server takes requests. @throws Error with what it said when it does not start */
export async function startServer(options: ServerOptions): Promise<ServerProcess> {
  const { data } = options;
  const startedAt = performance.now();
  const program = startProgram(serverMain, ['all', '--embedded'], {
    nodeArguments: [...serverNodeArguments, ...(options.nodeArguments ?? [])],
    endsByItself: true,
    environment: {
      HOLDFAST_DATA: data,
      HOLDFAST_HOST: '127.0.0.1',
      HOLDFAST_PORT: '0',
      HOLDFAST_LOG_FILE: join(data, 'server.log'),
      // Started by root, PostgreSQL needs another user: one that is there, so that no user is left behind.
      ...(process.getuid?.() === 0 ? { HOLDFAST_POSTGRES_USER: 'nobody' } : {}),
      // Under npm a server stops, in order, when its parent is gone: so it does should we be killed.
      npm_lifecycle_event: 'loadtest',
      ...options.settings,
    },
  });
  options.onStart?.(program);
  try {
    await program.says(/back up a folder/, startTimeoutMs);
    const firstStart = JSON.parse(readFileSync(join(data, 'first-start.json'), 'utf8')) as Record<string, string>;
    return {
      pid: program.pid,
      data,
      url: firstStart.url!,
      certificateSha256: firstStart.certificateSha256!,
      certificateFiles: { cert: join(data, 'certificate.pem'), key: join(data, 'certificate-key.pem') },
      registrationKey: firstStart.registrationKey!,
      userName: firstStart.userName!,
      password: firstStart.password!,
      startedInMs: performance.now() - startedAt,
      stop: () => program.stop(stopTimeoutMs),
    };
  } catch (error) {
    await program.stop(stopTimeoutMs);
    throw error;
  }
}
