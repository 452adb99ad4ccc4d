/**
 * One real PostgreSQL database that simulations run in, one after the other: its clock is ours, its contents can be
 * set back to an earlier moment, and it tells which sessions wait for a lock.
 *
 * now(), statement_timestamp() and clock_timestamp() are found in schema `sim` before PostgreSQL's own, also by
 * column defaults, because the search path stands before the migrations run. The time now is the value of a sequence
 * (not transactional, so a statement that waited for a lock sees the time after the wait); the beginnings of
 * transaction and statement are settings of the session, which simulated-database.ts sets where PostgreSQL would; a
 * statement of its own without them takes the time at which it runs.
 */
import assert from 'node:assert/strict';
import pg from 'pg';
import { migrate } from '../../storage/catalog/migrate.ts';

/** 2026-01-01T00:00Z: the moment at which every world begins, in ms. */
export const epochMs = Date.UTC(2026, 0, 1);

/** As the engine's own sessions (storage/catalog/database.ts), but for the timeouts, which are virtual here. */
const engineOptions = [
  'plan_cache_mode=force_generic_plan',
  'enable_seqscan=off',
  'enable_hashjoin=off',
  'enable_mergejoin=off',
  'jit=off',
  'statement_timeout=20000',
  // A cycle of locks is an error of ours: found soon, and reported.
  'deadlock_timeout=20',
]
  .map((option) => `-c ${option}`)
  .join(' ');

const clockFunctions = `
  CREATE SCHEMA sim;
  CREATE SEQUENCE sim.clock MINVALUE 0;
  CREATE FUNCTION sim.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
    RETURN timestamptz 'epoch' + pg_sequence_last_value('sim.clock'::regclass) * interval '1 microsecond';
  CREATE FUNCTION sim.now() RETURNS timestamptz LANGUAGE sql STABLE
    RETURN coalesce(nullif(current_setting('sim.transaction_at', true), '')::timestamptz, sim.clock_timestamp());
  CREATE FUNCTION sim.statement_timestamp() RETURNS timestamptz LANGUAGE sql STABLE
    RETURN coalesce(nullif(current_setting('sim.statement_at', true), '')::timestamptz, sim.clock_timestamp())`;

export type Snapshot = 'pristine' | 'earlier';

/** A world that ran leaves dead rows behind; after so many the database is made anew. */
const worldsPerDatabase = 40;

export class Lane {
  readonly #clusterUrl: string;
  #url = '';
  #worlds = 0;
  #monitor: pg.Client | null = null;
  #tables: string[] = [];
  #sequences: string[] = [];
  #free: pg.Client[] = [];
  readonly #all = new Set<pg.Client>();

  constructor(clusterUrl: string) {
    this.#clusterUrl = clusterUrl;
  }

