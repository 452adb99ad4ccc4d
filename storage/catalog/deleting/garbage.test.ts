import { expect, test } from '@jest/globals';
import {
  commit,
  deletion,
  newArchive,
  newRun,
  pruneAtOnce,
  storageForFile,
  upload,
  version,
} from '../../../tests/helpers/storage.ts';
import { reclaimDue } from '../../archive/deleting/reclaim.ts';
import { pruneArchive } from '../../archive/retention/prune.ts';
import { declaredStatements } from '../database.ts';
import { foldVaultUsage } from '../usage.ts';
import { readFreeBytes, readOverdueFreed, readOverdueObjects } from './garbage.ts';

const storage = storageForFile({ settings: { claimWindowMs: 0, freedMarginMs: 0, objectDeleteDelayMs: 0 } });

const block = (seed: string): Buffer => Buffer.alloc(3_000, seed);
/** What the store has that blocks do not use, in objects that are at least half live: asked of every row. */
async function freeInFullObjects(): Promise<number> {
  const [row] = await storage.rows(
    `SELECT coalesce(sum(size_bytes - live_bytes), 0)::bigint AS bytes FROM objects WHERE state = 'live' AND NOT rewrite AND live_bytes * 2 >= size_bytes`,
  );
  return row!.bytes as number;
}

test('a catalog without garbage has none', async () => {
  expect(await readOverdueFreed(storage.database)).toEqual({ rows: 0, bytes: 0, oldestSeconds: 0 });
  expect(await readOverdueObjects(storage.database)).toEqual({ rows: 0, bytes: 0, oldestSeconds: 0 });
  expect(await readFreeBytes(storage.database)).toEqual({ bytes: 0, sparseBytes: 0, sparseObjects: 0 });
});

test('what is late is counted from when it was due, over all vaults, and goes with the work', async () => {
  const blocks = ['a', 'b', 'c', 'd'].map(block);
  for (const vaultOf of ['first', 'second']) {
    const ref = await newArchive(storage);
    const runId = await newRun(storage, ref);
    await upload(storage, ref.vault, blocks);
    await upload(storage, ref.vault, [block(vaultOf), block('kept')]);
    await commit(storage, ref, runId, [version('/gone', blocks.slice(1)), version('/half', [block(vaultOf)])]);
    await commit(storage, ref, runId, [version('/kept', [blocks[0]!, block('kept')])]);
    await commit(storage, ref, runId, [deletion('/gone'), deletion('/half')]);
    await foldVaultUsage(storage.database, ref.vault);
    await pruneArchive(storage, ref, pruneAtOnce);
  }
  // An upload under way: its bytes are nobody's free ones.
  const [other] = await storage.rows('SELECT max(vault_id) AS vault FROM vaults');
  await storage.rows(
    `WITH o AS (INSERT INTO objects (vault_id, key, state, size_bytes, live_bytes, next_at)
                VALUES (${other!.vault}, 'k', 'writing', 777, 0, now() + interval '1 hour') RETURNING size_bytes)
     INSERT INTO usage_deltas (vault_id, object_bytes) SELECT ${other!.vault}, size_bytes FROM o`,
  );

  await storage.rows(`UPDATE freed SET check_after = now() - interval '2 hours'`);
  const freed = await readOverdueFreed(storage.database);
  expect(freed).toMatchObject({ rows: 8 });
  expect(Math.round(freed.oldestSeconds / 60)).toBe(120);

  await reclaimDue(storage);
  expect((await readOverdueFreed(storage.database)).rows).toBe(0);
  const free = await readFreeBytes(storage.database);
  // Of each vault one object is a quarter live, the other just under half, for the footer.
  expect(free.sparseObjects).toBe(4);
  expect(free.sparseBytes).toBeGreaterThan(2 * 4 * 3_000);
  expect(free.bytes).toBe(await freeInFullObjects());

  // Full ones, of which a little is free.
  await storage.rows(
    `UPDATE objects SET live_bytes = size_bytes - 1 WHERE object_id IN (SELECT min(object_id) FROM objects WHERE state = 'live')`,
  );
  expect((await readFreeBytes(storage.database)).sparseObjects).toBe(3);

  await storage.rows(`UPDATE objects SET state = 'dead', next_at = now() - interval '3 days' WHERE state = 'live'`);
  const dead = await readOverdueObjects(storage.database);
  expect(dead.rows).toBe(4);
  expect(Math.round(dead.oldestSeconds / 3_600)).toBe(72);
  const [sizes] = await storage.rows(`SELECT sum(size_bytes)::bigint AS bytes FROM objects WHERE state = 'dead'`);
  expect(dead.bytes).toBe(sizes!.bytes);
});

test('the free bytes of objects that are kept are those of every row, whatever else is on its way', async () => {
  const ref = await newArchive(storage);
  const runId = await newRun(storage, ref);
  const blocks = ['e', 'f', 'g', 'h', 'i'].map(block);
  await upload(storage, ref.vault, blocks);
  await commit(storage, ref, runId, [version('/most', blocks.slice(1)), version('/one', [blocks[0]!])]);
  await commit(storage, ref, runId, [deletion('/one')]);
  await pruneArchive(storage, ref, pruneAtOnce);
  const before = await readFreeBytes(storage.database);
  await reclaimDue(storage);
  const after = await readFreeBytes(storage.database);
  expect(after.bytes - before.bytes).toBe(3_000);
});

test.each(['freed.overdue', 'freedLists.overdue', 'objects.overdue', 'objects.freeBytes'])(
  '%s reads along indexes, also when there is much that is not late',
  async (name) => {
    await storage.rows(`INSERT INTO objects (vault_id, key, state, size_bytes, live_bytes)
               SELECT v, v || name || n, 'live', 100, 100 FROM generate_series(1, 20) v, generate_series(1, 200) n, (SELECT '${name}' AS name) x`);
    await storage.rows(
      `INSERT INTO freed SELECT v, sha256((v || '${name}' || n)::bytea), now() + interval '1 hour' FROM generate_series(1, 20) v, generate_series(1, 50) n`,
    );
    await storage.rows('ANALYZE objects, freed');
    const { text } = declaredStatements().find((statement) => statement.name === name)!;
    const plan = await storage.rows(`EXPLAIN (GENERIC_PLAN) ${text}`);
    const lines = plan.map((line) => line['QUERY PLAN'] as string);
    const scans = lines.filter((line) => /Scan.* on (freed|freed_lists|objects|vault_usage|usage_deltas)\b/.test(line));
    expect(scans.length).toBeGreaterThan(1);
    expect(scans.filter((line) => !/(Index (Only )?|Bitmap Heap )Scan/.test(line))).toEqual([]);
  },
);
