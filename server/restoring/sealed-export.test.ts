/** Sealed exports as bytes: read again here frame by frame, and held against what was backed up. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { hashCount, hashKey, hashKeyAt, sha256, splitHashes } from '../../protocol/hashes.ts';
import type { StoredVersion } from '../../protocol/messages.ts';
import {
  decodeExportMessage,
  type ExportFrameName,
  exportFrameHeadBytes,
  exportMagic,
  readExportFrameHead,
} from '../../protocol/sealed-export.ts';
import { open, verifyVersionOf } from '../../protocol/sealing/index.ts';
import { encodeMessage } from '../../protocol/wire.ts';
import { collect, damage, isMarked, keyring, keys, makeWorld, symlink, type World } from './testing.ts';
import type { LeftOutReason } from './types.ts';

let folder: string;
let world: World;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sealed-export-'));
  world = await makeWorld(folder);
});
afterEach(async () => {
  await world?.close();
  await rm(folder, { recursive: true, force: true });
});

const about = { guid: '42', at: 1_700_000_000_000, keys: [{ level: 'standard' as const, generation: 1 }] };
const sealed = { format: 'export', about, verifyAheadBytes: 1_000_000, windowBytes: 4_000_000 } as const;
const text = (content: string): Buffer => Buffer.from(content.repeat(30));
const noise = (bytes: number, seed: number): Buffer => {
  const out = Buffer.alloc(bytes);
  for (let i = 0, state = seed; i + 4 <= bytes; i += 4) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0;
    out.writeInt32LE(state ^ (state >>> 15), i);
  }
  return out;
};

function readFrames(bytes: Buffer): { name: ExportFrameName; body: Buffer; at: number }[] {
  expect(bytes.subarray(0, exportMagic.byteLength)).toEqual(exportMagic);
  const frames: ReturnType<typeof readFrames> = [];
  for (let at = exportMagic.byteLength; at < bytes.byteLength; ) {
    const head = readExportFrameHead(bytes.subarray(at, at + exportFrameHeadBytes))!;
    const body = bytes.subarray(at + exportFrameHeadBytes, at + exportFrameHeadBytes + head.bytes);
    expect(body.byteLength).toBe(head.bytes);
    frames.push({ name: head.name, body, at });
    at += exportFrameHeadBytes + head.bytes;
  }
  return frames;
}

/** Each version must find what it needs before it. */
function readExport(bytes: Buffer) {
  const frames = readFrames(bytes);
  const have = { block: new Map<string, Buffer>(), list: new Map<string, Buffer>() };
  const contents = new Map<string, Buffer>();
  const versions: StoredVersion[] = [];
  for (const { name, body } of frames) {
    if (name === 'block' || name === 'list') {
      expect(sha256(body.subarray(32))).toEqual(body.subarray(0, 32));
      have[name].set(hashKey(body.subarray(0, 32)), body.subarray(32));
    }
    if (name !== 'version') continue;
    const version = decodeExportMessage('version', body);
    expect(verifyVersionOf(keyring, world.ref.archive, version)).toBe(true);
    versions.push(version);
    const blocks = [version.blocks, ...splitHashes(version.lists).map((list) => have.list.get(hashKey(list))!)];
    const plain = blocks.flatMap((named) =>
      Array.from({ length: hashCount(named) }, (_, i) =>
        open(keys, { type: 'block', vault: world.ref.vault }, have.block.get(hashKeyAt(named, i))!),
      ),
    );
    contents.set(version.path.toString('latin1'), Buffer.concat(plain));
  }
  const last = frames.at(-1)!;
  expect(last.name).toBe('end');
  const end = decodeExportMessage('end', last.body);
  expect(end.sha256).toEqual(sha256(bytes.subarray(0, last.at)));
  return {
    header: decodeExportMessage('header', frames[0]!.body),
    chosen: frames.filter(({ name }) => name === 'chosen').map(({ body }) => body.toString()),
    left: frames.filter(({ name }) => name === 'leftOut').map(({ body }) => decodeExportMessage('leftOut', body)),
    blocks: frames.filter(({ name }) => name === 'block').length,
    contents,
    versions,
    end,
  };
}

