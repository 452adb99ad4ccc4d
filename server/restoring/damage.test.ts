/** Never wrong bytes, and nothing missing without a word: every kind of damage, and every kind of hostile version. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { makeKeyring } from '../../protocol/sealing/index.ts';
import { listAlerts } from '../../storage/catalog/checking/alerts.ts';
import { planRestore } from './plan.ts';
import { collect, damage, type Entry, isMarked, makeWorld, readZip, symlink, type World } from './testing.ts';
import { ArchiveBroken, type LeftOutReason } from './types.ts';

let folder: string;
let world: World;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'damage-'));
  world = await makeWorld(folder);
});
afterEach(async () => {
  await world?.close();
  await rm(folder, { recursive: true, force: true });
});

const small = { verifyAheadBytes: 1_000_000, windowBytes: 4_000_000 };
const text = (content: string): Buffer => Buffer.from(content.repeat(30));
const noise = (bytes: number, seed: number): Buffer => {
  const out = Buffer.alloc(bytes);
  for (let i = 0, state = seed; i + 4 <= bytes; i += 4) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0;
    out.writeInt32LE(state ^ (state >>> 15), i);
  }
  return out;
};
const reasons = (report: { leftOut: { path: Buffer; reason: LeftOutReason }[] }) =>
  report.leftOut.map(({ path, reason }) => [path.toString(), reason]);

describe('a small file whose block', () => {
  test.each(['flip', 'remove', 'truncate'] as const)('was hurt (%s) is left out, named, and marked', async (how) => {
    await world.back({ path: '/d/x', content: text('the first') });
    const [first] = (await world.back({ path: '/d/x', content: text('the second') })) as [Buffer[]];
    await world.back({ path: '/d/y', content: text('another') });
    const selection = await world.selection(['/d']);
    await damage(world, first[0]!, how);
    const { bytes, report } = await collect(world.assemble(selection, small));
    expect(report).toMatchObject({ ended: true, counts: { files: 1, leftOut: 1 }, damagedBlocks: 1 });
    expect(reasons(report)).toEqual([['/d/x', 'content_damaged']]);
    const entries = readZip(bytes);
    expect([...entries.keys()]).toEqual(['d/y', 'RESTORE-INCOMPLETE.txt']);
    const incomplete = entries.get('RESTORE-INCOMPLETE.txt')!.content.toString();
    expect(incomplete).toMatch(/^\/d\/x: its content is damaged in the store\n {4}\S+Z \(version 1, 270 bytes\)$/m);
    expect(await isMarked(world, first[0]!)).toBe(true);

    // Known by its row now, it is left out in the same words, so the same bytes come of a second try.
    const again = await collect(world.assemble(selection, small));
    expect(again.bytes.equals(bytes)).toBe(true);
    expect(again.report.damagedBlocks).toBe(0);
    const plan = await planRestore(world.storage, world.ref, { ...selection, moment: { seq: selection.seq } });
    expect(plan).toMatchObject({ files: 2, damaged: 1 });
  });

  test('is said not to be there by a store that may be another one is not marked', async () => {
    const [hashes] = (await world.back({ path: '/x', content: text('x') })) as [Buffer[]];
    await damage(world, hashes[0]!, 'remove');
    const fence = { isOurBucket: async () => false };
    const failing = collect(world.assemble(await world.selection(['/x']), { ...small, fence }));
    expect((await failing).report).toMatchObject({ ended: true, counts: { files: 0, leftOut: 1 } });
    expect(await isMarked(world, hashes[0]!)).toBe(false);
  });

  test('came wrong once, and right when asked again, is restored', async () => {
    const [hashes] = (await world.back({ path: '/x', content: text('x') })) as [Buffer[]];
    const { objects } = world.storage;
    let lies = 1;
    const get: typeof objects.get = async (...asked) => {
      const content = await objects.get(...asked);
      if (lies-- <= 0) return content;
      const stream = (async function* () {
        for await (const piece of content.stream) yield Buffer.alloc(piece.byteLength);
      })();
      return { length: content.length, stream };
    };
    const lying = new Proxy(objects, { get: (of, name) => (name === 'get' ? get : Reflect.get(of, name).bind(of)) });
    const assembly = world.assemble(await world.selection(['/x']), {
      ...small,
      storage: { ...world.storage, objects: lying },
    });
    const { bytes, report } = await collect(assembly);
    expect(readZip(bytes).get('x')!.content.equals(text('x'))).toBe(true);
    expect([lies, report.damagedBlocks, await isMarked(world, hashes[0]!)]).toEqual([-1, 0, false]);
  });
});

test('where more looks damaged than bit rot explains, little is marked and an alert asks for a person', async () => {
  const files = Array.from({ length: 30 }, (_, i): Entry => ({ path: `/d/${i}`, content: text(`file ${i} `) }));
  const hashes = (await world.back(...files)).map(([hash]) => hash!);
  for (const hash of hashes) await damage(world, hash, 'flip');
  const { report } = await collect(world.assemble(await world.selection(['/d']), small));
  expect(report).toMatchObject({ ended: true, counts: { files: 0, leftOut: 30 } });
  const marked = await Promise.all(hashes.map((hash) => isMarked(world, hash)));
  expect(marked.filter((is) => is)).toHaveLength(8);
  const alerts = await listAlerts(world.storage.database, world.ref.vault, { reviewed: false, limit: 10 });
  expect(alerts.map(({ kind }) => kind)).toContain('verify_suspicious');

  // And not a few more with every try.
  await collect(world.assemble(await world.selection(['/d']), small));
  expect((await Promise.all(hashes.map((hash) => isMarked(world, hash)))).filter((is) => is)).toHaveLength(8);
  await world.storage.rows(`UPDATE damage SET found_at = now() - interval '25 h'`);
  await collect(world.assemble(await world.selection(['/d']), small));
  expect((await Promise.all(hashes.map((hash) => isMarked(world, hash)))).filter((is) => is)).toHaveLength(16);
});

describe('a large file', () => {
  const large = noise(9_000_000, 3);

  test.each(['zip', 'tar'] as const)(
    'hurt in its middle breaks the %s off, and is left out of the next',
    async (format) => {
      const [, hashes] = (await world.back(
        { path: '/d/a', content: text('a') },
        { path: '/d/big', content: large },
      )) as [Buffer[], Buffer[]];
      expect(hashes.length).toBeGreaterThan(4);
      await damage(world, hashes[3]!, 'flip');
      const selection = await world.selection(['/d']);
      const assembly = world.assemble(selection, { ...small, format });
      const got: Buffer[] = [];
      const reading = (async () => {
        for await (const piece of assembly.bytes) got.push(piece);
      })();
      await expect(reading).rejects.toThrow(ArchiveBroken);
      await expect(reading).rejects.toMatchObject({ path: Buffer.from('/d/big'), reason: 'content_damaged' });
      const bytes = Buffer.concat(got);
      expect([assembly.report.ended, bytes.byteLength > 1_000_000]).toEqual([false, true]);
      expect(bytes.includes(Buffer.from('PK\x05\x06', 'latin1'))).toBe(false);
      expect(await isMarked(world, hashes[3]!)).toBe(true);
      const again = await collect(world.assemble(selection, { ...small, format }));
      expect(again.report).toMatchObject({ ended: true, counts: { files: 1, leftOut: 1 } });
      expect(reasons(again.report)).toEqual([['/d/big', 'content_damaged']]);
    },
  );

  test('whose lists name another content is left out before it begins', async () => {
    const lists = { minBlocks: 1, averageBlocks: 3, maxBlocks: 4 };
    await world.back({ path: '/big', content: large, lists });
    await world.storage.rows(
      `UPDATE lists SET blocks = substr(blocks, 33) || substr(blocks, 1, 32) WHERE octet_length(blocks) > 32`,
    );
    const { report } = await collect(world.assemble(await world.selection(['/big']), small));
    expect(reasons(report)).toEqual([['/big', 'content_damaged']]);
  });

  test('that is shorter or longer than its version says breaks off, and is left out when asked to be', async () => {
    for (const size of [8_999_999, 9_000_001]) {
      const path = `/size-${size}`;
      await world.back({ path, content: large, size });
      const selection = await world.selection([path]);
      const broken = collect(world.assemble(selection, small));
      await expect(broken).rejects.toMatchObject({ path: Buffer.from(path), reason: 'content_mismatch' });
      const leaveOut = [{ path: Buffer.from(path), reason: 'content_mismatch' as const }];
      const { report } = await collect(world.assemble({ ...selection, leaveOut }, small));
      expect([report.ended, reasons(report)]).toEqual([true, [[path, 'content_mismatch']]]);
    }
  });
});

describe('a file that names more than it can be', () => {
  const names = (entry: Partial<Entry>): Entry => ({ path: '/x', kind: 'file', ...entry });
  const lists = { minBlocks: 1, averageBlocks: 3, maxBlocks: 4 };

  test.each<[string, Entry]>([
    ['a long block for a byte', names({ size: 1, repeat: { block: noise(1_000_000, 5), times: 1 } })],
    ['many long blocks', names({ size: 900_000, repeat: { block: noise(1_000_000, 5), times: 1_000 } })],
    ['more blocks than it has bytes', names({ size: 2, repeat: { block: Buffer.of(1), times: 3 } })],
    ['too much in lists', names({ size: 1_500_000, repeat: { block: noise(500_000, 5), times: 40 }, lists })],
    [
      'one block that no block opens from',
      names({ size: 30_000_000, repeat: { block: noise(17 << 20, 5), times: 1 } }),
    ],
  ])('(%s) is left out, and nothing of it is fetched', async (_, entry) => {
    await world.back(entry);
    if (entry.size === 30_000_000) await world.storage.rows('UPDATE blocks SET byte_length = 22000000');
    const { objects } = world.storage;
    let fetched = 0;
    const get: typeof objects.get = (...asked) => {
      fetched++;
      return objects.get(...asked);
    };
    const counted = new Proxy(objects, { get: (of, name) => (name === 'get' ? get : Reflect.get(of, name).bind(of)) });
    const selection = await world.selection(['/x']);
    const plan = await planRestore(world.storage, world.ref, { ...selection, moment: { seq: selection.seq } });
    const options = { ...small, storage: { ...world.storage, objects: counted } };
    const { report } = await collect(world.assemble(selection, options));
    expect(reasons(report)).toEqual([['/x', 'content_mismatch']]);
    expect([report.ended, fetched, plan.damaged]).toEqual([true, 0, 1]);
    expect(report.heldBytesMax).toBeLessThan(100_000);
  });

  test('is told from one of tiny blocks, and from one of the same block again and again', async () => {
    await world.back(
      { path: '/tiny', kind: 'file', size: 3, repeat: { block: Buffer.of(1), times: 3 } },
      { path: '/zeros', kind: 'file', size: 900_000, repeat: { block: Buffer.alloc(300_000), times: 3 } },
      { path: '/noise', content: noise(900_000, 9) },
    );
    const { report } = await collect(world.assemble(await world.selection(['/']), small));
    expect(report.counts).toMatchObject({ files: 3, leftOut: 0, bytes: 1_800_003 });
  });

  test('and one that is too large for the window though it was to be read whole, is written in parts', async () => {
    await world.back({ path: '/x', content: noise(12_000_000, 6) });
    const options = { windowBytes: 12_000_000, verifyAheadBytes: 20_000_000, format: 'tar' } as const;
    const { report } = await collect(world.assemble(await world.selection(['/x']), options));
    expect(report.counts).toMatchObject({ files: 1, bytes: 12_000_000 });
    expect(report.heldBytesMax).toBeLessThanOrEqual(12_000_000);
  });
});

test('a list that goes away in the middle of a file breaks the archive off there', async () => {
  await world.back(
    { path: '/a', content: text('a') },
    { path: '/big', content: noise(9_000_000, 3), lists: { minBlocks: 1, averageBlocks: 3, maxBlocks: 4 } },
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
  const assembly = world.assemble(selection, { ...small, storage: { ...world.storage, database: watched } });
  const broken = collect(assembly);
  await expect(broken).rejects.toThrow(ArchiveBroken);
  await expect(broken).rejects.toMatchObject({ path: Buffer.from('/big'), reason: 'content_damaged' });
  expect(assembly.report.counts.files).toBe(1);
});

test('a version that was left out is no whole moment of its file, nor is one with the same content', async () => {
  const forged = { path: '/d/x', content: text('x'), size: 3 };
  await world.back({ path: '/d/x', content: text('the first') });
  await world.back(forged);
  await world.back({ ...forged, mtime: 1 });
  const { bytes, report } = await collect(world.assemble(await world.selection(['/d']), small));
  expect(reasons(report)).toEqual([['/d/x', 'content_mismatch']]);
  const incomplete = readZip(bytes).get('RESTORE-INCOMPLETE.txt')!.content.toString();
  expect(incomplete).toMatch(
    /^\/d\/x: its content is not as long as it should be\n {4}\S+Z \(version 1, 270 bytes\)\n$/m,
  );
});

test('the list of what was left out is cut where it grows too long', async () => {
  await world.back(...Array.from({ length: 9 }, (_, i): Entry => ({ path: `/d/${i}`, content: text('x'), size: 3 })));
  const selection = await world.selection(['/d']);
  const whole = await collect(world.assemble(selection, small));
  const last = (bytes: Buffer) => readZip(bytes).get('RESTORE-INCOMPLETE.txt')!.content.toString();
  const textBytes = Buffer.byteLength(last(whole.bytes));
  expect(last(whole.bytes)).not.toContain('more');
  const same = await collect(world.assemble(selection, { ...small, keptMax: { textBytes } }));
  expect(same.bytes.equals(whole.bytes)).toBe(true);
  const cut = await collect(world.assemble(selection, { ...small, keptMax: { textBytes: textBytes - 1 } }));
  expect(last(cut.bytes)).toMatch(/\n\/d\/7: .*\nand 1 more\n$/);
  expect(last(cut.bytes)).not.toContain('/d/8');
  expect(cut.report.counts.leftOut).toBe(9);
  const none = await collect(world.assemble(selection, { ...small, keptMax: { textBytes: 0 } }));
  expect(last(none.bytes)).toMatch(/^This archive does not hold everything[\s\S]*\nand 9 more\n$/);
});

test('a zip whose directory grows too large says to take a tar', async () => {
  // Names that do not compress: 256 KiB of them is what is held as it is.
  const names = Array.from({ length: 1_500 }, (_, i) => noise(120, i + 1).toString('hex'));
  await world.back(...names.map((name): Entry => ({ path: `/d/${name}` })));
  const selection = await world.selection(['/d']);
  const keptMax = { directoryBytes: 150_000 };
  await expect(collect(world.assemble(selection, { ...small, keptMax }))).rejects.toMatchObject({
    code: 'out_of_bounds',
    message: expect.stringContaining('take a tar'),
  });
  const { report } = await collect(world.assemble(selection, { ...small, keptMax, format: 'tar' }));
  expect(report.counts.folders).toBe(1_500);
});

describe('what is not as it should be is left out and named:', () => {
  test.each<[string, Entry, LeftOutReason]>([
    ['a size that is too large', { path: '/x', content: text('x'), size: 31 }, 'content_mismatch'],
    ['a size that is too small', { path: '/x', content: text('x'), size: 29 }, 'content_mismatch'],
    [
      'a version that was altered',
      { path: '/x', content: text('x'), forge: (version) => Object.assign(version, { mtime: 1 }) },
      'version_not_authentic',
    ],
    [
      'a path that was exchanged',
      { path: '/y', content: text('x'), forge: (version) => Object.assign(version, { path: Buffer.from('/x') }) },
      'version_not_authentic',
    ],
    ['attributes of another kind', { path: '/x', kind: 'symlink' }, 'attributes_damaged'],
  ])('%s', async (_, entry, reason) => {
    await world.back(entry, { path: '/fine', content: text('fine') });
    const { bytes, report } = await collect(world.assemble(await world.selection(['/']), small));
    expect(reasons(report)).toEqual([['/x', reason]]);
    expect([...readZip(bytes).keys()]).toEqual(['fine', 'RESTORE-INCOMPLETE.txt']);
  });

  test('everything, with another key', async () => {
    await world.back({ path: '/x', content: text('x') });
    const selection = await world.selection(['/x']);
    const other = makeKeyring([{ generation: 1, key: Buffer.alloc(32, 1) }]);
    const { report } = await collect(world.assemble(selection, { keyring: other }));
    expect(reasons(report)).toEqual([['/x', 'version_not_authentic']]);
    const later = makeKeyring([{ generation: 2, key: Buffer.alloc(32, 1) }]);
    const second = await collect(world.assemble(selection, { keyring: later }));
    expect(reasons(second.report)).toEqual([['/x', 'key_missing']]);
  });

  test.each(['zip', 'tar'] as const)('what lies below a symlink or a file, in a %s', async (format) => {
    await world.back(
      symlink('/d', '/etc'),
      { path: '/d/passwd', content: text('x') },
      { path: '/d/deep/y', content: text('y') },
      { path: '/d.txt', content: text('beside it') },
      { path: '/f', content: text('f') },
      { path: '/f/g', content: text('g') },
    );
    const { report } = await collect(world.assemble(await world.selection(['/']), { ...small, format }));
    expect(reasons(report)).toEqual([
      ['/d/deep/y', 'parent_not_folder'],
      ['/d/passwd', 'parent_not_folder'],
      ['/f/g', 'parent_not_folder'],
    ]);
    expect(report.counts).toMatchObject({ files: 2, symlinks: 1 });
  });

  test('the other names of a file whose content is damaged', async () => {
    const attributes = { inode: Buffer.alloc(16, 7), links: 2 };
    const [hashes] = (await world.back(
      { path: '/a', content: text('x'), attributes },
      { path: '/b', content: text('x'), attributes },
    )) as [Buffer[]];
    await damage(world, hashes[0]!, 'flip');
    const { report } = await collect(world.assemble(await world.selection(['/']), { ...small, format: 'tar' }));
    expect(reasons(report)).toEqual([
      ['/a', 'content_damaged'],
      ['/b', 'content_damaged'],
    ]);
  });
});

test('the last entry takes a name that nothing restored has', async () => {
  await world.back(
    { path: '/d/RESTORE-INCOMPLETE.txt', content: text('of an earlier restore') },
    { path: '/d/restore-incomplete-7.TXT', content: text('of another') },
    { path: '/d/sub/RESTORE-INCOMPLETE-9.txt', content: text('not at the top') },
    { path: '/d/x', content: text('x'), size: 3 },
  );
  const paths = ['/d/RESTORE-INCOMPLETE.txt', '/d/restore-incomplete-7.TXT', '/d/sub', '/d/x'];
  const { bytes } = await collect(world.assemble(await world.selection(paths), small));
  expect([...readZip(bytes).keys()].at(-1)).toBe('RESTORE-INCOMPLETE-8.txt');
});
