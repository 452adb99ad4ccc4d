import { beforeEach, expect, test } from '@jest/globals';
import { bitAt, sha256 } from '../../../protocol/hashes.ts';
import {
  block,
  commit,
  deletion,
  newArchive,
  newRun,
  storageForEachTest,
  upload,
  version,
} from '../../../tests/helpers/storage.ts';
import { hasOpenAlert } from '../../catalog/checking/alerts.ts';
import { searchVersions, type VersionKey } from '../../catalog/checking/damage.ts';
import { markBlocksDamaged } from '../../catalog/checking/mark-damaged.ts';
import { blocksOfObjects } from '../../catalog/deleting/compacting.ts';
import type { ArchiveRef } from '../../storage.ts';
import { claimLists, storeLists } from '../writing/lists.ts';
import { describeDamage, findDamageUsers, hasDamagedPaths, listDamagedPaths } from './damage.ts';

const storage = storageForEachTest();
let ref: ArchiveRef;
let runId: number;
beforeEach(async () => {
  ref = await newArchive(storage);
  runId = await newRun(storage, ref);
});

const everything = { after: Buffer.alloc(0), limit: 1_000 };
const paths = async (of = ref, page = everything): Promise<string[]> =>
  (await listDamagedPaths(storage, of, page)).paths.map(String);

async function damage(...blocks: Buffer[]): Promise<void> {
  for (const each of blocks) {
    const [row] = await storage.rows('SELECT object_id FROM blocks WHERE hash = $1', [sha256(each)]);
    const all = await blocksOfObjects(storage.database, ref.vault, [row!.object_id as number]);
    const bad = all.filter(({ hash }) => hash.equals(sha256(each)));
    expect(await storage.database.transaction((tx) => markBlocksDamaged(tx, ref.vault, bad))).toHaveLength(1);
  }
}

test('an agent is told the paths whose latest version needs a damaged block, until it is sent again', async () => {
  await upload(storage, ref.vault, [1, 2, 3, 4].map(block));
  await commit(storage, ref, runId, [
    version('/b', [block(1), block(2)]),
    version('/a', [block(3)]),
    version('/old', [block(1)]),
  ]);
  await commit(storage, ref, runId, [
    version('/d/e/f', [block(1)]),
    version('/old', [block(4)]),
    version('/gone', [block(1)]),
  ]);
  await commit(storage, ref, runId, [deletion('/gone')]);
  const other = await newArchive(storage, ref.vault);
  await commit(storage, other, await newRun(storage, other), [version('/x', [block(2)])]);
  expect([await paths(), await hasDamagedPaths(storage, ref)]).toEqual([[], false]);

  await damage(block(1));
  expect(await findDamageUsers(storage)).toMatchObject({ vaults: 1, healed: 0 });
  expect([await paths(), await hasDamagedPaths(storage, ref)]).toEqual([['/b', '/d/e/f'], true]);
  expect([await paths(other), await hasDamagedPaths(storage, other)]).toEqual([[], false]);
  expect(await listDamagedPaths(storage, ref, { ...everything, limit: 1 })).toEqual({
    paths: [Buffer.from('/b')],
    more: true,
  });
  expect(await paths(ref, { after: Buffer.from('/b'), limit: 1 })).toEqual(['/d/e/f']);
  await damage(block(2));
  await findDamageUsers(storage);
  expect([await paths(), await paths(other)]).toEqual([['/b', '/d/e/f'], ['/x']]);
  expect(await hasOpenAlert(storage.database, { vault: ref.vault, kind: 'damaged' })).toBe(true);

  expect(await upload(storage, ref.vault, [block(1)])).toMatchObject({ stored: 1 });
  expect(await paths()).toEqual(['/b']); // at once: nobody had to tidy up
  await upload(storage, ref.vault, [block(2)]);
  expect(await findDamageUsers(storage)).toMatchObject({ healed: 2 });
  expect([await paths(), await paths(other)]).toEqual([[], []]);
  expect(await hasOpenAlert(storage.database, { vault: ref.vault, kind: 'damaged' })).toBe(false);
  for (const table of ['damage', 'damage_versions']) expect(await storage.rows(`SELECT 1 FROM ${table}`)).toEqual([]);
});