test('everything is in it, once, each version behind what it needs; and again the same bytes', async () => {
  const large = noise(9_000_000, 1);
  const lists = { minBlocks: 1, averageBlocks: 3, maxBlocks: 4 };
  await world.back(
    { path: '/d' },
    { path: '/d/a', content: text('a') },
    { path: '/d/again', content: text('a') },
    { path: '/d/empty', kind: 'file' },
    { path: '/d/large', content: large, lists },
    { path: '/d/other', content: large, lists },
    symlink('/d/to', 'a'),
    { path: Buffer.from([0x2f, 0x64, 0x2f, 0xff]), content: text('no text') },
    { path: '/elsewhere', content: text('not chosen') },
  );
  const selection = await world.selection(['/d', '/none']);
  const roomy = { ...sealed, windowBytes: 12_000_000 };
  const { bytes, report } = await collect(world.assemble(selection, roomy));
  const read = readExport(bytes);
  expect(read.header).toEqual({ ...world.ref, ...about, seq: selection.seq, deleted: false });
  // Nothing but that: a reader of messages passes over what it does not know.
  const { body } = readFrames(bytes)[0]!;
  expect(body.byteLength).toBe(encodeMessage({ ...read.header }).byteLength);
  const fields = [
    'path',
    'kind',
    'size',
    'mtime',
    'attributes',
    'blocks',
    'lists',
    'mac',
    'deleted',
    'seq',
    'committedAt',
  ];
  expect(Object.keys(read.versions[0]!).sort()).toEqual(fields.sort());
  expect(readFrames(bytes).find(({ name }) => name === 'version')!.body.byteLength).toBe(
    encodeMessage(read.versions[0]!).byteLength,
  );
  expect(read.chosen).toEqual(['/d', '/none']);
  expect([...read.contents.keys()]).toEqual([
    '/d',
    '/d/a',
    '/d/again',
    '/d/empty',
    '/d/large',
    '/d/other',
    '/d/to',
    '/d/\xff',
  ]);
  expect(read.contents.get('/d/large')!.equals(large) && read.contents.get('/d/other')!.equals(large)).toBe(true);
  expect(read.contents.get('/d/again')).toEqual(text('a'));
  expect(read.left).toMatchObject([{ path: Buffer.from('/none'), reason: 'nothing_there' }]);
  const counts = { files: 6, folders: 1, symlinks: 1, bytes: 18_000_000 + 2 * 30 + 210 };
  expect(read.end).toMatchObject({ ...counts, leftOut: 1, blocks: read.blocks });
  expect(report).toMatchObject({ ended: true, counts: { ...counts, leftOut: 0, missingPaths: 1 } });
  expect(bytes.byteLength).toBeLessThan(9_100_000);
  expect(report.heldBytesMax).toBeLessThanOrEqual(12_000_000);
  expect((await collect(world.assemble(selection, roomy))).bytes.equals(bytes)).toBe(true);
});

