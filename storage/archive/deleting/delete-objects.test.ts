import { afterEach, expect, test } from '@jest/globals';
import { sha256 } from '../../../protocol/hashes.ts';
import { newArchive, type TestStorage, testStorage, upload } from '../../../tests/helpers/storage.ts';
import { hasOpenAlert } from '../../catalog/checking/alerts.ts';
import { readVaultUsage } from '../../catalog/usage.ts';
import { insertWritingObject } from '../../catalog/writing/blocks.ts';
import { FaultyStore } from '../../objects/faulty-store.ts';
import { MemoryStore } from '../../objects/memory-store.ts';
import { compareBucket } from '../checking/compare-bucket.ts';
import { type Fence, openFence } from '../checking/fence.ts';
import { objectKey } from '../writing/upload.ts';
import { deleteDeadObjects } from './delete-objects.ts';

let storage: TestStorage;
let store: FaultyStore;
let fence: Fence;
afterEach(() => storage.close());

async function start(): Promise<number> {
  store = new FaultyStore(new MemoryStore(), { random: () => 0.5, rates: {} });
  storage = await testStorage({ objects: store });
  fence = openFence(storage, { beatMs: 60_000, beatsBeforeDeleting: 1 });
  await fence.beat();
  return (await newArchive(storage)).vault;
}

const block = (seed: number): Buffer => Buffer.alloc(500, `block ${seed} `);
const run = (text: string, values: unknown[] = []): Promise<Record<string, unknown>[]> =>
  storage.database.query({ name: '', text }, values);
const keys = async (): Promise<string[]> =>
  (await storage.objects.list(`${storage.catalogId}/blocks/`, { limit: 1000 })).objects.map((object) => object.key);
const rows = async (): Promise<number> => (await run('SELECT object_id FROM objects')).length;

/** As reclaim leaves it: no block row, dead, due. */
const kill = async (vault: number): Promise<void> => {
  await run('DELETE FROM blocks WHERE vault_id = $1', [vault]);
  await run("UPDATE objects SET state = 'dead', live_bytes = 0, next_at = now() - interval '1 s' WHERE vault_id = $1", [
    vault,
  ]);
};

test('bytes go, then the row, and the vault uses less', async () => {
  const vault = await start();
  await upload(storage, vault, [block(1), block(2)]);
  await upload(storage, vault, [block(3)]);
  expect((await readVaultUsage(storage.database, vault)).objectBytes).toBeGreaterThan(1_500);
  expect(await deleteDeadObjects(storage, fence)).toEqual({ deleted: 0, failed: 0, swept: 0 });
  await kill(vault);
  expect(await deleteDeadObjects(storage, fence, { batchMax: 1 })).toEqual({ deleted: 2, failed: 0, swept: 0 });
  expect([await keys(), await rows()]).toEqual([[], 0]);
  expect((await readVaultUsage(storage.database, vault)).objectBytes).toBe(0);
});

test('a dead object whose time has not come stays, though others of its vault go', async () => {
  const vault = await start();
  await upload(storage, vault, [block(1)]);
  await kill(vault);
  await run("UPDATE objects SET next_at = now() + interval '1 min'");
  await upload(storage, vault, [block(2)]);
  await run('DELETE FROM blocks');
  await run("UPDATE objects SET state = 'dead', next_at = now() - interval '1 s' WHERE state = 'live'");
  expect(await deleteDeadObjects(storage, fence)).toMatchObject({ deleted: 1 });
  expect([(await keys()).length, await rows()]).toEqual([1, 1]);
  expect(await deleteDeadObjects(storage, fence)).toMatchObject({ deleted: 0 });
});

