import { beforeEach, expect, test } from '@jest/globals';
import { sha256 } from '../../../protocol/hashes.ts';
import {
  block,
  commit,
  newArchive,
  newRun,
  storageForEachTest,
  upload,
  version,
} from '../../../tests/helpers/storage.ts';
import { hasOpenAlert, listAlerts } from '../../catalog/checking/alerts.ts';
import { recountRefs } from '../../catalog/checking/recounting.ts';
import { readVaultUsage } from '../../catalog/usage.ts';
import type { ArchiveRef } from '../../storage.ts';
import { storeLists } from '../writing/lists.ts';
import { recount, recountDue } from './recount.ts';

const storage = storageForEachTest();
let ref: ArchiveRef;
beforeEach(async () => {
  ref = await newArchive(storage);
  const runId = await newRun(storage, ref);
  await upload(storage, ref.vault, [1, 2, 3, 4].map(block));
  const hashes = Buffer.concat([block(2), block(3), block(2)].map(sha256)); // one of them twice
  const list = { hash: sha256(hashes), blocks: hashes };
  await storeLists(storage, ref.vault, [list]);
  await commit(storage, ref, runId, [
    version('/a', [block(1), block(2), block(1)]),
    version('/b', [], { lists: list.hash }),
    version('/c', [], { lists: list.hash }),
    version('/d'),
  ]);
  await commit(storage, ref, runId, [version('/a', [block(1)])]);
});

const refs = async (): Promise<number[]> => {
  const counts: number[] = [];
  for (const each of [1, 2, 3, 4]) {
    const [row] = await storage.rows('SELECT refs FROM blocks WHERE hash = $1', [sha256(block(each))]);
    counts.push(row ? (row.refs as number) : -1);
  }
  return counts;
};
const set = (each: number, change: string): Promise<unknown> =>
  storage.rows(`UPDATE blocks SET ${change} WHERE hash = $1`, [sha256(block(each))]);
const none = { tooLow: 0, tooHigh: 0, absent: 0, liveBytes: 0, figures: 0, raised: 0, lowered: 0 };

test('what commits and lists have counted is what is counted', async () => {
  expect(await refs()).toEqual([2, 2, 1, 0]);
  expect(await recountDue(storage)).toEqual({ ...none, vaults: 1 });
  expect(await hasOpenAlert(storage.database, { vault: ref.vault, kind: 'refs_drift' })).toBe(false);
});

test('a count that is too low is raised at once, one that is too high is told, and lowered on command', async () => {
  const before = await readVaultUsage(storage.database, ref.vault);
  await set(1, 'refs = refs - 2');
  await set(2, 'refs = refs + 5');
  await set(3, 'refs = refs - 1, damaged_at = now()');
  await set(4, 'refs = refs + 1');
  expect(await recount(storage, ref.vault)).toEqual({ ...none, tooLow: 2, tooHigh: 2, raised: 2 });
  expect(await refs()).toEqual([2, 7, 1, 1]);
  const [alert] = await listAlerts(storage.database, ref.vault, { reviewed: false, limit: 10 });
  expect(alert).toMatchObject({
    kind: 'refs_drift',
    details: { found: 'recount', tooLow: 2, tooHigh: 2, examples: { blocks: { total: 4 } } },
  });

  expect(await recount(storage, ref.vault)).toEqual({ ...none, tooHigh: 2 });
  expect(await recount(storage, ref.vault, { lower: true })).toEqual({ ...none, tooHigh: 2, lowered: 2 });
  expect(await refs()).toEqual([2, 2, 1, 0]);
  expect(await recount(storage, ref.vault)).toEqual(none);
  // What fell to 0 is freed like anything else, and still claimed.
  expect(await storage.rows('SELECT hash FROM freed')).toEqual([{ hash: sha256(block(4)) }]);
  const after = await readVaultUsage(storage.database, ref.vault);
  // Raising two from 0 counted them as referenced again, and lowering one to 0 took it off.
  expect(after.referencedBytes).toBe(before.referencedBytes + 2 * 500 - 500);
});

test('lists are counted too, and so are blocks that are gone and live bytes', async () => {
  await storage.rows('UPDATE lists SET refs = refs - 1');
  expect(await recount(storage, ref.vault)).toEqual({ ...none, tooLow: 1, raised: 1 });
  await storage.rows('UPDATE lists SET refs = refs + 1');
  expect(await recount(storage, ref.vault, { lower: true })).toEqual({ ...none, tooHigh: 1, lowered: 1 });
  expect(await storage.rows('SELECT refs FROM lists')).toEqual([{ refs: 2 }]);
  await storage.rows('DELETE FROM blocks WHERE hash = $1', [sha256(block(3))]);
  await storage.rows('DELETE FROM lists');
  // The list's two names are gone with it, and two versions name a list that is not there.
  expect(await recount(storage, ref.vault)).toEqual({ ...none, absent: 1, tooHigh: 1, liveBytes: 1 });
});

test('counting while agents commit finds nothing: one statement, one snapshot', async () => {
  const committing = (async () => {
    const other = await newArchive(storage, ref.vault);
    const runId = await newRun(storage, other);
    for (let i = 0; i < 60; i++)
      await commit(storage, other, runId, [version(`/${i % 7}`, [block(1), block(1 + (i % 4))])]);
  })();
  let done = false;
  committing.finally(() => (done = true));
  let counts = 0;
  for (; !done; counts++) expect(await recount(storage, ref.vault)).toEqual(none);
  await committing;
  expect(counts).toBeGreaterThan(2);
});

test('what is planned after counting, in the same transaction too, does not learn to scan', async () => {
  const found = await storage.database.transaction(async (tx) => {
    await recountRefs(tx, ref.vault, 'blocks', { limit: 1, timeoutMs: 60_000 });
    const names = ['enable_hashjoin', 'enable_mergejoin', 'enable_seqscan'];
    const text = `SELECT ${names.map((name) => `current_setting('${name}') AS ${name}`).join(', ')}`;
    return tx.query<Record<string, string>>({ name: '', text });
  });
  expect(found).toEqual([{ enable_hashjoin: 'off', enable_mergejoin: 'off', enable_seqscan: 'off' }]);
});
