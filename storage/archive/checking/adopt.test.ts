import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import pg from 'pg';
import { bitAt, sha256 } from '../../../protocol/hashes.ts';
import {
  commit,
  newArchive,
  newRun,
  type TestStorage,
  testStorage,
  upload,
  version,
} from '../../../tests/helpers/storage.ts';
import { checkCatalog } from '../../catalog/migrate.ts';
import { readVaultUsage } from '../../catalog/usage.ts';
import { insertWritingObject } from '../../catalog/writing/blocks.ts';
import { FaultyStore } from '../../objects/faulty-store.ts';
import { MemoryStore } from '../../objects/memory-store.ts';
import { type ArchiveRef, openStorage, type Storage } from '../../storage.ts';
import { deleteDeadObjects } from '../deleting/delete-objects.ts';
import { readBlock } from '../reading/read-blocks.ts';
import { claimBlocks } from '../writing/claim.ts';
import { type AdoptOptions, type AdoptReport, adopt } from './adopt.ts';
import { compareBucket } from './compare-bucket.ts';
import { type Fence, openFence } from './fence.ts';
import { contestedKey, fenceKey } from './fence-object.ts';
import { recount } from './recount.ts';
import { verifyDue } from './verify.ts';

let storage: TestStorage;
let store: FaultyStore;
let ref: ArchiveRef;
beforeEach(async () => {
  store = new FaultyStore(new MemoryStore(), { random: () => 0.5, rates: {} });
  storage = await testStorage({ objects: store });
  ref = await newArchive(storage);
});
afterEach(() => storage.close());

const block = (seed: number): Buffer => Buffer.alloc(500, `block ${seed} `);
const run = (text: string, values: unknown[] = []): Promise<Record<string, unknown>[]> =>
  storage.database.query({ name: '', text }, values);
const keys = async (): Promise<string[]> =>
  (await storage.objects.list(`${storage.catalogId}/blocks/`, { limit: 1000 })).objects.map((object) => object.key);
const over = (options: Partial<AdoptOptions> = {}): Promise<AdoptReport> =>
  adopt(storage, { take: 'over', ...options });
const age = (): Promise<unknown> => run("UPDATE fence SET renewed_at = now() - interval '3 min'");
const open = (of: Storage = storage): Fence => openFence(of, { beatMs: 60_000, beatsBeforeDeleting: 1 });
const keyOf = async (of: Buffer): Promise<string> => {
  const [row] = await run('SELECT key FROM blocks JOIN objects USING (vault_id, object_id) WHERE hash = $1', [
    sha256(of),
  ]);
  return row!.key as string;
};
async function isReadable(each: Buffer): Promise<boolean> {
  const found = await readBlock(storage, ref.vault, sha256(each));
  return found !== null && Buffer.concat(await Array.fromAsync(found.stream)).equals(each);
}
async function wants(each: Buffer): Promise<boolean> {
  return bitAt((await claimBlocks(storage, ref.vault, sha256(each))).send, 0);
}

/** The tables that a backup of the catalog holds, to be put back later: the catalog goes back in time, the bucket does not. */
async function backUp(): Promise<() => Promise<void>> {
  const tables = [
    'fence',
    'vaults',
    'archives',
    'objects',
    'blocks',
    'files',
    'versions',
    'commits',
    'runs',
    'usage_deltas',
    'vault_usage',
  ];
  const client = new pg.Client({ connectionString: storage.connectionString });
  await client.connect();
  for (const table of tables) await client.query(`CREATE TABLE backup_${table} AS TABLE ${table}`);
  await client.end();
  return async () => {
    const restoring = new pg.Client({ connectionString: storage.connectionString });
    await restoring.connect();
    await restoring.query("SET session_replication_role = 'replica'");
    for (const table of tables) {
      await restoring.query(`DELETE FROM ${table}`);
      await restoring.query(`INSERT INTO ${table} OVERRIDING SYSTEM VALUE SELECT * FROM backup_${table}`);
    }
    await restoring.end();
  };
}

