import { beforeEach, expect, test } from '@jest/globals';
import {
  block,
  commit,
  deletion,
  newArchive,
  newRun,
  storageForFile,
  upload,
  version,
} from '../../../tests/helpers/storage.ts';
import { manifestPage } from '../../catalog/reading/manifest.ts';
import type { ArchiveRef } from '../../storage.ts';
import { type ManifestQuery, readManifest } from './read-manifest.ts';

const storage = storageForFile();
let ref: ArchiveRef;
let run: number;
beforeEach(async () => {
  ref = await newArchive(storage);
  run = await newRun(storage, ref);
  await upload(storage, ref.vault, [block(1), block(2)]);
});

async function read(query: Partial<ManifestQuery> = {}) {
  const { upTo, versions } = await readManifest(storage, ref, { upTo: null, after: null, ...query });
  const lines = [];
  for await (const { path, seq, deleted, size, fileId, blocks } of versions)
    lines.push({ path: path.toString(), seq, deleted, size, fileId, blocks });
  return { upTo, lines };
}

test('every version is there, also of deleted files, and what is committed meanwhile is not', async () => {
  await commit(storage, ref, run, [version('/folder/a', [block(1)]), version('/b', [block(1), block(2)])]);
  await commit(storage, ref, run, [deletion('/folder/a'), version('/b', [block(2)])]);
  const { upTo, lines } = await read();
  expect(upTo).toBe(4);
  const about = (path: string) =>
    lines.filter((line) => line.path === path).map(({ seq, deleted, blocks }) => [seq, deleted, blocks]);
  expect(about('/folder/a')).toEqual([
    [1, false, 1],
    [3, true, 0],
  ]);
  expect(about('/b')).toEqual([
    [2, false, 2],
    [4, false, 1],
  ]);
  expect(lines).toHaveLength(4);
  await commit(storage, ref, run, [version('/later', [block(1)])]);
  expect((await read({ upTo: 4 })).lines).toEqual(lines);
  expect((await read()).lines).toHaveLength(5);
});

test('it goes on behind any line, and one that was cut anywhere is whole in the end', async () => {
  for (let i = 0; i < 5; i++) await commit(storage, ref, run, [version(`/f${i % 2}`, [block(1)])]);
  const { upTo, lines } = await read();
  for (const [i, { fileId, seq }] of lines.entries())
    expect((await read({ upTo, after: { fileId, seq } })).lines).toEqual(lines.slice(i + 1));
});

test('pages follow one another without a gap, at every length of a page', async () => {
  for (let i = 0; i < 4; i++) await commit(storage, ref, run, [version('/a', [block(1)]), version('/b', [block(2)])]);
  const all = await manifestPage(storage.database, ref, { after: { fileId: 0, seq: 0 }, upTo: 100, limit: 100 });
  expect(all).toHaveLength(8);
  for (let limit = 1; limit <= 9; limit++) {
    const read = [];
    for (let after = { fileId: 0, seq: 0 }; ; ) {
      const page = await manifestPage(storage.database, ref, { after, upTo: 100, limit });
      read.push(...page);
      if (page.length < limit) break;
      after = page.at(-1)!;
    }
    expect(read).toEqual(all);
  }
});

test('a seq that has not been given out yet, and an archive that is none, are refused', async () => {
  await commit(storage, ref, run, [version('/a', [block(1)])]);
  await expect(read({ upTo: 1 })).resolves.toMatchObject({ upTo: 1 });
  await expect(read({ upTo: 2 })).rejects.toMatchObject({ code: 'out_of_bounds', extras: { field: 'upTo' } });
  await expect(
    readManifest(storage, { ...ref, archive: ref.archive + 1_000 }, { upTo: null, after: null }),
  ).rejects.toMatchObject({ code: 'not_found' });
});

test('one that has expired is shown to nobody, from the moment it has until it is recovered', async () => {
  await commit(storage, ref, run, [version('/a', [block(1)])]);
  const put = (state: string) =>
    storage.rows('UPDATE archives SET state = $3 WHERE vault_id = $1 AND archive_id = $2', [
      ref.vault,
      ref.archive,
      state,
    ]);
  await put('cold');
  expect((await read()).lines).toHaveLength(1);
  await put('expired');
  await expect(read()).rejects.toMatchObject({ code: 'conflict', extras: { state: 'expired' } });
  await expect(read()).rejects.toThrow('give it a later date');
  await put('cold');
  expect((await read()).lines).toHaveLength(1);
  await storage.rows(`UPDATE archives SET state = 'expired', version_count = 0 WHERE archive_id = $1`, [ref.archive]);
  await expect(read()).rejects.toThrow('its versions were deleted');
});
