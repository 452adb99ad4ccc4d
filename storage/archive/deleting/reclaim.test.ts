import { beforeEach, describe, expect, test } from '@jest/globals';
import { bitAt, sha256 } from '../../../protocol/hashes.ts';
import {
  commit,
  deletion,
  newArchive,
  newRun,
  pruneAtOnce,
  storageForEachTest,
  upload,
  version,
} from '../../../tests/helpers/storage.ts';
import { databaseDefaults, openDatabase } from '../../catalog/database.ts';
import { readVaultUsage } from '../../catalog/usage.ts';
import { MemoryStore } from '../../objects/memory-store.ts';
import type { ArchiveRef } from '../../storage.ts';
import { fetchBlocks } from '../reading/read-blocks.ts';
import { pruneArchive, pruneDue } from '../retention/prune.ts';
import { claimBlocks } from '../writing/claim.ts';
import { storeLists } from '../writing/lists.ts';
import { compactDue, compactObjects } from './compact.ts';
import { reclaimDue, settleDue } from './reclaim.ts';

let memory: MemoryStore;
const storage = storageForEachTest(() => {
  memory = new MemoryStore();
  return { objects: memory };
});
let ref: ArchiveRef;
let run: number;
beforeEach(async () => {
  ref = await newArchive(storage);
  run = await newRun(storage, ref);
});

const block = (seed: string | number, length = 1000): Buffer => Buffer.alloc(length, `block ${seed} `);

async function rows<Row = Record<string, unknown>>(text: string, values: unknown[] = [ref.vault]): Promise<Row[]> {
  return storage.rows<Row>(text, values);
}

async function countOf(table: string): Promise<number> {
  return (await rows<{ n: number }>(`SELECT count(*) AS n FROM ${table} WHERE vault_id = $1`))[0]!.n;
}

/** As if so much time had passed: all moments of the vault's rows lie that much earlier. */
async function pass(days: number): Promise<void> {
  const back = `- interval '${days} days'`;
  await rows(`UPDATE blocks SET claimed_until = claimed_until ${back} WHERE vault_id = $1`);
  await rows(`UPDATE lists SET claimed_until = claimed_until ${back} WHERE vault_id = $1`);
  await rows(`UPDATE freed SET check_after = check_after ${back} WHERE vault_id = $1`);
  await rows(`UPDATE freed_lists SET check_after = check_after ${back} WHERE vault_id = $1`);
  await rows(`UPDATE objects SET created_at = created_at ${back}, next_at = next_at ${back} WHERE vault_id = $1`);
  await rows(`UPDATE versions SET committed_at = committed_at ${back} WHERE vault_id = $1`);
  await rows(`UPDATE archives SET last_committed_at = last_committed_at ${back} WHERE vault_id = $1`);
  await rows(`UPDATE files SET prune_after = prune_after ${back} WHERE vault_id = $1`);
}

const prune = () => pruneArchive(storage, ref, pruneAtOnce);

async function contents(...blocks: Buffer[]): Promise<(Buffer | null)[]> {
  const found = new Array<Buffer | null>(blocks.length).fill(null);
  for await (const { index, bytes } of fetchBlocks(storage, ref.vault, Buffer.concat(blocks.map(sha256))))
    found[index] = bytes && Buffer.concat(bytes);
  return found;
}

