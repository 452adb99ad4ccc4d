import { randomBytes } from 'node:crypto';
import { describe, expect, test } from '@jest/globals';
import { bitAt, hashCount, joinHashes, sha256 } from '../../../protocol/hashes.ts';
import { limits } from '../../../protocol/limits.ts';
import { type List, ListCutter } from '../../../protocol/lists.ts';
import { commit, newArchive, newRun, storageForFile, upload, version } from '../../../tests/helpers/storage.ts';
import { readVaultUsage } from '../../catalog/usage.ts';
import type { ArchiveRef } from '../../storage.ts';
import { readHistory } from '../reading/read-tree.ts';
import { claimLists, readLists, storeLists } from './lists.ts';

const hourMs = 3_600_000;

const storage = storageForFile();

const block = (seed: number): Buffer => Buffer.alloc(100, `block ${seed} `);
const range = (from: number, to: number): Buffer[] => Array.from({ length: to - from }, (_, i) => block(from + i));

function listOf(blocks: readonly Uint8Array[]): List {
  const hashes = joinHashes(blocks.map(sha256));
  return { hash: sha256(hashes), blocks: hashes };
}

async function refsOf(vault: number, blocks: readonly Uint8Array[]): Promise<number[]> {
  const refs: number[] = [];
  for (const each of blocks) {
    const [row] = await storage.rows<{ refs: number }>('SELECT refs FROM blocks WHERE vault_id = $1 AND hash = $2', [
      vault,
      sha256(each),
    ]);
    refs.push(row?.refs ?? -1);
  }
  return refs;
}

async function isKnown(vault: number, list: List): Promise<boolean> {
  return !bitAt((await claimLists(storage, vault, list.hash)).send, 0);
}

async function contentsOf(vault: number, hashes: Buffer): Promise<(Buffer | null)[]> {
  const lists = await Array.fromAsync(readLists(storage, vault, hashes));
  expect(lists.map((list) => list.index)).toEqual([...lists.keys()]);
  return lists.map((list) => list.bytes && Buffer.concat(list.bytes));
}

const setDamaged = (table: 'blocks' | 'lists', vault: number, hash: Buffer): Promise<unknown[]> =>
  storage.rows(`UPDATE ${table} SET damaged_at = now() WHERE vault_id = $1 AND hash = $2`, [vault, hash]);

test('a stored list is known, counts once on each of its blocks, and comes back', async () => {
  const { vault } = await newArchive(storage);
  await upload(storage, vault, range(0, 4));
  const list = listOf([block(0), block(1), block(0), block(2)]);
  expect(await isKnown(vault, list)).toBe(false);
  expect(await storeLists(storage, vault, [list])).toMatchObject({ stored: 1 });
  expect(await isKnown(vault, list)).toBe(true);
  expect(await refsOf(vault, range(0, 4))).toEqual([1, 1, 1, 0]);
  const unknown = sha256(Buffer.from('unknown'));
  expect(await contentsOf(vault, Buffer.concat([list.hash, unknown, list.hash]))).toEqual([
    list.blocks,
    null,
    list.blocks,
  ]);
  expect(await readVaultUsage(storage.database, vault)).toMatchObject({ storedBytes: 400, referencedBytes: 300 });
});

test('a list that no commit names is noted, to be looked at when its claim has ended', async () => {
  const { vault } = await newArchive(storage);
  await upload(storage, vault, range(0, 2));
  const list = listOf(range(0, 2));
  const { until } = await storeLists(storage, vault, [list]);
  const [noted] = await storage.rows<{ same: boolean; hours: number }>(
    `SELECT f.check_after = l.claimed_until AS same, extract(epoch FROM l.claimed_until - $2::timestamptz) / 3600 AS hours
       FROM freed_lists f JOIN lists l USING (vault_id, hash) WHERE vault_id = $1`,
    [vault, until],
  );
  expect(noted!.same).toBe(true);
  expect(Number(noted!.hours)).toBeGreaterThan(24); // twice the window, of which one is promised
});

