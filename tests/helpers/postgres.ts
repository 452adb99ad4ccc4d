/**
 * A migrated database of its own for a test file, on one real PostgreSQL per test run. The cluster is started by the
 * first file that asks, and ends with the run (see postgres-cluster.ts); nothing of it is synced to disk.
 */
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import pg from 'pg';

const startTimeoutMs = 60_000;

export interface TestDatabase {
  connectionString: string;
  /** Ends what is still connected, and drops it. */
  drop(): Promise<void>;
}

/** @param options.migrated false: an empty database, for tests of the migrations themselves */
export async function testDatabase(options: { migrated?: boolean } = {}): Promise<TestDatabase> {
  const cluster = await clusterOfRun();
  const name = `test_${randomBytes(8).toString('hex')}`;
  const template = (options.migrated ?? true) ? 'migrated' : 'template0';
  await command(cluster, `CREATE DATABASE ${name} TEMPLATE ${template}`);
  const url = new URL(cluster);
  url.pathname = `/${name}`;
  return {
    connectionString: url.href,
    drop: () => command(cluster, `DROP DATABASE IF EXISTS ${name} WITH (FORCE)`),
  };
}

async function command(connectionString: string, sql: string): Promise<void> {
  const client = new pg.Client({ connectionString });
  await client.connect();
  try {
    await client.query(sql);
  } finally {
    await client.end();
  }
}

/** Jest's workers are its children; without workers the tests run in jest itself. */
function runPid(): number {
  return /jest-worker/.test(process.argv[1] ?? '') ? process.ppid : process.pid;
}

async function clusterOfRun(): Promise<string> {
  const folder = join(tmpdir(), `holdfast-test-postgres-${runPid()}`);
  let first = true;
  try {
    mkdirSync(folder, { mode: 0o700 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    first = false; // another test file asked before
  }
  if (first) {
    const holder = join(dirname(fileURLToPath(import.meta.url)), 'postgres-cluster.ts');
    spawn(process.execPath, [holder, folder, String(runPid())], { detached: true, stdio: 'ignore' }).unref();
  }
  for (const until = performance.now() + startTimeoutMs; performance.now() < until; ) {
    const answer = readAnswer(join(folder, 'answer.json'));
    if (answer?.error) throw new Error(`the PostgreSQL for tests did not start: ${answer.error}`);
    if (answer?.connectionString) return answer.connectionString;
    await sleep(50);
  }
  throw new Error(`the PostgreSQL for tests did not start within ${startTimeoutMs / 1000} s (see ${folder})`);
}

function readAnswer(file: string): { connectionString?: string; error?: string } | null {
  try {
    return JSON.parse(readFileSync(file, 'utf8'));
  } catch {
    return null; // not there yet
  }
}
