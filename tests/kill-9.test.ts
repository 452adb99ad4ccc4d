/**
 * The server killed with -9 while bytes are in flight: the agent carries on by itself, what it restores is what was
 * there, and every row and byte is accounted for. `HOLDFAST_TEST_KILLS=20 npm run jest -- tests/kill-9` is the long
 * form; `HOLDFAST_TEST_SEED` chooses other moments.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from '@jest/globals';
import { openDirectoryStore } from '../storage/objects/directory-store.ts';
import { TestAgent } from './helpers/agent.ts';
import { checkVault } from './helpers/consistency.ts';
import { backUpUnderKills, planKills } from './helpers/killing.ts';
import { startCountingProxy } from './helpers/proxy.ts';
import { seededRandom } from './helpers/random.ts';
import { startServer } from './helpers/server.ts';
import { restoreDifferences } from './helpers/two-moments.ts';

const kills = Number(process.env.HOLDFAST_TEST_KILLS ?? 2);
const seed = Number(process.env.HOLDFAST_TEST_SEED ?? 7);

const cleanUps: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
}, 60_000);

test(
  `seed ${seed}: ${kills} kills, of node, of PostgreSQL and of both, lose nothing and stop nobody`,
  async () => {
    const scratch = mkdtempSync(join(tmpdir(), 'holdfast-kill-'));
    cleanUps.push(() => rmSync(scratch, { recursive: true, force: true }));
    const server = await startServer();
    cleanUps.push(() => server.stop());
    const proxy = await startCountingProxy(Number(new URL(server.url).port));
    cleanUps.push(() => proxy.close());
    const objects = await openDirectoryStore({ path: join(server.data, 'objects') });
    const agent = new TestAgent();
    cleanUps.push(() => agent.remove());
    const { certificateSha256 } = server;
    const url = `https://127.0.0.1:${proxy.port}`;
    await agent.succeed(...agent.signIn({ url, certificateSha256 }, server.firstStart));

    const tree = join(scratch, 'tree');
    const plan = planKills(kills, seededRandom(seed));
    const report = await backUpUnderKills({ server, proxy, objects, agent, tree }, plan, seed);

    expect(report.kills).toHaveLength(kills);
    const between = report.kills.filter(({ moment }) => moment === 'stored');
    expect(between.length).toBeGreaterThanOrEqual(Math.floor(kills / 4));
    // Not the plan but the store and the rows say that the window was hit.
    for (const kill of between) expect(kill.halfStored).toBeGreaterThan(0);
    expect(report.retries).toBeGreaterThan(0);

    const client = agent.client();
    cleanUps.push(() => client.destroy());
    const { vault } = agent.registration;
    const check = await checkVault(server, { vault, client, objects, halfStored: report.halfStored });
    expect(check.faults).toEqual([]);
    expect(check.blocks).toBeGreaterThan(10);
    for (const [i, moment] of report.moments.entries())
      expect(await restoreDifferences(agent, tree, moment, join(scratch, `restored ${i}`))).toEqual([]);
  },
  60_000 + kills * 30_000,
);
