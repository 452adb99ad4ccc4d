import { execFileSync, spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { open } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { bytesPath, heldOpenBelow, scratchFolder, seededBytes, snapshot } from '../files/test-tree.ts';
import { TestArchive } from './test-archive.ts';
import { eventsKeptMax } from './types.ts';

let scratch: ReturnType<typeof scratchFolder>;
let root: string;
let to: string;
beforeEach(() => {
  scratch = scratchFolder();
  root = `${scratch.path}/root`;
  to = `${scratch.path}/to`;
  mkdirSync(root);
});
afterEach(() => {
  expect(heldOpenBelow(scratch.path)).toEqual([]);
  scratch.remove();
});

/** A tree with one of everything a backup keeps. */
async function plant(): Promise<void> {
  mkdirSync(`${root}/folder/in/it`, { recursive: true });
  mkdirSync(`${root}/empty`);
  writeFileSync(`${root}/folder/large`, seededBytes(1, 12_000_000));
  writeFileSync(`${root}/folder/text`, 'words '.repeat(200_000));
  for (let i = 0; i < 300; i++) writeFileSync(`${root}/folder/in/small-${i}`, `small ${i}`);
  writeFileSync(`${root}/folder/in/it/nothing`, '');
  writeFileSync(bytesPath(root, Buffer.from([0xff, 0x0a, 0xfe])), 'odd name');
  writeFileSync(`${root}/${'n'.repeat(255)}`, 'long name');
  symlinkSync('folder/text', `${root}/link`);
  symlinkSync('/nowhere/at/all', `${root}/dangling`);
  symlinkSync(Buffer.from([0x2e, 0xff]), `${root}/odd target`);
  linkSync(`${root}/folder/text`, `${root}/folder/in/it/same text`);
  linkSync(`${root}/folder/large`, `${root}/zz-large`);
  const holes = await open(`${root}/holes`, 'w');
  await holes.write(seededBytes(2, 70_000), 0, 70_000, 5_000_000);
  await holes.truncate(20_000_000);
  await holes.close();
  chmodSync(`${root}/folder/text`, 0o600);
  chmodSync(`${root}/folder/in/small-1`, 0o444);
  chmodSync(`${root}/empty`, 0o511);
  const times: [string, number][] = [
    ['folder/text', 1_500_000_000.123457],
    ['folder/in/it/nothing', 12.5],
    ['folder/in', 1_600_000_000.000001],
    ['folder', 1_700_000_000.999999],
    ['empty', 1],
  ];
  for (const [name, time] of times) utimesSync(`${root}/${name}`, time, time);
  execFileSync('touch', ['-h', '-d', '@1234567890.654321987', `${root}/link`]);
  execFileSync('touch', ['-d', '@1234567890.123456789', `${root}/holes`]);
  execFileSync('touch', ['-d', '@1111111111.111111111', root]);
}

describe('a restore', () => {
  test('by whole paths, as where folders cannot be held open, gives back the same', async () => {
    await plant();
    const archive = new TestArchive();
    await archive.backup(root, { folderHandles: false });
    const report = await archive.restore(to, { path: root, folderHandles: false });
    expect([report.problems, report.notices]).toEqual([[], []]);
    expect(snapshot(`${to}/root`)).toEqual(snapshot(root));
    const again = await archive.restore(to, { path: root, folderHandles: false });
    expect(again.counts).toMatchObject({ filesRestored: 0, notices: 0, problems: 0 });
    expect(snapshot(`${to}/root`)).toEqual(snapshot(root));
  });

  const posix = process.platform === 'win32' ? test.skip : test;
  posix('by a user without rights works in folders that their modes close, twice', () => {
    chmodSync(scratch.path, 0o777);
    const script = `
      import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
      import assert from 'node:assert/strict';
      import { TestArchive } from ${JSON.stringify(new URL('./test-archive.ts', import.meta.url).href)};
      import { snapshot } from ${JSON.stringify(new URL('../files/test-tree.ts', import.meta.url).href)};
      if (process.getuid() === 0) { process.setgroups([]); process.setgid(65534); process.setuid(65534); }
      const [from, to] = process.argv.slice(1);
      const archive = new TestArchive();
      const closed = [['/d', 0o000], ['/d/e', 0o300], ['/d/f', 0o555], ['/d/e/g', 0o700]];
      for (const [path, mode] of closed) await archive.commit({ path, attributes: { mode } });
      for (const path of ['/d/x', '/d/e/x', '/d/f/x', '/d/e/g/x']) await archive.commit({ path, content: Buffer.from(path), attributes: { mode: 0o400 } });
      for (const pass of [1, 2]) {
        const report = await archive.restore(to);
        assert.deepEqual(report.problems.map(String), []);
        assert.deepEqual(report.notices, []);
        assert.equal(report.counts.filesRestored + report.counts.filesIdentical, 4);
      }
      for (const [path] of closed) chmodSync(to + path, 0o755);
      console.log(JSON.stringify(Object.keys(snapshot(to))));`;
    const args = ['--disable-warning=ExperimentalWarning', '--input-type=module', '-e', script, root, to];
    const run = spawnSync(process.execPath, args, { encoding: 'utf8' });
    expect(run.stderr).toBe('');
    expect(JSON.parse(run.stdout)).toEqual([
      '',
      '/d',
      '/d/e',
      '/d/e/g',
      '/d/e/g/x',
      '/d/e/x',
      '/d/f',
      '/d/f/x',
      '/d/x',
    ]);
  });

  test('gives back files, folders, symlinks, hard links and holes, with modes and times to the microsecond', async () => {
    await plant();
    const archive = new TestArchive();
    await archive.backup(root);
    const report = await archive.restore(to, { path: root });
    expect(report.problems).toEqual([]);
    expect(report.notices).toEqual([]);
    expect(report.complete).toBe(true);
    expect(snapshot(`${to}/root`)).toEqual(snapshot(root));
    expect(report.counts).toMatchObject({ hardLinks: 2, symlinks: 3, folders: 5 });
    expect(statSync(`${to}/root/holes`).blocks * 512).toBeLessThan(1_000_000);
    expect(readdirSync(to)).toEqual(['root']);
  });

  test('of a single file, or of everything, lays them out below the target', async () => {
    const archive = new TestArchive();
    await archive.commit({ path: '/a', mtime: 1_000 });
    await archive.commit({ path: '/a/b', content: Buffer.from('hello') });
    await archive.restore(to, { path: '/a/b' });
    expect(readFileSync(`${to}/b`, 'utf8')).toBe('hello');
    await archive.restore(`${to}/all`, { path: '/' });
    expect(readFileSync(`${to}/all/a/b`, 'utf8')).toBe('hello');
    expect(statSync(`${to}/all/a`).mtimeMs).toBe(1_000);
  });

  test('makes folders that the archive knows only from what lies in them', async () => {
    const archive = new TestArchive();
    await archive.commit({ path: '/a/b/c', content: Buffer.from('hello') });
    const report = await archive.restore(to);
    expect(report.complete).toBe(true);
    expect(readFileSync(`${to}/a/b/c`, 'utf8')).toBe('hello');
  });

  test('names what the server keeps nothing of, and notes folders that come without what was known of them', async () => {
    const archive = new TestArchive();
    await archive.commit({ path: '/a/b/c', content: Buffer.from('x') });
    const next = { seq: 7, committedAt: Date.UTC(2026, 2, 1, 14, 30) };
    archive.thinned.push({ path: Buffer.from('/a/b'), next: null, folder: true, comes: true });
    for (let i = 0; i < eventsKeptMax; i++)
      archive.thinned.push({ path: Buffer.from(`/a/x${i}`), next, folder: false, comes: false });
    archive.blocks.clear();
    const { complete, counts, problems, notices } = await archive.restore(to);
    expect([complete, counts.problems]).toEqual([false, eventsKeptMax + 1]);
    expect(problems[0]).toMatchObject({
      ...{ path: Buffer.from('/a/x0'), reason: 'version_thinned' },
      detail: expect.stringContaining('the next one is of 2026-03-01T14:30:00.000Z'),
    });
    // However many there are, what is damaged is named.
    expect(problems.filter(({ reason }) => reason !== 'version_thinned')).toMatchObject([
      { path: Buffer.from('/a/b/c'), reason: 'block_missing' },
    ]);
    expect(notices).toMatchObject([{ path: Buffer.from('/a/b'), what: 'attributes_not_set' }]);
  });

  test('asks for many small files at once, and for equal blocks once', async () => {
    const archive = new TestArchive();
    for (let i = 0; i < 1_000; i++)
      await archive.commit({ path: `/f${i}`, content: Buffer.from(`content ${i % 100}`) });
    const report = await archive.restore(to);
    expect(report.counts).toMatchObject({ filesRestored: 1_000, problems: 0 });
    expect(archive.requests).toBeLessThan(10);
    expect(archive.asked).toBeLessThan(700);
  });

  test('in any order of the manifest gives the same tree', async () => {
    await plant();
    const archive = new TestArchive();
    await archive.backup(root);
    archive.unordered = true;
    for (const [a, b] of [
      [3, 40],
      [1, 300],
      [7, 8],
      [100, 2],
    ]) {
      [archive.versionsByPath[a!], archive.versionsByPath[b!]] = [
        archive.versionsByPath[b!]!,
        archive.versionsByPath[a!]!,
      ];
    }
    const report = await archive.restore(to, { path: root });
    expect(report.problems).toEqual([]);
    const contents = (tree: Record<string, string>) =>
      Object.entries(tree).map(([name, line]) => [name, line.startsWith('folder') ? 'folder' : line]);
    expect(contents(snapshot(`${to}/root`))).toEqual(contents(snapshot(root)));
  });

  test('does not give setuid, setgid or owners unless asked for', async () => {
    const archive = new TestArchive();
    await archive.commit({
      path: '/tool',
      content: Buffer.from('x'),
      attributes: { mode: 0o6755, uid: 65_534, gid: 65_534 },
    });
    await archive.commit({ path: '/dir', attributes: { mode: 0o7777, uid: 65_534 } });
    await archive.restore(to);
    expect(lstatSync(`${to}/tool`).mode & 0o7777).toBe(0o755);
    expect(lstatSync(`${to}/dir`).mode & 0o7777).toBe(0o1777);
    expect(lstatSync(`${to}/tool`).uid).toBe(process.getuid!());
    if (process.getuid!() !== 0) return;
    await archive.restore(`${to}2`, { owner: true });
    expect(lstatSync(`${to}2/tool`).mode & 0o7777).toBe(0o6755);
    expect(lstatSync(`${to}2/tool`)).toMatchObject({ uid: 65_534, gid: 65_534 });
    expect(lstatSync(`${to}2/dir`).uid).toBe(65_534);
  });

  test('reports progress that ends at the totals', async () => {
    await plant();
    const archive = new TestArchive();
    await archive.backup(root);
    const seen: { filesDone: number; bytesDone: number }[] = [];
    await archive.restore(to, { path: root, onProgress: (progress) => seen.push(progress) });
    const last = seen.at(-1)!;
    expect(last).toMatchObject({ seenAll: true, filesDone: 308, filesSeen: 308 });
    expect(last.bytesDone).toBe((last as never as { bytesSeen: number }).bytesSeen);
    for (let i = 1; i < seen.length; i++) expect(seen[i]!.bytesDone).toBeGreaterThanOrEqual(seen[i - 1]!.bytesDone);
  });
});

describe('what stands in the way', () => {
  let archive: TestArchive;
  beforeEach(async () => {
    archive = new TestArchive();
    await archive.commit({ path: '/f.txt', content: Buffer.from('from the archive') });
    await archive.commit({ path: '/d' });
    await archive.commit({ path: '/d/g', content: Buffer.from('inner') });
    await archive.symlink('/l', 'target');
    mkdirSync(to);
  });

  test('is renamed aside unless it is identical', async () => {
    writeFileSync(`${to}/f.txt`, 'mine, different');
    writeFileSync(`${to}/d`, 'a file where a folder goes');
    mkdirSync(`${to}/l`);
    writeFileSync(`${to}/l/kept`, 'kept');
    const report = await archive.restore(to);
    expect(report.complete).toBe(true);
    expect(report.notices.map(({ what }) => what)).toEqual([
      'renamed_existing',
      'renamed_existing',
      'renamed_existing',
    ]);
    expect(readFileSync(`${to}/f.txt`, 'utf8')).toBe('from the archive');
    expect(readFileSync(`${to}/f (before restore).txt`, 'utf8')).toBe('mine, different');
    expect(readFileSync(`${to}/d (before restore)`, 'utf8')).toBe('a file where a folder goes');
    expect(readFileSync(`${to}/d/g`, 'utf8')).toBe('inner');
    expect(readFileSync(`${to}/l (before restore)/kept`, 'utf8')).toBe('kept');
    writeFileSync(`${to}/f.txt`, 'mine once more');
    await archive.restore(to);
    expect(readFileSync(`${to}/f (before restore 2).txt`, 'utf8')).toBe('mine once more');
    expect(readFileSync(`${to}/f (before restore).txt`, 'utf8')).toBe('mine, different');
  });

  test('is left when it is identical, and nothing is fetched', async () => {
    await archive.restore(to);
    const before = archive.asked;
    utimesSync(`${to}/f.txt`, 1, 1);
    chmodSync(`${to}/f.txt`, 0o600);
    const report = await archive.restore(to);
    expect(report.counts).toMatchObject({ filesIdentical: 2, filesRestored: 0, notices: 0 });
    expect(archive.asked).toBe(before);
    expect(statSync(`${to}/f.txt`)).toMatchObject({ mtimeMs: 1_600_000_000_000 });
    expect(statSync(`${to}/f.txt`).mode & 0o777).toBe(0o644);
  });

  test('and has the right size and time but other content is not taken for identical', async () => {
    await archive.restore(to);
    writeFileSync(`${to}/f.txt`, 'FROM THE ARCHIVE');
    utimesSync(`${to}/f.txt`, 1_600_000_000, 1_600_000_000);
    expect((await archive.restore(to, { trustTimes: true })).counts.filesIdentical).toBe(2);
    expect(readFileSync(`${to}/f.txt`, 'utf8')).toBe('FROM THE ARCHIVE');
    expect((await archive.restore(to)).counts.filesRestored).toBe(1);
    expect(readFileSync(`${to}/f.txt`, 'utf8')).toBe('from the archive');
  });

  test('is replaced where that was asked for, but never a folder with something in it', async () => {
    writeFileSync(`${to}/f.txt`, 'mine');
    mkdirSync(`${to}/l`);
    writeFileSync(`${to}/l/kept`, 'kept');
    const report = await archive.restore(to, { existing: 'overwrite' });
    expect(report.notices.map(({ what }) => what)).toEqual(
      expect.arrayContaining(['overwrote_existing', 'renamed_existing']),
    );
    expect(readFileSync(`${to}/f.txt`, 'utf8')).toBe('from the archive');
    expect(readdirSync(to).sort()).toEqual(['d', 'f.txt', 'l', 'l (before restore)']);
  });

  test('stays where that was asked for, and is named', async () => {
    writeFileSync(`${to}/f.txt`, 'mine');
    const report = await archive.restore(to, { existing: 'keep' });
    expect(report).toMatchObject({ complete: true, counts: { filesKept: 1, filesRestored: 1 } });
    expect(report.notices).toMatchObject([{ what: 'kept_existing' }]);
    expect(readFileSync(`${to}/f.txt`, 'utf8')).toBe('mine');
  });

  test('stops the restore where that was asked for', async () => {
    writeFileSync(`${to}/f.txt`, 'mine');
    await expect(archive.restore(to, { existing: 'fail' })).rejects.toMatchObject({ code: 'exists' });
    expect(readFileSync(`${to}/f.txt`, 'utf8')).toBe('mine');
  });

  test('as a file with the mode to read taken away is renamed or read, never lost', async () => {
    await archive.restore(to);
    chmodSync(`${to}/d`, 0o000);
    const report = await archive.restore(to);
    expect(report.complete).toBe(true);
    expect(readFileSync(`${to}/d/g`, 'utf8')).toBe('inner');
    expect(statSync(`${to}/d`).mode & 0o777).toBe(0o755);
  });

  test('names that the target takes for one are told apart, and the same way the next time', async () => {
    const cases = new TestArchive();
    for (const [name, text] of [
      ['README', 'A'],
      ['ReadMe', 'B'],
      ['readme', 'C'],
    ])
      await cases.commit({ path: `/${name}`, content: Buffer.from(text!) });
    await cases.commit({ path: '/readme.d' });
    await cases.commit({ path: '/README.d' });
    await cases.commit({ path: '/README.d/x', content: Buffer.from('x') });
    await cases.commit({ path: '/readme.d/x', content: Buffer.from('y') });
    const report = await cases.restore(to, { caseSensitive: false });
    expect(report.complete).toBe(true);
    expect(report.notices.map(({ what }) => what)).toEqual(['name_changed', 'name_changed', 'name_changed']);
    const read = () =>
      ['README', 'ReadMe (2)', 'readme (3)', 'README.d/x', 'readme (2).d/x'].map((name) =>
        readFileSync(`${to}/${name}`, 'utf8'),
      );
    expect(read()).toEqual(['A', 'B', 'C', 'x', 'y']);
    expect((await cases.restore(to, { caseSensitive: false })).counts).toMatchObject({
      filesIdentical: 5,
      filesRestored: 0,
    });
    expect(read()).toEqual(['A', 'B', 'C', 'x', 'y']);
  });

  test('names too long for the target are shortened and told', async () => {
    const long = new TestArchive();
    await long.commit({ path: `/${'é'.repeat(200)}`, content: Buffer.from('x') });
    const report = await long.restore(to);
    expect(report.notices).toMatchObject([{ what: 'name_changed' }]);
    expect(readdirSync(to)).toHaveLength(1);
  });

  test('a file of the archive that has our own folder’s name is told apart from it', async () => {
    const clash = new TestArchive();
    await clash.commit({ path: '/.holdfast-restore', content: Buffer.from('x') });
    const report = await clash.restore(to);
    expect(report.notices).toMatchObject([{ what: 'name_changed' }]);
    expect(readFileSync(`${to}/.holdfast-restore (2)`, 'utf8')).toBe('x');
    expect(existsSync(`${to}/.holdfast-restore`)).toBe(false);
  });
});

describe('holes', () => {
  test('where the file never said it had any are written', async () => {
    const archive = new TestArchive();
    await archive.commit({ path: '/zeros', content: Buffer.alloc(1_000_000) });
    await archive.restore(to);
    expect(statSync(`${to}/zeros`).blocks * 512).toBeGreaterThanOrEqual(1_000_000);
  });

  test('at the beginning, in the middle and at the end come back as holes', async () => {
    for (const [index, offset] of [0, 100_000, 9_000_000].entries()) {
      const file = await open(`${root}/${index}`, 'w');
      await file.write(Buffer.from('island'), 0, 6, offset);
      await file.close();
      truncateSync(`${root}/${index}`, 10_000_001);
    }
    const archive = new TestArchive();
    await archive.backup(root);
    await archive.restore(to, { path: root });
    expect(snapshot(`${to}/root`)).toEqual(snapshot(root));
    for (const name of ['0', '1', '2']) expect(statSync(`${to}/root/${name}`).blocks * 512).toBeLessThan(200_000);
  });
});
