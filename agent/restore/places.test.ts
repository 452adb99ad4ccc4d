/** Restores of several paths, into the folder that one of them stands for, of what was deleted, and with a folder's own modes. */
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { lstat } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { hashAt, hashKey } from '../../protocol/hashes.ts';
import type { StoredVersion } from '../../protocol/messages.ts';
import { Problem } from '../../protocol/problems.ts';
import { openFolder } from '../files/reach.ts';
import { heldOpenBelow, scratchFolder, seededBytes } from '../files/test-tree.ts';
import type { Platform } from '../files/types.ts';
import { Folder } from './folders.ts';
import { restore } from './restore.ts';
import { archive as archiveId, keyring, TestArchive, vault } from './test-archive.ts';
import { RestoreEnded, type RestoreOptions, type RestoreSource } from './types.ts';

let scratch: ReturnType<typeof scratchFolder>;
let to: string;
let archive: TestArchive;
beforeEach(() => {
  scratch = scratchFolder();
  to = `${scratch.path}/to`;
  mkdirSync(to);
  archive = new TestArchive();
});
afterEach(() => {
  expect(heldOpenBelow(scratch.path)).toEqual([]);
  scratch.remove();
});

const x = Buffer.from('x');
const paths = (...texts: string[]): Buffer[] => texts.map((text) => Buffer.from(text));
const run = (options: Partial<RestoreOptions> & Pick<RestoreOptions, 'path'>) =>
  restore({ client: archive, keys: keyring, archive: archiveId, vault, to, ...options });

const withVersions = (versions: RestoreSource['versions']): RestoreSource => ({
  versions,
  fetchBlocks: (hashes, signal) => archive.fetchBlocks(hashes, signal),
  fetchLists: (hashes) => archive.fetchLists(hashes),
});

describe('several paths', () => {
  beforeEach(async () => {
    for (const path of ['/a', '/a/b', '/a/b/c', '/d', '/d/e']) await archive.commit({ path });
    for (const path of ['/a/1', '/a/b/2', '/a/b/c/3', '/d/e/4', '/d/5'])
      await archive.commit({ path, content: Buffer.from(path) });
  });

  test('lie in the target as they do below the folder it stands for', async () => {
    const report = await run({ path: paths('/a/b', '/d/e/4'), base: Buffer.from('/') });
    expect(report).toMatchObject({ complete: true, counts: { filesRestored: 3, folders: 2 } });
    expect(readFileSync(`${to}/a/b/c/3`, 'utf8')).toBe('/a/b/c/3');
    expect(readFileSync(`${to}/d/e/4`, 'utf8')).toBe('/d/e/4');
    expect(readdirSync(`${to}/a`)).toEqual(['b']);
    expect(readdirSync(`${to}/d`)).toEqual(['e']);
  });

  test('of which one is not in the archive are restored but for that', async () => {
    const source = withVersions(async (id, query) => {
      if (Buffer.from(query.path!).equals(Buffer.from('/gone')))
        throw new Problem('not_found', 'no such path', { field: 'path' });
      return archive.versions(id, query);
    });
    for (const order of [paths('/d/5', '/gone'), paths('/gone', '/d/5')]) {
      const report = await run({ client: source, path: order, base: Buffer.from('/'), seq: 9 });
      expect(report.problems.map(({ path, reason }) => `${path} ${reason}`)).toEqual(['/gone version_gone']);
      expect(existsSync(`${to}/d/5`)).toBe(true);
    }
  });

  test('take nothing that was not asked for, though the source gives it', async () => {
    const source = withVersions((id) => archive.versions(id, {}));
    const report = await run({ client: source, path: paths('/a/b', '/d/5'), base: Buffer.from('/') });
    expect(new Set(report.problems.map(({ reason }) => reason))).toEqual(new Set(['path_not_allowed']));
    expect(readdirSync(to).sort()).toEqual(['a', 'd']);
    expect(readdirSync(`${to}/d`)).toEqual(['5']);
  });
});

