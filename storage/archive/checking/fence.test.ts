import { afterEach, describe, expect, test } from '@jest/globals';
import { type TestStorage, testStorage } from '../../../tests/helpers/storage.ts';
import { hasOpenAlert } from '../../catalog/checking/alerts.ts';
import { readFence } from '../../catalog/checking/fence.ts';
import { FaultyStore } from '../../objects/faulty-store.ts';
import { MemoryStore } from '../../objects/memory-store.ts';
import type { ObjectStore } from '../../objects/object-store.ts';
import { openStorage, type Storage } from '../../storage.ts';
import { ClockWatch } from './clock-watch.ts';
import { compareNonces, type Fence, openFence } from './fence.ts';
import { contestedKey, fenceKey, putNonce, readBucketSide } from './fence-object.ts';

const MINUTE = 60_000;
const opened: TestStorage[] = [];
afterEach(async () => {
  for (const storage of opened.splice(0)) await storage.close();
});

async function newStorage(objects: ObjectStore = new MemoryStore()): Promise<TestStorage> {
  const storage = await testStorage({ objects });
  opened.push(storage);
  return storage;
}

const run = (storage: Storage, text: string, values: unknown[] = []): Promise<unknown[]> =>
  storage.database.query({ name: '', text }, values);

/** Another database with the same name and the same fence row, on the same bucket: a copy, or a restored backup. */
async function copyOf(storage: Storage): Promise<Storage> {
  const copy = await newStorage(storage.objects);
  const { nonce, previous, renewedAt } = await readFence(storage.database);
  await run(copy, 'UPDATE catalog SET catalog_id = $1::uuid', [storage.catalogId]);
  const values = [nonce, previous.join(' ') || null, renewedAt];
  await run(copy, 'UPDATE fence SET nonce = $1, previous = $2, renewed_at = $3', values);
  return openStorage({ database: copy.database, objects: copy.objects, settings: copy.settings });
}

const open = (storage: Storage, options: Partial<Parameters<typeof openFence>[1]> = {}): Fence =>
  openFence(storage, { beatMs: MINUTE, beatsBeforeDeleting: 3, ...options });

async function beatUntilHeld(fence: Fence): Promise<void> {
  for (let i = 0; i < 3; i++) await fence.beat();
  expect(fence.state()).toMatchObject({ held: true, reason: null });
  await fence.assertHeld();
}

const age = (storage: Storage, ms: number): Promise<unknown[]> =>
  run(storage, "UPDATE fence SET renewed_at = now() - $1 * interval '1 ms'", [ms]);

test.each([
  [null, [], null, 'new'],
  [null, [], 'x', 'foreign'],
  ['a', [], 'a', 'agree'],
  ['a', [], null, 'behind'],
  ['b', ['a'], null, 'foreign'],
  ['c', ['b', 'a'], 'b', 'behind'],
  ['c', ['b', 'a'], 'a', 'behind'],
  ['c', ['b', 'a'], 'x', 'foreign'],
  ['c', ['b', 'a'], '', 'foreign'],
])('a row with %p after %p and an object with %p: %s', (nonce, previous, inBucket, verdict) => {
  expect(compareNonces({ nonce, previous }, inBucket)).toBe(verdict);
});

