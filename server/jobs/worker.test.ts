import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import pg from 'pg';
import { type Database, databaseDefaults, openDatabase, statement } from '../../storage/catalog/database.ts';
import { createArchive, createVault } from '../../storage/catalog/vaults.ts';
import { MemoryStore } from '../../storage/objects/memory-store.ts';
import { openStorage, type Storage, storageDefaults } from '../../storage/storage.ts';
import { type TestDatabase, testDatabase } from '../../tests/helpers/postgres.ts';
import { openQueues, type QueueSettings } from './queues.ts';
import { startWorker } from './worker.ts';

let test_: TestDatabase;
let database: Database;
let storage: Storage;
let settings: QueueSettings;
const noErrors = (error: Error): never => {
  throw error;
};

beforeAll(async () => {
  test_ = await testDatabase();
  database = openDatabase({ ...databaseDefaults, connectionString: test_.connectionString });
  storage = await openStorage({ database, objects: new MemoryStore(), settings: storageDefaults });
  settings = { databaseUrl: test_.connectionString, migrate: true };
});

afterAll(async () => {
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

/** Sessions of the queue; a session that was told to end is gone a moment later. */
async function queueSessions(): Promise<number> {
  const rows = await ask(
    `SELECT count(*)::int AS n FROM pg_stat_activity WHERE datname = current_database() AND application_name <> 'holdfast' AND pid <> pg_backend_pid() AND backend_type = 'client backend'`,
  );
  return rows[0]!.n as number;
}

async function until(what: () => Promise<boolean>): Promise<void> {
  for (let i = 0; i < 200; i++) {
    if (await what()) return;
    await sleep(50);
  }
  throw new Error('it did not come to that within 10 s');
}

test('the worker runs what is scheduled, once however many schedule it, and closing leaves no session', async () => {
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
  const done: unknown[] = [];
  const queues = await openQueues(settings, noErrors);
  const events = {
    done: (job: unknown) => done.push(job),
    failed: ({ error }: { error: Error }) => noErrors(error),
    error: noErrors,
  };
  const context = { storage, runSilenceMs: 86_400_000 };
  const workers = await Promise.all([
    startWorker(settings, queues, context, events),
    startWorker(settings, queues, context, events),
  ]);
  await until(async () => done.length > 0);
  expect(await ask(`SELECT outcome FROM runs WHERE vault_id = ${stale}`)).toEqual([{ outcome: 'interrupted' }]);
  await queues.check();
  expect(done).toHaveLength(1);
  expect(await queues.counts()).toMatchObject({ active: 0, failed: 0, delayed: 1 });

  await Promise.all(workers.map((worker) => worker.stop(5_000)));
  await queues.close();
  await until(async () => (await queueSessions()) === 0);
});

test('the queue lives in a schema of its own, in sessions of its own', async () => {
  const queues = await openQueues(settings, noErrors);
  try {
    const rows = await ask(
      `SELECT count(*)::int AS n FROM pg_stat_activity WHERE application_name LIKE 'holdfast jobs%' AND datname = current_database()`,
    );
    expect(rows[0]!.n).toBeGreaterThan(0);
    expect(await ask(`SELECT nspname FROM pg_namespace WHERE nspname = 'jobs'`)).toHaveLength(1);
  } finally {
    await queues.close();
  }
});

test('many finished jobs leave a bounded history', async () => {
  const done: unknown[] = [];
  const queues = await openQueues(settings, noErrors);
  const worker = await startWorker(
    settings,
    queues,
    { storage, runSilenceMs: 86_400_000 },
    { done: (job) => done.push(job), failed: ({ error }) => noErrors(error), error: noErrors },
  );
  try {
    for (let i = 0; i < 130; i++) await queues.add('abandon-stale-runs');
    await until(async () => done.length >= 130);
    const rows = await ask(`SELECT count(*)::int AS n FROM jobs.job`);
    expect(rows[0]!.n as number).toBeLessThan(110);
  } finally {
    await worker.stop(5_000);
    await queues.close();
  }
});

test('without its tables a queue that may not make them says so', async () => {
  const bare = await testDatabase();
  try {
    await expect(openQueues({ databaseUrl: bare.connectionString, migrate: false }, () => {})).rejects.toThrow(
      'not initialized',
    );
  } finally {
    await bare.drop();
  }
});
