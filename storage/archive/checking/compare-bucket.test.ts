import { beforeEach, expect, test } from '@jest/globals';
import { sha256 } from '../../../protocol/hashes.ts';
import { block, newArchive, newHeldFence, storageForEachTest, upload } from '../../../tests/helpers/storage.ts';
import { closeAlert, hasOpenAlert, listAlerts } from '../../catalog/checking/alerts.ts';
import type { Statement, Transaction } from '../../catalog/database.ts';
import { insertWritingObject } from '../../catalog/writing/blocks.ts';
import { objectKey } from '../writing/upload.ts';
import { compareBucket, vaultOfKey } from './compare-bucket.ts';
import { type Fence, openFence } from './fence.ts';
import { fenceKey } from './fence-object.ts';

const storage = storageForEachTest();
let fence: Fence;
let vault: number;
beforeEach(async () => {
  fence = await newHeldFence(storage);
  vault = (await newArchive(storage)).vault;
});

const keys = async (): Promise<string[]> =>
  (await storage.objects.list(`${storage.catalogId}/blocks/`, { limit: 1000 })).objects.map((object) => object.key);
const put = (key: string): Promise<void> => storage.objects.put(key, { length: 1, chunks: [Buffer.from('x')] });
const freshKey = (of: number): string => objectKey(storage.catalogId, of, Buffer.from(`${Math.random()}`));
const damaged = (): Promise<unknown[]> =>
  storage.rows('SELECT hash FROM blocks WHERE damaged_at IS NOT NULL ORDER BY hash');
const none = { orphansDeleted: 0, strange: 0, missing: 0, markedDamaged: 0, stopped: 0 };

test('what has a row stays, in whatever state it is; what has none goes, of every vault, in pages of any size', async () => {
  const other = (await newArchive(storage)).vault;
  for (let i = 0; i < 3; i++) await upload(storage, vault, [block(i)]);
  await upload(storage, other, [block(1)]);
  const writing = freshKey(vault);
  await insertWritingObject(storage.database, {
    vault,
    key: writing,
    sizeBytes: 1,
    leaseMs: 60_000,
    catalogId: storage.catalogId,
  });
  await put(writing);
  await storage.rows(
    "UPDATE objects SET state = 'dead', next_at = now() + interval '1 h' WHERE vault_id = $1 AND state = 'live'",
    [other],
  );
  const before = await keys();
  expect(await compareBucket(storage, fence)).toEqual({ ...none, listed: 5 });

  for (const each of [vault, vault, other, 999_999, 999_999, 1_234_567]) await put(freshKey(each));
  const strange = [
    `${storage.catalogId}/blocks/${vault}/notes.txt`,
    `${storage.catalogId}/blocks/x`,
    `${storage.catalogId}/blocks/y/z`,
  ];
  for (const key of [...strange, `${storage.catalogId}/other/thing`]) await put(key);
  for (const pageMax of [1, 2, 1000]) {
    const found = await compareBucket(storage, fence, { pageMax });
    expect(found.orphansDeleted).toBe(pageMax === 1 ? 6 : 0);
    expect(found).toMatchObject({ missing: 0, markedDamaged: 0, strange: 1 });
  }
  expect(await keys()).toEqual([...before, ...strange].sort());
  expect(await damaged()).toEqual([]);
});

test('a key that an older state of the catalog does not know stays: it is asked for again where the fence was looked at', async () => {
  await upload(storage, vault, [block(1)]);
  const { database } = storage;
  const older = {
    ...database,
    query: <T>(statement: Statement, values?: readonly unknown[]): Promise<T[]> =>
      statement.name === 'objects.findKeys' ? Promise.resolve([]) : database.query<T>(statement, values),
  };
  expect(await compareBucket({ ...storage, database: older }, fence)).toEqual({ ...none, listed: 1 });
  expect(await keys()).toHaveLength(1);
});

test('an orphan stays when the catalog that says so is not the one the fence was looked at for', async () => {
  await put(freshKey(vault));
  const { database } = storage;
  const setBack = {
    ...database,
    transaction: async <T>(work: (tx: Transaction) => Promise<T>): Promise<T> => {
      await storage.rows("UPDATE fence SET nonce = 'of another state', previous = NULL");
      return database.transaction(work);
    },
  };
  await expect(compareBucket({ ...storage, database: setBack }, fence)).rejects.toThrow(/foreign_nonce/);
  expect(await keys()).toHaveLength(1);
});

