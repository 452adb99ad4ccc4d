/**
 * Kills a server with -9 while an agent backs up, again and again, at moments drawn from a seed, and starts it again;
 * the agent is left to itself. Nothing in the server knows of this. The moments:
 *
 *   flight   after so many bytes of the agent have passed a proxy, wherever they are then
 *   stored   between the object store's put and the COMMIT: we hold a table lock that lets blocks be read and not
 *            inserted, so an upload whose object is stored waits for us, and is killed waiting
 *   commit   inside a commit of versions, by the same means
 *
 * That `stored` was hit is not taken from the lock: after the restart there is an object in the store that no
 * transaction has made live.
 */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import type { ObjectStore } from '../../storage/objects/object-store.ts';
import type { AgentRun, RunningAgent, TestAgent } from './agent.ts';
import { listAll } from './consistency.ts';
import type { CountingProxy } from './proxy.ts';
import { type Random, seededRandom } from './random.ts';
import type { RunningServer } from './server.ts';
import { noise, type Snapshot, snapshot } from './tree.ts';

const KiB = 1024;
const MiB = 1024 * KiB;

export interface Kill {
  moment: 'flight' | 'stored' | 'commit';
  victim: 'node' | 'node and PostgreSQL' | 'PostgreSQL';
  /** Of the agent, from when the moment was waited for. */
  bytesMin: number;
}

const momentsOfRound: Kill['moment'][] = ['stored', 'flight', 'stored', 'flight', 'commit'];
const victims: Kill['victim'][] = ['node', 'node and PostgreSQL', 'PostgreSQL'];

/** Two of five are between put and COMMIT. `commit` is the last of its five: the run ends after it. */
export function planKills(count: number, random: Random): Kill[] {
  return Array.from({ length: count }, (_, i) => ({
    moment: momentsOfRound[i % momentsOfRound.length]!,
    victim: victims[i % victims.length]!,
    bytesMin: 64 * KiB + random.below(10 * MiB),
  }));
}

export interface KillReport {
  /** The kills as they happened, with how many objects were stored and not committed because of each. */
  kills: (Kill & { halfStored: number })[];
  /** The keys of those objects. */
  halfStored: Set<string>;
  /** The state of the tree at the end of each run, and when that was. */
  moments: { at: number; snapshot: Snapshot }[];
  /** Times the agent said that it would try again. */
  retries: number;
}

export interface KillWorld {
  server: RunningServer;
  proxy: CountingProxy;
  objects: ObjectStore;
  agent: TestAgent;
  tree: string;
}

const momentTimeoutMs = 60_000;

export async function backUpUnderKills(world: KillWorld, plan: readonly Kill[], seed: number): Promise<KillReport> {
  const random = seededRandom(seed);
  const report: KillReport = { kills: [], halfStored: new Set(), moments: [], retries: 0 };
  let round = 0;
  let running = startRound(world, round++, random);
  for (const kill of plan) {
    for (let tries = 0; !(await reach(world, kill, running)); tries++) {
      if (tries === 3) throw new Error(`${kill.moment} was not met in ${tries} runs of the agent`);
      await endRound(world, running, report); // it was done before the moment came: more to do, and again
      running = startRound(world, round++, random);
    }
    await strike(world.server, kill.victim);
    await world.server.start();
    report.kills.push({ ...kill, halfStored: await countHalfStored(world, report.halfStored) });
  }
  await endRound(world, running, report);
  return report;
}

/** New files that do not compress, some small and some large, and a change and a deletion among the old ones. */
function startRound({ agent, tree }: KillWorld, round: number, random: Random): RunningAgent {
  const folder = join(tree, `round ${round}`);
  mkdirSync(folder, { recursive: true });
  for (let i = 0; i < 40; i++) writeFileSync(join(folder, `small ${i}`), noise(random, random.below(20 * KiB)));
  for (let i = 0; i < 12; i++) writeFileSync(join(folder, `large ${i}`), noise(random, MiB + random.below(2 * MiB)));
  writeFileSync(join(tree, 'changes'), noise(random, 3 * MiB));
  if (round > 0) rmSync(join(tree, `round ${round - 1}`, `large ${random.below(12)}`));
  return agent.start('backup', tree);
}