describe('what cannot be had is left out and named', () => {
  const reasons = (report: { leftOut: { path: Buffer; reason: LeftOutReason }[] }) =>
    report.leftOut.map(({ path, reason }) => [path.toString(), reason]);

  test('a small file before anything of it is sent, with the moments that are whole', async () => {
    await world.back({ path: '/d/x', content: text('the first') });
    const [[block]] = (await world.back({ path: '/d/x', content: text('the second') })) as [Buffer[]];
    await world.back({ path: '/d/y', content: text('another') });
    await damage(world, block!, 'flip');
    const { bytes, report } = await collect(world.assemble(await world.selection(['/d']), sealed));
    const read = readExport(bytes);
    expect(reasons(report)).toEqual([['/d/x', 'content_damaged']]);
    expect(read.left).toMatchObject([{ path: Buffer.from('/d/x'), moments: [{ seq: 1, size: 270 }] }]);
    expect([[...read.contents.keys()], read.blocks]).toEqual([['/d/y'], 1]);
    expect(read.end).toMatchObject({ files: 1, leftOut: 1 });
    expect(await isMarked(world, block!)).toBe(true);
  });

  test('a large one in whose middle a block is hurt, and the rest of it is not fetched', async () => {
    const large = noise(30_000_000, 3);
    const [hashes] = (await world.back({ path: '/d/big', content: large }, { path: '/d/z', content: text('z') })) as [
      Buffer[],
    ];
    await damage(world, hashes[2]!, 'flip');
    const selection = await world.selection(['/d']);
    const { bytes, report } = await collect(world.assemble(selection, sealed));
    const read = readExport(bytes);
    expect(reasons(report)).toEqual([['/d/big', 'content_damaged']]);
    expect([...read.contents.keys()]).toEqual(['/d/z']);
    expect(read.end).toMatchObject({ files: 1, bytes: 30, leftOut: 1 });
    expect(bytes.byteLength).toBeLessThan(12_000_000);
    // Known by its row now, nothing of it is sent.
    const again = await collect(world.assemble(selection, sealed));
    expect(again.bytes.byteLength).toBeLessThan(10_000);
    expect([...readExport(again.bytes).contents.keys()]).toEqual(['/d/z']);
  });

  test('a list that goes away after its blocks were looked at', async () => {
    await world.back(
      { path: '/a', content: text('a') },
      { path: '/big', content: noise(9_000_000, 3), lists: { minBlocks: 1, averageBlocks: 3, maxBlocks: 4 } },
      { path: '/c', content: text('c') },
    );
    const selection = await world.selection(['/']);
    const { database } = world.storage;
    const [{ count }] = (await world.storage.rows('SELECT count(*)::int AS count FROM lists')) as [{ count: number }];
    let reads = 0;
    const query: typeof database.query = async (statement, values) => {
      if (statement.name === 'lists.read' && ++reads === count + 1) await world.storage.rows('DELETE FROM lists');
      return database.query(statement, values);
    };
    const watched = new Proxy(database, {
      get: (of, name) => (name === 'query' ? query : Reflect.get(of, name).bind(of)),
    });
    const assembly = world.assemble(selection, { ...sealed, storage: { ...world.storage, database: watched } });
    const { bytes, report } = await collect(assembly);
    expect(reasons(report)).toEqual([['/big', 'content_damaged']]);
    expect([...readExport(bytes).contents.keys()]).toEqual(['/a', '/c']);
  });

  test('what lies below something that is no folder; what was altered is for who has the keys to find', async () => {
    await world.back(
      symlink('/d/link', '/etc'),
      { path: '/d/link/passwd', content: text('evil') },
      { path: '/d/x', content: text('x'), forge: (version) => version.mac.fill(7) },
    );
    const { bytes, report } = await collect(world.assemble(await world.selection(['/d']), sealed));
    expect(reasons(report)).toEqual([['/d/link/passwd', 'parent_not_folder']]);
    expect(report.counts).toMatchObject({ files: 1, symlinks: 1 });
    expect(bytes.includes(Buffer.from('/d/x'))).toBe(true);
  });
});

test.each([
  ['read ahead', 7_000_000, {}],
  ['large', 9_000_000, {}],
  ['large, of lists', 9_000_000, { lists: { minBlocks: 1, averageBlocks: 3, maxBlocks: 4 } }],
])(
  'what a reader was given of a file (%s) that sealing makes small was counted before, as what it opens to',
  async (_, size, more) => {
    const digits = noise(size / 5, 4).toString('hex');
    const lines = Array.from({ length: size / 50 }, (_, i) => digits.slice(20 * i, 20 * i + 20).padEnd(50, 'line '));
    await world.back({ path: '/a', content: Buffer.from(lines.join('')), ...more });
    const assembly = world.assemble(await world.selection(['/']), { ...sealed, verifyAheadBytes: 8_000_000 });
    const told: [given: number, counted: number][] = [];
    let given = 0;
    for await (const piece of assembly.bytes) {
      given += piece.byteLength;
      told.push([given, assembly.report.counts.bytes]);
    }
    expect(given).toBeLessThan(size / 2);
    expect(assembly.report.counts.bytes).toBe(size);
    // All lines are alike, so that a half of what is sent is half of the file; but for a block.
    for (const [sent, counted] of told) expect(counted).toBeGreaterThan((sent / given) * size - 0.15 * size);
  },
);

test('a reader that stops leaves nothing under way, and a moment that is kept no more ends it', async () => {
  await world.back({ path: '/big', content: noise(9_000_000, 3) });
  const selection = await world.selection(['/']);
  for await (const piece of world.assemble(selection, sealed).bytes) if (piece.byteLength > 100_000) break;
  await world.storage.rows('DELETE FROM restores');
  await expect(collect(world.assemble(selection, sealed))).rejects.toMatchObject({ code: 'moment_lapsed' });
});