test('an upload that begins and ends at any moment of the comparison is never an orphan', async () => {
  const list = storage.objects.list.bind(storage.objects);
  let uploads = 0;
  storage.objects.list = async (...args) => {
    if (uploads < 20) await upload(storage, vault, [block(uploads++)]);
    const page = await list(...args);
    if (uploads < 20) await upload(storage, vault, [block(uploads++)]);
    return page;
  };
  const uploading = (async () => {
    for (let i = 100; i < 130; i++) await upload(storage, vault, [block(i)]);
  })();
  for (let i = 0; i < 10; i++) expect(await compareBucket(storage, fence, { pageMax: 3 })).toMatchObject(none);
  await uploading;
  expect(uploads).toBe(20);
  expect((await keys()).length).toBe(50);
});

test('without the fence no orphan goes', async () => {
  await put(freshKey(vault));
  const other = openFence(storage, { beatMs: 60_000, beatsBeforeDeleting: 3 });
  await expect(compareBucket(storage, other)).rejects.toMatchObject({ name: 'DeletingStopped' });
  expect(await keys()).toHaveLength(1);
});

test('live rows without their object have their blocks marked, and only theirs', async () => {
  for (let i = 0; i < 3; i++) await upload(storage, vault, [block(2 * i), block(2 * i + 1)]);
  const [row] = await storage.rows('SELECT object_id, key FROM objects ORDER BY object_id LIMIT 1');
  await storage.objects.delete(row!.key as string);
  expect(await compareBucket(storage, fence, { pageMax: 1 })).toEqual({
    ...none,
    listed: 2,
    missing: 1,
    markedDamaged: 2,
  });
  const expected = [block(0), block(1)].map(sha256).sort(Buffer.compare);
  expect(await damaged()).toEqual(expected.map((hash) => ({ hash })));
  expect(await hasOpenAlert(storage.database, { vault, kind: 'damaged' })).toBe(true);
  expect(await compareBucket(storage, fence)).toMatchObject({ missing: 1, markedDamaged: 0 });
});

test('a listing that leaves an object out marks nothing: it is looked for by name', async () => {
  await upload(storage, vault, [block(1)]);
  const list = storage.objects.list.bind(storage.objects);
  storage.objects.list = async (...args) => ({ ...(await list(...args)), objects: [] });
  expect(await compareBucket(storage, fence)).toEqual({ ...none, listed: 0 });
  expect(await damaged()).toEqual([]);
});

test('in a bucket that is not ours nothing is missing', async () => {
  await upload(storage, vault, [block(1)]);
  for (const key of [...(await keys()), fenceKey(storage.catalogId)]) await storage.objects.delete(key);
  await storage.rows("UPDATE fence SET previous = 'before'"); // it was renewed once, as every fence older than a minute
  expect(await compareBucket(storage, fence)).toMatchObject({ missing: 0, markedDamaged: 0 });
  expect(await damaged()).toEqual([]);
});

test('when very much is missing a person is asked first', async () => {
  for (let i = 0; i < 9; i++) await upload(storage, vault, [block(i)]);
  for (const key of await keys()) await storage.objects.delete(key);
  expect(await compareBucket(storage, fence)).toMatchObject({ missing: 9, markedDamaged: 0, stopped: 1 });
  expect(await damaged()).toEqual([]);
  const [alert] = await listAlerts(storage.database, vault, { reviewed: false, limit: 10 });
  expect(alert).toMatchObject({ kind: 'verify_suspicious', details: { missingObjects: 9, objects: 9 } });
  await closeAlert(storage.database, vault, alert!.alert, 'somebody');
  expect(await compareBucket(storage, fence)).toMatchObject({ missing: 9, markedDamaged: 9, stopped: 0 });
});

test.each([
  [`c/blocks/12/${'a'.repeat(64)}.${'0'.repeat(16)}`, 12],
  [`c/blocks/012/${'a'.repeat(64)}.${'0'.repeat(16)}`, null],
  [`c/blocks/12/${'a'.repeat(63)}.${'0'.repeat(16)}`, null],
  [`c/blocks/12/${'a'.repeat(64)}.${'0'.repeat(17)}`, null],
  [`c/blocks/12/x/${'a'.repeat(64)}.${'0'.repeat(16)}`, null],
  [`d/blocks/12/${'a'.repeat(64)}.${'0'.repeat(16)}`, null],
])('%s is of vault %p', (key, of) => {
  expect(vaultOfKey('c', key)).toBe(of);
});
