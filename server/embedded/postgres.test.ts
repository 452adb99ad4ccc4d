import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import pg from 'pg';
import { type EmbeddedPostgres, type PostgresOptions, startPostgres } from './postgres.ts';
import { endHolders, startHolder } from './testing.ts';

const linux = process.platform === 'linux';
let folder: string;
let running: EmbeddedPostgres | null;

beforeEach(() => {
  // 0700 and, when root runs the tests, closed to the user who runs PostgreSQL.
  folder = mkdtempSync(join(tmpdir(), 'holdfast-postgres-'));
  running = null;
});
afterEach(async () => {
  endHolders();
  await running?.stop();
  rmSync(folder, { recursive: true, force: true });
});

async function start(options: Partial<PostgresOptions> = {}): Promise<EmbeddedPostgres> {
  running = await startPostgres({
    folder,
    durable: false,
    createUser: false,
    sharedBuffersMiB: 16,
    connectionsMax: 20,
    log: () => {},
    ...options,
  });
  return running;
}

async function ask(connectionString: unknown, sql: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: String(connectionString) });
  await client.connect();
  try {
    return (await client.query(sql)).rows as Record<string, unknown>[];
  } finally {
    await client.end().catch(() => {});
  }
}

/** PostgreSQL's processes in this test's cluster. */
function processes(): number[] {
  const cluster = statSync(join(folder, 'postgres', 'cluster'));
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        const cwd = statSync(`/proc/${pid}/cwd`);
        return cwd.ino === cluster.ino && cwd.dev === cluster.dev;
      } catch {
        return false; // ended meanwhile, or not ours to look at
      }
    })
    .map(Number);
}

async function until(what: () => boolean): Promise<void> {
  for (let i = 0; i < 400 && !what(); i++) await sleep(50);
  expect(what()).toBe(true);
}

