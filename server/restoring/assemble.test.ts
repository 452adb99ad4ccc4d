/** Archives as people get them: opened by the tools they use, and by readers of another kind. */
import { lstat, mkdir, mkdtemp, readdir, readFile, readlink, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { testWith } from '../../tests/helpers/tools.ts';
import { FirstNames } from './first-names.ts';
import { collect, type Entry, listTar, makeWorld, readZip, run, symlink, type World } from './testing.ts';
import type { Item, RestoreCounts } from './types.ts';

const testTar = testWith('tar');

let folder: string;
let world: World;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'assemble-'));
  world = await makeWorld(folder);
});
afterEach(async () => {
  await world?.close();
  await rm(folder, { recursive: true, force: true });
});

const text = (content: string): Buffer => Buffer.from(content);
const random = (bytes: number, seed = 1): Buffer => {
  const out = Buffer.alloc(bytes);
  let state = seed;
  for (let i = 0; i + 4 <= bytes; i += 4) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0;
    out.writeInt32LE(state ^ (state >>> 15), i);
  }
  return out;
};

const badName = Buffer.from('/home/ann/bad\xff\xfename', 'latin1');
const longBadName = Buffer.concat([Buffer.from('/home/ann/'), Buffer.alloc(180, 0xe9)]);
const tree: Entry[] = [
  { path: '/home/ann' },
  { path: '/home/ann/empty', content: text('') },
  { path: '/home/ann/empty-folder' },
  { path: '/home/ann/hello.txt', content: text('hello'), attributes: { mode: 0o600, owner: 'ann', group: 'staff' } },
  { path: '/home/ann/\u00fc-nfc', content: text('nfc') },
  { path: '/home/ann/u\u0308-nfd', content: text('nfd') },
  { path: badName, content: text('bad name') },
  { path: longBadName, content: text('long bad name') },
  { path: `/home/ann/${'long-'.repeat(40)}`, content: text('long') },
  { path: '/home/ann/large', content: random(3_000_000) },
  symlink('/home/ann/link', 'hello.txt'),
  symlink('/home/ann/out', '/etc/passwd'),
];

async function unpackTar(bytes: Buffer): Promise<string> {
  await writeFile(join(folder, 'got.tar'), bytes);
  await mkdir(join(folder, 'out'));
  await run('tar', ['-xpf', join(folder, 'got.tar'), '-C', join(folder, 'out'), '--no-same-owner']);
  return join(folder, 'out');
}

async function checkZip(bytes: Buffer): Promise<void> {
  const path = join(folder, 'got.zip');
  await writeFile(path, bytes);
  await run('unzip', ['-tqq', path], { maxBuffer: 64 * 1024 * 1024 });
  await run('python3', ['-c', 'import sys,zipfile; z=zipfile.ZipFile(sys.argv[1]); assert z.testzip() is None', path]);
}

