import { randomBytes } from 'node:crypto';
import { describe, expect, test } from '@jest/globals';
import { sha256 } from '../../../protocol/hashes.ts';
import { limits } from '../../../protocol/limits.ts';
import {
  commit,
  deletion,
  newArchive,
  newRun,
  storageForFile,
  upload,
  version,
} from '../../../tests/helpers/storage.ts';
import { readHistory, readTree } from '../reading/read-tree.ts';
import { commitVersions } from './commit.ts';

const storage = storageForFile();

const block = (seed: number): Buffer => Buffer.alloc(100, `block ${seed} `);
const names = async (ref: { vault: number; archive: number }, path: string): Promise<string[]> =>
  (
    await readTree(storage, ref, { path: Buffer.from(path), at: null, deleted: false, after: null, limit: 1000 })
  ).entries.map((entry) => `${entry.name}`);
const refs = async (vault: number): Promise<Record<string, unknown>[]> =>
  storage.rows('SELECT refs FROM blocks WHERE vault_id = $1 ORDER BY object_id, byte_offset', [vault]);

test('versions get a seq each, in the order sent, and folders appear with what lies in them', async () => {
  const ref = await newArchive(storage);
  const run = await newRun(storage, ref);
  await upload(storage, ref.vault, [block(1), block(2)]);
  expect(
    await commit(storage, ref, run, [
      version('/a/b/one', [block(1), block(2)]),
      version('/a/two', [block(2)]),
      version('/a/b', [], { kind: 'directory' }),
    ]),
  ).toEqual({
    firstSeq: 1,
    count: 3,
    purgeEpoch: 0,
  });
  expect(await commit(storage, ref, run, [version('/a/two')])).toMatchObject({ firstSeq: 4, count: 1 });
  expect(await names(ref, '/')).toEqual(['a']);
  expect(await names(ref, '/a')).toEqual(['b', 'two']);
  expect(
    (await readHistory(storage, ref, { path: Buffer.from('/a/two'), after: null, limit: 10 })).versions.map(
      (each) => each.seq,
    ),
  ).toEqual([4, 2]);
});

test('a block is counted once per version, however often the version names it', async () => {
  const ref = await newArchive(storage);
  const run = await newRun(storage, ref);
  await upload(storage, ref.vault, [block(1), block(2)]);
  await commit(storage, ref, run, [version('/x', [block(1), block(1), block(2), block(1)]), version('/y', [block(1)])]);
  await commit(storage, ref, run, [version('/x', [block(2)])]);
  expect(await refs(ref.vault)).toEqual([{ refs: 2 }, { refs: 2 }]);
});

test('missing and damaged blocks are named, and nothing of the commit remains', async () => {
  const ref = await newArchive(storage);
  const run = await newRun(storage, ref);
  await upload(storage, ref.vault, [block(1), block(2)]);
  await storage.rows('UPDATE blocks SET damaged_at = now() WHERE vault_id = $1 AND hash = $2', [
    ref.vault,
    sha256(block(2)),
  ]);
  await expect(commit(storage, ref, run, [version('/x', [block(1), block(2)])])).rejects.toMatchObject({
    extras: { missing: [sha256(block(2)).toString('hex')] },
  });
  await expect(commit(storage, ref, run, [version('/x', [block(1), block(3)])])).rejects.toMatchObject({
    extras: { missing: [sha256(block(3)).toString('hex')] },
  });
  const refusal = commit(storage, ref, run, [version('/x', [block(1), block(2), block(3)])]);
  await expect(refusal).rejects.toMatchObject({ code: 'blocks_missing' });
  const { extras } = await refusal.catch((error) => error);
  expect(new Set(extras.missing)).toEqual(
    new Set([sha256(block(2)).toString('hex'), sha256(block(3)).toString('hex')]),
  );
  expect(await names(ref, '/')).toEqual([]);
  expect(await refs(ref.vault)).toEqual([{ refs: 0 }, { refs: 0 }]);
});

test('another vault is no place to find a block in', async () => {
  const ref = await newArchive(storage);
  const other = await newArchive(storage);
  await upload(storage, other.vault, [block(1)]);
  await expect(commit(storage, ref, await newRun(storage, ref), [version('/x', [block(1)])])).rejects.toMatchObject({
    code: 'blocks_missing',
  });
});

