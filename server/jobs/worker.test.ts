import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import pg from 'pg';
import { z } from 'zod';
import { fenceDefaults, openFence } from '../../storage/archive/checking/fence.ts';
import { type Database, databaseDefaults, openDatabase, statement } from '../../storage/catalog/database.ts';
import { createArchive, createVault } from '../../storage/catalog/vaults.ts';
import { MemoryStore } from '../../storage/objects/memory-store.ts';
import { openStorage, type Storage, storageDefaults } from '../../storage/storage.ts';
import { type TestDatabase, testDatabase } from '../../tests/helpers/postgres.ts';
import { newAuditKeyFile, readAuditKeys } from '../directory/audit/heads/audit-key.ts';
import { NotNow } from './definitions.ts';
import { openQueues, type QueueSettings, type Queues } from './queues.ts';
import { endless, startTestWorker, type TestDefinitions, type TestWorker, testJob, until } from './testing.ts';
import { type JobWorker, startWorker, startWorkerOf } from './worker.ts';

let test_: TestDatabase;
let database: Database;
let storage: Storage;
let settings: QueueSettings;
let queues: Queues;
const running: JobWorker[] = [];
const noErrors = (error: Error): never => {
  throw error;
};

beforeAll(async () => {
  test_ = await testDatabase();
  database = openDatabase({ ...databaseDefaults, connectionString: test_.connectionString });
  storage = await openStorage({ database, objects: new MemoryStore(), settings: storageDefaults });
  settings = { databaseUrl: test_.connectionString, migrate: true };
  queues = await openQueues(settings, noErrors);
});

afterEach(async () => {
  await Promise.all(running.splice(0).map((worker) => worker.stop(2_000)));
  await emptyQueues();
});

afterAll(async () => {
  await queues?.close();
  await database?.close();
  await test_?.drop();
});

async function ask(sql: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: test_.connectionString });
  await client.connect();
  try {
    return (await client.query(sql)).rows;
  } finally {
    await client.end();
  }
}

/** What a Redis that was flushed is in PostgreSQL. */
async function emptyQueues(): Promise<void> {
  const tables = ['job', 'scheduler', 'meta', 'event', 'job_log', 'dedup', 'rate_limit'];
  await ask(tables.map((table) => `DELETE FROM jobs.${table}`).join(';')); // at once: one transaction
}

async function start(definitions: TestDefinitions, scheduleCheckMs?: number): Promise<TestWorker> {
  const worker = await startTestWorker(settings, queues, definitions, scheduleCheckMs);
  running.push(worker);
  return worker;
}

async function jobRows(): Promise<Record<string, unknown>[]> {
  return ask('SELECT name, state::text, attempts_made AS attempts FROM jobs.job ORDER BY seq');
}

const nothing = async () => ({});

