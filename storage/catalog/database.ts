/**
 * The way to PostgreSQL: a pool whose sessions cannot wait or run for ever, and transactions that are repeated when
 * the database says that repeating is right. One connection per verb: no code asks for a second while it holds one,
 * so the pool cannot deadlock on itself.
 */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { type Ears, type Listening, listen } from './listening.ts';

export interface DatabaseSettings {
  connectionString: string;
  poolMax: number;
  statementTimeoutMs: number;
  lockTimeoutMs: number;
  transactionTimeoutMs: number;
  idleInTransactionTimeoutMs: number;
  /** How long to wait for a free connection before giving up. */
  connectTimeoutMs: number;
  applicationName: string;
}

export const databaseDefaults: Omit<DatabaseSettings, 'connectionString'> = {
  poolMax: 20,
  statementTimeoutMs: 15_000,
  lockTimeoutMs: 10_000,
  transactionTimeoutMs: 30_000,
  idleInTransactionTimeoutMs: 15_000,
  connectTimeoutMs: 10_000,
  applicationName: 'holdfast',
};

/** A named, prepared statement: planned once per connection. */
export interface Statement {
  readonly name: string;
  readonly text: string;
  /** Longer than others may take, in ms; its transaction allows the same with SET LOCAL. */
  readonly timeoutMs?: number;
}

const known = new Map<string, Statement>();

/** Declares a statement. Names are unique; a test walks all of them. */
export function statement(name: string, text: string, options: { timeoutMs?: number } = {}): Statement {
  assert(!known.has(name), `two statements are named ${name}`);
  const made = { name, text, ...options };
  known.set(name, made);
  return made;
}

/** Every statement declared by the modules loaded so far. */
export function declaredStatements(): readonly Statement[] {
  return [...known.values()];
}

export interface Transaction {
  query<Row>(statement: Statement, values?: readonly unknown[]): Promise<Row[]>;
}

export interface Database extends Transaction {
  /** One statement of its own, repeated like a transaction: it must be idempotent. */
  query<Row>(statement: Statement, values?: readonly unknown[]): Promise<Row[]>;
  /**
   * BEGIN, `work`, COMMIT on one connection in READ COMMITTED. Repeated after a deadlock, a timeout, a serialization
   * failure or a lost connection, and then a COMMIT of unknown outcome may have happened: `work` must be idempotent.
   */
  transaction<T>(work: (transaction: Transaction) => Promise<T>): Promise<T>;
  /**
   * Hears what is told by NOTIFY, on a connection beside the pool, until it is closed. Left out by what stands in front of a
   * database: whoever would listen looks now and then.
   */
  listen?(channel: string, ears: Ears): Listening;
  readonly pool: { readonly total: number; readonly idle: number; readonly waiting: number };
  close(): Promise<void>;
}

const attemptsMax = 6;
/** Past this nothing is begun again: whoever asked has a time of patience too, and comes again by itself. */
const repeatForMs = 20_000;

export function openDatabase(settings: DatabaseSettings): Database {
  const pool = new pg.Pool({
    connectionString: settings.connectionString,
    max: settings.poolMax,
    connectionTimeoutMillis: settings.connectTimeoutMs,
    idleTimeoutMillis: 60_000,
    keepAlive: true,
    application_name: settings.applicationName,
    options: sessionOptions(settings),
    // The server's own timeouts come first; this one is for a connection that swallows everything.
    query_timeout: settings.transactionTimeoutMs + 5_000,
    types: { getTypeParser: typeParser },
  });
  pool.on('error', () => {
    // An idle connection was lost. The pool has dropped it; whoever asks next gets a new one.
  });

  /** Runs `work` on one connection, and gives the connection back, or up when it is of no more use. */
  const onConnection = async <T>(work: (client: pg.PoolClient) => Promise<T>): Promise<T> => {
    const client = await pool.connect();
    let lost: Error | undefined;
    const onError = (error: Error): void => {
      lost = error;
    };
    client.on('error', onError); // without a listener a connection lost between two statements ends the process
    try {
      return await work(client);
    } catch (error) {
      if (isLostConnection(error)) lost ??= error as Error;
      throw error;
    } finally {
      client.off('error', onError);
      client.release(lost);
    }
  };

  const inTransaction = async <T>(
    client: pg.PoolClient,
    work: (transaction: Transaction) => Promise<T>,
  ): Promise<T> => {
    await client.query('BEGIN');
    try {
      const result = await work({ query: (statement, values) => run(client, statement, values) });
      const committed = await client.query('COMMIT');
      assert.equal(committed.command, 'COMMIT', 'a transaction that had failed was asked to commit');
      return result;
    } catch (error) {
      // A connection that cannot roll back is closed, and that rolls back. The first error is the one to tell.
      if (!isLostConnection(error)) await client.query('ROLLBACK');
      throw error;
    }
  };

  return {
    query: (statement, values) => repeating(() => onConnection((client) => run(client, statement, values))),
    transaction: (work) => repeating(() => onConnection((client) => inTransaction(client, work))),
    listen: (channel, ears) =>
      listen(
        {
          connectionString: settings.connectionString,
          connectionTimeoutMillis: settings.connectTimeoutMs,
          application_name: `${settings.applicationName} listening`,
        },
        channel,
        ears,
      ),

    pool: {
      get total() {
        return pool.totalCount;
      },
      get idle() {
        return pool.idleCount;
      },
      get waiting() {
        return pool.waitingCount;
      },
    },

    close: () => pool.end(),
  };
}

