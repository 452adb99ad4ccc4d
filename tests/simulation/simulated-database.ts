/**
 * The engine's Database on real sessions of PostgreSQL, with a gate before each statement, BEGIN and COMMIT, and
 * connections that are lost there: before a statement, after it, before COMMIT arrived, or after it was done and only
 * its answer is missing. What was lost is repeated as storage/catalog/database.ts does, or given up.
 *
 * A lost or killed connection is a ROLLBACK, at once or at a later step: until then its locks stand, as those of a
 * connection that PostgreSQL does not know to be dead.
 */
import type pg from 'pg';
import { type Database, isPassingFault, type Statement, type Transaction } from '../../storage/catalog/database.ts';
import type { Ran } from './effects.ts';
import type { Faults } from './faults.ts';
import type { Lane } from './lane.ts';
import { never, type Scheduler, type Task } from './scheduler.ts';

/** As databaseDefaults.transactionTimeoutMs, in virtual time: what a freed block's margin is longer than. */
export const transactionTimeoutMs = 30_000;
const attemptsMax = 3;

/** A transaction (or one statement of its own) that took effect. */
export interface Committed {
  task: Task;
  /** now() in it, in ms. */
  at: number;
  /** The scheduler's step at which it began. */
  beganStep: number;
  /** The database's clock when it was committed, in ms. */
  committedAt: number;
  /** Whether the clock was set wrong already when it began. */
  clockWrongAtStart: boolean;
  /** Its statements. */
  ran: readonly Ran[];
}

export interface DatabaseParts {
  lane: Lane;
  scheduler: Scheduler;
  faults: Faults;
  /** The database's clock now, in ms. */
  nowMs: () => number;
  clockIsWrong: () => boolean;
  /** Told before a statement of a transaction waits for its turn. */
  onStatement: (name: string, values: readonly unknown[]) => void;
  onCommitted: (committed: Committed) => void;
  /** Raised by one for each time the catalog was set back: whoever was in a transaction then has lost it. */
  generation: () => number;
  /** Told of an error that would be repeated, and must not happen: a cycle of locks, a statement with wrong parameters. */
  onBroken: (error: Error) => void;
}

const brokenStates = new Set(['40P01', '08P01']);

/** Statements that change nothing that is checked (check.ts). */
const unchecked =
  /^(runs|runSkipped|fence|alerts|damage|damageVersions|catalog)\.|^objects\.setVerified$|^commits\.trim$/;
const writes = /\b(INSERT INTO|DELETE FROM|UPDATE)\b/;
const changed = new Map<string, boolean>();

/** Whether a statement may change anything that is checked. */
function writesAnything({ name, text }: Statement): boolean {
  let may = changed.get(name);
  if (may === undefined) {
    may = !unchecked.test(name) && writes.test(text.replaceAll(/FOR (NO KEY )?UPDATE/g, ''));
    changed.set(name, may);
  }
  return may;
}

function lostConnection(): Error {
  return Object.assign(new Error('Connection terminated unexpectedly'), { code: 'ECONNRESET' });
}

export class SimulatedDatabase implements Database {
  readonly pool = { total: 0, idle: 0, waiting: 0 };
  readonly #parts: DatabaseParts;

  constructor(parts: DatabaseParts) {
    this.#parts = parts;
  }

  query<Row>(statement: Statement, values: readonly unknown[] = []): Promise<Row[]> {
    return this.#repeating(() => this.#alone<Row>(statement, values));
  }

  transaction<T>(work: (transaction: Transaction) => Promise<T>): Promise<T> {
    return this.#repeating(() => this.#once(work));
  }

  async close(): Promise<void> {}

  async #repeating<T>(work: () => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await work();
      } catch (error) {
        if (attempt >= attemptsMax || !isPassingFault(error)) throw error;
        await this.#parts.scheduler.gate('repeat');
      }
    }
  }

  async #alone<Row>(statement: Statement, values: readonly unknown[]): Promise<Row[]> {
    const { scheduler, faults, nowMs, onCommitted } = this.#parts;
    await scheduler.gate(statement.name);
    if (faults.strikes('connectionLostBefore')) throw lostConnection();
    const session = await this.#open(nowMs());
    const rows = await session.run<Row>(statement, values);
    session.close();
    if (writesAnything(statement)) onCommitted(session.committed());
    if (faults.strikes('connectionLostAfter')) throw lostConnection();
    return rows;
  }

  async #once<T>(work: (transaction: Transaction) => Promise<T>): Promise<T> {
    const { scheduler, faults, nowMs, onStatement, onCommitted } = this.#parts;
    await scheduler.gate('BEGIN');
    if (faults.strikes('connectionLostBefore')) throw lostConnection();
    const session = await this.#open(nowMs());
    await session.control('BEGIN');
    let wrote = false;
    try {
      const result = await work({
        query: async (statement, values = []) => {
          onStatement(statement.name, values);
          await scheduler.gate(statement.name);
          session.refuseIfOver(nowMs());
          if (faults.strikes('connectionLostBefore')) throw lostConnection();
          const rows = await session.run(statement, values);
          wrote ||= writesAnything(statement);
          if (faults.strikes('connectionLostAfter')) throw lostConnection();
          return rows as never;
        },
      });
      await scheduler.gate('COMMIT');
      session.refuseIfOver(nowMs());
      if (faults.strikes('commitLostBefore')) throw lostConnection();
      await session.control('COMMIT');
      session.close();
      if (wrote) onCommitted(session.committed());
      if (faults.strikes('commitLostAfter')) throw lostConnection();
      return result;
    } catch (error) {
      if (!session.closed) await session.rollBack({ lost: isLost(error) });
      throw error;
    }
  }

  async #open(now: number): Promise<Session> {
    const { lane, scheduler } = this.#parts;
    return new Session(this.#parts, await scheduler.meanwhile(() => lane.takeConnection()), now);
  }
}

