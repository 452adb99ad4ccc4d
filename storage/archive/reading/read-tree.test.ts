import { describe, expect, test } from '@jest/globals';
import { limits } from '../../../protocol/limits.ts';
import type { StoredVersion, VersionMessage } from '../../../protocol/messages.ts';
import { encodeFrame } from '../../../protocol/wire.ts';
import {
  commit,
  deletion,
  newArchive,
  newRun,
  storageForFile,
  upload,
  version,
} from '../../../tests/helpers/storage.ts';
import type { ArchiveRef } from '../../storage.ts';
import { readHistory, readTree, streamVersions, type VersionsQuery } from './read-tree.ts';

const storage = storageForFile();

const everything: VersionsQuery = { path: Buffer.from('/'), at: null, seq: null, after: null, deleted: false };

async function versionsOf(ref: ArchiveRef, query: Partial<VersionsQuery> = {}): Promise<StoredVersion[]> {
  const frames = await Array.fromAsync(streamVersions(storage, ref, { ...everything, ...query }));
  expect(frames[0]!.frame).toBe('begin');
  expect(frames.at(-1)!.frame).toBe('end');
  return frames.flatMap((frame) => (frame.frame === 'versions' ? frame.versions : []));
}

async function pathsOf(ref: ArchiveRef, query: Partial<VersionsQuery> = {}): Promise<string[]> {
  return (await versionsOf(ref, query)).map((each) => each.path.toString('latin1'));
}

/** Depth first in byte order of names, which is the byte order of paths whose slashes sort before everything. */
function inOrder(paths: string[]): string[] {
  const key = (path: string): string => path.replaceAll('/', '\0');
  return [...paths].sort((a, b) => (key(a) < key(b) ? -1 : 1));
}

async function committed(versions: VersionMessage[]): Promise<ArchiveRef> {
  const ref = await newArchive(storage);
  const run = await newRun(storage, ref);
  for (let at = 0; at < versions.length; at += 5_000) await commit(storage, ref, run, versions.slice(at, at + 5_000));
  return ref;
}

/** A tree with wide, narrow, deep and empty folders and names that sort badly. */
function manyPaths(): string[] {
  const paths: string[] = [];
  for (let i = 0; i < 1_500; i++) paths.push(`/wide/file ${i}`);
  for (let i = 0; i < 200; i++) for (let j = 0; j < 3; j++) paths.push(`/narrow/d${i}/f${j}`);
  for (let i = 0; i < 100; i++) paths.push(`/narrow/full/${i}`);
  paths.push(`/deep${'/x'.repeat(300)}`, '/a', '/a-b', '/a.b/c', '/A', '/\xff\xfe/\x01', '/\xe4\xb8\xad');
  return paths;
}

test('everything below a path comes once, folders first, in byte order, whatever the shape of the tree', async () => {
  const paths = manyPaths();
  const ref = await committed(paths.map((path) => version('', [], { path: Buffer.from(path, 'latin1') })));
  expect(await pathsOf(ref)).toEqual(inOrder(paths));
  const below = paths.filter((path) => path.startsWith('/narrow/'));
  expect(await pathsOf(ref, { path: Buffer.from('/narrow') })).toEqual(inOrder(below));
  expect(await pathsOf(ref, { path: Buffer.from('/a') })).toEqual(['/a']);
});

test('a reader that was cut off anywhere goes on behind the last path it got', async () => {
  const paths = manyPaths();
  const ref = await committed(paths.map((path) => version('', [], { path: Buffer.from(path, 'latin1') })));
  const all = inOrder(paths);
  for (let i = 0; i < all.length; i += 97) {
    expect(await pathsOf(ref, { after: Buffer.from(all[i]!, 'latin1') })).toEqual(all.slice(i + 1));
  }
  const narrow = all.filter((path) => path.startsWith('/narrow/'));
  expect(await pathsOf(ref, { path: Buffer.from('/narrow'), after: Buffer.from(narrow[300]!) })).toEqual(
    narrow.slice(301),
  );
  await expect(pathsOf(ref, { path: Buffer.from('/narrow'), after: Buffer.from('/wide/x') })).rejects.toMatchObject({
    code: 'path_invalid',
  });
});