describe('a commit sent again', () => {
  test('answers as before, and another body under its id is refused', async () => {
    const ref = await newArchive(storage);
    const run = await newRun(storage, ref);
    const commitId = randomBytes(16);
    const request = { commitId, run, purgeEpoch: 0, versions: [version('/x'), version('/y')] };
    const digest = sha256(Buffer.from('the body'));
    const first = await commitVersions(storage, ref, request, digest);
    await commit(storage, ref, run, [version('/z')]);
    expect(await commitVersions(storage, ref, request, digest)).toEqual(first);
    await expect(commitVersions(storage, ref, request, sha256(Buffer.from('another')))).rejects.toMatchObject({
      code: 'commit_id_reused',
    });
    expect(
      (await readHistory(storage, ref, { path: Buffer.from('/x'), after: null, limit: 10 })).versions,
    ).toHaveLength(1);
  });

  test('twice at the same moment happens once', async () => {
    const ref = await newArchive(storage);
    const run = await newRun(storage, ref);
    const request = { commitId: randomBytes(16), run, purgeEpoch: 0, versions: [version('/x')] };
    const answers = await Promise.all(
      Array.from({ length: 5 }, () => commitVersions(storage, ref, request, sha256(Buffer.from('body')))),
    );
    expect(new Set(answers.map((answer) => answer.firstSeq))).toEqual(new Set([1]));
    expect(
      (await readHistory(storage, ref, { path: Buffer.from('/x'), after: null, limit: 10 })).versions,
    ).toHaveLength(1);
  });
});

describe('refused', () => {
  test('a path named twice, lists, a strange run, an old purge epoch, an archive that is not active or not there', async () => {
    const ref = await newArchive(storage);
    const run = await newRun(storage, ref);
    await expect(commit(storage, ref, run, [version('/x'), version('/x')])).rejects.toMatchObject({
      code: 'path_repeated',
      extras: { field: 'versions.1.path' },
    });
    await expect(
      commit(storage, ref, run, [version('/x', [], { lists: randomBytes(32), size: 1 })]),
    ).rejects.toMatchObject({ code: 'blocks_missing' });
    await expect(commit(storage, ref, run, [version('/')])).rejects.toMatchObject({ code: 'path_invalid' });
    await expect(commit(storage, ref, run + 1000, [version('/x')])).rejects.toMatchObject({
      code: 'not_found',
      extras: { field: 'run' },
    });
    await expect(commit(storage, ref, run, [version('/x')], { purgeEpoch: 1 })).rejects.toMatchObject({
      code: 'archive_changed',
      extras: { purgeEpoch: 0 },
    });
    await newRun(storage, ref);
    await expect(commit(storage, ref, run, [version('/x')])).rejects.toMatchObject({ code: 'run_finished' });
    await storage.rows("UPDATE archives SET state = 'cold' WHERE vault_id = $1", [ref.vault]);
    await expect(commit(storage, ref, run, [version('/x')])).rejects.toMatchObject({ code: 'archive_not_active' });
    await expect(commit(storage, { ...ref, archive: ref.archive + 1000 }, run, [version('/x')])).rejects.toMatchObject({
      code: 'not_found',
    });
  });

  test('one distinct block more than a commit may name; the bound itself is taken', async () => {
    const ref = await newArchive(storage);
    const run = await newRun(storage, ref);
    const many = Array.from({ length: limits.commitHashesMax }, (_, i) => Buffer.from(`small block ${i}`));
    for (let at = 0; at < many.length; at += limits.uploadBlocksMax)
      await upload(storage, ref.vault, many.slice(at, at + limits.uploadBlocksMax), 1 << 20);
    expect(
      await commit(storage, ref, run, [version('/half', many.slice(0, 10_000)), version('/other', many.slice(10_000))]),
    ).toMatchObject({ count: 2 });
    await expect(
      commit(storage, ref, run, [version('/half', many), version('/more', [block(1)])]),
    ).rejects.toMatchObject({ code: 'out_of_bounds' });
  });
});

test('a clock that goes back does not take committed_at with it', async () => {
  const ref = await newArchive(storage);
  const run = await newRun(storage, ref);
  await commit(storage, ref, run, [version('/x')]);
  await storage.rows("UPDATE archives SET last_committed_at = now() + interval '1 hour' WHERE vault_id = $1", [
    ref.vault,
  ]);
  await commit(storage, ref, run, [version('/x')]);
  await commit(storage, ref, run, [version('/x')]);
  const times = (await readHistory(storage, ref, { path: Buffer.from('/x'), after: null, limit: 10 })).versions.map(
    (each) => each.committedAt,
  );
  expect(times[1]! - times[2]!).toBeGreaterThan(3_500_000);
  expect(times[0]! - times[1]!).toBeGreaterThanOrEqual(0);
});

test('the record of a deletion hides a path from then on, and the next version shows it again', async () => {
  const ref = await newArchive(storage);
  const run = await newRun(storage, ref);
  await commit(storage, ref, run, [version('/d/x'), version('/d/y')]);
  await commit(storage, ref, run, [deletion('/d/x')]);
  expect(await names(ref, '/d')).toEqual(['y']);
  await commit(storage, ref, run, [version('/d/x')]);
  expect(await names(ref, '/d')).toEqual(['x', 'y']);
});