describe('the schedule', () => {
  test('every job there is runs at once, at most once for each worker that starts at that moment, and they leave no session', async () => {
    const stale = await database.transaction(async (tx) => {
      const vault = (await createVault(tx, { userId: 1 }))!;
      const archive = await createArchive(tx, { vault, deviceId: 1 });
      await tx.query(
        statement(
          'test.staleRun',
          `INSERT INTO runs (vault_id, archive_id, roots, progressed_at) VALUES ($1, $2, '', now() - interval '2 days')`,
        ),
        [vault, archive],
      );
      return vault;
    });
    const done: string[] = [];
    const events = {
      ended: ({ name }: { name: string }) => done.push(name),
      failed: ({ error }: { error: Error }) => noErrors(error),
      rescheduled: () => {},
      error: noErrors,
    };
    const own = await openQueues(settings, noErrors);
    const context = {
      storage,
      fence: openFence(storage, fenceDefaults),
      runSilenceMs: 86_400_000,
      backgroundShare: 0.5,
      verifyBytesPerSecond: 1_000_000,
      verifyEveryMs: 86_400_000,
      auditKeys: readAuditKeys(newAuditKeyFile()),
      staging: null,
      startJob: async () => {},
    };
    const parts = { settings, queues: own, context, events };
    const workers = await Promise.all([startWorker(parts), startWorker(parts)]);
    const scheduled = await ask('SELECT scheduler_id AS name FROM jobs.scheduler');
    await until(async () => new Set(done).size >= scheduled.length);
    expect(await ask(`SELECT outcome FROM runs WHERE vault_id = ${stale}`)).toEqual([{ outcome: 'interrupted' }]);
    // Two that start a schedule in the same moment may each make its first job; a job may run twice, and one of each may be left.
    const most = Math.max(...[...Map.groupBy(done, (name) => name).values()].map((runs) => runs.length));
    expect([...new Set(done)].toSorted()).toEqual(scheduled.map(({ name }) => name).toSorted());
    expect(most).toBeLessThanOrEqual(workers.length);
    expect(done).toContain('abandon-stale-runs');

    await Promise.all(workers.map((worker) => worker.stop(5_000)));
    await own.close();
    await until(async () => {
      const [row] = await ask(
        `SELECT count(*)::int AS n FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'holdfast jobs worker%'`,
      );
      return row!.n === 0;
    });
  });

  test('queues that are emptied under running workers fill again by themselves', async () => {
    let ran = 0;
    const jobs = { tick: testJob(async () => ({ ran: ++ran }), { everyMs: 150 }), hourly: testJob(nothing) };
    const [first, second] = [await start(jobs, 300), await start(jobs, 300)];
    await until(() => ran >= 3);
    const hours = (): number => [...first.done, ...second.done].filter(({ name }) => name === 'hourly').length;
    await until(() => hours() === 1);
    await emptyQueues();
    const at = ran;
    await until(() => ran >= at + 3);
    await until(() => hours() > 1);
    expect([...first.rescheduled, ...second.rescheduled]).toEqual(expect.arrayContaining(['tick', 'hourly']));
    expect([...first.failed, ...second.failed]).toEqual([]);
  });

  const job = { name: 'daily', queue: 'deleting', everyMs: 86_400_000 } as const;

  test('is left alone while all is well, so that no job loses its place', async () => {
    await queues.schedule([job]);
    const before = await ask('SELECT id, seq FROM jobs.job');
    expect(before).toHaveLength(1);
    expect(await queues.keepScheduled([job])).toEqual([]);
    await queues.schedule([job]);
    expect(await ask('SELECT id, seq FROM jobs.job')).toEqual(before);
  });

  test.each([
    ['its next job is gone', 'DELETE FROM jobs.job'],
    ['its next job has ended without making another', `UPDATE jobs.job SET state = 'failed'`],
    [
      'a clock that was wrong put it a year ahead',
      `WITH a AS (UPDATE jobs.scheduler SET next_run_ms = next_run_ms + 31536000000 RETURNING scheduler_id, next_run_ms)
       UPDATE jobs.job SET id = 'repeat:' || a.scheduler_id || ':' || a.next_run_ms, state = 'delayed', process_at_ms = a.next_run_ms FROM a`,
    ],
    ['another version had another interval', `UPDATE jobs.scheduler SET every_ms = 1000`],
  ])('is put right when %s', async (_, damage) => {
    await queues.schedule([job]);
    await ask(damage);
    expect(await queues.keepScheduled([job])).toEqual(['daily']);
    const [due] = await ask(
      `SELECT count(*)::int AS jobs, (min(j.process_at_ms) - extract(epoch FROM now()) * 1000 <= ${job.everyMs}) IS NOT FALSE AS soon
         FROM jobs.job j JOIN jobs.scheduler s ON j.id = 'repeat:' || s.scheduler_id || ':' || s.next_run_ms
        WHERE j.state IN ('waiting', 'delayed')`,
    );
    expect(due).toEqual({ jobs: 1, soon: true });
    expect(await queues.keepScheduled([job])).toEqual([]);
  });

  test('of a job that is no more ends when a worker starts', async () => {
    await queues.schedule([job, { ...job, name: 'of-another-version' }]);
    await queues.schedule([job]);
    expect(await ask('SELECT scheduler_id AS name FROM jobs.scheduler')).toEqual([{ name: 'daily' }]);
  });
});

