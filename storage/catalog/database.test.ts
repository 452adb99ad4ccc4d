import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { sha256 } from '../../protocol/hashes.ts';
import { type TestDatabase, testDatabase } from '../../tests/helpers/postgres.ts';
import { commit, newArchive, newRun, noCounts, testStorage, upload, version } from '../../tests/helpers/storage.ts';
import { fetchBlocks } from '../archive/reading/read-blocks.ts';
import { readHistory, readTree, streamVersions } from '../archive/reading/read-tree.ts';
import { claimBlocks } from '../archive/writing/claim.ts';
import { abandonStaleRuns, finishRun, progressRun } from '../archive/writing/runs.ts';
import { type DatabaseSettings, databaseDefaults, openDatabase } from './database.ts';

let postgres: TestDatabase;
beforeAll(async () => {
  postgres = await testDatabase();
});
afterAll(() => postgres.drop());

async function withDatabase<T>(
  settings: Partial<DatabaseSettings>,
  work: (database: ReturnType<typeof openDatabase>) => Promise<T>,
): Promise<T> {
  const database = openDatabase({ ...databaseDefaults, connectionString: postgres.connectionString, ...settings });
  try {
    return await work(database);
  } finally {
    await database.close();
  }
}

const sql = (text: string) => ({ name: '', text });

test('a statement, a lock, an idle transaction and a whole transaction all end at their bound', async () => {
  await withDatabase({ statementTimeoutMs: 200 }, async (database) => {
    await expect(database.query(sql('SELECT pg_sleep(10)'))).rejects.toMatchObject({ code: '57014' });
  });
  await withDatabase({ idleInTransactionTimeoutMs: 200 }, async (database) => {
    const idle = database.transaction(async (tx) => {
      await tx.query(sql('SELECT 1'));
      await new Promise((resolve) => setTimeout(resolve, 600));
      await tx.query(sql('SELECT 1'));
    });
    await expect(idle).rejects.toThrow(/idle-in-transaction|Connection terminated|not queryable/);
  });
  await withDatabase({ transactionTimeoutMs: 300 }, async (database) => {
    const long = database.transaction(async (tx) => {
      for (let i = 0; i < 20; i++) await tx.query(sql('SELECT pg_sleep(0.05)'));
    });
    await expect(long).rejects.toThrow(/transaction timeout|Connection terminated|not queryable/);
  });
  await withDatabase({ lockTimeoutMs: 100 }, async (database) => {
    await database.query(sql('CREATE TABLE locked (n int)'));
    await database.transaction(async (tx) => {
      await tx.query(sql('LOCK TABLE locked'));
      await expect(database.query(sql('SELECT * FROM locked'))).rejects.toMatchObject({ code: '55P03' });
    });
  });
});

test('a connection lost in the middle of a transaction is replaced, and the work repeated', async () => {
  await withDatabase({}, async (database) => {
    let attempts = 0;
    const answer = await database.transaction(async (tx) => {
      attempts++;
      const [row] = await tx.query<{ pid: number }>(sql('SELECT pg_backend_pid() AS pid'));
      if (attempts < 3) await database.query(sql(`SELECT pg_terminate_backend(${row!.pid})`));
      return (await tx.query<{ n: number }>(sql('SELECT 42 AS n')))[0]!.n;
    });
    expect([answer, attempts]).toEqual([42, 3]);
  });
});

test('an error of the caller rolls back, is not repeated, and costs no connection', async () => {
  await withDatabase({ poolMax: 1 }, async (database) => {
    await database.query(sql('CREATE TABLE kept (n int)'));
    const pid = async (): Promise<unknown> => (await database.query(sql('SELECT pg_backend_pid() AS pid')))[0];
    const before = await pid();
    let attempts = 0;
    const refused = database.transaction(async (tx) => {
      attempts++;
      await tx.query(sql('INSERT INTO kept VALUES (1)'));
      throw new Error('the caller was wrong');
    });
    await expect(refused).rejects.toThrow('the caller was wrong');
    expect([attempts, await database.query(sql('SELECT * FROM kept')), await pid()]).toEqual([1, [], before]);
  });
});

test('an integer past 2^53 is refused rather than rounded', async () => {
  await withDatabase({}, async (database) => {
    expect(await database.query(sql('SELECT 9007199254740991::bigint AS n'))).toEqual([{ n: Number.MAX_SAFE_INTEGER }]);
    await expect(database.query(sql('SELECT 9007199254740992::bigint AS n'))).rejects.toThrow(/2\^53/);
  });
});

test('every verb does with one connection: a pool of one serves all of them', async () => {
  const storage = await testStorage({ poolMax: 1 });
  try {
    const ref = await newArchive(storage);
    const run = await newRun(storage, ref);
    const block = Buffer.from('a block');
    await claimBlocks(storage, ref.vault, sha256(block));
    await upload(storage, ref.vault, [block]);
    await storage.database.query(sql('UPDATE blocks SET damaged_at = now()'));
    await upload(storage, ref.vault, [block]); // heals
    await expect(commit(storage, ref, run, [version('/a', [Buffer.from('missing')])])).rejects.toMatchObject({
      code: 'blocks_missing',
    });
    await commit(storage, ref, run, [version('/a', [block])]);
    const path = Buffer.from('/a');
    await readTree(storage, ref, { path: Buffer.from('/'), at: null, deleted: false, after: null, limit: 10 });
    await readHistory(storage, ref, { path, after: null, limit: 10 });
    // A listing that its reader does not go on with holds no connection.
    const listing = streamVersions(storage, ref, { path, at: null, seq: null, after: null, deleted: false });
    await listing.next();
    const fetching = fetchBlocks(storage, ref.vault, sha256(block));
    await fetching.next();
    await progressRun(storage, { ...ref, run }, { counts: noCounts, skipped: [] });
    await finishRun(storage, { ...ref, run }, { outcome: 'completed', reason: '', counts: noCounts, skipped: [] });
    await abandonStaleRuns(storage, { olderThanMs: 1000 });
    expect(storage.database.pool.total).toBe(1);
    await listing.return(undefined);
    await fetching.return(undefined);
  } finally {
    await storage.close();
  }
});
