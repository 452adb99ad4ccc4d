/** Sealed exports read and restored from: whole ones, ones that were cut or altered anywhere, and ones that mean harm. */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { encodeExportMessage, exportMagic, exportPathsMax } from '../../protocol/sealed-export.ts';
import { encodeMessage } from '../../protocol/wire.ts';
import { commonFolder } from '../files/path-rules.ts';
import { heldOpenBelow, scratchFolder, seededBytes, seededNumbers } from '../files/test-tree.ts';
import { restore } from '../restore/restore.ts';
import { archive, keyring, TestArchive, vault } from '../restore/test-archive.ts';
import type { RestoreReport } from '../restore/types.ts';
import { ExportIndex } from '../state/export-index.ts';
import { ExportSource } from './export-source.ts';
import { ExportError, type ScannedExport, scanExport } from './scan-export.ts';
import { ended, type Frame, frame, framesOf, header, versionFrame } from './test-export.ts';

let scratch: ReturnType<typeof scratchFolder>;
let to: string;
let from: TestArchive;
beforeEach(() => {
  scratch = scratchFolder();
  to = `${scratch.path}/to`;
  mkdirSync(`${scratch.path}/outside`);
  from = new TestArchive();
});
afterEach(() => {
  expect(heldOpenBelow(scratch.path)).toEqual([]);
  expect(readdirSync(`${scratch.path}/outside`)).toEqual([]);
  scratch.remove();
});

const content = (seed: number, bytes = 5_000) => seededBytes(seed, bytes);

async function* pieces(bytes: Buffer, size = 1_000): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.byteLength; at += size) yield bytes.subarray(at, at + size);
}

interface Opened {
  scanned: ScannedExport;
  report: RestoreReport;
  unreadable: number[];
}

async function opened(bytes: Buffer, within?: Buffer): Promise<Opened> {
  writeFileSync(`${scratch.path}/export`, bytes);
  const file = await open(`${scratch.path}/export`);
  using index = new ExportIndex();
  const unreadable: number[] = [];
  try {
    const scanned = await scanExport(pieces(bytes), {
      version: (at, body) => index.addVersion(at, body.byteLength),
      named: (...place) => index.add(...place),
    });
    const client = new ExportSource({ file, index, scanned, onUnreadable: (at) => unreadable.push(at) });
    const base = within ?? commonFolder(scanned.chosen);
    const report = await restore({ client, keys: keyring, archive, vault, to, path: base, base });
    return { scanned, report, unreadable };
  } finally {
    await file.close();
  }
}

/** Files that are there, each with what it holds. */
const files = (): Record<string, Buffer> =>
  Object.fromEntries(
    (existsSync(to) ? readdirSync(to, { recursive: true, withFileTypes: true }) : [])
      .filter((each) => each.isFile())
      .map((each) => [
        `${each.parentPath}/${each.name}`.slice(to.length),
        readFileSync(`${each.parentPath}/${each.name}`),
      ]),
  );
const expectOnlyOf = (all: Record<string, Buffer>): void => {
  for (const [name, bytes] of Object.entries(files())) expect([name, bytes.equals(all[name]!)]).toEqual([name, true]);
};

async function smallArchive(): Promise<Record<string, Buffer>> {
  const all = { '/d/a': content(1), '/d/b': content(2, 300), '/d/sub/c': content(3), '/d/again': content(1) };
  await from.commit({ path: '/d' });
  for (const [path, bytes] of Object.entries(all)) await from.commit({ path, content: bytes });
  await from.symlink('/d/to', 'a');
  return all;
}

test('gives back what was put in, by the folder that was chosen', async () => {
  from.listSizes = { minBlocks: 1, averageBlocks: 2, maxBlocks: 3 };
  const all = await smallArchive();
  const large = content(4, 6_000_000);
  await from.commit({ path: '/d/large', content: large });
  const { scanned, report } = await opened(ended(await framesOf(from, '/d')));
  expect(scanned).toMatchObject({ fault: null, versions: 7, leftOut: 0, chosen: [Buffer.from('/d')] });
  expect(report).toMatchObject({ complete: true, counts: { filesRestored: 5, symlinks: 1, folders: 1 } });
  expectOnlyOf({ ...all, '/d/large': large });
  expect(Object.keys(files())).toHaveLength(5);
});