describe('a catalog that was set back', () => {
  test('deletes nothing, is adopted, and then everything the bucket holds has a row or goes, and deleting goes on', async () => {
    const fence = open();
    await fence.beat();
    await upload(storage, ref.vault, [block(1), block(2)]);
    await upload(storage, ref.vault, [block(3)]);
    await commit(storage, ref, await newRun(storage, ref), [
      version('/a', [block(1), block(2)]),
      version('/b', [block(3)]),
    ]);
    const lapsed = await keyOf(block(1));
    const restore = await backUp();

    // A day later: one object was compacted into another, one is lost for good, one is new.
    await run('UPDATE objects SET rewrite = true WHERE key = $1', [lapsed]);
    const { compactDue } = await import('../deleting/compact.ts');
    await compactDue(storage);
    await run("UPDATE objects SET next_at = now() - interval '1 s' WHERE state = 'dead'");
    expect(await deleteDeadObjects(storage, fence)).toMatchObject({ deleted: 1 });
    await upload(storage, ref.vault, [block(4)]);
    await storage.objects.delete(await keyOf(block(3)));
    await run("UPDATE fence SET renewed_at = now() - interval '50 s'");
    await fence.beat();
    const later = await newArchive(storage);
    await upload(storage, later.vault, [block(9)]);
    await restore();

    const restored = open();
    expect(await restored.beat()).toMatchObject({ held: false, reason: 'foreign_nonce' });
    const before = await keys();
    await expect(compareBucket(storage, restored)).rejects.toMatchObject({ name: 'DeletingStopped' });
    expect(await keys()).toEqual(before);
    expect([await isReadable(block(1)).catch(() => false), await wants(block(4))]).toEqual([false, true]);

    await age();
    const report = {
      take: 'over',
      catalogId: storage.catalogId,
      listed: 3,
      unreadable: 0,
      strange: 0,
      leftBehind: 0,
      vaultIdsPast: null,
    };
    const found = { ...report, adopted: 2, ofUnknownVaults: 1, unknownVaults: [later.vault], missing: 2 };
    expect(await over({ dryRun: true })).toEqual({ ...found, dryRun: true, adoptedBlocks: 0, markedDamaged: 0 });
    expect(await restored.beat()).toMatchObject({ held: false });
    expect(await over({ pageMax: 1 })).toEqual({ ...found, dryRun: false, adoptedBlocks: 3, markedDamaged: 3 });

    // What compaction had moved is healed, what was new is known, what is lost is asked for.
    expect([await isReadable(block(1)), await isReadable(block(2)), await wants(block(4))]).toEqual([
      true,
      true,
      false,
    ]);
    expect([await isReadable(block(3)), await wants(block(3))]).toEqual([false, true]);
    expect(await recount(storage, ref.vault)).toMatchObject({ tooLow: 0, tooHigh: 0, absent: 0, liveBytes: 0 });
    expect(await storage.objects.head(contestedKey(storage.catalogId))).toBeNull();
    expect(await restored.beat()).toMatchObject({ held: true });
    expect(await compareBucket(storage, restored)).toMatchObject({ orphansDeleted: 1, missing: 1 });
    expect(await verifyDue(storage, restored, { bytesPerSecond: 1e12, everyMs: 1e9 })).toMatchObject({
      objects: 3,
      damagedBlocks: 0,
    });
    const [bytes] = await run('SELECT sum(size_bytes)::bigint AS n FROM objects WHERE vault_id = $1', [ref.vault]);
    expect((await readVaultUsage(storage.database, ref.vault)).objectBytes).toBe(bytes!.n);

    // Once more it finds nothing to do: what is lost stays lost.
    await age();
    expect(await over()).toMatchObject({
      adopted: 0,
      adoptedBlocks: 0,
      missing: 1,
      markedDamaged: 0,
      unknownVaults: [],
    });
  });

  test('an upload that was under way at the moment of the backup is finished', async () => {
    await upload(storage, ref.vault, [block(1)]);
    const key = await keyOf(block(1));
    await run('DELETE FROM blocks');
    await run("UPDATE objects SET state = 'writing', live_bytes = 0, next_at = now() - interval '1 h'");
    expect(await over()).toMatchObject({ adopted: 1, adoptedBlocks: 1 });
    expect([await keyOf(block(1)), await isReadable(block(1))]).toEqual([key, true]);
    await run('UPDATE usage_deltas SET logical_bytes = 0');
    const fence = open();
    await fence.beat();
    expect(await deleteDeadObjects(storage, fence)).toMatchObject({ deleted: 0, swept: 0 });
  });

  test('an upload whose bytes have not come, and one whose object is dead, are left as they are', async () => {
    const writing = `${storage.catalogId}/blocks/${ref.vault}/${'a'.repeat(64)}.${'0'.repeat(16)}`;
    await insertWritingObject(storage.database, {
      vault: ref.vault,
      key: writing,
      sizeBytes: 9,
      leaseMs: 60_000,
      catalogId: storage.catalogId,
    });
    await upload(storage, ref.vault, [block(1)]);
    await run('DELETE FROM blocks');
    await run(
      "UPDATE objects SET state = 'dead', live_bytes = 0, next_at = now() + interval '1 h' WHERE state = 'live'",
    );
    expect(await over()).toMatchObject({ listed: 1, adopted: 0, missing: 0 });
    expect(await run('SELECT state FROM objects ORDER BY state')).toEqual([{ state: 'dead' }, { state: 'writing' }]);
  });

  test('an object that is not what its name says gets no row', async () => {
    await upload(storage, ref.vault, [block(1), block(2)]);
    const key = await keyOf(block(1));
    const bytes = Buffer.concat(await Array.fromAsync((await storage.objects.get(key)).stream));
    await run('DELETE FROM blocks');
    await run('DELETE FROM objects');
    const bad = [
      bytes.subarray(0, 5),
      bytes.subarray(0, bytes.byteLength - 1),
      bytes.subarray(1),
      Buffer.concat([Buffer.alloc(1_000), Buffer.from('ffffffff', 'hex'), Buffer.from('HFB1')]),
    ];
    const flipped = Buffer.from(bytes);
    flipped[1_001]! ^= 1;
    for (const each of [...bad, flipped]) {
      await storage.objects.put(key, { length: each.byteLength, chunks: [each] });
      expect(await over({ force: true })).toMatchObject({ adopted: 0, unreadable: 1 });
    }
    expect(await run('SELECT 1 FROM objects')).toEqual([]);
    await storage.objects.put(key, { length: bytes.byteLength, chunks: [bytes] });
    expect(await over({ force: true })).toMatchObject({ adopted: 1, adoptedBlocks: 2, unreadable: 0 });
  });

  test('what is gone is marked also when it is dated in the future, as where the clock is behind', async () => {
    await upload(storage, ref.vault, [block(1)]);
    await upload(storage, ref.vault, [block(2)]);
    await storage.objects.delete(await keyOf(block(1)));
    await run("UPDATE objects SET created_at = now() + interval '3 hours'");
    expect(await over()).toMatchObject({ missing: 1, markedDamaged: 1 });
    expect(await wants(block(1))).toBe(true);
    expect(await wants(block(2))).toBe(false);
  });

  test('interrupted anywhere, it is run again, and until it has ended nothing is deleted', async () => {
    for (let i = 0; i < 6; i++) await upload(storage, ref.vault, [block(i)]);
    await run('DELETE FROM blocks');
    await run('DELETE FROM objects');
    await run("UPDATE fence SET nonce = 'n', previous = 'm'");
    const fence = open();
    await fence.beat();
    let calls = 0;
    let failAt = 0;
    for (const name of ['get', 'put', 'list', 'delete', 'head'] as const) {
      const inner = storage.objects[name].bind(storage.objects) as (...args: unknown[]) => Promise<unknown>;
      Object.assign(storage.objects, {
        [name]: async (...args: unknown[]) => {
          if (failAt > 0 && ++calls === failAt) throw new Error('crash');
          return inner(...args);
        },
      });
    }
    let crashes = 0;
    for (failAt = 1; ; failAt++) {
      calls = 0;
      const done = await over({ force: true }).then(
        () => true,
        () => false,
      );
      const at = failAt;
      failAt = 0;
      if (done) break;
      crashes++;
      expect(await storage.objects.head(contestedKey(storage.catalogId))).not.toBeNull();
      await expect(fence.assertHeld()).rejects.toMatchObject({ name: 'DeletingStopped' });
      failAt = at;
    }
    expect(crashes).toBeGreaterThan(5);
    for (let i = 0; i < 6; i++) expect(await isReadable(block(i))).toBe(true);
    expect(await fence.beat()).toMatchObject({ held: true });
    expect(await compareBucket(storage, fence)).toMatchObject({ orphansDeleted: 0, missing: 0 });
  });
});

