/**
 * The queues on a real Redis: what they lose when it is flushed, restarted or put away is time. tests/services/run.sh
 * starts one; what is restarted here is one of this file's own.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { Redis } from 'ioredis';
import { openQueues, type QueueSettings, type Queues } from '../../server/jobs/queues.ts';
import { endless, startTestWorker, type TestDefinitions, testJob, until } from '../../server/jobs/testing.ts';
import type { JobWorker } from '../../server/jobs/worker.ts';

let redis: ChildProcess;
let folder: string;
let port: number;
let settings: QueueSettings;
let queues: Queues;
const workers: JobWorker[] = [];
const nothing = async () => ({});

async function startRedis(): Promise<void> {
  const options = ['--bind', '127.0.0.1', '--port', String(port), '--dir', folder, '--save', '', '--appendonly', 'no'];
  redis = spawn('redis-server', [...options, '--maxmemory-policy', 'noeviction'], { stdio: 'ignore' });
  await until(() => command((client) => client.ping()).then(Boolean, () => false));
}

async function stopRedis(): Promise<void> {
  const ended = once(redis, 'close');
  redis.kill('SIGKILL');
  await ended;
}

async function command<T>(use: (client: Redis) => Promise<T>): Promise<T> {
  const client = new Redis(port, '127.0.0.1', { maxRetriesPerRequest: 1, retryStrategy: () => null });
  client.on('error', () => {});
  try {
    return await use(client);
  } finally {
    client.disconnect();
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port: free } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  return free;
}

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'holdfast-services-redis-'));
  port = await freePort();
  await startRedis();
  settings = { redisUrl: `redis://127.0.0.1:${port}` };
  queues = await openQueues(settings, () => {});
});

afterEach(async () => {
  await Promise.all(workers.splice(0).map((worker) => worker.stop(2_000)));
  await queues.close();
  await stopRedis();
  rmSync(folder, { recursive: true, force: true });
});

async function start(definitions: TestDefinitions) {
  const worker = await startTestWorker(settings, queues, definitions, 300);
  workers.push(worker);
  return worker;
}

test.each([
  ['flushed', () => command((client) => client.flushall())],
  ['flushed with its scripts', () => command((client) => client.flushall().then(() => client.script('FLUSH')))],
  ['killed and started again, empty', () => stopRedis().then(startRedis)],
])(
  'a Redis that is %s under running workers costs time only: the jobs go on',
  async (_, lose) => {
    let ticks = 0;
    let hours = 0;
    const definitions: TestDefinitions = {
      tick: testJob(async () => ({ ticks: ++ticks }), { everyMs: 150 }),
      hourly: testJob(async () => ({ hours: ++hours }), { queue: 'deleting' }),
    };
    const [first, second] = [await start(definitions), await start(definitions)];
    await until(() => ticks >= 3 && hours === 1);
    await lose();
    const at = ticks;
    await until(() => ticks >= at + 3 && hours === 2, 40_000);
    expect([...first.failed, ...second.failed]).toEqual([]);
    expect([...first.rescheduled, ...second.rescheduled]).toEqual(expect.arrayContaining(['tick', 'hourly']));
    expect((await queues.states()).deleting).toMatchObject({ waiting: 0, active: 0, delayed: 1 });
  },
  90_000,
);

test('a job at hand when Redis is flushed is told to end once its lock cannot be renewed, and is done again', async () => {
  let begun = 0;
  let ended = 0;
  const long = testJob(async ({ signal }) => {
    if (++begun > 1) return {};
    return endless(signal).finally(() => ended++);
  });
  await start({ long });
  await until(() => begun === 1);
  await command((client) => client.flushall());
  await until(() => ended === 1 && begun === 2, 60_000);
}, 90_000);

test('stopping a worker whose Redis is away takes a bounded time', async () => {
  const worker = await startTestWorker(settings, queues, { tick: testJob(nothing, { everyMs: 100 }) });
  await until(() => worker.done.length > 0);
  await stopRedis();
  const startedAt = performance.now();
  await worker.stop(1_000);
  expect(performance.now() - startedAt).toBeLessThan(30_000);
  await expect(queues.check()).rejects.toThrow();
  // What was left of it goes as soon as it can say so.
  await startRedis();
  await until(async () => !/:w(?:\s|$)/m.test(await command((client) => client.client('LIST') as Promise<string>)));
}, 90_000);

test('a Redis that is away is not looked for any more once worker and queues are closed', async () => {
  const worker = await startTestWorker(settings, queues, { tick: testJob(nothing, { everyMs: 100 }) });
  await until(() => worker.done.length > 0);
  await stopRedis();
  await worker.stop(1_000);
  await queues.close();
  let visits = 0;
  const inItsPlace = createServer((socket) => {
    visits++;
    socket.on('error', () => {}).destroy();
  }).listen(port, '127.0.0.1');
  await sleep(6_000); // what was on its way may come once more
  const atMost = visits;
  await sleep(11_000);
  inItsPlace.close();
  await startRedis(); // for what ends every test
  expect(visits).toBe(atMost);
}, 90_000);

test('with the oldest job first, the state tells for how long it waits', async () => {
  await queues.add({ name: 'a', queue: 'checking' });
  await sleep(300);
  await queues.add({ name: 'b', queue: 'checking' });
  await queues.schedule([{ name: 'later', queue: 'checking', everyMs: 3_600_000 }]);
  const { checking } = await queues.states();
  expect(checking.waiting).toBe(3);
  expect(checking.oldestDueMs).toBeGreaterThanOrEqual(300);
  expect(checking.oldestDueMs).toBeLessThan(60_000);
});
