/**
 * The real server as a child process, on a scratch data folder and a port the kernel chose: what `npm start` runs.
 * It can be killed, with its PostgreSQL or without, and started again on the same folder and port. However the tests
 * end, it does not outlive them: it is told that npm started it, and such a server ends with its parent.
 */
import type { ChildProcess } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { get } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import { connect } from '../../agent/client/index.ts';
import { createPasswords } from '../../server/directory/sign-in/passwords.ts';
import { saidCharactersMax, startChild } from './child.ts';

const main = fileURLToPath(new URL('../../server/main.ts', import.meta.url));
/** As `npm start`, `npm run worker` and the image have them: without, what is not needed any more is kept for long. */
export const nodeArguments = ['--max-semi-space-size=8', '--heap-growing-percent=30'];
const readyTimeoutMs = 60_000;
const stopTimeoutMs = 45_000;
/** A PostgreSQL that was just killed may leave its port to somebody who never answers. */
const connectTimeoutMs = 10_000;

export interface Person {
  registrationKey: string;
  userName: string;
  password: string;
}

export interface ServerOptions {
  /** Settings, by the names of their variables. */
  environment?: Record<string, string>;
  /** A folder that is there already; without it one is made, and removed by `stop`. */
  data?: string;
  /** What Node runs, in place of what `npm start` does. It says when it serves as `npm start` does. */
  command?: readonly string[];
}

export class RunningServer {
  readonly data: string;
  readonly #environment: Record<string, string>;
  readonly #ownFolder: boolean;
  /** May be changed between two starts. */
  command: readonly string[];
  #child: ChildProcess | null = null;
  #ended: Promise<number | null> = Promise.resolve(null);
  #said = '';
  #port = 0;

  constructor(options: ServerOptions) {
    this.#ownFolder = options.data === undefined;
    this.data = options.data ?? mkdtempSync(join(tmpdir(), 'holdfast-server-'));
    this.#environment = options.environment ?? {};
    this.command = options.command ?? [...nodeArguments, main, 'all', '--embedded'];
  }

  /** Starts it, again on the same port, and resolves when /readyz says yes. @throws Error with what it said */
  async start(): Promise<void> {
    const { child, ready, ended } = startChild(this.command, {
      name: 'server',
      environment: {
        PATH: process.env.PATH,
        HOME: this.data,
        npm_lifecycle_event: 'start',
        HOLDFAST_DATA: this.data,
        HOLDFAST_HOST: '127.0.0.1',
        HOLDFAST_PORT: String(this.#port),
        HOLDFAST_LOG_LEVEL: 'warn',
        // Tests leave no user behind on the machine they run on.
        ...(process.getuid?.() === 0 ? { HOLDFAST_POSTGRES_USER: 'nobody' } : {}),
        ...this.#environment,
      },
      says: /^ {2}back up a folder /m,
      readyTimeoutMs,
    });
    this.#child = child;
    this.#ended = ended;
    const listen = (bytes: Buffer): void => {
      this.#said = (this.#said + bytes).slice(-saidCharactersMax);
    };
    child.stdout!.on('data', listen);
    child.stderr!.on('data', listen);
    await ready;
    this.#port = Number(new URL(this.url).port);
    await this.#untilReady();
  }

  async #untilReady(): Promise<void> {
    for (const until = performance.now() + readyTimeoutMs; performance.now() < until; await sleep(50)) {
      const status = await new Promise((resolve) => {
        get(`${this.url}/readyz`, { rejectUnauthorized: false, agent: false }, (answer) => {
          answer.resume();
          resolve(answer.statusCode);
        }).on('error', () => resolve(0));
      });
      if (status === 200) return;
    }
    throw new Error(`/readyz did not say yes in time: ${this.logs()}`);
  }

  /** What an agent on this machine finds: the first start's secrets, and where the server is now. */
  get firstStart(): Person & { url: string; certificateSha256: string } {
    return JSON.parse(readFileSync(join(this.data, 'first-start.json'), 'utf8'));
  }

  get url(): string {
    return this.firstStart.url;
  }

  get certificateSha256(): string {
    return this.firstStart.certificateSha256;
  }

  get runs(): boolean {
    return this.#child !== null && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  get pid(): number {
    return this.#child!.pid!;
  }

  /** Resolves with the exit code of the present process, null when a signal ended it. */
  get ended(): Promise<number | null> {
    return this.#ended;
  }