describe('ids of vaults', () => {
  /** What the sequence gives next; which uses it up. */
  const nextId = async (): Promise<number> => (await newArchive(storage)).vault;
  const putObjectOf = (vault: number | string): Promise<void> => {
    const key = `${storage.catalogId}/blocks/${vault}/${'a'.repeat(64)}.${'0'.repeat(16)}`;
    return storage.objects.put(key, { length: 1, chunks: [Buffer.from('x')] });
  };

  test.each([
    ['one below the last id handed out', -1, false],
    ['the last id handed out', 0, false],
    ['one past it', 1, true],
    ['far past it', 7_000, true],
  ])(
    'when the highest vault in the bucket is %s, the next vault gets an id that no object has',
    async (_, past, behind) => {
      const last = await nextId();
      for (const vault of [1, last + past]) await putObjectOf(vault);
      const vaultIdsPast = behind ? last + past : null;
      expect(await over({ dryRun: true })).toMatchObject({ vaultIdsPast });
      expect(await run('SELECT last_value AS last FROM vaults_vault_id_seq')).toEqual([{ last }]);
      expect(await over({ force: true })).toMatchObject({ vaultIdsPast });
      expect(await nextId()).toBe(Math.max(last, last + past) + 1);
    },
  );

  test('a catalog that never made a vault leaves the first id to the object that has it', async () => {
    await run('DELETE FROM archives');
    await run('DELETE FROM vaults');
    await run("SELECT setval('vaults_vault_id_seq', 1, false)");
    expect(await over()).toMatchObject({ vaultIdsPast: null });
    await putObjectOf(1);
    expect(await over({ force: true })).toMatchObject({ vaultIdsPast: 1 });
    expect(await nextId()).toBe(2);
  });

  test('they are past those in the bucket when the fence is taken, and a folder of no possible id does not count', async () => {
    const last = await nextId();
    await putObjectOf(last + 5);
    for (const large of [Number.MAX_SAFE_INTEGER, '9999999999999999']) await putObjectOf(large);
    const put = storage.objects.put.bind(storage.objects);
    storage.objects.put = async () => {
      throw new Error('crash');
    };
    await expect(over({ force: true })).rejects.toThrow('crash');
    storage.objects.put = put;
    expect(await nextId()).toBe(last + 6);
    expect(await over({ force: true })).toMatchObject({ vaultIdsPast: null });
  });

  test('with a prefix of its own a copy goes on counting', async () => {
    const last = await nextId();
    await putObjectOf(last + 5);
    expect(await adopt(storage, { take: 'own-prefix' })).toMatchObject({ vaultIdsPast: null });
    expect(await nextId()).toBe(last + 1);
  });
});