describe('reclaim', () => {
  test('a freed block stays for one claim window, because a claim may have promised so by looking', async () => {
    await upload(storage, ref.vault, [block(1)]);
    await commit(storage, ref, run, [version('/file', [block(1)])]);
    await pass(30);
    const { send, until } = await claimBlocks(storage, ref.vault, sha256(block(1)));
    expect(bitAt(send, 0)).toBe(false);
    await commit(storage, ref, run, [deletion('/file')]);
    expect(await prune()).toMatchObject({ versions: 2 });

    const [row] = await rows<{ refs: number; claimed: Date }>(
      'SELECT refs, claimed_until AS claimed FROM blocks WHERE vault_id = $1',
    );
    expect(row!.refs).toBe(0);
    expect(row!.claimed.getTime()).toBeGreaterThan(until.getTime());
    expect(await reclaimDue(storage)).toMatchObject({ blocks: 0 });
    await pass(6.9);
    expect(await reclaimDue(storage)).toMatchObject({ blocks: 0 });
    await pass(0.2);
    expect(await reclaimDue(storage)).toMatchObject({ blocks: 1, bytes: 1000 });
    expect([await countOf('blocks'), await countOf('freed')]).toEqual([0, 0]);
  });

  test('a block that is used or claimed again meanwhile is not taken', async () => {
    await upload(storage, ref.vault, [block('used'), block('claimed'), block('neither')]);
    await pass(30);
    expect(await settleDue(storage)).toMatchObject({ objects: 1, freed: 3 });
    await claimBlocks(storage, ref.vault, sha256(block('claimed')));
    await commit(storage, ref, run, [version('/file', [block('used')])]);
    expect(await reclaimDue(storage)).toMatchObject({ blocks: 1 });
    expect(await contents(block('used'), block('claimed'), block('neither'))).toEqual([
      block('used'),
      block('claimed'),
      null,
    ]);
    expect(await countOf('freed')).toBe(1); // looked at again when its claim has ended
    const [due] = await rows<{ later: boolean }>('SELECT check_after > now() AS later FROM freed WHERE vault_id = $1');
    expect(due).toEqual({ later: true });
    await pass(30);
    expect(await reclaimDue(storage)).toMatchObject({ blocks: 1 });
    expect(await contents(block('used'), block('claimed'))).toEqual([block('used'), null]);
  });

  test('more than a batch goes, bytes leave their object, and an object that holds nothing any more dies', async () => {
    const blocks = Array.from({ length: 2_500 }, (_, i) => block(i, 20 + (i % 7)));
    await upload(storage, ref.vault, blocks);
    await upload(storage, ref.vault, [block('other')]);
    await commit(storage, ref, run, [version('/kept', [blocks[0]!, block('other')])]);
    await pass(30);
    expect(await settleDue(storage)).toMatchObject({ objects: 2, freed: 2_499 });
    const told: number[] = [];
    const onProgress = ({ blocks }: { blocks: number }): void => void told.push(blocks);
    expect(await reclaimDue(storage, { onProgress })).toMatchObject({ blocks: 2_499 });
    expect(told).toEqual([expect.any(Number), 2_499]);
    expect(told[0]).toBeLessThan(2_499);
    const objects = await rows('SELECT state, live_bytes FROM objects WHERE vault_id = $1 ORDER BY object_id');
    expect(objects).toEqual([
      { state: 'live', live_bytes: 20 },
      { state: 'live', live_bytes: 1000 },
    ]);
    expect(await readVaultUsage(storage.database, ref.vault)).toMatchObject({
      storedBytes: 1020,
      referencedBytes: 1020,
    });
  });

  test('with nothing due nothing is written', async () => {
    await upload(storage, ref.vault, [block(1)]);
    await rows(
      `DO $$ BEGIN EXECUTE 'ALTER DATABASE ' || current_database() || ' SET default_transaction_read_only = on'; END $$`,
      [],
    );
    const database = openDatabase({ ...databaseDefaults, connectionString: storage.connectionString });
    const readOnly = { ...storage, database };
    try {
      await expect(upload(readOnly, ref.vault, [block(2)])).rejects.toThrow('read-only');
      expect(await reclaimDue(readOnly)).toMatchObject({ vaults: 0 });
      expect(await settleDue(readOnly)).toMatchObject({ objects: 0 });
      expect(await compactDue(readOnly)).toMatchObject({ vaults: 0 });
      expect(await pruneDue(readOnly, pruneAtOnce)).toMatchObject({ archives: 0 });
    } finally {
      await database.close();
    }
  });

  test('a list that is freed lets go of its blocks, one window after itself', async () => {
    const blocks = [block('a'), block('b')];
    await upload(storage, ref.vault, [...blocks, block('c')]);
    const list = { blocks: Buffer.concat(blocks.map(sha256)), hash: sha256(Buffer.concat(blocks.map(sha256))) };
    await storeLists(storage, ref.vault, [list]);
    const large = version('/large', [], { size: 2000, lists: list.hash });
    await commit(storage, ref, run, [large, version('/small', [block('a'), block('c')])]);
    const refs = async () => {
      const found = await rows<{ hash: Buffer; refs: number }>('SELECT hash, refs FROM blocks WHERE vault_id = $1');
      const byHash = new Map(found.map((row) => [row.hash.toString('hex'), row.refs]));
      return [...blocks, block('c')].map((each) => byHash.get(sha256(each).toString('hex')));
    };
    expect(await refs()).toEqual([2, 1, 1]);

    await pass(30);
    await commit(storage, ref, run, [version('/large', [], { deleted: true, attributes: Buffer.alloc(0) })]);
    await pass(1);
    await prune();
    expect(await countOf('lists')).toBe(1);
    expect(await refs()).toEqual([2, 1, 1]);
    await pass(8);
    expect(await reclaimDue(storage)).toMatchObject({ lists: 1, blocks: 0 });
    expect(await refs()).toEqual([1, 0, 1]);
    await pass(8);
    expect(await reclaimDue(storage)).toMatchObject({ lists: 0, blocks: 1 });
    expect(await refs()).toEqual([1, undefined, 1]);
    expect(await countOf('freed_lists')).toBe(0);
  });

  test('a list that was sent and never committed goes, and what it kept with it', async () => {
    await upload(storage, ref.vault, [block('a')]);
    await storeLists(storage, ref.vault, [{ blocks: sha256(block('a')), hash: sha256(sha256(block('a'))) }]);
    await pass(30);
    expect(await settleDue(storage)).toMatchObject({ freed: 0 });
    expect(await reclaimDue(storage)).toMatchObject({ lists: 1, blocks: 0 });
    await pass(8);
    expect(await reclaimDue(storage)).toMatchObject({ blocks: 1 });
    expect(await readVaultUsage(storage.database, ref.vault)).toMatchObject({ storedBytes: 0, referencedBytes: 0 });
  });
});