test('stored again, or twice in one request, or by two at once, a list counts once', async () => {
  const { vault } = await newArchive(storage);
  await upload(storage, vault, range(0, 6));
  const [a, b, c] = [listOf(range(0, 3)), listOf(range(2, 5)), listOf(range(1, 6))];
  expect(await storeLists(storage, vault, [a, a])).toMatchObject({ stored: 1 });
  const results = await Promise.all([
    storeLists(storage, vault, [a, b, c]),
    storeLists(storage, vault, [c, b]),
    storeLists(storage, vault, [b, a, c]),
  ]);
  expect(results.reduce((sum, result) => sum + result.stored, 0)).toBe(2);
  expect(await refsOf(vault, range(0, 6))).toEqual([1, 2, 3, 2, 2, 1]);
});

test('lists that name blocks of each other are stored in any number of transactions', async () => {
  const { vault } = await newArchive(storage);
  const many = await syntheticBlocks(vault, 'batches', 3 * limits.commitHashesMax);
  const size = limits.listBlocksMax;
  const lists = Array.from({ length: many.length / size }, (_, i) => {
    const blocks = joinHashes(many.slice(i * size, (i + 1) * size));
    return { hash: sha256(blocks), blocks };
  });
  expect(lists.length).toBe(12); // three transactions of four
  expect(await storeLists(storage, vault, lists)).toMatchObject({ stored: 12 });
  const counted = await storage.rows(
    'SELECT refs, count(*)::int AS blocks FROM blocks WHERE vault_id = $1 GROUP BY refs',
    [vault],
  );
  expect(counted).toEqual([{ refs: 1, blocks: many.length }]);
});

describe('refused, and nothing of it is stored:', () => {
  test('a list whose blocks are not all there, or damaged: they are named', async () => {
    const { vault } = await newArchive(storage);
    await upload(storage, vault, range(0, 3));
    await setDamaged('blocks', vault, sha256(block(1)));
    const list = listOf([...range(0, 3), block(9)]);
    const missing = [sha256(block(1)), sha256(block(9))].map((hash) => hash.toString('hex'));
    const refused = storeLists(storage, vault, [list]).catch((error) => error);
    expect((await refused).extras.missing.toSorted()).toEqual(missing.toSorted());
    expect(await refused).toMatchObject({ code: 'blocks_missing', extras: { field: 'lists' } });
    expect(await isKnown(vault, list)).toBe(false);
    expect(await refsOf(vault, range(0, 3))).toEqual([0, 0, 0]);
    expect(await storage.rows('SELECT 1 FROM freed_lists WHERE vault_id = $1', [vault])).toEqual([]);
  });

  test('a list under a wrong name, however many right ones come with it', async () => {
    const { vault } = await newArchive(storage);
    await upload(storage, vault, range(0, 2));
    const right = listOf(range(0, 2));
    const wrong = { hash: sha256(Buffer.from('wrong')), blocks: right.blocks };
    await expect(storeLists(storage, vault, [right, wrong])).rejects.toMatchObject({
      code: 'list_corrupt',
      extras: { field: 'lists.1', index: 1, hash: wrong.hash.toString('hex') },
    });
    expect(await isKnown(vault, right)).toBe(false);
  });

  test('a list of no hashes, of too many, or of no whole number of them', async () => {
    const { vault } = await newArchive(storage);
    for (const bytes of [0, 31, 33, (limits.listBlocksMax + 1) * 32]) {
      const blocks = Buffer.alloc(bytes);
      await expect(storeLists(storage, vault, [{ hash: sha256(blocks), blocks }])).rejects.toMatchObject({
        code: 'out_of_bounds',
        extras: { field: 'lists.0' },
      });
    }
  });
});

test('what one vault holds is not known in another, nor given', async () => {
  const [own, other] = [await newArchive(storage), await newArchive(storage)];
  await upload(storage, own.vault, range(0, 2));
  const list = listOf(range(0, 2));
  await storeLists(storage, own.vault, [list]);
  expect(await isKnown(other.vault, list)).toBe(false);
  expect(await contentsOf(other.vault, list.hash)).toEqual([null]);
  await expect(storeLists(storage, other.vault, [list])).rejects.toMatchObject({ code: 'blocks_missing' });
});