async function run<Row>(client: pg.PoolClient, statement: Statement, values: readonly unknown[] = []): Promise<Row[]> {
  const { name, text, timeoutMs } = statement;
  const config = { name, text, values: values as unknown[], ...(timeoutMs && { query_timeout: timeoutMs }) };
  const result = await client.query(config);
  return result.rows as Row[];
}

/**
 * The engine's statements find rows by key, always. A plan chosen for the values at hand, or while a table was small,
 * may read a whole vault instead (measured: 2.4 s against 0.4 s), so other ways are switched off here, and the
 * statements are written so that neither the order of a join nor the index is in question (statements.test.ts).
 */
function sessionOptions(settings: DatabaseSettings): string {
  const options = {
    statement_timeout: settings.statementTimeoutMs,
    lock_timeout: settings.lockTimeoutMs,
    transaction_timeout: settings.transactionTimeoutMs,
    idle_in_transaction_session_timeout: settings.idleInTransactionTimeoutMs,
    tcp_user_timeout: 30_000,
    plan_cache_mode: 'force_generic_plan',
    enable_seqscan: 'off',
    enable_hashjoin: 'off',
    enable_mergejoin: 'off',
    jit: 'off',
  };
  return Object.entries(options)
    .map(([name, value]) => `-c ${name}=${value}`)
    .join(' ');
}

const INT8 = 20;
const INT8_ARRAY = 1016;

function typeParser(oid: number, format?: 'text' | 'binary') {
  if (oid === INT8 && format !== 'binary') return safeInteger;
  if (oid === INT8_ARRAY && format !== 'binary') {
    const texts = pg.types.getTypeParser(oid as never, 'text') as unknown as (value: string) => string[];
    return (value: string) => texts(value).map(safeInteger);
  }
  return pg.types.getTypeParser(oid, format as 'text');
}

function safeInteger(value: string): number {
  const number = Number(value);
  assert(Number.isSafeInteger(number), `the integer ${value} is past 2^53: select it as text`);
  return number;
}

/** SQLSTATEs after which the same work may succeed: serialization, deadlock, lock and statement timeouts. */
const repeatableStates = new Set(['40001', '40P01', '55P03', '57014']);
/** SQLSTATEs that end the session: shutdowns and crashes, idle and transaction timeouts, too many connections. */
const sessionEndStates = new Set(['57P01', '57P02', '57P03', '25P03', '25P04', '53300']);

function sqlState(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code) ? code : undefined;
}

function isLostConnection(error: unknown): boolean {
  const state = sqlState(error);
  if (state !== undefined && !state.startsWith('E')) return sessionEndStates.has(state) || state.startsWith('08');
  const { code, message } = (error ?? {}) as { code?: unknown; message?: unknown };
  if (typeof code === 'string')
    return /^(ECONN|EPIPE|ETIMEDOUT|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH)/.test(code);
  return (
    typeof message === 'string' &&
    /^(Connection terminated|timeout exceeded when trying to connect|Query read timeout|Client has encountered a connection error|Client was closed)/.test(
      message,
    )
  );
}

/** Whether PostgreSQL or the way to it failed in a manner that passes: worth another attempt, and a 503 when none helps. */
export function isPassingFault(error: unknown): boolean {
  return isLostConnection(error) || repeatableStates.has(sqlState(error) ?? '');
}

async function repeating<T>(work: () => Promise<T>): Promise<T> {
  const begun = performance.now();
  for (let attempt = 1; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      if (attempt >= attemptsMax || performance.now() - begun > repeatForMs || !isPassingFault(error)) throw error;
      // Full jitter: those that collided must not collide again.
      await sleep(Math.random() * 50 * 2 ** attempt);
    }
  }
}