test('one with nothing in it restores nothing', async () => {
  const { scanned, report } = await opened(ended(await framesOf(from)));
  expect([scanned.fault, scanned.versions, report.complete, files()]).toEqual([null, 0, true, {}]);
});

test('a part of which there is nothing in it is refused as a server refuses it, and all of one that is empty is not', async () => {
  await smallArchive();
  const bytes = ended(await framesOf(from, '/d'));
  const part = (path: string) => opened(bytes, Buffer.from(path));
  await expect(part('/d/no')).rejects.toMatchObject({ code: 'not_found', extras: { field: 'path' } });
  await expect(part('/nope')).rejects.toMatchObject({ code: 'not_found' });
  expect((await part('/d/sub')).report).toMatchObject({ complete: true, counts: { filesRestored: 1 } });
  expect((await opened(ended(await framesOf(from, '/gone')))).report).toMatchObject({ complete: true });
});

describe('what is no export', () => {
  const scan = (bytes: Buffer) => scanExport(pieces(bytes), {});
  test.each<[what: string, bytes: Buffer, says: RegExp]>([
    ['nothing', Buffer.alloc(0), /not a Holdfast export/],
    ['a byte too few', exportMagic.subarray(0, -1), /not a Holdfast export/],
    ['a zip', Buffer.from('PK\x03\x04aaaaaaaaaaaaaaaaaaaaaa'), /not a Holdfast export/],
    ['one of a later format', Buffer.from('HOLDFAST EXPORT\x02 and more'), /format 2; this agent knows format 1/],
    ['one that ends behind its first bytes', exportMagic, /broken at its very beginning/],
  ])('%s is refused', async (_, bytes, says) => {
    await expect(scan(bytes)).rejects.toThrow(ExportError);
    await expect(scan(bytes)).rejects.toThrow(says);
  });
});

test('cut off at any frame, and in any, it gives whole files only, and is never whole', async () => {
  const all = await smallArchive();
  const frames = await framesOf(from, '/d');
  const whole = ended(frames);
  const ends = frames.map((_, i) => Buffer.concat(frames.slice(0, i + 1).map(({ bytes }) => bytes)).byteLength);
  const random = seededNumbers(7);
  const cuts = [...ends, ...ends.map((end) => end + 1 + (random() % 40)), whole.byteLength - 1];
  for (const cut of cuts.filter((at) => at < whole.byteLength)) {
    if (cut < ends[1]!) continue; // refused as above
    const { scanned, report, unreadable } = await opened(whole.subarray(0, cut));
    expect([cut, scanned.fault?.what, scanned.end]).toEqual([cut, 'cut_off', null]);
    // Every version that is there is whole: nothing of it can be missing.
    expect([cut, report.problems, unreadable]).toEqual([cut, [], []]);
    expectOnlyOf(all);
  }
  expect(Object.keys(files())).toHaveLength(4);
});

test('with any byte turned over it gives right files only, and is never whole', async () => {
  const all = await smallArchive();
  const whole = ended(await framesOf(from, '/d'));
  const random = seededNumbers(11);
  const turned = async (at: number): Promise<void> => {
    const bytes = Buffer.from(whole);
    bytes[at]! ^= 1 << (random() % 8);
    const result = await opened(bytes).catch((error: unknown) => {
      expect(error).toBeInstanceOf(ExportError);
      return null;
    });
    expect([at, result?.scanned.fault === null]).toEqual([at, false]);
    expectOnlyOf(all);
  };
  for (let i = 0; i < 250; i++) await turned(random() % whole.byteLength);
});

test('with something behind its end it is not as it was made', async () => {
  await smallArchive();
  const { scanned, report } = await opened(Buffer.concat([ended(await framesOf(from, '/d')), Buffer.of(0)]));
  expect([scanned.fault?.what, report.complete]).toEqual(['changed', true]);
});