describe('a job', () => {
  test('that takes long keeps no other waiting: not of another queue, and beyond its time not of its own', async () => {
    const long = testJob(({ signal }) => endless(signal), { queue: 'deleting', sliceMs: 400 });
    const short = testJob(nothing, { queue: 'deleting' });
    const worker = await start({ one: long, two: long, three: long, short, other: testJob(nothing) });
    await until(() => worker.done.some(({ name }) => name === 'other'));
    await until(() => worker.done.some(({ name }) => name === 'short'));
    await until(() => worker.done.filter(({ ended }) => ended === 'cut').length === 3);
    expect(worker.failed).toEqual([]);
  });

  test('that its process leaves unfinished is no failure, and another worker takes it up', async () => {
    let begun = 0;
    const definitions = { long: testJob(({ signal }) => (++begun === 1 ? endless(signal) : nothing()), {}) };
    const first = await startTestWorker(settings, queues, definitions);
    await until(() => begun === 1);
    await first.stop(5_000);
    expect(first).toMatchObject({ done: [], failed: [], errors: [] });
    expect((await jobRows()).map(({ state }) => state)).not.toContain('failed');
    const second = await start(definitions);
    await until(() => second.done.length === 1);
    expect(begun).toBe(2);
  });

  test('that does not end when told to is left behind in time', async () => {
    const { promise: heard, resolve: hear } = Promise.withResolvers<Record<string, number>>();
    let begun = false;
    const worker = await startTestWorker(settings, queues, {
      deaf: testJob(() => {
        begun = true;
        return heard;
      }),
    });
    await until(() => begun);
    const startedAt = performance.now();
    await worker.stop(300);
    expect(performance.now() - startedAt).toBeLessThan(20_000);
    hear({});
  });

  test('that fails is tried again, later', async () => {
    const worker = await start({ broken: testJob(() => Promise.reject(new Error('no disk'))) });
    await until(() => worker.failed.length === 1);
    await until(async () => (await jobRows()).some(({ state, attempts }) => state === 'delayed' && attempts === 1));
    expect(worker.failed[0]).toMatchObject({ name: 'broken', error: { message: 'no disk' } });
    const [again] = await ask(
      `SELECT process_at_ms - extract(epoch FROM now()) * 1000 > 2000 AS later FROM jobs.job WHERE attempts_made = 1`,
    );
    expect(again).toEqual({ later: true });
  });

  test('with data that it does not take fails for good, and has done nothing', async () => {
    let ran = 0;
    const worker = await start({ strict: testJob(async () => ({ ran: ++ran })) });
    await until(() => ran === 1);
    await queues.add({ name: 'strict', queue: 'housekeeping' }, { vault: 1 });
    await until(() => worker.failed.length === 1);
    await until(async () => (await jobRows()).some(({ state, attempts }) => state === 'failed' && attempts === 1));
    expect(ran).toBe(1);
  });

  test('that may not be done now has neither failed nor succeeded', async () => {
    const why = 'deleting is stopped';
    const worker = await start({ later: testJob(() => Promise.reject(new NotNow(why))) });
    await until(() => worker.done.length === 1);
    expect(worker.done[0]).toMatchObject({ name: 'later', ended: 'refused', why });
    await until(async () => (await jobRows()).some(({ state }) => state === 'completed'));
    expect(worker.failed).toEqual([]);
  });

  test('that a newer version put in is nothing here', async () => {
    const worker = await start({});
    await queues.add({ name: 'of-tomorrow', queue: 'deleting' });
    await until(async () => (await jobRows()).some(({ state }) => state === 'completed'));
    expect(worker).toMatchObject({ done: [], failed: [] });
  });

  test('is not done twice at a time in one process', async () => {
    let atOnce = 0;
    let most = 0;
    const slow = testJob(
      async () => {
        most = Math.max(most, ++atOnce);
        await sleep(200);
        atOnce--;
        return {};
      },
      { queue: 'checking' },
    );
    const worker = await start({ slow });
    for (let i = 0; i < 3; i++) await queues.add({ name: 'slow', queue: 'checking' });
    await until(async () => (await jobRows()).filter(({ state }) => state === 'completed').length === 4);
    await until(() => worker.done.length > 0);
    expect(most).toBe(1);
  });

  test('with ids: put in again while it waits or goes on it is the same job, and two go on while others wait', async () => {
    const begun: number[] = [];
    const { promise: mayEnd, resolve: end } = Promise.withResolvers<void>();
    const ids = z.strictObject({ restore: z.int().optional() }) as unknown as z.ZodType<Record<string, number>>;
    const restore = testJob(
      async (run) => {
        if (run.ids.restore === undefined) return {};
        begun.push(run.ids.restore);
        await mayEnd;
        return {};
      },
      { queue: 'restoring', ids },
    );
    let swept = 0;
    const sweep = testJob(async () => ({ swept: ++swept }), { everyMs: 150 });
    await start({ restore, sweep });
    const job = { name: 'restore', queue: 'restoring' } as const;
    for (let round = 0; round < 3; round++) for (const one of [1, 2, 3]) await queues.add(job, { restore: one });
    await until(() => begun.length === 2);
    for (const one of [1, 2, 3]) await queues.add(job, { restore: one });
    // What looks for more of them waits for none.
    const before = swept;
    await until(() => swept > before + 1);
    expect(begun).toEqual([1, 2]);
    end();
    await until(() => begun.length === 3);
    await until(async () => (await jobRows()).every(({ name, state }) => name !== 'restore' || state !== 'active'));
    // Over, it can be put in again.
    await queues.add(job, { restore: 1 });
    await until(() => begun.length === 4);
    expect(begun.toSorted()).toEqual([1, 1, 2, 3]);
  });

  test('tells how far it has come', async () => {
    const worker = await start({
      long: testJob(async ({ signal, progress }) => {
        for (let i = 1; !signal.aborted; i++) {
          progress({ objects: i });
          await sleep(10);
        }
        return {};
      }),
    });
    const progress = async () => (await queues.bullmq[0]!.getJobs(['active']))[0]?.progress as { objects?: number };
    await until(async () => ((await progress())?.objects ?? 0) > 1);
    expect(worker.failed).toEqual([]);
  });
});

