/**
 * Staged restores with what a large installation has: parts in S3 (Swift), jobs in Redis, workers apart. One that is killed with
 * -9, a Redis that is emptied, curl that is interrupted.
 */
import { randomBytes, randomUUID } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import type { ObjectStore } from '../../storage/objects/object-store.ts';
import { openObjectStore } from '../../storage/objects/open-store.ts';
import { testBucket } from '../../storage/objects/s3-test-settings.ts';
import { TestAgent } from '../helpers/agent.ts';
import { type RunningWorker, startApiServer, startWorkerOf } from '../helpers/apart.ts';
import { listAll } from '../helpers/consistency.ts';
import {
  ask,
  bearer,
  curl,
  digestOf,
  digestOfOutput,
  fetchInterrupted,
  type Json,
  run,
  signIn,
} from '../helpers/curl.ts';
import type { RunningServer } from '../helpers/server.ts';

const found = testBucket();
const redisUrl = process.env.HOLDFAST_TEST_REDIS_URL;
if (!found || !redisUrl) throw new Error('HOLDFAST_TEST_S3_* and HOLDFAST_TEST_REDIS_URL name no services');
const bucket = found;
const redis = redisUrl;
const prefix = `staged-${randomUUID()}/`;
const environment = {
  HOLDFAST_OBJECTS: 's3',
  HOLDFAST_S3_ENDPOINT: bucket.endpoint!,
  HOLDFAST_S3_BUCKET: bucket.bucket,
  HOLDFAST_S3_PATH_STYLE: 'on',
  HOLDFAST_S3_ACCESS_KEY_ID: bucket.credentials!.accessKeyId,
  HOLDFAST_S3_SECRET_ACCESS_KEY: bucket.credentials!.secretAccessKey,
  HOLDFAST_S3_PREFIX: prefix,
  HOLDFAST_REDIS_URL: redis,
};

let server: RunningServer;
let worker: RunningWorker | null = null;
let objects: ObjectStore;
let scratch: string;
let tree: string;
let token: string;
const agent = new TestAgent();

beforeAll(async () => {
  scratch = mkdtempSync(join(tmpdir(), 'holdfast-services-staged-'));
  tree = join(scratch, 'tree');
  mkdirSync(tree);
  for (let i = 0; i < 3; i++) writeFileSync(join(tree, `part ${i}`), randomBytes(20 * 1024 * 1024));
  objects = await openObjectStore({ kind: 's3', ...bucket, prefix });
  server = await startApiServer(environment);
  await agent.succeed(...agent.signIn(server, server.firstStart));
  await agent.succeed('backup', tree);
  token = await signIn(server, server.firstStart);
}, 180_000);

afterAll(async () => {
  agent.remove();
  await worker?.kill('SIGTERM');
  await server?.stop();
  if (objects) {
    for await (const key of listAll(objects, '')) await objects.delete(key);
    await objects.close();
  }
  rmSync(scratch, { recursive: true, force: true });
}, 180_000);

async function planned(): Promise<number> {
  const { items } = await ask(server, 'GET', '/v1/devices', token);
  const [device] = items as unknown as { guid: string }[];
  const asked = { device: device!.guid, paths: [tree], kind: 'staged', format: 'tar' };
  return (await ask(server, 'POST', '/v1/restores', token, asked)).id as unknown as number;
}

type Row = Json & { state: string; tries: number; staged: { length: number } };
const rowOf = async (id: number): Promise<Row> => (await ask(server, 'GET', `/v1/restores/${id}`, token)) as Row;
async function until(isSo: () => Promise<boolean>, withinMs: number): Promise<void> {
  for (const end = performance.now() + withinMs; !(await isSo()); await sleep(50))
    if (performance.now() > end) throw new Error(`not so in time: ${isSo} ${server.logs()} ${worker?.said}`);
}
const isStaged = (id: number) => async () => (await rowOf(id)).state === 'completed';
const contentOf = (id: number): string => `${server.url}/v1/restores/${id}/content`;
const stagedKeys = async (): Promise<string[]> => {
  const keys: string[] = [];
  for await (const key of listAll(objects, '')) if (key.includes('/staging/')) keys.push(key);
  return keys;
};

test('through a job in Redis into the bucket, and out with curl that was interrupted', async () => {
  worker = await startWorkerOf(server, environment);
  const id = await planned();
  await until(isStaged(id), 120_000);
  const { length } = (await rowOf(id)).staged;
  expect((await stagedKeys()).length).toBe(Math.ceil(length / (8 * 1024 * 1024)));
  const file = join(scratch, 'resumed.tar');
  const kills = await fetchInterrupted(['--limit-rate', '40M', ...bearer(token), contentOf(id)], file, {
    length,
    times: 5,
  });
  expect(new Set(kills).size).toBe(5);
  expect(await digestOf(file)).toBe(
    await digestOfOutput('curl', ['--silent', '--insecure', '--fail', ...bearer(token), contentOf(id)]),
  );
  const to = join(scratch, 'to');
  mkdirSync(to);
  await run('tar', ['-xf', file, '-C', to]);
  await run('diff', ['-r', tree, join(to, 'tree')]);
  const ranged = await curl(
    '--range',
    '0-4',
    ...bearer(token),
    '--output',
    '/dev/null',
    '--write-out',
    '%{http_code} %{size_download}',
    contentOf(id),
  );
  expect(ranged).toBe('206 5');
}, 300_000);

test('a worker killed with -9 half-way, and a Redis that is emptied: the next worker makes it, and the rest goes', async () => {
  const before = new Set(await stagedKeys());
  const id = await planned();
  await until(async () => (await stagedKeys()).some((key) => !before.has(key)), 60_000);
  await worker!.kill('SIGKILL');
  const { Redis } = await import('ioredis');
  const client = new Redis(redis, { maxRetriesPerRequest: 1 });
  await client.flushall();
  client.disconnect();
  // All that is known of it is its row.
  expect((await rowOf(id)).state).toBe('running');
  worker = await startWorkerOf(server, environment);
  await until(isStaged(id), 180_000);
  expect((await rowOf(id)).tries).toBe(2);
  const sum = await digestOfOutput('sh', [
    '-c',
    `curl --silent --insecure --fail --header 'Authorization: Bearer ${token}' '${contentOf(id)}' | tar -xOf -`,
  ]);
  expect(sum).toBe(await digestOfOutput('sh', ['-c', `cd '${scratch}' && cat tree/*`]));
  const attempts = async (): Promise<number> => new Set((await stagedKeys()).map((key) => key.split('/').at(-2))).size;
  await until(async () => (await attempts()) === 2, 300_000);
}, 600_000);