test('a list that names a damaged block has to be sent again, and its files are told; well, it is well again', async () => {
  const blocks = Array.from({ length: 40 }, (_, i) => block(i));
  await upload(storage, ref.vault, blocks);
  const lists = [blocks.slice(0, 30), blocks.slice(30)].map((of) => {
    const hashes = Buffer.concat(of.map(sha256));
    return { hash: sha256(hashes), blocks: hashes };
  });
  await storeLists(storage, ref.vault, lists);
  const named = { lists: Buffer.concat(lists.map((list) => list.hash)), blocks: Buffer.alloc(0) };
  await commit(storage, ref, runId, [version('/image', [], named), version('/small', [block(35)])]);
  const asked = async (): Promise<boolean[]> => {
    const { send } = await claimLists(storage, ref.vault, named.lists);
    return [bitAt(send, 0), bitAt(send, 1)];
  };
  expect(await asked()).toEqual([false, false]);

  await damage(block(7), block(8));
  expect(await findDamageUsers(storage)).toMatchObject({ lists: 1 });
  expect([await asked(), await paths()]).toEqual([[true, false], ['/image']]);

  // Half of it healed: still damaged. All of it, by another file: the list needs not be sent.
  await upload(storage, ref.vault, [block(7)]);
  await findDamageUsers(storage);
  expect([await asked(), await paths()]).toEqual([[true, false], ['/image']]);
  await upload(storage, ref.vault, [block(8)]);
  expect(await findDamageUsers(storage)).toMatchObject({ healed: 2 });
  expect([await asked(), await paths()]).toEqual([[false, false], []]);
  expect(await findDamageUsers(storage)).toMatchObject({ vaults: 0 });
});

test('the administrator sees the files, which of their moments are damaged, and which are whole', async () => {
  await upload(storage, ref.vault, [1, 2, 3].map(block));
  for (const each of [1, 2, 3]) await commit(storage, ref, runId, [version('/a', [block(each)])]);
  await commit(storage, ref, runId, [version('/b', [block(2)]), version('/c', [block(3)])]);
  await commit(storage, ref, runId, [deletion('/b')]);
  const other = await newArchive(storage, ref.vault);
  await commit(storage, other, await newRun(storage, other), [version('/a', [block(2)])]);
  await damage(block(2));
  await findDamageUsers(storage);

  const all = await describeDamage(storage, ref.vault, { limit: 100 });
  expect(all).toMatchObject({ blocks: 1, unsearched: 0, next: null });
  const shown = all.files.map(({ archive, path, moments, latestDamaged }) => [
    archive,
    String(path),
    moments.map(({ seq, damaged, deleted }) => `${seq}${damaged ? ' damaged' : ''}${deleted ? ' deleted' : ''}`),
    latestDamaged,
  ]);
  expect(shown).toEqual([
    [ref.archive, '/a', ['3', '2 damaged', '1'], false],
    [ref.archive, '/b', ['6 deleted', '4 damaged'], false],
    [other.archive, '/a', ['1 damaged'], true],
  ]);
  const pages: unknown[] = [];
  for (let after: { archive: number; fileId: number } | undefined; ; ) {
    const page = await describeDamage(storage, ref.vault, { limit: 1, ...(after && { after }) });
    pages.push(...page.files);
    if (!page.next) break;
    after = page.next;
  }
  expect(pages).toEqual(all.files);

  await storage.rows('DELETE FROM versions WHERE seq = 2');
  expect((await describeDamage(storage, ref.vault, { limit: 100 })).files).toHaveLength(2);
});

test('pages of any size find the same versions', async () => {
  const blocks = Array.from({ length: 10 }, (_, i) => block(i));
  await upload(storage, ref.vault, blocks);
  for (let i = 0; i < 6; i++)
    await commit(
      storage,
      ref,
      runId,
      blocks.map((_, n) => version(`/${n}`, blocks.slice(n, n + 3))),
    );
  await damage(block(0), block(5));
  await findDamageUsers(storage);
  const first = await storage.rows('SELECT * FROM damage_versions ORDER BY hash, file_id, seq');
  expect(first).toHaveLength(6 * (1 + 3));
  for (const page of [
    { versionsMax: 1, hashBytesMax: 1_000_000 },
    { versionsMax: 7, hashBytesMax: 1_000_000 },
    { versionsMax: 1_000, hashBytesMax: 1 }, // one at a time, however long
    { versionsMax: 1_000, hashBytesMax: 200 },
  ]) {
    await storage.rows('DELETE FROM damage_versions');
    let pages = 0;
    for (let after: VersionKey | null = { fileId: 0, seq: 0 }; after; pages++)
      after = await searchVersions(storage.database, ref, { after, ...page });
    expect(pages).toBeGreaterThan(8);
    expect(await storage.rows('SELECT * FROM damage_versions ORDER BY hash, file_id, seq')).toEqual(first);
  }
});