describe('a folder restored into itself', () => {
  test('gets its mode and time, and nothing beside what it held is touched', async () => {
    await archive.commit({ path: '/home/me', attributes: { mode: 0o750 }, mtime: 1_500_000_000_000 });
    await archive.commit({ path: '/home/me/a', content: x });
    writeFileSync(`${to}/other`, 'mine');
    const report = await run({ path: Buffer.from('/home/me'), base: Buffer.from('/home/me') });
    expect(report).toMatchObject({ complete: true, counts: { filesRestored: 1, folders: 1 } });
    expect(readdirSync(to).sort()).toEqual(['a', 'other']);
    expect(statSync(to).mode & 0o7777).toBe(0o750);
    expect(statSync(to).mtimeMs).toBe(1_500_000_000_000);
  });

  test('that is a file in the archive is left out', async () => {
    await archive.commit({ path: '/home/me', content: x });
    const report = await run({ path: Buffer.from('/home/me'), base: Buffer.from('/home/me') });
    expect(report.problems).toMatchObject([{ reason: 'parent_not_folder' }]);
    expect(readdirSync(to)).toEqual([]);
  });
});

describe('what was deleted', () => {
  /** Says that a path was deleted, and that its versions before are in the histories. */
  async function remove(path: string): Promise<void> {
    const before = archive.versionsByPath.filter((version) => version.path.equals(Buffer.from(path)));
    histories.set(path, [...before].reverse());
    archive.versionsByPath.splice(
      0,
      archive.versionsByPath.length,
      ...archive.versionsByPath.filter((each) => !before.includes(each)),
    );
    const version = await archive.commit({ path, kind: before.at(-1)!.kind });
    version.seq = 1_000;
    version.deleted = true;
    archive.sign(version);
  }
  const histories = new Map<string, StoredVersion[]>();
  let asked: { path: string; after: number | undefined }[];
  beforeEach(() => {
    histories.clear();
    asked = [];
    Object.assign(archive, {
      history: async (_: number, query: { path: Uint8Array; after?: number }) => {
        const path = Buffer.from(query.path).toString();
        asked.push({ path, after: query.after });
        if (!histories.has(path)) throw new Problem('not_found', 'nothing is kept', { field: 'path' });
        return { versions: histories.get(path)!, more: false };
      },
    });
  });

  test('comes back as it last was, in its folder, which was deleted too', async () => {
    await archive.commit({ path: '/a' });
    await archive.commit({ path: '/a/f', content: Buffer.from('first') });
    await archive.commit({ path: '/a/f', content: Buffer.from('last') });
    await archive.commit({ path: '/a/kept', content: x });
    await remove('/a/f');
    for (let i = 0; i < 40; i++) {
      await archive.commit({ path: `/a/n${i}`, content: Buffer.from(`n${i}`) });
      await remove(`/a/n${i}`);
    }
    const report = await run({ path: Buffer.from('/a'), deleted: true });
    expect(report).toMatchObject({ complete: true, counts: { filesRestored: 42 } });
    expect(readFileSync(`${to}/a/f`, 'utf8')).toBe('last');
    for (let i = 0; i < 40; i++) expect(readFileSync(`${to}/a/n${i}`, 'utf8')).toBe(`n${i}`);
    expect(asked[0]).toEqual({ path: '/a/f', after: 1_000 });
  });

  test('is not asked for without being wanted, and named when nothing of it is kept', async () => {
    await archive.commit({ path: '/a/f', content: x });
    await remove('/a/f');
    expect((await run({ path: Buffer.from('/a') })).complete).toBe(true);
    expect(asked).toEqual([]);
    histories.clear();
    const report = await run({ path: Buffer.from('/a'), deleted: true });
    expect(report.problems.map(({ path, reason }) => `${path} ${reason}`)).toEqual(['/a/f version_gone']);
  });

  test('is not what a history of something else says', async () => {
    const other = await archive.commit({ path: '/a/other', content: x });
    await archive.commit({ path: '/a/f', content: x });
    await remove('/a/f');
    histories.set('/a/f', [other]);
    const report = await run({ path: Buffer.from('/a/f'), deleted: true });
    expect(report.problems).toMatchObject([{ reason: 'version_gone' }]);
  });
});

