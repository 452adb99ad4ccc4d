/**
 * Server, worker and PostgreSQL killed with -9 while agents back up, and while retention, reclaim, compaction and store
 * deletes take away what they leave: whatever was acknowledged restores, the rows add up, and in the end nothing is
 * left of what was deleted. `HOLDFAST_TEST_ROUNDS=200 npm run test:long` is the long form;
 * `HOLDFAST_TEST_SEED` chooses other moments.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, expect, test } from '@jest/globals';
import type { Client } from '../agent/client/index.ts';
import { openQueues } from '../server/jobs/queues.ts';
import { openDirectoryStore } from '../storage/objects/directory-store.ts';
import type { ObjectStore } from '../storage/objects/object-store.ts';
import { TestAgent } from './helpers/agent.ts';
import { emptyTree } from './helpers/churn.ts';
import { checkVaultAtWork, listAll } from './helpers/consistency.ts';
import {
  Churn,
  killOnce,
  noKills,
  planKills,
  QuickServer,
  setPolicy,
  smallListsAgent,
  strictPolicy,
} from './helpers/deleting.ts';
import { seededRandom } from './helpers/random.ts';
import { restoreDifferences } from './helpers/two-moments.ts';
import { stages, UnderWay } from './helpers/under-way.ts';

const rounds = Number(process.env.HOLDFAST_TEST_ROUNDS ?? 4);
const seed = Number(process.env.HOLDFAST_TEST_SEED ?? 11);
const checkEvery = 20;
/** From the last deletion to an empty store: two claim windows, delays, and the jobs' intervals, on a busy machine. */
const drainMs = 120_000;
/**
 * An object that a killed worker had taken, or an upload had begun, is somebody's for a while longer. One whose row died
 * with PostgreSQL (it is written without waiting for the disk) is found by the comparison with the bucket; and that of a
 * killed worker begins anew when the queue has noticed, after half a minute.
 */
const settleMs = 75_000;

const cleanUps: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
}, 60_000);

interface World {
  scratch: string;
  server: QuickServer;
  objects: ObjectStore;
  churns: Churn[];
  vault: number;
  client: Client;
}

async function createWorld(): Promise<World> {
  const scratch = mkdtempSync(join(tmpdir(), 'holdfast-deleting-'));
  cleanUps.push(() => rmSync(scratch, { recursive: true, force: true }));
  const server = await QuickServer.create();
  cleanUps.push(() => server.stop());
  await setPolicy(server, strictPolicy(5_256_000));
  const objects = await openDirectoryStore({ path: join(server.data, 'objects') });
  const churns = [];
  for (const name of ['one', 'two']) {
    const agent = new TestAgent({ main: smallListsAgent });
    cleanUps.push(() => agent.remove());
    await agent.succeed(...agent.signIn(server, server.firstStart));
    churns.push(new Churn(agent, join(scratch, name), seed * 10 + churns.length));
  }
  const client = churns[0]!.agent.client();
  cleanUps.push(() => client.destroy());
  const { vault } = churns[0]!.agent.registration;
  return { scratch, server, objects, churns, vault, client };
}

/** While the jobs go on: every file of the last acknowledged moment, and everything that must always be so. */
async function expectAllIsWell({ scratch, server, objects, churns, vault, client }: World): Promise<void> {
  for (const { agent, tree, newest } of churns)
    expect(await restoreDifferences(agent, tree, newest!, join(scratch, 'restored'))).toEqual([]);
  const { faults } = await checkVaultAtWork(server, { vault, client, objects }, settleMs);
  expect(faults).toEqual([]);
  // Counts that drift, damage that is none, a fence that is foreign: none of that, reviewed or not.
  const kinds = await server.query<{ kind: string; details: unknown }>(
    "SELECT kind, details FROM alerts WHERE kind <> 'deleting_stopped' OR (details->>'reason') NOT IN ('stale', 'catalog_unreachable')",
  );
  expect(kinds).toEqual([]);
  expect(server.logs()).not.toMatch(/AssertionError|changed under its lock/);
}