describe('work that looks while a beat has written its row and not yet its object', () => {
  async function inBetween(): Promise<{
    fence: Fence;
    putNow: () => void;
    beaten: Promise<unknown>;
    storage: TestStorage;
  }> {
    const objects = new MemoryStore();
    const storage = await newStorage(objects);
    const fence = open(storage);
    await beatUntilHeld(fence);
    const { promise: mayPut, resolve: putNow } = Promise.withResolvers<void>();
    const put = objects.put.bind(objects);
    objects.put = (...args) => mayPut.then(() => put(...args));
    await age(storage, MINUTE);
    const { nonce } = await readFence(storage.database);
    const beaten = fence.beat();
    while ((await readFence(storage.database)).nonce === nonce);
    return { fence, putNow, beaten, storage };
  }

  test('waits for it, and is not stopped', async () => {
    const { fence, putNow, beaten } = await inBetween();
    setTimeout(putNow, 250);
    await fence.assertHeld();
    await beaten;
  });

  test('for a bounded time', async () => {
    const { putNow, beaten, storage } = await inBetween();
    const pauses: number[] = [];
    const other = open(storage, { beatsBeforeDeleting: 0, pause: async (ms) => pauses.push(ms) });
    await expect(other.assertHeld()).rejects.toMatchObject({ reason: 'stale' });
    expect(pauses).toEqual(new Array(20).fill(100));
    putNow();
    await beaten;
  });
});

