import { beforeEach, describe, expect, test } from '@jest/globals';
import { bitAt, sha256 } from '../../../protocol/hashes.ts';
import { seededRandom } from '../../../tests/helpers/random.ts';
import { newArchive, newHeldFence, storageForEachTest, upload } from '../../../tests/helpers/storage.ts';
import { closeAlert, hasOpenAlert, listAlerts } from '../../catalog/checking/alerts.ts';
import { readCoverage } from '../../catalog/checking/checking.ts';
import { FaultyStore } from '../../objects/faulty-store.ts';
import { MemoryStore } from '../../objects/memory-store.ts';
import { compactDue } from '../deleting/compact.ts';
import { claimBlocks } from '../writing/claim.ts';
import { BytePace } from './byte-pace.ts';
import type { Fence } from './fence.ts';
import { fenceKey } from './fence-object.ts';
import { isPlausible, type VerifyOptions, type VerifyResult, verifyDue } from './verify.ts';
import { PlaceHasher } from './verify-object.ts';

let memory: MemoryStore;
let store: FaultyStore;
const storage = storageForEachTest(() => {
  memory = new MemoryStore();
  store = new FaultyStore(memory, { random: seededRandom(7).next, rates: {} });
  return { objects: store };
});
let fence: Fence;
let vault: number;
beforeEach(async () => {
  fence = await newHeldFence(storage);
  vault = (await newArchive(storage)).vault;
});

const block = (seed: number, length = 500): Buffer => Buffer.alloc(length, `block ${seed} `);
const verify = (options: Partial<VerifyOptions> = {}): Promise<VerifyResult> =>
  verifyDue(storage, fence, { bytesPerSecond: 1e12, everyMs: 3_600_000, ...options });
const damaged = async (): Promise<string[]> =>
  (await storage.rows('SELECT hash FROM blocks WHERE damaged_at IS NOT NULL ORDER BY hash')).map((row) =>
    (row.hash as Buffer).toString('hex'),
  );
const hex = (...blocks: Buffer[]): string[] => blocks.map((each) => sha256(each).toString('hex')).sort();
const keyOf = async (of: Buffer): Promise<string> => {
  const [row] = await storage.rows('SELECT key FROM blocks JOIN objects USING (vault_id, object_id) WHERE hash = $1', [
    sha256(of),
  ]);
  return row!.key as string;
};
const none = { damagedBlocks: 0, damagedFooters: 0, unreadable: 0, stopped: 0 };

test('every object is read whole once in a while, and that is known', async () => {
  for (let i = 0; i < 70; i++) await upload(storage, vault, [block(i)]);
  const other = (await newArchive(storage)).vault;
  await upload(storage, other, [block(1)]);
  expect(await readCoverage(storage.database, vault)).toMatchObject({
    verified: 0,
    neverVerified: 70,
    oldestVerifiedAt: null,
  });
  expect(await verify()).toEqual({ ...none, objects: 71, bytes: 71 * (500 + 44) });
  expect(await verify()).toMatchObject({ objects: 0, bytes: 0 });
  const coverage = await readCoverage(storage.database, vault);
  expect(coverage).toMatchObject({ verified: 70, verifiedBytes: 70 * 544, neverVerified: 0, neverVerifiedBytes: 0 });
  expect(coverage.oldestVerifiedAt).toBeInstanceOf(Date);
  expect(await verify({ everyMs: 0 })).toMatchObject({ objects: 71 }); // each once, and then it ends
  await storage.rows(
    "UPDATE objects SET verified_at = now() - interval '2 h' WHERE object_id IN (SELECT object_id FROM objects LIMIT 3)",
  );
  expect(await verify()).toMatchObject({ objects: 3 });
});