const isLost = (error: unknown): boolean => (error as { code?: string }).code === 'ECONNRESET';

/** One connection while a task has it. */
class Session {
  readonly beganAt: number;
  readonly beganStep: number;
  readonly clockWrongAtStart: boolean;
  closed = false;
  readonly #parts: DatabaseParts;
  readonly #client: pg.Client;
  readonly #task: Task;
  readonly #generation: number;
  readonly #onCrash: () => void;
  readonly #ran: Ran[] = [];
  #inTransaction = false;
  #underway: Promise<unknown> | null = null;

  constructor(parts: DatabaseParts, client: pg.Client, now: number) {
    this.#parts = parts;
    this.#client = client;
    this.beganAt = now;
    this.beganStep = parts.scheduler.steps;
    this.clockWrongAtStart = parts.clockIsWrong();
    this.#task = parts.scheduler.task();
    this.#generation = parts.generation();
    this.#onCrash = () => {
      // A statement runs to its end first, and that end may be far: it may wait for a lock.
      const ends = this.#underway ?? Promise.resolve();
      const close = (): void =>
        parts.scheduler.later('the connection of a killed process is closed', () => this.#abandon());
      ends.then(close, close);
    };
    this.#task.onCrash.add(this.#onCrash);
  }

  /** A transaction ends when the catalog it was in is gone, and when it has lasted too long. */
  refuseIfOver(now: number): void {
    if (this.#parts.generation() !== this.#generation) throw lostConnection();
    if (now - this.beganAt > transactionTimeoutMs)
      throw Object.assign(new Error('terminating connection due to transaction timeout'), { code: '25P04' });
  }

  committed(): Committed {
    const { beganAt, beganStep, clockWrongAtStart } = this;
    const committedAt = this.#parts.nowMs();
    return { task: this.#task, at: beganAt, beganStep, committedAt, clockWrongAtStart, ran: this.#ran };
  }

  async run<Row>(statement: Statement, values: readonly unknown[]): Promise<Row[]> {
    const { text, name } = statement;
    if (text.includes('statement_timestamp'))
      await this.#send(() => this.#client.query(`SELECT ${setting('sim.statement_at', this.#parts.nowMs(), false)}`));
    const { rows, rowCount } = await this.#send(() => this.#client.query({ name, text, values: values as unknown[] }));
    // One row of nothing is what an aggregate of no rows answers.
    const isNothing = rows.length === 1 && Object.values(rows[0]).every((value) => value === null);
    this.#ran.push({ name, values, rows: isNothing ? 0 : (rowCount ?? 0) });
    return rows as Row[];
  }

  async control(command: 'BEGIN' | 'COMMIT'): Promise<void> {
    if (command === 'BEGIN') {
      this.#inTransaction = true;
      await this.#send(() => this.#client.query(`BEGIN; SELECT ${setting('sim.transaction_at', this.beganAt, true)}`));
      return;
    }
    const answer = await this.#send(() => this.#client.query('COMMIT'), true);
    this.#inTransaction = false;
    if (answer.command !== 'COMMIT') throw new Error('a transaction that had failed was asked to commit');
  }

  /** Ends the transaction. A lost connection may stand for a while, with its locks, until PostgreSQL notices. */
  async rollBack({ lost }: { lost: boolean }): Promise<void> {
    const { scheduler } = this.#parts;
    if (lost && scheduler.steps % 2 === 0) {
      this.closed = true;
      this.#task.onCrash.delete(this.#onCrash);
      scheduler.later('a lost connection is closed', () => this.#abandon());
      return;
    }
    await this.#send(() => this.#client.query('ROLLBACK'), true);
    this.#inTransaction = false;
    this.close();
  }

  close(): void {
    this.closed = true;
    this.#task.onCrash.delete(this.#onCrash);
    this.#parts.lane.giveConnection(this.#client);
  }

  async #abandon(): Promise<void> {
    this.closed = true;
    if (this.#inTransaction) await this.#client.query('ROLLBACK');
    this.#parts.lane.giveConnection(this.#client);
  }

  /** Sends, and comes back only to a process that lives. */
  async #send<T>(query: () => Promise<T>, endsTransaction = !this.#inTransaction): Promise<T> {
    const { processID } = this.#client as unknown as { processID: number };
    const sent = this.#parts.scheduler.underway(processID, endsTransaction);
    const answer = query();
    this.#underway = answer;
    try {
      return await answer;
    } catch (error) {
      if (brokenStates.has((error as { code?: string }).code ?? '')) this.#parts.onBroken(error as Error);
      throw error;
    } finally {
      this.#underway = null;
      sent.end();
      if (this.#task.crashed) await never();
    }
  }
}

const setting = (name: string, ms: number, local: boolean): string =>
  `set_config('${name}', '${new Date(ms).toISOString()}', ${local})`;