test('without the fence nothing is deleted', async () => {
  const vault = await start();
  await upload(storage, vault, [block(1)]);
  await kill(vault);
  const other = openFence(storage, { beatMs: 60_000, beatsBeforeDeleting: 3 });
  await expect(deleteDeadObjects(storage, other)).rejects.toMatchObject({
    name: 'DeletingStopped',
    reason: 'starting',
  });
  expect([(await keys()).length, await rows()]).toEqual([1, 1]);
  // No lease is ended either: after a restore these uploads are for adopt to finish.
  await run("UPDATE objects SET state = 'writing'");
  await expect(deleteDeadObjects(storage, other)).rejects.toMatchObject({ name: 'DeletingStopped' });
  expect(await run('SELECT state FROM objects')).toEqual([{ state: 'writing' }]);
  expect(await deleteDeadObjects(storage, fence)).toMatchObject({ deleted: 1, swept: 1 });
});

test('a fence lost on the way stops the next batch', async () => {
  const vault = await start();
  for (let i = 0; i < 4; i++) await upload(storage, vault, [block(i)]);
  await kill(vault);
  const remove = storage.objects.delete.bind(storage.objects);
  storage.objects.delete = async (key) => {
    await remove(key);
    await run("UPDATE fence SET nonce = 'restored', previous = 'older'");
  };
  await expect(deleteDeadObjects(storage, fence, { batchMax: 2 })).rejects.toMatchObject({ reason: 'foreign_nonce' });
  // Rows of the older state may have the same ids and other keys: they stay, and deleting twice is deleting once.
  expect([(await keys()).length, await rows()]).toEqual([2, 4]);
});

test('what an older state of the catalog calls dead or lapsed is not taken, though the fence is asked in the newer one', async () => {
  const vault = await start();
  await run('CREATE TABLE fence_of_older AS TABLE fence');
  await run("UPDATE fence SET renewed_at = now() - interval '50 s'");
  await fence.beat();
  await run('CREATE TABLE fence_of_newer AS TABLE fence');
  const reach = (state: 'older' | 'newer'): Promise<unknown> =>
    run(`UPDATE fence SET (nonce, previous, renewed_at) = (SELECT nonce, previous, renewed_at FROM fence_of_${state})`);
  // Two servers that both answer, and a pool with connections to both.
  const elsewhere: Fence = {
    beat: () => fence.beat(),
    assertHeld: async () => {
      await reach('newer');
      await fence.assertHeld();
      await reach('older');
    },
    assertStillHeld: (read) => fence.assertStillHeld(read),
    isOurBucket: () => fence.isOurBucket(),
    state: () => fence.state(),
  };
  for (const state of ['writing', 'dead']) {
    await upload(storage, vault, [block(1)]);
    await kill(vault);
    await run('UPDATE objects SET state = $1', [state]);
    await expect(deleteDeadObjects(storage, elsewhere)).rejects.toMatchObject({ reason: 'foreign_nonce' });
    expect([(await keys()).length, await run('SELECT state FROM objects')]).toEqual([1, [{ state }]]);
    await reach('newer');
    expect(await deleteDeadObjects(storage, fence)).toMatchObject({ deleted: 1 });
  }
});

test('what the store does not delete keeps its row and is tried again; what it deleted without saying so too', async () => {
  const vault = await start();
  await upload(storage, vault, [block(1)]);
  await kill(vault);
  // Only deletes can fail so, and the fence is read before.
  for (const rates of [{ late: 1 }, { errorAfter: 1 }]) {
    store.setRates(rates);
    expect(await deleteDeadObjects(storage, fence)).toEqual({ deleted: 0, failed: 1, swept: 0 });
    expect(await rows()).toBe(1);
    await run("UPDATE objects SET next_at = now() - interval '1 s'");
  }
  store.setRates({});
  await store.settle();
  expect(await deleteDeadObjects(storage, fence)).toEqual({ deleted: 1, failed: 0, swept: 0 });
  expect([await keys(), await rows()]).toEqual([[], 0]);
});