describe('modes of the folder', () => {
  test('are those of new files, and what stands there keeps its own', async () => {
    await archive.commit({ path: '/a', attributes: { mode: 0o700, uid: 4_242 } });
    await archive.commit({ path: '/a/tool', content: x, attributes: { mode: 0o4711, uid: 4_242 } });
    await archive.commit({ path: '/b', attributes: { mode: 0o500 }, mtime: 1_400_000_000_000 });
    await archive.commit({ path: '/b/same', content: x, attributes: { mode: 0o600 } });
    mkdirSync(`${to}/b`, { mode: 0o711 });
    writeFileSync(`${to}/b/same`, x, { mode: 0o640 });
    const umask = process.umask(0o027);
    try {
      expect(await run({ path: Buffer.from('/'), permissions: 'folder' })).toMatchObject({ complete: true });
    } finally {
      process.umask(umask);
    }
    const modeOf = (name: string): string => (statSync(`${to}/${name}`).mode & 0o7777).toString(8);
    expect(['a', 'a/tool', 'b', 'b/same'].map(modeOf)).toEqual(['750', '640', '711', '640']);
    expect(statSync(`${to}/b/same`).mtimeMs).toBe(1_600_000_000_000);
    expect(statSync(`${to}/b`).mtimeMs).toBe(1_400_000_000_000);
  });

  const asRoot = process.geteuid?.() === 0 ? test : test.skip;
  asRoot('and owners of the folder, where root restores; a group that is handed on stays so', async () => {
    for (const path of ['/a', '/a/b']) await archive.commit({ path, attributes: { uid: 0, gid: 0 } });
    await archive.commit({ path: '/a/b/f', content: x, attributes: { uid: 0, gid: 0 } });
    await archive.symlink('/a/link', 'b');
    chownSync(to, 4_242, 4_343);
    chmodSync(to, 0o2755);
    await run({ path: Buffer.from('/'), permissions: 'folder' });
    for (const name of ['a', 'a/b', 'a/b/f', 'a/link'])
      expect({ name, ...owner(await lstat(`${to}/${name}`)) }).toEqual({ name, uid: 4_242, gid: 4_343 });
    expect(statSync(`${to}/a/b`).mode & 0o7777).toBe(0o2755);
  });
  const owner = ({ uid, gid }: { uid: number; gid: number }) => ({ uid, gid });
});

test('where nothing can be made in the target, files grow elsewhere, and what is there is restored into', async () => {
  await archive.commit({ path: '/mine/f', content: seededBytes(3, 3_000_000) });
  await archive.commit({ path: '/theirs', content: x });
  mkdirSync(`${to}/mine`);
  chmodSync(to, 0o555);
  const elsewhere = `${scratch.path}/agent`;
  mkdirSync(elsewhere);
  chmodSync(scratch.path, 0o755);
  const isRoot = process.geteuid?.() === 0;
  if (isRoot) {
    for (const path of [`${to}/mine`, elsewhere]) chownSync(path, 65_534, 65_534);
    process.seteuid!(65_534); // root may write everywhere
  }
  try {
    await expect(run({ path: Buffer.from('/') })).rejects.toMatchObject({ code: 'target_failed' });
    const report = await run({ path: Buffer.from('/'), stagingElsewhere: elsewhere });
    expect(report.problems.map(({ path, reason }) => `${path} ${reason}`)).toEqual(['/theirs target_refused']);
  } finally {
    if (isRoot) process.seteuid!(0);
  }
  expect(readFileSync(`${to}/mine/f`).equals(seededBytes(3, 3_000_000))).toBe(true);
  chmodSync(to, 0o755);
  expect(readdirSync(elsewhere)).toEqual([]);
});