test('a damaged list has to be sent, and is well again once its blocks are; it counts no second time', async () => {
  const { vault } = await newArchive(storage);
  await upload(storage, vault, range(0, 3));
  const list = listOf(range(0, 3));
  await storeLists(storage, vault, [list]);
  await setDamaged('blocks', vault, sha256(block(1)));
  await setDamaged('lists', vault, list.hash);
  expect(await isKnown(vault, list)).toBe(false);
  expect(await contentsOf(vault, list.hash)).toEqual([list.blocks]);
  await expect(storeLists(storage, vault, [list])).rejects.toMatchObject({
    code: 'blocks_missing',
    extras: { missing: [sha256(block(1)).toString('hex')] },
  });
  expect(await isKnown(vault, list)).toBe(false);
  await upload(storage, vault, [block(1)]);
  expect(await storeLists(storage, vault, [list])).toMatchObject({ stored: 0 });
  expect(await isKnown(vault, list)).toBe(true);
  expect(await refsOf(vault, range(0, 3))).toEqual([1, 1, 1]);
});

test('a claim renews what is about to lapse, reads what is in use, and never shortens', async () => {
  const ref = await newArchive(storage);
  const { vault } = ref;
  await upload(storage, vault, range(0, 4));
  const [used, unused, fresh] = [listOf(range(0, 2)), listOf(range(1, 3)), listOf(range(2, 4))];
  await storeLists(storage, vault, [used, unused, fresh]);
  await commit(storage, ref, await newRun(storage, ref), [version('/f', [], { lists: used.hash, size: 200 })]);
  await storage.rows(
    `UPDATE lists SET claimed_until = now() - interval '1 day' WHERE vault_id = $1 AND hash = ANY ($2)`,
    [vault, [used.hash, unused.hash]],
  );
  const hours = async (list: List): Promise<number> => {
    const [row] = await storage.rows<{ hours: string }>(
      'SELECT extract(epoch FROM claimed_until - now()) / 3600 AS hours FROM lists WHERE vault_id = $1 AND hash = $2',
      [vault, list.hash],
    );
    return Number(row!.hours);
  };
  const freshBefore = await hours(fresh);
  const { send, until } = await claimLists(storage, vault, Buffer.concat([used.hash, unused.hash, fresh.hash]));
  expect([0, 1, 2].map((i) => bitAt(send, i))).toEqual([false, false, false]);
  const windowHours = storage.settings.claimWindowMs / hourMs;
  expect(await hours(unused)).toBeGreaterThan(windowHours * 1.9);
  expect(await hours(used)).toBeLessThan(0); // in use: the claim only looked
  expect(await hours(fresh)).toBeLessThanOrEqual(freshBefore);
  expect(until.getTime()).toBeGreaterThan(Date.now() + (windowHours - 1) * hourMs);
});

/** Rows of blocks that no bytes stand behind: only numbers matter to lists and commits. @returns their hashes */
async function syntheticBlocks(vault: number, name: string, count: number): Promise<Buffer[]> {
  const hashes = Array.from({ length: count }, (_, i) => sha256(Buffer.from(`${name} ${i}`)));
  await storage.rows(
    `WITH o AS (INSERT INTO objects (vault_id, key, state, size_bytes, live_bytes) VALUES ($1, $2, 'live', 1, 1) RETURNING object_id)
     INSERT INTO blocks (vault_id, hash, object_id, byte_offset, byte_length, claimed_until)
     SELECT $1, substr($3::bytea, i * 32 + 1, 32), object_id, 0, 1, now() + interval '14 days' FROM o, generate_series(0, $4::int - 1) i`,
    [vault, name, joinHashes(hashes), count],
  );
  return hashes;
}