describe('a catalog alone with its bucket', () => {
  test('holds the fence after three beats, and not before', async () => {
    const storage = await newStorage();
    const fence = open(storage);
    await expect(fence.assertHeld()).rejects.toMatchObject({ name: 'DeletingStopped' });
    for (const beats of [1, 2]) {
      expect(await fence.beat()).toMatchObject({ held: false, reason: 'starting', beats });
      await expect(fence.assertHeld()).rejects.toMatchObject({ reason: 'starting' });
    }
    expect(await fence.beat()).toEqual({ held: true, reason: null, detail: '', beats: 3 });
    await fence.assertHeld();
    expect(await hasOpenAlert(storage.database, { vault: 0, kind: 'deleting_stopped' })).toBe(false);
  });

  test('writes a nonce in its first beat, then only when it is due', async () => {
    const storage = await newStorage();
    await open(storage).beat();
    const first = await readFence(storage.database);
    const fence = open(storage);
    await fence.beat();
    const second = await readFence(storage.database);
    expect(second.nonce).not.toBe(first.nonce);
    expect(second.previous).toEqual([first.nonce]);
    await fence.beat();
    expect((await readFence(storage.database)).nonce).toBe(second.nonce);
    await age(storage, 50_000);
    await fence.beat();
    const third = await readFence(storage.database);
    expect(third.previous).toEqual([second.nonce, first.nonce]);
    expect((await readBucketSide(storage)).nonce).toBe(third.nonce);
  });

  test('remembers no more than 32 nonces', async () => {
    const storage = await newStorage();
    for (let i = 0; i < 35; i++) await open(storage).beat();
    expect((await readFence(storage.database)).previous).toHaveLength(32);
  });

  test('many workers beat at the same time and agree', async () => {
    const storage = await newStorage();
    const fences = Array.from({ length: 5 }, () => open(storage));
    for (let round = 0; round < 4; round++) {
      await age(storage, 50_000);
      await Promise.all(fences.map((fence) => fence.beat()));
    }
    // A PUT that another's overtook makes a beat find the object behind, which does not count; the next one puts it right.
    for (const fence of fences) for (let beats = 0; beats < 3; beats++) await fence.beat();
    for (const fence of fences) await fence.assertHeld();
    expect((await readBucketSide(storage)).mark).toBeNull();
  });

  test('a worker that reads the row before another renews it, and the object after, takes neither for foreign', async () => {
    const storage = await newStorage();
    const fence = open(storage);
    await beatUntilHeld(fence);
    const other = open(storage);
    const get = storage.objects.get.bind(storage.objects);
    for (const look of [() => fence.beat(), () => fence.assertHeld()]) {
      storage.objects.get = async (...args) => {
        storage.objects.get = get;
        await age(storage, 50_000);
        await other.beat();
        return get(...args);
      };
      await look();
      expect(fence.state()).toMatchObject({ held: true });
    }
    expect((await readBucketSide(storage)).mark).toBeNull();
  });

  test('a PUT that did not arrive is made up for, and one that arrives late is none of another catalog', async () => {
    const storage = await newStorage();
    const fence = open(storage);
    await beatUntilHeld(fence);
    const { nonce, previous } = await readFence(storage.database);
    for (const late of [previous.at(-1) ?? nonce!, nonce!]) await putNonce(storage, late, new Date());
    await age(storage, 50_000);
    await fence.beat();
    await putNonce(storage, nonce!, new Date()); // two renewals later
    await age(storage, 50_000);
    await fence.beat();
    await putNonce(storage, nonce!, new Date());
    await expect(fence.assertHeld()).rejects.toMatchObject({ reason: 'stale' }); // until the next beat
    expect(await fence.beat()).toMatchObject({ held: true });
    expect((await readBucketSide(storage)).mark).toBeNull();
  });

  test('crashed between its row and its object, at its very first beat, it goes on', async () => {
    const objects = new FaultyStore(new MemoryStore(), { random: () => 0.5, rates: {} });
    const storage = await newStorage(objects);
    await run(storage, "UPDATE fence SET nonce = 'n', renewed_at = now()");
    const fence = open(storage);
    await beatUntilHeld(fence);
    expect((await readBucketSide(storage)).mark).toBeNull();
  });

  test('is stopped while the bucket cannot be asked, and goes on by itself', async () => {
    const objects = new FaultyStore(new MemoryStore(), { random: () => 0.5, rates: {} });
    const storage = await newStorage(objects);
    const fence = open(storage);
    await beatUntilHeld(fence);
    objects.setRates({ errorBefore: 1 });
    await expect(fence.assertHeld()).rejects.toMatchObject({ reason: 'bucket_unreachable' });
    for (let i = 0; i < 3; i++) expect(await fence.beat()).toMatchObject({ held: false, reason: 'bucket_unreachable' });
    expect(await hasOpenAlert(storage.database, { vault: 0, kind: 'deleting_stopped' })).toBe(true);
    objects.setRates({});
    expect(await fence.beat()).toMatchObject({ held: true });
    expect(await hasOpenAlert(storage.database, { vault: 0, kind: 'deleting_stopped' })).toBe(false);
  });

  test('is stopped when nobody has renewed the fence for two beats', async () => {
    const storage = await newStorage();
    const fence = open(storage);
    await beatUntilHeld(fence);
    await age(storage, 2 * MINUTE - 5_000);
    await fence.assertHeld();
    await age(storage, 2 * MINUTE);
    await expect(fence.assertHeld()).rejects.toMatchObject({ reason: 'stale' });
    expect(await fence.beat()).toMatchObject({ held: true });
  });

  test('lets a transaction delete that reads the nonce of the last look, or one that has replaced it, and no other', async () => {
    const storage = await newStorage();
    const fence = open(storage);
    const rows = [await readFence(storage.database)];
    for (let i = 0; i < 5; i++) {
      await age(storage, 50_000);
      await fence.beat();
      rows.push(await readFence(storage.database));
      if (i === 2) await fence.assertHeld();
      if (i < 2) expect(() => fence.assertStillHeld(rows.at(-1)!)).toThrow('foreign_nonce'); // nobody has looked
    }
    const passes = rows.map((row) => {
      try {
        fence.assertStillHeld(row);
        return true;
      } catch (error) {
        expect(error).toMatchObject({ name: 'DeletingStopped', reason: 'foreign_nonce' });
        return false;
      }
    });
    expect(passes).toEqual([false, false, false, true, true, true]);
    expect(() => fence.assertStillHeld({ ...rows[5]!, previous: [] })).toThrow('older state'); // after "adopt"
  });

  test('is stopped when the fence object is gone, for good', async () => {
    const storage = await newStorage();
    const fence = open(storage);
    await beatUntilHeld(fence);
    await age(storage, 50_000);
    await fence.beat();
    await storage.objects.delete(fenceKey(storage.catalogId));
    await expect(fence.assertHeld()).rejects.toMatchObject({ reason: 'foreign_nonce' });
    for (let i = 0; i < 4; i++) expect(await fence.beat()).toMatchObject({ held: false });
    expect(await storage.objects.head(fenceKey(storage.catalogId))).toBeNull();
  });

  test('a fence object that nobody can read is foreign', async () => {
    const storage = await newStorage();
    const fence = open(storage);
    await beatUntilHeld(fence);
    for (const text of ['', 'null', '{', JSON.stringify({ catalogId: 'other', nonce: 'x' }), 'x'.repeat(10_000)]) {
      const bytes = Buffer.from(text);
      await storage.objects.put(fenceKey(storage.catalogId), { length: bytes.byteLength, chunks: [bytes] });
      await expect(fence.assertHeld()).rejects.toMatchObject({ reason: 'foreign_nonce' });
    }
  });
});