test.each([['folder'], ['archive']] as const)(
  'folders have modes of their own after a restore was killed and went on (modes of the %s)',
  async (permissions) => {
    await archive.commit({ path: '/a/b', attributes: { mode: 0o751 } });
    await archive.commit({ path: '/a/b/f', content: x });
    const umask = process.umask(0o022);
    const options = { path: Buffer.from('/a/b'), base: Buffer.from('/'), permissions };
    const modes = () => ['a', 'a/b'].map((name) => (statSync(`${to}/${name}`).mode & 0o777).toString(8));
    // A killed restore never comes to what it does last: as one that is held up until after it was looked at.
    const held = Promise.withResolvers<void>();
    const under = Promise.withResolvers<void>();
    archive.onBlock = () => {
      under.resolve();
      return held.promise;
    };
    const first = run(options);
    await under.promise;
    expect(modes()).toEqual(['755', permissions === 'folder' ? '755' : '700']);
    held.resolve();
    await first;
    expect(modes()).toEqual(['755', permissions === 'folder' ? '755' : '751']);
    process.umask(umask);
  },
);

test('a restore that is ended takes along what an earlier one left', async () => {
  await archive.commit({ path: '/f', content: x });
  mkdirSync(`${to}/.holdfast-restore`, { mode: 0o700 });
  writeFileSync(`${to}/.holdfast-restore/of-another-file.part`, 'begun');
  const stop = new AbortController();
  archive.onBlock = () => stop.abort(new RestoreEnded('cancelled'));
  await expect(run({ path: Buffer.from('/'), signal: stop.signal })).rejects.toThrow('cancelled');
  expect(existsSync(`${to}/.holdfast-restore`)).toBe(false);
});

test('a restore that is ended leaves nothing to go on with; one that is interrupted does', async () => {
  await archive.commit({ path: '/f', content: seededBytes(4, 12_000_000) });
  archive.fetchBlocks = async function* (hashes) {
    for (let index = 0; index < hashes.byteLength / 32; index++) {
      await archive.onBlock(++archive.asked);
      yield { index, bytes: archive.blocks.get(hashKey(hashAt(hashes, index)))! };
    }
  };
  for (const reason of [new RestoreEnded('cancelled'), new Error('interrupted')]) {
    const stop = new AbortController();
    archive.asked = 0;
    archive.onBlock = async (count) => {
      await new Promise((resolve) => setTimeout(resolve, 20));
      if (count > 6) stop.abort(reason);
      stop.signal.throwIfAborted();
    };
    await expect(run({ path: Buffer.from('/'), signal: stop.signal })).rejects.toBe(reason);
    const left = readdirSync(to);
    expect(left).toEqual(reason instanceof RestoreEnded ? [] : ['.holdfast-restore']);
  }
});

/** A target whose file system takes names as macOS does: not told apart by case or accents' form, and text only. */
async function pretended(platform: Platform): Promise<Folder> {
  const handle = await openFolder(Buffer.from(to));
  const found = await handle.stat({ bigint: true });
  return new Folder({
    parent: null,
    localPath: Buffer.from(to),
    platform,
    handle,
    found,
    made: false,
    caseSensitive: true,
  });
}

test('names that a system takes for one, or does not take, get others there', async () => {
  const names = [
    Buffer.from('Caf\u00e9'),
    Buffer.from('Cafe\u0301'),
    Buffer.from('CAF\u00c9'),
    Buffer.from([0x62, 0xff]),
  ];
  for (const name of names) await archive.commit({ path: Buffer.concat([Buffer.from('/'), name]), content: name });
  const report = await run({ path: Buffer.from('/'), to: () => pretended('darwin'), caseSensitive: false });
  expect(report).toMatchObject({ complete: true, counts: { filesRestored: 4, notices: 3 } });
  expect(
    readdirSync(to)
      .map((name) => name.normalize('NFC').toLowerCase())
      .sort(),
  ).toEqual(['b%ff', 'caf\u00e9', 'caf\u00e9 (2)', 'caf\u00e9 (3)'].sort());
});

test('a symlink in the way to a file is not gone through, whichever folder the target stands for', async () => {
  mkdirSync(`${scratch.path}/outside`);
  symlinkSync(`${scratch.path}/outside`, `${to}/b`);
  await archive.commit({ path: '/a/b/f', content: x });
  const report = await run({ path: paths('/a/b/f'), base: Buffer.from('/a') });
  expect(report.problems).toMatchObject([{ reason: 'parent_not_folder' }]);
  expect(readdirSync(`${scratch.path}/outside`)).toEqual([]);
});