async function endRound({ tree }: KillWorld, running: RunningAgent, report: KillReport): Promise<void> {
  const { exitCode, events, errors }: AgentRun = await running.done;
  // Not always the last line: a request about progress that nobody waits for may be sent again behind it.
  const end = events.findLast(({ event }) => event === 'end');
  if (exitCode !== 0 || end?.outcome !== 'completed')
    throw new Error(`the agent ended with ${exitCode}: ${JSON.stringify(end ?? events.at(-1))} ${errors}`);
  report.retries += events.filter(({ event }) => event === 'retry').length;
  report.moments.push({ at: Date.now(), snapshot: snapshot(tree) });
  await sleep(20); // the next commit is later than this moment by any clock
}

/** Resolves with true at the moment, and with false when the agent ended before it came. */
async function reach(world: KillWorld, kill: Kill, running: RunningAgent): Promise<boolean> {
  const ended = new AbortController();
  running.done.then(() => ended.abort());
  const timer = setTimeout(() => ended.abort(), momentTimeoutMs);
  try {
    if (kill.moment === 'flight') await world.proxy.afterBytes(kill.bytesMin, ended.signal);
    else await untilHeldUp(world.server, kill.moment === 'stored' ? 'blocks' : 'versions', ended.signal);
    return !ended.signal.aborted;
  } finally {
    clearTimeout(timer);
  }
}

/** The connections whose locks are to last until their PostgreSQL is killed, or ended by its server's end. */
const holding: pg.Client[] = [];

/**
 * Lets the table be read and not written, and waits until somebody waits to insert into it. Whoever waits to do
 * something else (a commit counts references in `blocks`) is let through.
 */
async function untilHeldUp(server: RunningServer, table: 'blocks' | 'versions', signal: AbortSignal): Promise<void> {
  const client = await server.database();
  holding.push(client);
  while (!signal.aborted) {
    await client.query('BEGIN');
    await client.query(`LOCK TABLE ${table} IN SHARE ROW EXCLUSIVE MODE`);
    for (let others = false; !others && !signal.aborted; await sleep(2)) {
      await client.query('SELECT pg_stat_clear_snapshot()'); // within a transaction, who does what is looked up once
      const { rows } = await client.query<{ inserts: boolean }>(
        `SELECT a.query LIKE $2 AS inserts FROM pg_locks l JOIN pg_stat_activity a USING (pid)
          WHERE l.relation = $1::regclass AND NOT l.granted AND l.mode = 'RowExclusiveLock'`,
        [table, `%INSERT INTO ${table} %`],
      );
      if (rows.some(({ inserts }) => inserts)) return;
      others = rows.length > 0;
    }
    await client.query('ROLLBACK');
    await sleep(5);
  }
  await release();
}

async function release(): Promise<void> {
  for (const client of holding.splice(0)) await client.end().catch(() => {});
}

async function strike(server: RunningServer, victim: Kill['victim']): Promise<void> {
  if (victim !== 'PostgreSQL') {
    const killed = server.kill('SIGKILL');
    if (victim === 'node and PostgreSQL') await server.killPostgres();
    await killed;
  } else {
    await server.killPostgres();
    await server.ended; // it says so and ends: whoever supervises it starts it again
  }
  await release();
}

/**
 * Objects that are in the store and were never committed. Each is counted once. Their rows say `writing`; or, when
 * PostgreSQL was killed too, are not there: such a row need not be on disk before the object is.
 */
async function countHalfStored({ server, objects }: KillWorld, seen: Set<string>): Promise<number> {
  const live = new Set(
    (await server.query<{ key: string }>("SELECT key FROM objects WHERE state <> 'writing'")).map(({ key }) => key),
  );
  const before = seen.size;
  for await (const key of listAll(objects, '')) if (key.includes('/blocks/') && !live.has(key)) seen.add(key);
  return seen.size - before;
}