describe('one that means harm', () => {
  const raw = (type: number, length: number, body = Buffer.alloc(0)): Frame => {
    const head = Buffer.alloc(5);
    head.writeUInt8(type, 0);
    head.writeUInt32BE(length, 1);
    return { name: 'block', bytes: Buffer.concat([head, body]) };
  };

  test.each<[what: string, bad: Frame]>([
    ['a block longer than any', raw(4, 0xffff_ffff)],
    ['a block one byte longer than any', raw(4, 32 + 32 * 1024 * 1024 + 1)],
    ['a version longer than any', raw(5, 4 * 1024 * 1024 + 1)],
    ['a block without bytes', raw(4, 32, Buffer.alloc(32))],
    ['an unknown frame', raw(99, 1, Buffer.of(1))],
    ['a second header', { name: 'header', bytes: encodeExportMessage('header', header) }],
    ['what was left out, in no words', raw(6, 3, Buffer.from('abc'))],
    ['a chosen path that is none', raw(2, 5, Buffer.from('/../x'))],
    ['an end that is no message', raw(7, 2, Buffer.from('ab'))],
  ])('is read up to %s', async (_, bad) => {
    await from.commit({ path: '/f', content: content(1) });
    const frames = await framesOf(from);
    const { scanned, report } = await opened(ended([...frames, bad, ...frames.slice(2)]));
    expect(scanned.fault).toEqual({
      what: 'damaged',
      at: expect.any(Number),
    });
    expect([scanned.versions, report.counts.filesRestored]).toEqual([1, 1]);
  });

  test('with more chosen paths than there may be is read up to those', async () => {
    const chosen = Array.from({ length: exportPathsMax }, () => frame('chosen', Buffer.from('/x')));
    const head = (await framesOf(from)).slice(0, 2);
    expect((await opened(ended([...head, ...chosen]))).scanned.fault).toBeNull();
    const more = await opened(ended([...head, ...chosen, chosen[0]!]));
    expect([more.scanned.fault?.what, more.scanned.chosen.length]).toEqual(['damaged', exportPathsMax]);
  });

  test('a header that is none is refused, whatever it claims', async () => {
    const magic = { name: 'magic', bytes: exportMagic } as const;
    for (const claims of [
      { vault: -1 },
      { keys: Array(100).fill(header.keys[0]) },
      { guid: '../x' },
      { seq: 2 ** 60 },
    ]) {
      const bytes = encodeMessage({ ...header, ...claims });
      await expect(opened(ended([magic, frame('header', bytes)]))).rejects.toThrow(ExportError);
    }
    await expect(opened(Buffer.concat([exportMagic, raw(1, 64 * 1024 + 1).bytes]))).rejects.toThrow(ExportError);
  });

  test('cannot lead out of the target, nor say what a name holds', async () => {
    await from.symlink('/d/a', `${scratch.path}/outside`);
    await from.commit({ path: '/d/a/victim', content: content(1) });
    await from.commit({ path: '/d/x', content: content(2) });
    await from.commit({ path: '/d/y', content: content(3) });
    const frames = await framesOf(from, '/d');
    // The block of x under the name of the one of y.
    const [x, y] = frames.filter(({ name }) => name === 'block').slice(-2) as [Frame, Frame];
    y.bytes = Buffer.concat([x.bytes.subarray(0, 5), y.bytes.subarray(5, 37), x.bytes.subarray(37)]);
    const { scanned, report } = await opened(ended(frames));
    expect(scanned.fault).toBeNull();
    expect(report.problems.map(({ path, reason }) => `${path} ${reason}`).sort()).toEqual([
      '/d/a/victim parent_not_folder',
      '/d/y block_missing',
    ]);
    expect(files()).toEqual({ '/d/x': content(2) });
  });

  test('versions without their blocks, paths that are none and altered versions are left out', async () => {
    const good = await from.commit({ path: '/d/x', content: content(2) });
    const elsewhere = await from.commit({ path: '/elsewhere', content: content(4) });
    const frames = await framesOf(from, '/d');
    frames.push(versionFrame(elsewhere), versionFrame({ ...good, path: Buffer.from('/d/other') }));
    const escaping = { ...good, path: Buffer.from('/d/../../escaped') };
    frames.push(frame('version', encodeMessage(escaping)));
    const { report, unreadable } = await opened(ended(frames));
    expect(report.problems.map(({ path, reason }) => `${path} ${reason}`).sort()).toEqual([
      '/d/other version_not_authentic',
      '/elsewhere block_missing',
    ]);
    expect(unreadable).toHaveLength(1);
    expect(files()).toEqual({ '/d/x': content(2) });
    expect(readdirSync(scratch.path).sort()).toEqual(['export', 'outside', 'to']);
  });
});

test('a reader that is told to stop stops', async () => {
  await smallArchive();
  const stop = new AbortController();
  const scanning = scanExport(
    pieces(ended(await framesOf(from, '/d')), 100),
    { progress: () => stop.abort(new Error('enough')) },
    stop.signal,
  );
  await expect(scanning).rejects.toThrow('enough');
});