test('it refuses while a worker beats, and when the bucket looks like the wrong one', async () => {
  await open().beat();
  for (const take of ['over', 'own-prefix'] as const)
    await expect(adopt(storage, { take })).rejects.toMatchObject({ name: 'AdoptRefused' });
  await expect(over({ dryRun: true })).resolves.toMatchObject({ adopted: 0 });
  await age();
  await expect(over()).resolves.toMatchObject({ adopted: 0 });
  await age();
  await upload(storage, ref.vault, [block(1)]);
  await storage.objects.delete(await keyOf(block(1)));
  await expect(over()).rejects.toMatchObject({ name: 'AdoptRefused' });
  expect(await run('SELECT 1 FROM blocks WHERE damaged_at IS NOT NULL')).toEqual([]);
  await expect(over({ force: true })).resolves.toMatchObject({ missing: 1, markedDamaged: 1 });
});

test('with a prefix of its own a copy leaves the old one alone, and goes on', async () => {
  await upload(storage, ref.vault, [block(1)]);
  const old = storage.catalogId;
  const before = (await storage.objects.list('', { limit: 100 })).objects.map((object) => object.key);
  expect(await adopt(storage, { take: 'own-prefix', dryRun: true })).toMatchObject({ leftBehind: 1 });
  expect((await checkCatalog(storage.database)).catalogId).toBe(old);
  const report = await adopt(storage, { take: 'own-prefix' });
  expect(report).toMatchObject({ leftBehind: 1, adopted: 0, missing: 0 });
  expect(report.catalogId).not.toBe(old);

  const { database, objects, settings } = storage;
  const moved = await openStorage({ database, objects, settings });
  expect(moved.catalogId).toBe(report.catalogId);
  const fence = open(moved);
  expect(await fence.beat()).toMatchObject({ held: true });
  await upload(moved, ref.vault, [block(2)]);
  expect(await isReadable(block(1))).toBe(true); // for as long as its owner leaves it there
  await run('DELETE FROM blocks WHERE hash = $1', [sha256(block(1))]);
  await run("UPDATE objects SET state = 'dead', live_bytes = 0, next_at = now() - interval '1 s' WHERE key LIKE $1", [
    `${old}/%`,
  ]);
  expect(await deleteDeadObjects(moved, fence)).toMatchObject({ deleted: 1 });
  expect(await compareBucket(moved, fence)).toMatchObject({ listed: 1, orphansDeleted: 0, missing: 0 });
  const after = (await storage.objects.list('', { limit: 100 })).objects.map((object) => object.key);
  expect(after.filter((key) => key.startsWith(old))).toEqual(before);
  expect(after).toContain(fenceKey(report.catalogId));
});