const leftovers = `SELECT * FROM (
    SELECT 'blocks' AS what, count(*)::int AS n FROM blocks UNION ALL SELECT 'lists', count(*)::int FROM lists
    UNION ALL SELECT 'freed', count(*)::int FROM freed UNION ALL SELECT 'freed lists', count(*)::int FROM freed_lists
    UNION ALL SELECT 'objects', count(*)::int FROM objects
    UNION ALL SELECT 'versions with content', count(*)::int FROM versions WHERE deleted OR kind <> 'directory'
    UNION ALL SELECT 'files without versions', count(*)::int FROM files f WHERE NOT implied AND NOT EXISTS (
      SELECT 1 FROM versions v WHERE (v.vault_id, v.archive_id, v.file_id) = (f.vault_id, f.archive_id, f.file_id))) each
   WHERE n > 0`;

/** @returns what is still there when nothing more goes away */
async function drain({ server, objects }: World): Promise<unknown[]> {
  const queues = await openQueues({ databaseUrl: server.databaseUrl, migrate: false }, () => {});
  try {
    for (const until = performance.now() + drainMs; ; await sleep(500)) {
      const left: unknown[] = await server.query(leftovers);
      for await (const key of listAll(objects, '')) if (!key.endsWith('/fence')) left.push(key);
      if (left.length === 0 || performance.now() > until) return left;
      // What passes by itself passes at once: a job that died with its worker is noticed after half a minute, and the
      // object it had taken is taken again after ten.
      await server.query(
        "UPDATE objects SET next_at = now() WHERE state = 'dead' AND next_at > now() + interval '1 min'",
      );
      for (const name of ['prune', 'settle', 'reclaim', 'delete-objects'])
        await queues.add({ name, queue: 'deleting' });
      await queues.add({ name: 'compare-bucket', queue: 'checking' });
    }
  } finally {
    await queues.close();
  }
}

test(
  `seed ${seed}: ${rounds} kills while backing up and deleting lose nothing, and leave nothing behind`,
  async () => {
    const world = await createWorld();
    const { server, churns } = world;
    let well = false;
    cleanUps.push(() => well || process.stderr.write(`the server said last: ${server.logs().slice(-3_000)}\n`));
    const watch = new UnderWay(server);
    cleanUps.push(() => watch.close());
    const counts = noKills();
    const startedAt = performance.now();

    for (const churn of churns) churn.go();
    for (const [i, kill] of planKills(rounds, seededRandom(seed)).entries()) {
      await killOnce(server, watch, kill, counts);
      if ((i + 1) % checkEvery !== 0) continue;
      for (const churn of churns) await churn.pause();
      await expectAllIsWell(world);
      for (const churn of churns) churn.go();
    }
    for (const churn of churns) await churn.pause();
    await expectAllIsWell(world);

    for (const { tree } of churns) emptyTree(tree);
    for (const churn of churns) await churn.backUp('--accept-roots');
    // A reader's lease keeps what it needs for an hour at least, unless the policy is another one.
    await setPolicy(server, strictPolicy(5_255_999));
    expect(await drain(world)).toEqual([]);
    await expectAllIsWell(world);

    const seconds = Math.round((performance.now() - startedAt) / 1_000);
    const backups = churns.reduce((sum, churn) => sum + churn.backups, 0);
    const retries = churns.reduce((sum, churn) => sum + churn.retries, 0);
    process.stderr.write(
      `seed ${seed}: ${JSON.stringify({ ...counts, lateEnds: server.lateEnds, backups, retries, seconds })}\n`,
    );
    if (rounds >= 50) for (const stage of stages) expect([stage, counts.hit[stage]]).not.toEqual([stage, 0]);
    well = true;
  },
  240_000 + rounds * 30_000,
);