  /** An empty catalog at the world's beginning. */
  async begin(): Promise<void> {
    if (this.#worlds++ % worldsPerDatabase === 0 || this.#monitor === null) await this.#makeDatabase();
    else await this.setBack('pristine');
    await this.setClock(epochMs);
  }

  async close(): Promise<void> {
    await this.#closeConnections();
    if (this.#url) await onCluster(this.#clusterUrl, `DROP DATABASE IF EXISTS ${nameOf(this.#url)} WITH (FORCE)`);
    this.#url = '';
  }

  /** The session of the simulation itself: it reads as the real planner likes, and nothing of it is ever faulty. */
  get monitor(): pg.Client {
    assert(this.#monitor, 'the lane has not begun');
    return this.#monitor;
  }

  async takeConnection(): Promise<pg.Client> {
    const free = this.#free.pop();
    if (free) return free;
    const client = new pg.Client({ connectionString: this.#url, options: engineOptions, types: numbers });
    client.on('error', () => {}); // only when the cluster goes, and then every statement fails
    await client.connect();
    this.#all.add(client);
    return client;
  }

  giveConnection(client: pg.Client): void {
    this.#free.push(client);
  }

  /** Ends every transaction, as PostgreSQL does when it stops. No statement may be on its way. */
  async rollBackAll(): Promise<void> {
    for (const client of this.#all) if (!this.#free.includes(client)) await client.query('ROLLBACK');
  }

  async setClock(ms: number): Promise<void> {
    await this.monitor.query("SELECT setval('sim.clock', $1)", [Math.round(ms * 1000)]);
  }

  /** Which of these sessions wait for a lock now. */
  async waiting(pids: readonly number[]): Promise<Set<number>> {
    const { rows } = await this.monitor.query({
      name: 'waiting',
      text: 'SELECT DISTINCT pid FROM pg_locks WHERE NOT granted AND pid = ANY ($1)',
      values: [pids],
    });
    return new Set(rows.map((row) => row.pid as number));
  }

  /** Keeps the whole catalog as it is now, as a backup of the database would. */
  async keep(snapshot: Snapshot): Promise<void> {
    const copies = this.#tables.map(
      (table) => `DELETE FROM ${snapshot}.${table}; INSERT INTO ${snapshot}.${table} SELECT * FROM public.${table};`,
    );
    const counters = `DELETE FROM ${snapshot}.sequences; ${this.#sequences
      .map((name) => `INSERT INTO ${snapshot}.sequences SELECT '${name}', last_value, is_called FROM public.${name};`)
      .join('')}`;
    await this.monitor.query(`BEGIN ISOLATION LEVEL REPEATABLE READ; ${copies.join('')} ${counters} COMMIT`);
  }

  /** Sets the whole catalog back, its counters too. No other session may be in a transaction. */
  async setBack(snapshot: Snapshot): Promise<void> {
    const tables = this.#tables.map(
      (table) =>
        `DELETE FROM public.${table}; INSERT INTO public.${table} OVERRIDING SYSTEM VALUE SELECT * FROM ${snapshot}.${table};`,
    );
    await this.monitor.query(
      `BEGIN; SET LOCAL session_replication_role = replica; ${tables.join('')}
       SELECT setval('public.' || name, last_value, is_called) FROM ${snapshot}.sequences; COMMIT`,
    );
  }

  async #makeDatabase(): Promise<void> {
    await this.close();
    const url = new URL(this.#clusterUrl);
    url.pathname = `/sim_${process.pid}_${this.#worlds}`;
    const name = nameOf(url.href);
    await onCluster(this.#clusterUrl, `CREATE DATABASE ${name} TEMPLATE template0`);
    this.#url = url.href;
    const maker = new pg.Client({ connectionString: url.href });
    await maker.connect();
    await maker.query(clockFunctions);
    // public first, so that tables are made there; then our clock, then everything else.
    await maker.query(`ALTER DATABASE ${name} SET search_path = public, sim, pg_catalog`);
    await maker.query(`SELECT setval('sim.clock', ${epochMs * 1000})`);
    await maker.end();
    await migrate(url.href);

    this.#monitor = new pg.Client({ connectionString: url.href, types: numbers });
    this.#monitor.on('error', () => {});
    await this.#monitor.connect();
    const tables = await this.#monitor.query(
      "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'migrations' ORDER BY 1",
    );
    this.#tables = tables.rows.map((row) => row.tablename as string);
    const sequences = await this.#monitor.query(
      "SELECT sequencename FROM pg_sequences WHERE schemaname = 'public' AND sequencename !~ '^migrations' ORDER BY 1",
    );
    this.#sequences = sequences.rows.map((row) => row.sequencename as string);
    for (const snapshot of ['pristine', 'earlier'] satisfies Snapshot[]) {
      await this.#monitor.query(`CREATE SCHEMA ${snapshot}`);
      await this.#monitor.query(
        `CREATE TABLE ${snapshot}.sequences (name text, last_value bigint, is_called boolean); ` +
          this.#tables.map((table) => `CREATE TABLE ${snapshot}.${table} (LIKE public.${table})`).join(';'),
      );
      await this.keep(snapshot);
    }
  }

  async #closeConnections(): Promise<void> {
    for (const client of this.#all) await client.end().catch(() => {});
    await this.#monitor?.end().catch(() => {});
    this.#all.clear();
    this.#free = [];
    this.#monitor = null;
  }
}

const nameOf = (url: string): string => new URL(url).pathname.slice(1);

async function onCluster(url: string, sql: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    await client.query(sql);
  } finally {
    await client.end();
  }
}

const INT8 = 20;

/** 64-bit integers as numbers, as the engine reads them. */
const numbers = {
  getTypeParser: (oid: number, format?: 'text' | 'binary') =>
    oid === INT8 && format !== 'binary' ? Number : pg.types.getTypeParser(oid, format as 'text'),
} as pg.CustomTypesConfig;