test('every flipped bit is found, in blocks and in the footer; the next upload heals the block, and compaction the footer', async () => {
  const blocks = [block(1, 300), block(2, 70_000), block(3, 1)];
  await upload(storage, vault, blocks);
  const key = await keyOf(blocks[0]!);
  const { length } = (await memory.head(key))!;
  const random = seededRandom(1);
  const offsets = [0, 299, 300, 65_535, 65_536, 70_299, 70_300, 70_301, length - 9, length - 1];
  for (let i = 0; i < 20; i++) offsets.push(random.below(length));
  for (const offset of offsets) {
    memory.flipBit(key, offset);
    await storage.rows('UPDATE objects SET verified_at = NULL, rewrite = false');
    const [inBlock] = [300, 70_300, 70_301]
      .map((end, i) => (offset < end ? blocks[i]! : null))
      .filter((each) => each !== null);
    const found = await verify();
    expect([offset, found.damagedBlocks, found.damagedFooters]).toEqual([offset, inBlock ? 1 : 0, inBlock ? 0 : 1]);
    expect(await damaged()).toEqual(inBlock ? hex(inBlock) : []);
    const [row] = await storage.rows('SELECT rewrite FROM objects');
    expect(row!.rewrite).toBe(!inBlock);
    memory.flipBit(key, offset);
    await storage.rows('UPDATE blocks SET damaged_at = NULL');
  }
});

test('a damaged block has to be sent again, and the upload that sends it makes it well', async () => {
  await upload(storage, vault, [block(1), block(2)]);
  memory.flipBit(await keyOf(block(2)), 700);
  expect(await verify()).toMatchObject({ damagedBlocks: 1 });
  expect(await hasOpenAlert(storage.database, { vault, kind: 'damaged' })).toBe(true);
  const { send } = await claimBlocks(storage, vault, Buffer.concat([sha256(block(1)), sha256(block(2))]));
  expect([bitAt(send, 0), bitAt(send, 1)]).toEqual([false, true]);
  expect(await upload(storage, vault, [block(1), block(2)])).toMatchObject({ stored: 1 });
  expect(await damaged()).toEqual([]);
  expect(await verify()).toMatchObject({ objects: 1, damagedBlocks: 0 });
});

test('a footer that is damaged is written anew by compaction', async () => {
  await upload(storage, vault, [block(1), block(2)]);
  const key = await keyOf(block(1));
  memory.flipBit(key, 1_000);
  expect(await verify()).toMatchObject({ damagedBlocks: 0, damagedFooters: 1 });
  await compactDue(storage);
  expect(await keyOf(block(1))).not.toBe(key);
  expect(await verify()).toMatchObject({ objects: 1, damagedFooters: 0, damagedBlocks: 0 });
});

test('a block that was healed or moved while its object was read is not marked', async () => {
  await upload(storage, vault, [block(1), block(2)]);
  const key = await keyOf(block(1));
  memory.flipBit(key, 10);
  const get = storage.objects.get.bind(storage.objects);
  storage.objects.get = async (...args) => {
    const content = await get(...args);
    storage.objects.get = get;
    // Somebody else marks it, and an agent sends it again: it lies elsewhere now, and is well.
    await storage.rows('UPDATE blocks SET damaged_at = now() WHERE hash = $1', [sha256(block(1))]);
    await upload(storage, vault, [block(1)]);
    return content;
  };
  expect(await verify()).toMatchObject({ damagedBlocks: 0 });
  expect(await damaged()).toEqual([]);
});