test('what is read as of a seq does not change while backups commit', async () => {
  const ref = await newArchive(storage);
  const run = await newRun(storage, ref);
  await commit(storage, ref, run, [
    version('/d/a', [], { mtime: 1 }),
    version('/d/b', [], { mtime: 1 }),
    version('/d', [], { kind: 'directory', mtime: 1 }),
  ]);
  const begin = (await Array.fromAsync(streamVersions(storage, ref, everything)))[0]!;
  const seq = begin.frame === 'begin' ? begin.seq : -1;
  expect(seq).toBe(3);
  await commit(storage, ref, run, [
    version('/d/a', [], { mtime: 2 }),
    deletion('/d/b'),
    version('/d/c', [], { mtime: 2 }),
    version('/e/f', [], { mtime: 2 }),
  ]);
  expect((await versionsOf(ref, { seq })).map((each) => [`${each.path}`, each.mtime])).toEqual([
    ['/d', 1],
    ['/d/a', 1],
    ['/d/b', 1],
  ]);
  expect(await pathsOf(ref)).toEqual(['/d', '/d/a', '/d/c', '/e/f']);
  expect(await pathsOf(ref, { deleted: true })).toEqual(['/d', '/d/a', '/d/b', '/d/c', '/e/f']);
});

test("a moment is the database's: what was committed by it is there, what came later is not", async () => {
  const ref = await newArchive(storage);
  const run = await newRun(storage, ref);
  await commit(storage, ref, run, [version('/a')]);
  const { versions } = await readHistory(storage, ref, { path: Buffer.from('/a'), after: null, limit: 1 });
  const first = versions[0]!.committedAt;
  await new Promise((resolve) => setTimeout(resolve, 20));
  await commit(storage, ref, run, [version('/b/c')]);
  const at = new Date(first);
  expect(await pathsOf(ref, { at })).toEqual(['/a']);
  expect(await pathsOf(ref, { at: new Date(first - 1) })).toEqual([]);
  const tree = await readTree(storage, ref, { path: Buffer.from('/'), at, deleted: false, after: null, limit: 10 });
  expect(tree.entries.map((entry) => `${entry.name}`)).toEqual(['a']);
});

test('contents come with each version, and a frame holds no more than it should', async () => {
  const ref = await newArchive(storage);
  const run = await newRun(storage, ref);
  const blocks = Array.from({ length: 8_000 }, (_, i) => Buffer.from(`block ${i}`));
  await upload(storage, ref.vault, blocks, 1 << 20);
  const sent = Array.from({ length: 12 }, (_, i) => version(`/f${String(i).padStart(2, '0')}`, blocks));
  await commit(storage, ref, run, sent);
  const frames = await Array.fromAsync(streamVersions(storage, ref, everything));
  for (const frame of frames) if (frame.frame === 'versions') expect(frame.versions.length).toBeLessThanOrEqual(4);
  const got = frames.flatMap((frame) => (frame.frame === 'versions' ? frame.versions : []));
  expect(got.map(({ seq: _, committedAt: __, ...rest }) => rest)).toEqual(sent);
});

test('what exists below a folder that was deleted, or became a file, is part of what exists', async () => {
  const ref = await newArchive(storage);
  const run = await newRun(storage, ref);
  const folder = (path: string): VersionMessage => version(path, [], { kind: 'directory' });
  await commit(storage, ref, run, [folder('/gone'), version('/gone/old'), version('/file')]);
  await commit(storage, ref, run, [deletion('/gone'), deletion('/gone/old')]);
  await commit(storage, ref, run, [version('/gone/new/x'), version('/file/y')]);
  expect(await pathsOf(ref)).toEqual(['/file', '/file/y', '/gone/new/x']);
  expect(await pathsOf(ref, { path: Buffer.from('/gone') })).toEqual(['/gone/new/x']);
  const tree = await readTree(storage, ref, {
    path: Buffer.from('/gone'),
    at: null,
    deleted: false,
    after: null,
    limit: 10,
  });
  expect(tree.entries.map((entry) => `${entry.name}`)).toEqual(['new']);
});

