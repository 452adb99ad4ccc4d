/**
 * The main job with the objects in a real S3 server (Swift) and the jobs in a real Redis: two backups, both moments
 * restored; the server killed with -9 between the store's put and the COMMIT; and the check that operators run against
 * their own bucket. tests/services/run.sh starts both services.
 */
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { ObjectStore } from '../../storage/objects/object-store.ts';
import { openObjectStore } from '../../storage/objects/open-store.ts';
import { testBucket } from '../../storage/objects/s3-test-settings.ts';
import { TestAgent } from '../helpers/agent.ts';
import { checkVault, listAll } from '../helpers/consistency.ts';
import { backUpUnderKills, type Kill } from '../helpers/killing.ts';
import { startCountingProxy } from '../helpers/proxy.ts';
import { type RunningServer, startServer } from '../helpers/server.ts';
import { copyBounded, snapshot } from '../helpers/tree.ts';
import { backUpTwice, makeTree, restoreDifferences } from '../helpers/two-moments.ts';

const MiB = 1024 * 1024;
const found = testBucket();
const redisUrl = process.env.HOLDFAST_TEST_REDIS_URL;
if (!found || !redisUrl) throw new Error('HOLDFAST_TEST_S3_* and HOLDFAST_TEST_REDIS_URL name no services');
const bucket = found;
const prefix = `end-to-end-${randomUUID()}/`;

const settings = {
  HOLDFAST_OBJECTS: 's3',
  HOLDFAST_S3_ENDPOINT: bucket.endpoint!,
  HOLDFAST_S3_BUCKET: bucket.bucket,
  HOLDFAST_S3_PATH_STYLE: 'on',
  HOLDFAST_S3_ACCESS_KEY_ID: bucket.credentials!.accessKeyId,
  HOLDFAST_S3_SECRET_ACCESS_KEY: bucket.credentials!.secretAccessKey,
};

let server: RunningServer;
let objects: ObjectStore;
let scratch: string;
const agents: TestAgent[] = [];

function newAgent(localServer?: string): TestAgent {
  const agent = new TestAgent(localServer === undefined ? {} : { localServer });
  agents.push(agent);
  return agent;
}

beforeAll(async () => {
  scratch = mkdtempSync(join(tmpdir(), 'holdfast-services-e2e-'));
  objects = await openObjectStore({ kind: 's3', ...bucket, prefix });
  server = await startServer({
    environment: { ...settings, HOLDFAST_S3_PREFIX: prefix, HOLDFAST_REDIS_URL: redisUrl },
  });
}, 120_000);

afterAll(async () => {
  for (const agent of agents) agent.remove();
  await server?.stop();
  if (objects) {
    for await (const key of listAll(objects, '')) await objects.delete(key);
    await objects.close();
  }
  rmSync(scratch, { recursive: true, force: true });
}, 120_000);

describe('with S3 and Redis', () => {
  test('two backups with changes between are restored as they were at both moments', async () => {
    const tree = join(scratch, 'tree');
    makeTree(tree, 3);
    const agent = newAgent(server.data);
    const { first, second, newBytes, moments } = await backUpTwice(agent, tree);
    expect(first).toMatchObject({ outcome: 'completed', filesSkipped: 0 });
    expect(second.bytesSent).toBeLessThan(newBytes + 4 * 128 + 2 * 4 * MiB);
    for (const [i, moment] of moments.entries())
      expect(await restoreDifferences(agent, tree, moment, join(scratch, `restored ${i}`))).toEqual([]);
    expect((await objects.list('', { limit: 10 })).objects.length).toBeGreaterThan(0); // they are where they should be
  }, 300_000);

  test('the jobs are in Redis: the housekeeping is scheduled there', async () => {
    const { Redis } = await import('ioredis');
    const redis = new Redis(redisUrl, { maxRetriesPerRequest: 1 });
    try {
      expect((await redis.keys('*housekeeping*')).length).toBeGreaterThan(0);
    } finally {
      redis.disconnect();
    }
  });

  test('kills between the put and the COMMIT lose nothing and stop nobody', async () => {
    const proxy = await startCountingProxy(Number(new URL(server.url).port));
    try {
      const agent = newAgent();
      const { certificateSha256 } = server;
      const url = `https://127.0.0.1:${proxy.port}`;
      await agent.succeed(...agent.signIn({ url, certificateSha256 }, server.firstStart));
      const tree = join(scratch, 'killed');
      mkdirSync(tree);
      const plan: Kill[] = [
        { moment: 'stored', victim: 'node', bytesMin: 0 },
        { moment: 'flight', victim: 'PostgreSQL', bytesMin: 5 * MiB },
        { moment: 'stored', victim: 'node and PostgreSQL', bytesMin: 0 },
      ];
      const report = await backUpUnderKills({ server, proxy, objects, agent, tree }, plan, 5);
      for (const kill of report.kills.filter(({ moment }) => moment === 'stored'))
        expect(kill.halfStored).toBeGreaterThan(0);
      expect(report.retries).toBeGreaterThan(0);

      const client = agent.client();
      const { vault } = agent.registration;
      const check = await checkVault(server, { vault, client, objects, halfStored: report.halfStored });
      client.destroy();
      expect(check.faults).toEqual([]);
      for (const [i, moment] of report.moments.entries())
        expect(await restoreDifferences(agent, tree, moment, join(scratch, `killed ${i}`))).toEqual([]);
    } finally {
      await proxy.close();
    }
  }, 300_000);
});

describe('on the data folder alone', () => {
  test('all of /usr/share and of node_modules, a change, and both moments back', async () => {
    const large = await startServer();
    try {
      const tree = join(scratch, 'large');
      makeTree(tree, 4);
      const modules = fileURLToPath(new URL('../../node_modules', import.meta.url));
      const bounds = { bytesMax: 120 * MiB, filesMax: 8_000 };
      copyBounded('/usr/share', join(tree, 'all of share'), bounds);
      copyBounded(modules, join(tree, 'all of modules'), bounds);
      const agent = newAgent(large.data);
      const { first, second, newBytes, moments } = await backUpTwice(agent, tree);
      expect(first).toMatchObject({ outcome: 'completed', filesSkipped: 0 });
      expect(snapshot(tree).size).toBeGreaterThan(5_000);
      expect(second.bytesSent).toBeLessThan(newBytes + 4 * 128 + 2 * 4 * MiB);
      for (const [i, moment] of moments.entries())
        expect(await restoreDifferences(agent, tree, moment, join(scratch, `large ${i}`))).toEqual([]);
    } finally {
      await large.stop();
    }
  }, 600_000);
});

test('check-objects finds the bucket fit, and says what it is', async () => {
  const main = fileURLToPath(new URL('../../server/main.ts', import.meta.url));
  const env = { PATH: process.env.PATH, HOME: scratch, ...settings, HOLDFAST_S3_PREFIX: `check-${randomUUID()}/` };
  const child = spawn(process.execPath, [main, 'check-objects'], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (bytes) => {
      said += bytes;
    });
  const code = await new Promise((resolve) => child.once('close', resolve));
  expect(said).toContain('The object store can be used.');
  expect(code).toBe(0);
}, 300_000);