describe('what is no damage', () => {
  test('a read that breaks, or ends too early', async () => {
    for (let i = 0; i < 5; i++) await upload(storage, vault, [block(i)]);
    store.setRates({ tornRead: 1 });
    expect(await verify()).toEqual({ ...none, objects: 0, bytes: 0, unreadable: 5 });
    store.setRates({ errorBefore: 1 });
    expect(await verify()).toMatchObject({ unreadable: 5 });
    store.setRates({});
    const get = storage.objects.get.bind(storage.objects);
    storage.objects.get = async (key) => {
      const { length } = (await storage.objects.head(key))!;
      return get(key, { offset: 0, length: length - 1 }); // says it is whole, and is not
    };
    expect(await verify()).toMatchObject({ unreadable: 5, damagedBlocks: 0 });
    storage.objects.get = get;
    expect(await damaged()).toEqual([]);
    expect(await verify()).toMatchObject({ objects: 5, unreadable: 0 });
  });

  test('a store that says 404 and does not mean it, and one that is another bucket', async () => {
    await upload(storage, vault, [block(1)]);
    const key = await keyOf(block(1));
    const content = Buffer.concat(await Array.fromAsync((await storage.objects.get(key)).stream));
    const head = storage.objects.head.bind(storage.objects);
    storage.objects.head = async (of) => {
      if (of === key) await memory.put(key, { length: content.byteLength, chunks: [content] });
      return head(of);
    };
    await memory.delete(key);
    expect(await verify()).toMatchObject({ unreadable: 1, damagedBlocks: 0 });
    storage.objects.head = head;

    await memory.delete(key);
    await memory.delete(fenceKey(storage.catalogId));
    await storage.rows("UPDATE fence SET previous = 'before'");
    expect(await verify()).toMatchObject({ unreadable: 1, damagedBlocks: 0 });
    expect(await damaged()).toEqual([]);
  });

  test('an object that dies while it is looked at', async () => {
    await upload(storage, vault, [block(1)]);
    const get = storage.objects.get.bind(storage.objects);
    storage.objects.get = async (...args) => {
      if (!args[0].endsWith('fence')) {
        await storage.rows("UPDATE objects SET state = 'dead', next_at = now()");
        await memory.delete(args[0]);
      }
      return get(...args);
    };
    expect(await verify()).toMatchObject({ unreadable: 0, damagedBlocks: 0, stopped: 0 });
    expect(await damaged()).toEqual([]);
  });

  test('more than bit rot explains, until a person has looked', async () => {
    for (let i = 0; i < 9; i++) {
      await upload(storage, vault, [block(i)]);
      memory.flipBit(await keyOf(block(i)), 5);
    }
    for (let i = 100; i < 110; i++) await upload(storage, vault, [block(i)]);
    expect(await verify()).toMatchObject({ stopped: 1, damagedBlocks: 0, objects: 0 });
    expect(await damaged()).toEqual([]);
    const [alert] = await listAlerts(storage.database, vault, { reviewed: false, limit: 10 });
    expect(alert).toMatchObject({ kind: 'verify_suspicious', details: { damaged: 9, blocks: 19, objects: 19 } });
    expect(await verify()).toMatchObject({ stopped: 0, objects: 0 }); // it waits
    await closeAlert(storage.database, vault, alert!.alert, 'somebody');
    expect(await verify()).toMatchObject({ stopped: 0, damagedBlocks: 9, objects: 19 });
    expect(await damaged()).toHaveLength(9);
  });
});

test('an object that is gone, or shorter than it was, is damage', async () => {
  await upload(storage, vault, [block(1), block(2)]);
  await upload(storage, vault, [block(3)]);
  await upload(storage, vault, [block(4)]);
  await memory.delete(await keyOf(block(3)));
  const key = await keyOf(block(1));
  const bytes = Buffer.concat(await Array.fromAsync((await memory.get(key)).stream)).subarray(0, 700);
  await memory.put(key, { length: 700, chunks: [bytes] });
  expect(await verify()).toMatchObject({ objects: 3, damagedBlocks: 2, damagedFooters: 1 });
  expect(await damaged()).toEqual(hex(block(2), block(3)));
});

test('an object that can never be read does not keep the others from being verified, in any pass', async () => {
  for (let i = 0; i < 70; i++) await upload(storage, vault, [block(i)]);
  const bad = await keyOf(block(0));
  const get = storage.objects.get.bind(storage.objects);
  storage.objects.get = (key, ...rest) => (key === bad ? Promise.reject(new Error('no')) : get(key, ...rest));
  expect(await verify()).toMatchObject({ objects: 69, unreadable: 1 });
  expect(await verify()).toMatchObject({ objects: 0, unreadable: 1 });
});