describe('a tar', () => {
  testWith('tar', 'python3')(
    'holds what was backed up: bytes, raw names, modes, nanoseconds, owners, links',
    async () => {
      await world.back(...tree);
      const { bytes, report } = await collect(world.assemble(await world.selection(['/home/ann']), { format: 'tar' }));
      expect(report).toMatchObject({ ended: true, counts: { files: 8, folders: 2, symlinks: 2, leftOut: 0 } });
      const out = await unpackTar(bytes);
      const names = await readdir(Buffer.from(join(out, 'ann')), { encoding: 'buffer' });
      expect(names.map((name) => name.toString('latin1')).sort()).toEqual(
        tree
          .slice(1)
          .map(({ path }) => Buffer.from(path).subarray(10).toString('latin1'))
          .sort(),
      );
      for (const { path, content } of tree) {
        if (!Buffer.isBuffer(content)) continue;
        const at = Buffer.concat([Buffer.from(join(out, 'ann/')), Buffer.from(path).subarray(10)]);
        expect((await readFile(at)).equals(content)).toBe(true);
      }
      const hello = await lstat(join(out, 'ann/hello.txt'), { bigint: true });
      expect([hello.mode & 0o777n, hello.mtimeNs]).toEqual([0o600n, 1_600_000_000_123_456_789n]);
      expect(await readlink(join(out, 'ann/link'))).toBe('hello.txt');
      const { stdout } = await run('tar', ['-tvf', join(folder, 'got.tar')]);
      expect(stdout).toMatch(/^-rw------- ann\/staff .* ann\/hello\.txt$/m);
      expect(stdout).not.toMatch(/:\d\d \//m);
      await run('python3', [
        '-c',
        'import sys,tarfile; assert len(tarfile.open(sys.argv[1]).getmembers()) == 12',
        join(folder, 'got.tar'),
      ]);
    },
  );

  testTar('has a file with several names once', async () => {
    const inode = Buffer.alloc(16, 7);
    const other = { path: '/d/c', content: text('changed since'), attributes: { inode, links: 3 } };
    await world.back(
      { path: '/d' },
      { path: '/d/a', content: random(2_000_000), attributes: { inode, links: 3 } },
      { path: '/d/b', content: random(2_000_000), attributes: { inode, links: 3 } },
      other,
    );
    const { bytes, report } = await collect(world.assemble(await world.selection(['/d']), { format: 'tar' }));
    expect(report.counts).toMatchObject({ files: 3, hardLinks: 1 });
    expect(bytes.byteLength).toBeLessThan(2_100_000);
    const out = await unpackTar(bytes);
    const [a, b, c] = await Promise.all(['a', 'b', 'c'].map((name) => lstat(join(out, 'd', name))));
    expect([a!.ino === b!.ino, a!.ino === c!.ino]).toEqual([true, false]);
    expect((await readFile(join(out, 'd/b'))).equals(random(2_000_000))).toBe(true);
  });

  testTar('has such a file again where its first name was forgotten, and leaves none of its names out', async () => {
    const named = (letter: string, n: number, inode: number): Entry => {
      const attributes = { inode: Buffer.alloc(16, inode), links: 2 };
      return { path: `/d/${n}-${letter}`, content: text(letter), attributes };
    };
    await world.back(
      ...['a', 'b', 'c', 'd'].map((letter, i) => named(letter, 1, i)),
      ...['a', 'b', 'c', 'd'].map((letter, i) => named(letter, 2, i)),
    );
    // Room for two first names: of `a` and `b` the second ones come as files again, and make others forgotten.
    const options = { format: 'tar', keptMax: { linkBytes: 700 } } as const;
    const { bytes, report } = await collect(world.assemble(await world.selection(['/d']), options));
    expect(report.counts).toMatchObject({ files: 8, hardLinks: 0, leftOut: 0 });
    const out = await unpackTar(bytes);
    expect((await readFile(join(out, 'd/2-a'))).equals(text('a'))).toBe(true);
    const roomy = await collect(
      world.assemble(await world.selection(['/d']), { format: 'tar', keptMax: { linkBytes: 1_300 } }),
    );
    expect(roomy.report.counts).toMatchObject({ files: 8, hardLinks: 4, leftOut: 0 });
  });

  test('remembers a first name until the last of the others has come', () => {
    const names = new FirstNames(10_000);
    const item = (path: string, links: number): Item => {
      const version = { path: Buffer.from(path), size: 1, blocks: Buffer.alloc(32), lists: Buffer.alloc(0) };
      return { version, attributes: { inode: Buffer.alloc(16), links } } as unknown as Item;
    };
    const first = names.add(item('/a', 3));
    expect(first).toEqual({ path: '/a', leftOut: null });
    expect(names.take(item('/b', 3))).toBe(first);
    expect(names.bytes).toBeGreaterThan(0);
    expect(names.take(item('/c', 3))).toBe(first);
    expect([names.bytes, names.take(item('/d', 3))]).toEqual([0, null]);
  });

  testTar('keeps numbers that its old header does not hold', async () => {
    await world.back({
      path: '/x',
      content: text('x'),
      mtime: -1_500,
      attributes: { uid: 0xffff_ffff, gid: 3_000_000, owner: 'a'.repeat(40), mtimeNs: 0 },
    });
    const { bytes } = await collect(world.assemble(await world.selection(['/x']), { format: 'tar' }));
    const out = await unpackTar(bytes);
    expect((await lstat(join(out, 'x'), { bigint: true })).mtimeNs).toBe(-1_500_000_000n);
    const [line] = await listTar(join(folder, 'got.tar'));
    expect(line).toMatch(/^-rw-r--r-- 4294967295\/3000000 1 /);
  });
});

describe('a zip', () => {
  testWith('unzip', 'python3')(
    'is opened by unzip, python and by its directory, with names, modes and times',
    async () => {
      await world.back(...tree);
      const { bytes, report } = await collect(world.assemble(await world.selection(['/home/ann'])));
      await checkZip(bytes);
      const entries = readZip(bytes);
      expect(report).toMatchObject({
        ended: true,
        counts: { files: 8, folders: 2, symlinks: 2, leftOut: 0, namesChanged: 2 },
      });
      expect(entries.get('ann/\u00fc-nfc')!.content.toString()).toBe('nfc');
      expect(entries.get('ann/u\u0308-nfd')!.content.toString()).toBe('nfd');
      expect(entries.get('ann/bad%{FF}%{FE}name')!.content.toString()).toBe('bad name');
      expect([...entries.keys()].filter((name) => /^ann\/(%\{E9\})+%\{[0-9A-F]{32}\}$/.test(name))).toHaveLength(1);
      expect(entries.get('ann/large')!.content.equals(random(3_000_000))).toBe(true);
      expect(entries.get('ann/hello.txt')).toMatchObject({ mode: 0o100600, mtime: 1_600_000_000 });
      expect(entries.get('ann/')).toMatchObject({ mode: 0o40755 });
      expect(entries.get('ann/out')).toMatchObject({ mode: 0o120777, content: text('/etc/passwd') });
      expect(entries.get('RESTORE-NAMES.txt')!.content.toString()).toContain('ann/bad%{FF}%{FE}name\n');
      expect([...entries.keys()].slice(-3)).toEqual(['ann/link', 'ann/out', 'RESTORE-NAMES.txt']);
      await mkdir(join(folder, 'out'));
      await run('unzip', ['-q', join(folder, 'got.zip'), '-d', join(folder, 'out')], {
        env: { ...process.env, TZ: 'UTC', LC_ALL: 'C.UTF-8' },
      });
      expect(await readlink(join(folder, 'out/ann/link'))).toBe('hello.txt');
      expect((await readFile(join(folder, 'out/ann/large'))).equals(random(3_000_000))).toBe(true);
      expect((await lstat(join(folder, 'out/ann/hello.txt'))).mtimeMs).toBe(1_600_000_000_000);
    },
  );
});

describe.each([
  ['zip', testWith('unzip', 'python3')],
  ['tar', testTar],
] as const)('a large %s', (format, test) => {
  test('of 5,000 small files and one larger than is read ahead has them as they were', async () => {
    const files = Array.from(
      { length: 5_000 },
      (_, i): Entry => ({ path: `/d/${i % 50}/f${i}`, content: random(100 + (i % 3000), i) }),
    );
    const large = random(9_000_000, 5);
    await world.back({ path: '/d' }, ...files, { path: '/d/big', content: large });
    const told: RestoreCounts[] = [];
    const selection = await world.selection(['/d']);
    const options = { format, verifyAheadBytes: 1_000_000, windowBytes: 4_000_000 };
    const { bytes, report } = await collect(
      world.assemble(selection, { ...options, onProgress: (counts) => void told.push({ ...counts }) }),
    );
    expect(report).toMatchObject({ ended: true, counts: { files: 5_001, leftOut: 0 }, archiveBytes: bytes.byteLength });
    expect(told.at(-1)).toEqual(report.counts);
    expect(report.heldBytesMax).toBeLessThan(4_000_000);
    // Wider windows and a second try change nothing of the bytes.
    const again = await collect(world.assemble(selection, { format, verifyAheadBytes: 1_000_000 }));
    expect(again.bytes.equals(bytes)).toBe(true);
    const got = new Map<string, Buffer>();
    if (format === 'zip') {
      await checkZip(bytes);
      for (const [name, { content }] of readZip(bytes)) got.set(`/${name}`, content);
    } else {
      const out = await unpackTar(bytes);
      for (const { path } of files) got.set(String(path), await readFile(join(out, String(path))));
      got.set('/d/big', await readFile(join(out, 'd/big')));
    }
    expect(got.get('/d/big')!.equals(large)).toBe(true);
    for (const { path, content } of files) expect(got.get(String(path))!.equals(content as Buffer)).toBe(true);
  });
});

test.each(['zip', 'tar'] as const)(
  'of a %s what its reader was given was counted before, within a file too',
  async (format) => {
    await world.back(
      { path: '/d' },
      { path: '/d/ahead', content: random(3_000_000, 1) },
      { path: '/d/large', content: random(6_000_000, 2) },
    );
    const assembly = world.assemble(await world.selection(['/d']), { format, verifyAheadBytes: 4_000_000 });
    let given = 0;
    for await (const piece of assembly.bytes) {
      given += piece.byteLength;
      expect(assembly.report.counts.bytes).toBeGreaterThan(given - 20_000); // what is no content of a file
    }
    expect(assembly.report.counts.bytes).toBe(9_000_000);
  },
);

describe('a selection', () => {
  test('gives the same bytes in whatever order it is asked for, and counts a path within another once', async () => {
    await world.back(
      { path: '/a' },
      { path: '/a/b' },
      { path: '/a/b/x', content: text('x') },
      { path: '/a/c', content: text('c') },
    );
    const one = await collect(world.assemble(await world.selection(['/a/b', '/a/c', '/a/b/x'])));
    const two = await collect(world.assemble(await world.selection(['/a/c', '/a/b'])));
    expect(one.bytes.equals(two.bytes)).toBe(true);
    expect([...readZip(one.bytes).keys()]).toEqual(['b/', 'b/x', 'c']);
  });

  test('of deleted files gives them as they last were', async () => {
    await world.back(
      { path: '/d' },
      { path: '/d/x', content: text('first') },
      { path: '/d/y', content: text('stays') },
    );
    await world.back({ path: '/d/x', content: text('second') });
    await world.remove('/d/x');
    const without = await collect(world.assemble(await world.selection(['/d'])));
    expect([...readZip(without.bytes).keys()]).toEqual(['d/', 'd/y']);
    const { bytes } = await collect(world.assemble(await world.selection(['/d'], { deleted: true })));
    expect(readZip(bytes).get('d/x')!.content.toString()).toBe('second');
  });

  test('names the paths where nothing is, in the archive too', async () => {
    await world.back({ path: '/d' }, { path: '/d/x', content: text('x') });
    const { bytes, report } = await collect(world.assemble(await world.selection(['/d/x', '/d/none'])));
    expect(report.missingPaths.map(String)).toEqual(['/d/none']);
    expect(readZip(bytes).get('RESTORE-INCOMPLETE.txt')!.content.toString()).toContain('/d/none: there was nothing');
  });

  test('shows its moment, whatever is committed while it is assembled', async () => {
    await world.back({ path: '/d' }, { path: '/d/x', content: text('before') });
    const selection = await world.selection(['/d']);
    await world.back({ path: '/d/x', content: text('after') }, { path: '/d/new', content: text('new') });
    const entries = readZip((await collect(world.assemble(selection))).bytes);
    expect([...entries.keys()]).toEqual(['d/', 'd/x']);
    expect(entries.get('d/x')!.content.toString()).toBe('before');
  });

  testTar('of nothing at all is an archive all the same', async () => {
    for (const format of ['zip', 'tar'] as const) {
      const { bytes, report } = await collect(world.assemble(await world.selection(['/']), { format }));
      expect(report).toMatchObject({ ended: true, counts: { files: 0, leftOut: 0 } });
      await writeFile(join(folder, `none.${format}`), bytes);
    }
    expect(await run('tar', ['-tf', join(folder, 'none.tar')])).toMatchObject({ stdout: '' });
    expect(readZip(await readFile(join(folder, 'none.zip'))).size).toBe(0);
  });
});