describe('a cluster of its own', () => {
  test('keeps everything across restarts, on another port, under one password', async () => {
    const first = await start();
    await ask(first.connectionString, 'CREATE TABLE t AS SELECT 42 AS answer');
    await first.stop();
    const second = await start();
    expect(await ask(second.connectionString, 'SELECT answer FROM t')).toEqual([{ answer: 42 }]);
    expect(new URL(second.connectionString).password).toBe(new URL(first.connectionString).password);
  });

  test('has checksums, UTF-8, the C collation, and is reached on loopback with its password only', async () => {
    const { connectionString } = await start({ durable: true });
    const [row] = await ask(
      connectionString,
      `SELECT current_setting('data_checksums') AS checksums, current_setting('server_encoding') AS encoding, current_setting('fsync') AS fsync,
              current_setting('listen_addresses') AS addresses, current_setting('unix_socket_directories') AS sockets, datcollate
         FROM pg_database WHERE datname = current_database()`,
    );
    expect(row).toEqual({
      checksums: 'on',
      encoding: 'UTF8',
      fsync: 'on',
      addresses: '127.0.0.1',
      sockets: '',
      datcollate: 'C',
    });
    const wrong = new URL(connectionString);
    wrong.password = 'wrong';
    await expect(ask(wrong.href, 'SELECT 1')).rejects.toThrow('password authentication failed');
    if (process.platform !== 'win32') expect(statSync(join(folder, 'postgres-password')).mode & 0o777).toBe(0o600);
  });

  test('is made whole or not at all: what a first start left half done does not matter', async () => {
    mkdirSync(join(folder, 'postgres', 'cluster.new', 'base'), { recursive: true });
    writeFileSync(join(folder, 'postgres', 'cluster.new', 'PG_VERSION'), '18');
    const { connectionString } = await start();
    expect(await ask(connectionString, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
  });

  test('that is gone is not replaced by an empty one', async () => {
    await (await start()).stop();
    rmSync(join(folder, 'postgres'), { recursive: true });
    await expect(start()).rejects.toThrow(/database is missing.*postgres-password shows that there was one/);
    rmSync(join(folder, 'postgres-password'));

    const elsewhere = join(folder, 'not-mounted');
    writeFileSync(join(folder, 'postgres-folder'), `${elsewhere}\n`);
    await expect(start()).rejects.toThrow(
      /database is missing: .*not-mounted.*postgres-folder shows that there was one/,
    );
    expect(existsSync(elsewhere)).toBe(false);
    expect(existsSync(join(folder, 'postgres'))).toBe(false);
  });

  test('gets a new password when the file with the old one was lost', async () => {
    await (await start()).stop();
    rmSync(join(folder, 'postgres-password'));
    const { connectionString } = await start();
    expect(await ask(connectionString, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
  });

  test('tells when it ends, however it ends', async () => {
    const postgres = await start();
    process.kill(postgres.pid, 'SIGQUIT');
    expect(await postgres.ended).toMatch(/exited|ended/);
    await postgres.stop(); // nothing left to stop
  });
});

(linux ? describe : describe.skip)('after a kill', () => {
  test('of our process alone, PostgreSQL ends by itself, and what was committed is there', async () => {
    const holder = startHolder('postgres', folder);
    const { connectionString } = await holder.says();
    await ask(connectionString, 'CREATE TABLE t AS SELECT 42 AS answer');
    holder.kill('SIGKILL');
    await until(() => processes().length === 0);
    expect(await ask((await start()).connectionString, 'SELECT answer FROM t')).toEqual([{ answer: 42 }]);
  });

  test('of our process and the watchdog, the next start ends the PostgreSQL left over', async () => {
    const holder = startHolder('postgres', folder);
    const { connectionString, postgresPid } = await holder.says();
    await ask(connectionString, 'CREATE TABLE t AS SELECT 42 AS answer');
    const busy = new pg.Client({ connectionString: String(connectionString) });
    busy.on('error', () => {});
    await busy.connect();
    for (const pid of watchdogsOf(Number(postgresPid))) process.kill(pid, 'SIGKILL');
    holder.kill('SIGKILL');
    await holder.ended;
    expect(processes()).toContain(postgresPid);
    const told: string[] = [];
    const next = await start({ log: (line) => told.push(line) });
    expect(told).toEqual([expect.stringContaining(`SIGINT to process ${postgresPid}`)]);
    expect(processes()).not.toContain(postgresPid);
    expect(await ask(next.connectionString, 'SELECT answer FROM t')).toEqual([{ answer: 42 }]);
    await busy.end().catch(() => {});
  });

  test('of everything, also with sessions that outlive the postmaster, the next start recovers', async () => {
    const holder = startHolder('postgres', folder);
    const { connectionString, postgresPid } = await holder.says();
    await ask(connectionString, 'CREATE TABLE t AS SELECT 42 AS answer');
    const all = processes();
    expect(all.length).toBeGreaterThan(3);
    holder.kill('SIGKILL');
    for (const pid of [...watchdogsOf(Number(postgresPid)), ...all]) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // It followed the others.
      }
    }
    expect(await ask((await start()).connectionString, 'SELECT answer FROM t')).toEqual([{ answer: 42 }]);
  });

  test("a pid in the lock file that now is another program's keeps nobody from starting, and is left alone", async () => {
    await (await start()).stop();
    const other = startHolder('lock', mkdtempSync(join(folder, 'other-')));
    await other.says();
    writeFileSync(
      join(folder, 'postgres', 'cluster', 'postmaster.pid'),
      `${other.pid}\n/nowhere\n1\n1\n\n127.0.0.1\n  1  1\nready   \n`,
    );
    const { connectionString } = await start();
    expect(await ask(connectionString, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
    process.kill(other.pid, 0); // throws when it is gone
  });
});

function watchdogsOf(postgresPid: number): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        return (
          readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(-3, -1).join(' ') ===
          `holdfast-watchdog ${postgresPid}`
        );
      } catch {
        return false;
      }
    })
    .map(Number);
}