describe('two catalogs on one bucket', () => {
  test('a catalog restored from an older backup deletes nothing, says why, and stops the other one', async () => {
    const storage = await newStorage();
    const fence = open(storage);
    await beatUntilHeld(fence);
    const restored = await copyOf(storage);
    await age(storage, 50_000);
    await fence.beat();
    await fence.assertHeld();

    const wrong = open(restored);
    expect(await wrong.beat()).toMatchObject({ held: false, reason: 'foreign_nonce', beats: 0 });
    expect(wrong.state().detail).toContain('adopt');
    expect(await hasOpenAlert(restored.database, { vault: 0, kind: 'deleting_stopped' })).toBe(true);
    expect(await storage.objects.head(contestedKey(storage.catalogId))).not.toBeNull();
    for (const each of [fence, wrong])
      await expect(each.assertHeld()).rejects.toMatchObject({ name: 'DeletingStopped' });
    expect(await fence.beat()).toMatchObject({ held: false, reason: 'contested', beats: 0 });
    // Neither renews while the mark is there.
    const { nonce } = await readBucketSide(storage);
    await age(storage, 50_000);
    for (let i = 0; i < 5; i++) for (const each of [fence, wrong]) await each.beat();
    expect((await readBucketSide(storage)).nonce).toBe(nonce);
    expect(fence.state().held || wrong.state().held).toBe(false);
  });

  test('a copy made within the minute is seen before its third beat, and both stop', async () => {
    const storage = await newStorage();
    const fence = open(storage);
    await beatUntilHeld(fence);
    const copy = open(await copyOf(storage));
    expect(await copy.beat()).toMatchObject({ held: false, reason: 'starting', beats: 1 }); // it agrees, and has written
    await expect(fence.assertHeld()).rejects.toMatchObject({ reason: 'foreign_nonce' });
    expect(await fence.beat()).toMatchObject({ reason: 'foreign_nonce' });
    for (let i = 0; i < 5; i++)
      for (const each of [copy, fence]) {
        expect(await each.beat()).toMatchObject({ held: false });
        await expect(each.assertHeld()).rejects.toMatchObject({ name: 'DeletingStopped' });
      }
  });

  test('a new catalog of the same name meets the old one in the bucket', async () => {
    const storage = await newStorage();
    await beatUntilHeld(open(storage));
    const fresh = await newStorage(storage.objects);
    await run(fresh, 'UPDATE catalog SET catalog_id = $1::uuid', [storage.catalogId]);
    const reopened = await openStorage({ database: fresh.database, objects: fresh.objects, settings: fresh.settings });
    expect(await open(reopened).beat()).toMatchObject({ reason: 'foreign_nonce' });
  });

  test('catalogs of different names do not meet', async () => {
    const storage = await newStorage();
    await beatUntilHeld(open(storage));
    const other = await newStorage(storage.objects);
    await run(other, 'UPDATE catalog SET catalog_id = gen_random_uuid()'); // databases of tests are copies of one
    const { database, objects, settings } = other;
    await beatUntilHeld(open(await openStorage({ database, objects, settings })));
  });

  test('a process whose catalog was given another name stops, and leaves no mark under the old one', async () => {
    const storage = await newStorage();
    const fence = open(storage);
    await beatUntilHeld(fence);
    await run(storage, 'UPDATE catalog SET catalog_id = gen_random_uuid()');
    await run(storage, "UPDATE fence SET nonce = 'other'");
    expect(await fence.beat()).toMatchObject({ held: false, reason: 'moved' });
    await storage.objects.delete(fenceKey(storage.catalogId));
    await run(storage, 'UPDATE fence SET previous = NULL');
    expect(await fence.beat()).toMatchObject({ held: false, reason: 'moved' });
    const { nonce, mark } = await readBucketSide(storage);
    expect([nonce, mark]).toEqual([null, null]);
  });
});