test('a page of a folder is found behind any number of deleted names', async () => {
  const ref = await newArchive(storage);
  const run = await newRun(storage, ref);
  const names = Array.from({ length: 2_500 }, (_, i) => `/d/${String(i).padStart(5, '0')}`);
  await commit(storage, ref, run, [...names.map((name) => version(name)), version('/d/zz')]);
  await commit(
    storage,
    ref,
    run,
    names.map((name) => deletion(name)),
  );
  const page = await readTree(storage, ref, {
    path: Buffer.from('/d'),
    at: null,
    deleted: false,
    after: null,
    limit: 10,
  });
  expect([page.entries.map((entry) => `${entry.name}`), page.more]).toEqual([['zz'], false]);
  const all = await readTree(storage, ref, {
    path: Buffer.from('/d'),
    at: null,
    deleted: true,
    after: null,
    limit: 1000,
  });
  expect([all.entries.length, all.more]).toEqual([1000, true]);
});

test('a frame holds no more bytes than frames may, however long the paths', async () => {
  const long = `/${'n'.repeat(2_000)}`.repeat(16);
  const ref = await committed(Array.from({ length: 300 }, (_, i) => version(`${long}/${i}`)));
  for await (const frame of streamVersions(storage, ref, everything)) {
    expect(encodeFrame(frame).byteLength).toBeLessThan(limits.frameBytesMax / 2);
  }
});

describe('a folder', () => {
  test('is read a page at a time', async () => {
    const names = Array.from({ length: 25 }, (_, i) => `n${i}`);
    const ref = await committed(names.map((name) => version(`/d/${name}`)));
    const got: string[] = [];
    for (let after: Buffer | null = null, more = true; more; ) {
      const page = await readTree(storage, ref, {
        path: Buffer.from('/d'),
        at: null,
        deleted: false,
        after,
        limit: 10,
      });
      got.push(...page.entries.map((entry) => `${entry.name}`));
      after = page.entries.at(-1)!.name;
      more = page.more;
    }
    expect(got).toEqual([...names].sort());
  });

  test('that is not there is said to be so, in this archive and in one that is not there', async () => {
    const ref = await committed([version('/d/x')]);
    const query = { path: Buffer.from('/nowhere'), at: null, deleted: false, after: null, limit: 10 };
    await expect(readTree(storage, ref, query)).rejects.toMatchObject({ code: 'not_found', extras: { field: 'path' } });
    await expect(readTree(storage, { ...ref, archive: ref.archive + 999 }, query)).rejects.toMatchObject({
      code: 'not_found',
    });
    await expect(readTree(storage, { vault: ref.vault + 999, archive: ref.archive }, query)).rejects.toMatchObject({
      code: 'not_found',
    });
  });
});

test('the history of a path comes newest first, a page at a time', async () => {
  const ref = await newArchive(storage);
  const run = await newRun(storage, ref);
  for (let i = 0; i < 7; i++) await commit(storage, ref, run, [version('/x', [], { mtime: i })]);
  const first = await readHistory(storage, ref, { path: Buffer.from('/x'), after: null, limit: 4 });
  expect([first.versions.map((each) => each.mtime), first.more]).toEqual([[6, 5, 4, 3], true]);
  const second = await readHistory(storage, ref, {
    path: Buffer.from('/x'),
    after: first.versions.at(-1)!.seq,
    limit: 4,
  });
  expect([second.versions.map((each) => each.mtime), second.more]).toEqual([[2, 1, 0], false]);
});