test('a pass ends when it is told to, and the next one goes on', async () => {
  for (let i = 0; i < 6; i++) await upload(storage, vault, [block(i)]);
  const abort = new AbortController();
  const get = storage.objects.get.bind(storage.objects);
  let reads = 0;
  storage.objects.get = (...args) => {
    if (++reads === 3) abort.abort();
    return get(...args);
  };
  expect(await verify({ signal: abort.signal })).toMatchObject({ objects: 2, unreadable: 0 });
  storage.objects.get = get;
  let now = 0;
  const sleep = async (ms: number): Promise<void> => {
    now += ms;
  };
  const clock = { nowMs: () => now, sleep };
  // 544 bytes take a second, and so does a pass; what is begun is finished.
  expect(await verify({ clock, passMs: 1_500, bytesPerSecond: 544 })).toMatchObject({ objects: 2 });
  expect(await verify()).toMatchObject({ objects: 2 });
});

test('bytes are read at the rate that was set, and a slow second is made up for, but no more', async () => {
  let now = 0;
  const slept: number[] = [];
  const sleep = async (ms: number): Promise<void> => {
    slept.push(ms);
    now += ms;
  };
  const clock = { nowMs: () => now, sleep };
  const pace = new BytePace(1_000, clock);
  for (let i = 0; i < 100; i++) await pace.spent(100);
  expect(now).toBe(10_000);
  now += 60_000; // the store took a minute for nothing
  const before = now;
  for (let i = 0; i < 100; i++) await pace.spent(100);
  expect(now - before).toBe(9_000);
  for (let i = 0; i < 1_000; i++) await pace.spent(1);
  expect(slept.filter((ms) => ms < 5)).toEqual([]); // not a sleep for every byte
});

test.each([
  [8, 8, true],
  [9, 9, false],
  [9, 899, false],
  [9, 900, true],
  [100, 10_000, true],
  [101, 10_000, false],
])('%p damaged of %p: can be bit rot: %p', (bad, of, plausible) => {
  expect(isPlausible(bad, of)).toBe(plausible);
});

test('places are hashed as they come by, however the bytes are cut, and also when rows overlap', () => {
  const random = seededRandom(3);
  const bytes = random.bytes(1_000);
  const at = (offset: number, length: number, hash = sha256(bytes.subarray(offset, offset + length))) => ({
    hash,
    objectId: 1,
    offset,
    length,
  });
  const wrong = at(100, 50, sha256(Buffer.from('x')));
  const beyond = at(990, 20);
  const blocks = [at(0, 100), wrong, at(150, 1), at(151, 849), at(120, 500), beyond, at(2_000, 5)];
  for (let round = 0; round < 50; round++) {
    const places = new PlaceHasher(blocks);
    for (let from = 0; from < 1_000; ) {
      const to = Math.min(1_000, from + 1 + random.below(300));
      places.update(bytes.subarray(from, to));
      from = to;
    }
    expect(places.bytes).toBe(1_000);
    expect(places.finish()).toEqual([wrong, beyond, blocks[6]]);
  }
});

test('a block that was marked although its bytes are its own is well again after the next reading', async () => {
  await upload(storage, vault, [block(1), block(2), block(3)]);
  memory.flipBit(await keyOf(block(1)), 0);
  await verify();
  await storage.rows('UPDATE blocks SET damaged_at = now() WHERE hash = $1', [sha256(block(2))]);
  expect(await damaged()).toEqual(hex(block(1), block(2)));
  await verify({ everyMs: 0 });
  expect(await damaged()).toEqual(hex(block(1)));
});

test('what was verified by a clock that was years ahead is read again now', async () => {
  await upload(storage, vault, [block(1)]);
  await storage.rows("UPDATE objects SET verified_at = now() + interval '3 years'");
  expect(await verify()).toMatchObject({ objects: 1 });
  expect(await verify()).toMatchObject({ objects: 0 });
});
