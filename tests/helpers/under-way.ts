/**
 * What a server's transactions are doing at a moment, from PostgreSQL's own list of sessions: so that a kill can be
 * aimed at it, and be counted for what it hit. Statements are told by their text, which the server's own code declares.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import '../../storage/archive/writing/commit.ts';
import '../../storage/archive/deleting/compact.ts';
import '../../storage/archive/deleting/delete-objects.ts';
import '../../storage/archive/writing/lists.ts';
import '../../storage/archive/retention/prune.ts';
import '../../storage/archive/deleting/reclaim.ts';
import '../../storage/archive/writing/upload.ts';
import { declaredStatements } from '../../storage/catalog/database.ts';
import type { RunningServer } from './server.ts';

export const stages = ['backup', 'prune', 'reclaim', 'compact', 'store deletes'] as const;
export type Stage = (typeof stages)[number];

/** Statements that only one verb makes. What several make counts as what its transaction began with. */
const statementsOf: Record<Stage, readonly string[]> = {
  backup:
    `archives.lock commits.find commits.insert versions.insert files.insert files.markDue archives.advance blocks.addRefs
    lists.addRefs blocks.insert lists.insert freedLists.insert`.split(/\s+/),
  prune:
    `vaults.lock archives.lockForDeleting versions.delete files.setPruneAfter files.deleteEmpty archives.countDeleted`.split(
      /\s+/,
    ),
  reclaim:
    `blocks.lockFreed blocks.delete freed.delete freed.deleteAbsent freed.postpone lists.lockFreed lists.delete freedLists.delete
    freedLists.deleteAbsent freedLists.postpone`.split(/\s+/),
  compact: ['blocks.ofObjects', 'blocks.move'],
  'store deletes': ['objects.takeDead', 'objects.forget'],
};

/** Of these the work goes on after the statement, outside of any transaction: reading, writing, deleting objects. */
const goesOnFor: Readonly<Record<string, number>> = { 'blocks.ofObjects': 300, 'objects.takeDead': 100 };

/** PostgreSQL is killed while it is asked. */
const answerTimeoutMs = 3_000;

/** PostgreSQL tells the first 1,023 bytes of a query. */
const toldCharacters = 1_000;

const nameOf = new Map(declaredStatements().map(({ name, text }) => [text.slice(0, toldCharacters), name]));
const stageOf = new Map(stages.flatMap((stage) => statementsOf[stage].map((name) => [name, stage] as const)));
for (const name of stageOf.keys())
  if (![...nameOf.values()].includes(name)) throw new Error(`there is no statement ${name} any more`);

interface Session {
  pid: number;
  query: string;
  /** Null: in no transaction. */
  begunAt: string | null;
  idleMs: number;
}

export class UnderWay {
  readonly #server: RunningServer;
  #client: pg.Client | null = null;
  readonly #transactions = new Map<number, { begunAt: string; stage: Stage }>();

  constructor(server: RunningServer) {
    this.#server = server;
  }

  /** What is under way now; nothing when PostgreSQL does not answer. */
  async look(): Promise<Set<Stage>> {
    try {
      this.#client ??= await this.#server.database();
      const { rows } = await this.#client.query<Session>({
        name: 'under-way',
        query_timeout: answerTimeoutMs,
        text: `SELECT pid, query, xact_start::text AS "begunAt", extract(epoch FROM clock_timestamp() - state_change)::float8 * 1000 AS "idleMs"
                 FROM pg_stat_activity WHERE application_name = 'holdfast' AND state <> 'disabled'`,
      } as pg.QueryConfig); // its types do not know query_timeout
      return new Set(rows.map((row) => this.#stageOf(row)).filter((stage) => stage !== null));
    } catch {
      await this.close();
      return new Set();
    }
  }

  /** Waits until something is under way. @returns what is; empty: it did not come within the time */
  async until(stage: Stage, withinMs: number): Promise<Set<Stage>> {
    for (const end = performance.now() + withinMs; performance.now() < end; await sleep(3)) {
      const found = await this.look();
      if (found.has(stage)) return found;
    }
    return new Set();
  }

  async close(): Promise<void> {
    const client = this.#client;
    this.#client = null;
    // One that was cut may never tell its end.
    await Promise.race([client?.end().catch(() => {}), sleep(answerTimeoutMs, undefined, { ref: false })]);
  }

  #stageOf({ pid, query, begunAt, idleMs }: Session): Stage | null {
    const name = nameOf.get(query.slice(0, toldCharacters)) ?? '';
    const own = stageOf.get(name) ?? null;
    if (begunAt === null) return idleMs < (goesOnFor[name] ?? 0) ? own : null;
    const known = this.#transactions.get(pid);
    const stage = own ?? (known?.begunAt === begunAt ? known.stage : null);
    if (stage) this.#transactions.set(pid, { begunAt, stage });
    return stage;
  }
}