  logs(): string {
    return this.#said;
  }

  #postmaster(): { pid: number; port: number } {
    const lines = readFileSync(join(this.data, 'postgres', 'cluster', 'postmaster.pid'), 'utf8').split('\n');
    return { pid: Number(lines[0]), port: Number(lines[3]) };
  }

  /** The server's own PostgreSQL, for looking at it from outside. */
  get databaseUrl(): string {
    const password = readFileSync(join(this.data, 'postgres-password'), 'utf8').trim();
    return `postgres://holdfast:${password}@127.0.0.1:${this.#postmaster().port}/holdfast`;
  }

  /** A connection to it. Its death is not an error of the test: PostgreSQL is killed under it. */
  async database(): Promise<pg.Client> {
    const client = new pg.Client({ connectionString: this.databaseUrl, connectionTimeoutMillis: connectTimeoutMs });
    client.on('error', () => {});
    await client.connect();
    return client;
  }

  async query<Row extends pg.QueryResultRow>(sql: string, values: unknown[] = []): Promise<Row[]> {
    const client = await this.database();
    try {
      return (await client.query<Row>(sql, values)).rows;
    } finally {
      await client.end();
    }
  }

  /** Tells the process, and resolves when it has ended. */
  async kill(signal: NodeJS.Signals): Promise<number | null> {
    this.#child?.kill(signal);
    return this.#ended;
  }

  /** Ends every process of its PostgreSQL with SIGKILL, the postmaster first, and resolves when it is gone. */
  async killPostgres(): Promise<void> {
    const { pid } = this.#postmaster();
    // To the kernel 0 is the whole group of processes that these tests are in.
    if (!(pid > 1)) throw new Error('there is no PostgreSQL to kill');
    const processes = [pid, ...childrenOf(pid)];
    for (const each of processes) tryKill(each);
    for (const until = performance.now() + 10_000; isAlive(pid) && performance.now() < until; ) await sleep(10);
  }

  /** Stops it in order and removes what it made. Safe to call twice, and on one that was killed. */
  async stop(): Promise<number | null> {
    this.#child?.kill('SIGTERM');
    const late = setTimeout(() => this.#child?.kill('SIGKILL'), stopTimeoutMs);
    const code = await this.#ended;
    clearTimeout(late);
    if (this.#ownFolder) rmSync(this.data, { recursive: true, force: true, maxRetries: 50, retryDelay: 100 });
    return code;
  }
}

export async function startServer(options: ServerOptions = {}): Promise<RunningServer> {
  const server = new RunningServer(options);
  try {
    await server.start();
  } catch (error) {
    await server.stop();
    throw error;
  }
  return server;
}

/** A user more, in the first tenant. */
export async function addUser(server: RunningServer, userName: string): Promise<Person> {
  const { registrationKey } = server.firstStart;
  const password = 'a password of a test';
  const passwordHash = await createPasswords({ concurrentMax: 1, waitingMax: 1 }).hash(password);
  const rows = await server.query(
    `INSERT INTO users (tenant_id, organization_id, name, password_hash)
     SELECT tenant_id, organization_id, $2, $3 FROM organizations WHERE registration_key = $1 RETURNING user_id`,
    [registrationKey, userName, passwordHash],
  );
  if (rows.length !== 1) throw new Error(`no organization has the key ${registrationKey}`);
  return { registrationKey, userName, password };
}

/** The agent's client library, with a device's token or, to register, without. */
export function clientOf(server: { url: string; certificateSha256: string }, token?: string) {
  const { url, certificateSha256 } = server;
  return connect({ url, certificateSha256, ...(token === undefined ? {} : { token }) });
}

/** Memory of a process in bytes, from the kernel: resident now, and at most so far. */
export function memoryOf(pid: number): { resident: number; peak: number } {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const kiB = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1]) * 1024;
  return { resident: kiB('VmRSS'), peak: kiB('VmHWM') };
}

function childrenOf(parent: number): number[] {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  return pids.map(Number).filter((pid) => {
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
      return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]) === parent;
    } catch {
      return false; // it ended meanwhile
    }
  });
}

function tryKill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It ended meanwhile.
  }
}

function isAlive(pid: number): boolean {
  try {
    // A zombie, which its dead parent cannot wait for, is no longer running.
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}