describe('clocks', () => {
  test('when the database jumps ahead of the monotonic clock, deleting stops, also between two beats, and stays stopped', async () => {
    const storage = await newStorage();
    let behindMs = 0;
    const fence = open(storage, { monotonicMs: () => performance.now() - behindMs });
    await beatUntilHeld(fence);
    behindMs = 4 * MINUTE;
    await fence.assertHeld();
    const row = await readFence(storage.database);
    fence.assertStillHeld(row);
    expect(() => fence.assertStillHeld({ ...row, now: new Date(row.now.getTime() + 2 * MINUTE) })).toThrow('clock');
    behindMs = 6 * MINUTE;
    await expect(fence.assertHeld()).rejects.toMatchObject({ reason: 'clock' });
    for (let i = 0; i < 4; i++) expect(await fence.beat()).toMatchObject({ held: false, reason: 'clock' });
    expect(await hasOpenAlert(storage.database, { vault: 0, kind: 'deleting_stopped' })).toBe(true);
    behindMs = 0; // it jumped back
    expect(await fence.beat()).toMatchObject({ held: true });
  });

  test.each([
    [-4, true],
    [-6, false],
    [4, true],
    [6, false],
  ])("when the store's clock is %p min off: held is %p", async (minutes, held) => {
    const objects = new MemoryStore({ now: () => new Date(Date.now() + minutes * MINUTE) });
    const fence = open(await newStorage(objects));
    for (let i = 0; i < 4; i++) await fence.beat();
    expect(fence.state()).toMatchObject(held ? { held } : { held, reason: 'clock' });
  });

  test('a fence renewed in the future is renewed again', async () => {
    const storage = await newStorage();
    const fence = open(storage);
    await beatUntilHeld(fence);
    await age(storage, -60 * MINUTE);
    await expect(fence.assertHeld()).rejects.toMatchObject({ name: 'DeletingStopped' });
    expect(await fence.beat()).toMatchObject({ held: true });
  });

  test('a watch forgives slow drift, and neither a jump nor many small steps', () => {
    const hour = 60 * MINUTE;
    const drifting = new ClockWatch({ toleranceMs: 5 * MINUTE });
    for (let i = 0; i < 24 * 365; i++) drifting.observe(i * hour * 1.00005, i * hour);
    expect(drifting.jumpMs).toBe(0);

    const creeping = new ClockWatch({ toleranceMs: 5 * MINUTE });
    creeping.observe(0, 0);
    for (let i = 1; i <= 2; i++) creeping.observe(i * MINUTE + i * 4 * MINUTE, i * MINUTE);
    expect(creeping.jumpMs).toBeGreaterThan(7 * MINUTE);

    const jumping = new ClockWatch({ toleranceMs: 5 * MINUTE });
    jumping.observe(0, 0);
    jumping.observe(365 * 24 * hour, MINUTE);
    for (let i = 2; i < 24 * 60; i++) jumping.observe(365 * 24 * hour + i * MINUTE, i * MINUTE);
    expect(jumping.jumpMs).toBeGreaterThan(364 * 24 * hour);

    const back = new ClockWatch({ toleranceMs: 5 * MINUTE });
    back.observe(hour, 0);
    back.observe(0, MINUTE);
    expect(back.jumpMs).toBeLessThan(-hour);
  });
});