/** Stores the lists of a file as an agent does: only those that a claim asks for. @returns all names, and how many were asked for */
async function storeFile(ref: ArchiveRef, hashes: readonly Buffer[]): Promise<{ lists: Buffer; sent: number }> {
  const cutter = new ListCutter();
  const lists = hashes.flatMap((hash) => cutter.add(hash) ?? []);
  lists.push(...[cutter.finish() ?? []].flat());
  const names = joinHashes(lists.map((list) => list.hash));
  const { send } = await claimLists(storage, ref.vault, names);
  const wanted = lists.filter((_, i) => bitAt(send, i));
  for (let at = 0; at < wanted.length; at += limits.uploadListsMax)
    await storeLists(storage, ref.vault, wanted.slice(at, at + limits.uploadListsMax));
  return { lists: names, sent: wanted.length };
}

test('an image of 1 TB with 1% changed in 10 extents commits 1% of its lists and two per extent', async () => {
  const ref = await newArchive(storage);
  const run_ = await newRun(storage, ref);
  const image = await syntheticBlocks(ref.vault, 'image', 131_072); // blocks of 8 MiB
  const first = await storeFile(ref, image);
  expect(first.sent).toBe(hashCount(first.lists));
  expect(first.sent).toBeGreaterThan(100);
  await commit(storage, ref, run_, [version('/image', [], { lists: first.lists, size: 2 ** 40 })]);

  const extents = 10;
  const changedBlocks = 131; // 1% in all
  const fresh = await syntheticBlocks(ref.vault, 'changed', extents * changedBlocks);
  const changed = [...image];
  for (let extent = 0; extent < extents; extent++)
    changed.splice(
      extent * 13_107 + 700,
      changedBlocks,
      ...fresh.slice(extent * changedBlocks, (extent + 1) * changedBlocks),
    );
  const second = await storeFile(ref, changed);
  expect(second.sent).toBeGreaterThanOrEqual(extents);
  expect(second.sent).toBeLessThanOrEqual(Math.ceil(hashCount(first.lists) / 100) + 2 * extents);
  await commit(storage, ref, run_, [version('/image', [], { lists: second.lists, size: 2 ** 40 })]);

  const [rows] = await storage.rows<{ lists: number; shared: number }>(
    'SELECT count(*)::int AS lists, count(*) FILTER (WHERE refs = 2)::int AS shared FROM lists WHERE vault_id = $1',
    [ref.vault],
  );
  expect(rows!.lists).toBe(first.sent + second.sent);
  expect(rows!.shared).toBe(hashCount(second.lists) - second.sent);
  const { versions } = await readHistory(storage, ref, { path: Buffer.from('/image'), after: null, limit: 10 });
  expect(versions.map((each) => each.lists)).toEqual([second.lists, first.lists]);
  // A block that both versions have is counted by the lists it is in, not by versions.
  const [refs] = await storage.rows<{ most: number }>('SELECT max(refs) AS most FROM blocks WHERE vault_id = $1', [
    ref.vault,
  ]);
  expect(refs!.most).toBeLessThanOrEqual(2);
});

test('a commit that names a list the vault does not hold, or a damaged one, is refused naming it', async () => {
  const ref = await newArchive(storage);
  const run_ = await newRun(storage, ref);
  await upload(storage, ref.vault, range(0, 3));
  const [there, damaged] = [listOf(range(0, 2)), listOf(range(1, 3))];
  await storeLists(storage, ref.vault, [there, damaged]);
  await setDamaged('lists', ref.vault, damaged.hash);
  const absent = randomBytes(32);
  const named = version('/f', [], { lists: Buffer.concat([there.hash, absent, damaged.hash]), size: 400 });
  const refused = await commit(storage, ref, run_, [named]).catch((error) => error);
  expect(refused).toMatchObject({ code: 'blocks_missing', extras: { missing: [] } });
  expect(refused.extras.missingLists.toSorted()).toEqual(
    [absent, damaged.hash].map((hash) => hash.toString('hex')).toSorted(),
  );
});