test('the beat begins at once and goes on, whatever the jobs do, until the worker stops', async () => {
  let beats = 0;
  const beat = { everyMs: 50, work: async () => ++beats };
  const events = { ended: () => {}, failed: () => {}, rescheduled: () => {}, error: noErrors };
  const definitions = { long: testJob(({ signal }) => endless(signal), { queue: 'deleting' }) };
  const parts = { settings, queues, events, definitions, scheduleCheckMs: 3_600_000, context: null, beat };
  const worker = await startWorkerOf<null>(parts);
  await until(() => beats >= 3);
  await worker.stop(2_000);
  const at = beats;
  await sleep(200);
  expect(beats).toBe(at);
});

test('many finished jobs leave a bounded history', async () => {
  const worker = await start({ quick: testJob(nothing) });
  for (let i = 0; i < 130; i++) await queues.add({ name: 'quick', queue: 'housekeeping' });
  await until(async () => (await queues.states()).housekeeping.waiting === 0 && worker.done.length > 100, 30_000);
  await until(async () => (await jobRows()).filter(({ state }) => state === 'completed').length <= 100);
});

test('the state of the queues tells what waits, and for how long', async () => {
  expect((await queues.states()).deleting).toEqual({ waiting: 0, active: 0, delayed: 0, failed: 0, oldestDueMs: 0 });
  await queues.add({ name: 'a', queue: 'deleting' });
  await sleep(300);
  await queues.add({ name: 'b', queue: 'deleting' });
  await queues.schedule([{ name: 'c', queue: 'checking', everyMs: 3_600_000 }]);
  const states = await queues.states();
  expect(states.deleting).toMatchObject({ waiting: 2, active: 0, delayed: 0, failed: 0 });
  expect(states.deleting.oldestDueMs).toBeGreaterThanOrEqual(300);
  expect(states.deleting.oldestDueMs).toBeLessThan(60_000);
  expect(states.housekeeping.oldestDueMs).toBe(0);
  // Due for a while, and nobody there to see that.
  await ask(
    `UPDATE jobs.job SET state = 'delayed', added_at_ms = added_at_ms - 90000, delay_ms = 30000 WHERE name = 'c'`,
  );
  const { checking } = await queues.states();
  expect(checking.delayed).toBe(1);
  expect(checking.oldestDueMs).toBeGreaterThanOrEqual(60_000);
});

test('the queues live in a schema of their own, in sessions of their own', async () => {
  const rows = await ask(
    `SELECT count(*)::int AS n FROM pg_stat_activity WHERE application_name LIKE 'holdfast jobs%' AND datname = current_database()`,
  );
  expect(rows[0]!.n).toBeGreaterThan(0);
  expect(await ask(`SELECT nspname FROM pg_namespace WHERE nspname = 'jobs'`)).toHaveLength(1);
});

test('without their tables queues that may not make them say so', async () => {
  const bare = await testDatabase();
  try {
    await expect(openQueues({ databaseUrl: bare.connectionString, migrate: false }, () => {})).rejects.toThrow(
      'not initialized',
    );
  } finally {
    await bare.drop();
  }
});