describe('compact', () => {
  /** Objects of ten blocks each, of which only the first `live` are referred to; the rest is reclaimed. */
  async function sparse(objects: number, live: number): Promise<Buffer[]> {
    const kept: Buffer[] = [];
    for (let o = 0; o < objects; o++) {
      const blocks = Array.from({ length: 10 }, (_, i) => block(`${o}.${i}`));
      await upload(storage, ref.vault, blocks);
      await commit(storage, ref, run, [version(`/file ${o}`, blocks.slice(0, live))]);
      kept.push(...blocks.slice(0, live));
    }
    await pass(30);
    await settleDue(storage);
    await reclaimDue(storage);
    return kept;
  }

  const liveObjects = () =>
    rows<{ liveBytes: number; key: string }>(
      `SELECT live_bytes AS "liveBytes", key FROM objects WHERE vault_id = $1 AND state = 'live' ORDER BY object_id`,
    );

  test('what is left of several sparse objects becomes one, and they die', async () => {
    const kept = await sparse(3, 4);
    expect(await compactDue(storage)).toMatchObject({ objects: 3, blocks: 12, bytes: 12_000, damaged: 0 });
    expect(await liveObjects()).toMatchObject([{ liveBytes: 12_000 }]);
    expect(await contents(...kept)).toEqual(kept);
    const [{ n }] = (await rows<{ n: number }>(
      `SELECT count(*) AS n FROM objects WHERE vault_id = $1 AND state = 'dead'`,
    )) as [{ n: number }];
    expect(n).toBe(3);
    expect(await compactDue(storage)).toMatchObject({ objects: 0 });
  });

  test('an object that is still half full is left, unless it is marked', async () => {
    const kept = await sparse(1, 6);
    expect(await compactDue(storage)).toMatchObject({ objects: 0 });
    await rows('UPDATE objects SET rewrite = true WHERE vault_id = $1');
    expect(await compactDue(storage)).toMatchObject({ objects: 1, blocks: 6 });
    expect(await contents(...kept)).toEqual(kept);
  });

  test('a block whose bytes are not its own stays where it is, keeps its object alive, and verify is asked to look', async () => {
    await sparse(1, 3);
    const key = (await liveObjects())[0]!.key;
    const whole = Buffer.concat(await Array.fromAsync((await memory.get(key)).stream));
    whole[1_500]! ^= 1;
    await memory.delete(key);
    await memory.put(key, { length: whole.byteLength, chunks: [whole] });
    await rows('UPDATE objects SET verified_at = now() WHERE vault_id = $1');
    expect(await compactDue(storage)).toMatchObject({ damaged: 1, blocks: 2 });
    expect(await liveObjects()).toMatchObject([{ liveBytes: 1000, key }, { liveBytes: 2000 }]);
    expect(await countOf('damage')).toBe(0); // one look is no proof: a store may lie for a moment
    const due = await rows(
      `SELECT key FROM objects WHERE vault_id = $1 AND state = 'live' AND verified_at IS NULL AND key = $2`,
      [ref.vault, key],
    );
    expect(due).toHaveLength(1);
  });

  test('a block that was moved, healed or reclaimed while it was copied is not moved back', async () => {
    const kept = await sparse(1, 4);
    const [old] = (await rows<{ objectId: number; key: string; liveBytes: number; sizeBytes: number }>(
      `SELECT object_id AS "objectId", key, live_bytes AS "liveBytes", size_bytes AS "sizeBytes" FROM objects WHERE vault_id = $1`,
    )) as [{ objectId: number; key: string; liveBytes: number; sizeBytes: number }];
    // Another worker has compacted the object between this one's reading and its transaction.
    const reached = Promise.withResolvers<void>();
    const released = Promise.withResolvers<void>();
    const slow = Object.assign(Object.create(memory) as MemoryStore, {
      async put(...args: Parameters<MemoryStore['put']>): Promise<void> {
        reached.resolve();
        await released.promise;
        await memory.put(...args);
      },
    });
    const first = compactObjects({ ...storage, objects: slow }, ref.vault, [{ ...old, rewrite: false }]);
    await reached.promise;
    expect(await compactDue(storage)).toMatchObject({ blocks: 4 });
    released.resolve();
    expect(await first).toMatchObject({ blocks: 0 });
    expect(await contents(...kept)).toEqual(kept);
    expect(await liveObjects()).toMatchObject([{ liveBytes: 4000 }]);
  });

  test('an object that cannot be read keeps no other from being compacted', async () => {
    const one = await sparse(1, 2);
    const other = await newArchive(storage);
    const mine = ref;
    ref = other;
    run = await newRun(storage, ref);
    await sparse(1, 3);
    const key = (await liveObjects())[0]!.key;
    const broken = Object.assign(Object.create(memory) as MemoryStore, {
      get(...args: Parameters<MemoryStore['get']>) {
        if (args[0] === key) return Promise.reject(new Error('this object cannot be read'));
        return memory.get(...args);
      },
    });
    await expect(compactDue({ ...storage, objects: broken })).rejects.toThrow('this object cannot be read');
    ref = mine;
    expect(await liveObjects()).toMatchObject([{ liveBytes: 2000 }]);
    expect(await contents(...one)).toEqual(one);
    ref = other;
    expect(await liveObjects()).toMatchObject([{ key }]);
  });
});