test('a dead object that a block row names keeps its bytes, and that is told', async () => {
  const vault = await start();
  await upload(storage, vault, [block(1)]);
  await run("UPDATE objects SET state = 'dead', next_at = now() - interval '1 s'");
  expect(await deleteDeadObjects(storage, fence)).toMatchObject({ deleted: 0, failed: 1 });
  expect([(await keys()).length, await rows()]).toEqual([1, 1]);
  expect(await hasOpenAlert(storage.database, { vault, kind: 'refs_drift' })).toBe(true);
});

test('a row that leads to another prefix is removed, and the object there is not touched', async () => {
  const vault = await start();
  const bytes = Buffer.from('x');
  await storage.objects.put('another/blocks/1/a.b', { length: 1, chunks: [bytes] });
  await run(
    "INSERT INTO objects (vault_id, key, state, size_bytes, live_bytes, next_at) VALUES ($1, 'another/blocks/1/a.b', 'dead', 1, 0, now() - interval '1 s')",
    [vault],
  );
  expect(await deleteDeadObjects(storage, fence)).toMatchObject({ deleted: 1 });
  expect(await rows()).toBe(0);
  expect(await storage.objects.head('another/blocks/1/a.b')).not.toBeNull();
});

test('a lease that lapsed ends: the object goes, and the upload that comes too late starts again', async () => {
  const vault = await start();
  storage.settings.uploadLeaseMs = -1_000;
  const key = objectKey(storage.catalogId, vault, Buffer.from('a'));
  await insertWritingObject(storage.database, {
    vault,
    key,
    sizeBytes: 3,
    leaseMs: -1_000,
    catalogId: storage.catalogId,
  });
  await storage.objects.put(key, { length: 3, chunks: [Buffer.from('abc')] });
  expect(await deleteDeadObjects(storage, fence)).toEqual({ deleted: 1, failed: 0, swept: 1 });
  expect([await keys(), await rows()]).toEqual([[], 0]);

  // The PUT of an upload is slower than its lease; a sweeper comes by; the bytes are stored a second time.
  const put = storage.objects.put.bind(storage.objects);
  let puts = 0;
  storage.objects.put = async (...args) => {
    await put(...args);
    if (puts++ === 0) await deleteDeadObjects(storage, fence);
  };
  expect(await upload(storage, vault, [block(7)])).toMatchObject({ stored: 1 });
  expect(puts).toBe(2);
  const [object] = await run("SELECT key FROM objects WHERE state = 'live'");
  expect(await keys()).toEqual([object!.key]);
  expect(await run('SELECT hash FROM blocks')).toEqual([{ hash: sha256(block(7)) }]);
});

test('a lease that has not lapsed is left alone, though another of its vault has', async () => {
  const vault = await start();
  for (const leaseMs of [60_000, -1_000]) {
    const key = objectKey(storage.catalogId, vault, Buffer.from(`${leaseMs}`));
    await insertWritingObject(storage.database, { vault, key, sizeBytes: 3, leaseMs, catalogId: storage.catalogId });
  }
  expect(await deleteDeadObjects(storage, fence)).toEqual({ deleted: 1, failed: 0, swept: 1 });
  expect(await run('SELECT state FROM objects')).toEqual([{ state: 'writing' }]);
});

test('a PUT that lands after its DELETE is found as an orphan', async () => {
  const vault = await start();
  await upload(storage, vault, [block(1)]);
  const [key] = await keys();
  await kill(vault);
  await deleteDeadObjects(storage, fence);
  await storage.objects.put(key!, { length: 3, chunks: [Buffer.from('abc')] });
  expect(await compareBucket(storage, fence)).toMatchObject({ orphansDeleted: 1 });
  expect(await keys()).toEqual([]);
});

test('two deleters share the work', async () => {
  const vault = await start();
  for (let i = 0; i < 20; i++) await upload(storage, vault, [block(i)]);
  await kill(vault);
  const both = await Promise.all([1, 2].map(() => deleteDeadObjects(storage, fence, { batchMax: 3 })));
  expect(both[0]!.deleted + both[1]!.deleted).toBe(20);
  expect([await keys(), await rows()]).toEqual([[], 0]);
});
