import { describe, expect, test } from '@jest/globals';
import { limits } from '../../../protocol/limits.ts';
import type { VersionMessage } from '../../../protocol/messages.ts';
import { splitPath } from '../../../protocol/paths.ts';
import {
  block,
  commit,
  deletion,
  newArchive,
  newRun,
  pruneAtOnce,
  storageForFile,
  upload,
  version,
} from '../../../tests/helpers/storage.ts';
import { candidatesInRange, fewFiles, noFilters, packedBytesMax } from '../../catalog/reading/search.ts';
import type { ArchiveRef } from '../../storage.ts';
import { pruneDue } from '../retention/prune.ts';
import { type BrowseQuery, browseFolder, browseVersions } from './browse.ts';
import { type Hit, type SearchQuery, searchArchive } from './search.ts';
import { pathIn, SearchFolders } from './search-folders.ts';
import { matchesPath, queryOfPart, queryOfPattern } from './search-pattern.ts';
import { namedAmong, workMax } from './search-work.ts';

const storage = storageForFile();
const now = { at: null, seq: null };
const everything: SearchQuery = {
  path: Buffer.from('/'),
  moment: now,
  name: null,
  pattern: null,
  filters: noFilters,
  deleted: false,
  after: null,
  limit: 1_000_000,
};

async function search(ref: ArchiveRef, query: Partial<SearchQuery> = {}) {
  const { seq, steps } = await searchArchive(storage, ref, { ...everything, ...query });
  const hits: Hit[] = [];
  let upTo: number | null = null;
  for await (const step of steps) {
    hits.push(...step.hits);
    upTo = step.upTo;
  }
  return { seq, hits, upTo };
}

/** Paths as latin-1, sorted. */
async function paths(ref: ArchiveRef, query: Partial<SearchQuery> = {}): Promise<string[]> {
  return (await search(ref, query)).hits.map(({ path }) => path.toString()).sort();
}

async function browse(ref: ArchiveRef, query: Partial<BrowseQuery> = {}) {
  const asked = { path: Buffer.from('/'), moment: now, deleted: false, after: null, limit: 1_000, ...query };
  return browseFolder(storage, ref, asked);
}

const named = (page: { entries: { name: Buffer }[] }): string[] => page.entries.map(({ name }) => `${name}`);

async function archiveWith(...commits: VersionMessage[][]): Promise<ArchiveRef & { run: number }> {
  const ref = await newArchive(storage);
  const run = await newRun(storage, ref);
  for (const versions of commits) await commit(storage, ref, run, versions);
  return { ...ref, run };
}

const file = (path: string | Buffer, rest: Partial<VersionMessage> = {}): VersionMessage =>
  version('', [], { path: Buffer.from(path), ...rest });

describe('a folder', () => {
  test('pages of one moment show exactly what was there, whatever is committed between them', async () => {
    const names = Array.from({ length: 25 }, (_, i) => `f${String(i).padStart(2, '0')}`);
    const ref = await archiveWith(names.map((name) => file(`/d/${name}`)));
    const first = await browse(ref, { path: Buffer.from('/d'), limit: 4 });
    const seen = named(first);
    let next = first.next;
    for (let i = 0; next; i++) {
      // In front of the page, behind it, and on it: new, changed and gone.
      await commit(storage, ref, ref.run, [
        file(`/d/a${i}`),
        file(`/d/z${i}`),
        deletion(`/d/f${String(24 - i).padStart(2, '0')}`),
        file(`/d/f0${i}`, { mtime: 5 }),
      ]);
      const moment = { at: null, seq: first.seq };
      const page = await browse(ref, { path: Buffer.from('/d'), limit: 4, after: next, moment });
      expect(page.seq).toBe(first.seq);
      seen.push(...named(page));
      next = page.next;
    }
    expect(seen).toEqual(names);
    // Six pages followed: each brought two names and took one.
    expect(named(await browse(ref, { path: Buffer.from('/d') }))).toHaveLength(25 + 6 * 2 - 6);
  });

  test('pages of every length are whole, and the last one says so', async () => {
    const names = Array.from({ length: 7 }, (_, i) => `${i}`);
    const ref = await archiveWith(names.map((name) => file(`/${name}`)));
    for (let limit = 1; limit <= 8; limit++) {
      const seen: string[] = [];
      let after: Buffer | null = null;
      do {
        const page = await browse(ref, { limit, after });
        expect(page.entries.length).toBe(Math.min(limit, 7 - seen.length));
        seen.push(...named(page));
        after = page.next;
      } while (after);
      expect(seen).toEqual(names);
    }
  });

  test('what was deleted is shown on request, as it last was', async () => {
    const ref = await archiveWith([file('/a', { size: 7, mtime: 70 }), file('/b')], [deletion('/a')]);
    expect(named(await browse(ref))).toEqual(['b']);
    const { entries } = await browse(ref, { deleted: true });
    expect(
      entries.map(({ name, size, mtime, seq, deletedAt }) => [`${name}`, size, mtime, seq, deletedAt !== null]),
    ).toEqual([
      ['a', 7, 70, 1, true],
      ['b', 0, 1_700_000_000_000, 2, false],
    ]);
    expect(named(await browse(ref, { moment: { at: null, seq: 2 } }))).toEqual(['a', 'b']);
  });

  test('a folder of which all was deleted answers in time: pages may be empty, and go on', async () => {
    const gone = Array.from({ length: 10_500 }, (_, i) => `/g${String(i).padStart(5, '0')}`);
    const ref = await archiveWith(
      ...[0, 5_250].map((at) => gone.slice(at, at + 5_250).map((path) => file(path))),
      ...[0, 5_250].map((at) => gone.slice(at, at + 5_250).map(deletion)),
      [file('/h')],
    );
    const first = await browse(ref, { limit: 10 });
    expect(first.entries).toEqual([]);
    expect(first.next).not.toBeNull();
    const second = await browse(ref, { limit: 10, after: first.next });
    expect(named(second)).toEqual(['h']);
    expect(second.next).toBeNull();
  });

  test('a folder that became a file, and back', async () => {
    const folder = (path: string) => file(path, { kind: 'directory' });
    const ref = await archiveWith(
      [folder('/x'), file('/x/a')],
      [deletion('/x/a'), file('/x', { size: 3 })],
      [folder('/x'), file('/x/b')],
    );
    const at = async (seq: number) => {
      const moment = { at: null, seq };
      const { entries } = await browse(ref, { moment });
      return [
        entries.map(({ name, kind }) => [`${name}`, kind]),
        named(await browse(ref, { moment, path: Buffer.from('/x') })),
      ];
    };
    expect(await at(2)).toEqual([[['x', 'directory']], ['a']]);
    expect(await at(4)).toEqual([[['x', 'file']], []]);
    expect(await at(6)).toEqual([[['x', 'directory']], ['b']]);
    expect(await paths(ref, { pattern: '/x/*', deleted: true })).toEqual(['/x/a', '/x/b']);
    const { versions } = await browseVersions(storage, ref, {
      path: Buffer.from('/x'),
      moment: now,
      below: null,
      limit: 9,
    });
    expect(versions.map(({ seq, kind, size }) => [seq, kind, size])).toEqual([
      [5, 'directory', 0],
      [4, 'file', 3],
      [1, 'directory', 0],
    ]);
  });

  test('a moment that is not there yet, a path that never was, and an archive without anything', async () => {
    const empty = await archiveWith();
    expect(await browse(empty)).toEqual({ seq: 0, prunedAt: null, entries: [], next: null });
    expect(await search(empty, { name: 'a' })).toEqual({ seq: 0, hits: [], upTo: null });
    const ref = await archiveWith([file('/a')]);
    expect((await browse(ref, { moment: { at: null, seq: 1 } })).seq).toBe(1);
    await expect(browse(ref, { moment: { at: null, seq: 2 } })).rejects.toMatchObject({ code: 'out_of_bounds' });
    await expect(browse(ref, { path: Buffer.from('/b') })).rejects.toMatchObject({ code: 'not_found' });
    await expect(search(ref, { path: Buffer.from('/b') })).rejects.toMatchObject({ code: 'not_found' });
    expect((await browse(ref, { moment: { at: new Date(0), seq: null } })).entries).toEqual([]);
    await storage.rows(`UPDATE archives SET state = 'expired' WHERE archive_id = $1`, [ref.archive]);
    await expect(browse(ref)).rejects.toMatchObject({ code: 'conflict' });
    await expect(search(ref)).rejects.toMatchObject({ code: 'conflict' });
  });
});

test('versions come newest first in pages, up to the moment', async () => {
  const ref = await archiveWith([file('/a')], [file('/a', { size: 2 })], [deletion('/a')], [file('/a', { size: 4 })]);
  const ask = (seq: number | null, below: number | null, limit: number) =>
    browseVersions(storage, ref, { path: Buffer.from('/a'), moment: { at: null, seq }, below, limit });
  const seqs = (page: Awaited<ReturnType<typeof ask>>) => [page.versions.map(({ seq }) => seq), page.next];
  expect(seqs(await ask(null, null, 4))).toEqual([[4, 3, 2, 1], null]);
  expect(seqs(await ask(null, null, 3))).toEqual([[4, 3, 2], 2]);
  expect(seqs(await ask(null, 2, 3))).toEqual([[1], null]);
  expect(seqs(await ask(2, null, 3))).toEqual([[2, 1], null]);
  expect((await ask(3, null, 1)).versions[0]).toMatchObject({ seq: 3, deleted: true });
});

const strangeNames: Buffer[] = [
  ...[
    'Bericht.xlsx',
    'BERICHT.XLSX',
    'ärger',
    'a\u0308rger',
    'ÄRGER',
    '[x]',
    'a*b',
    'a?b',
    '100%',
    'a_b',
    'back\\slash',
    'KISS',
    'kiss',
    'Kiss',
    '报告 2024.doc',
    '豈',
    '\uf900',
    'がく',
    'ひかり',
    'か\u3099く',
    'Straße',
    'STRASSE',
    "it's",
    '"',
    'tab\there',
  ].map((name) => Buffer.from(name)),
  Buffer.from([0xff, 0xfe, 0x2e, 0x58]),
  Buffer.from('caf\xe9.TXT', 'latin1'),
];

test.each([
  'bericht',
  'RGER',
  'är',
  'a\u0308',
  '[',
  '*',
  '?',
  '%',
  '_',
  '\\',
  'kiss',
  'k',
  '报告',
  '豈',
  'が',
  'か',
  'ß',
  "'",
  '"',
  '\t',
  '\ufffd',
  '.x',
  'caf',
])('what the database leaves out is nothing that matches: %s', async (part) => {
  const ref = await strangeArchive();
  const expected = strangeNames.filter((name) => matchesPath(queryOfPart(part), [name]));
  expect(expected.length).toBeGreaterThan(0);
  const found = (await search(ref, { name: part })).hits.map(({ path }) => path.subarray(3));
  expect(found.sort(Buffer.compare)).toEqual(expected.sort(Buffer.compare));
});

test.each([
  '*.x*',
  '*[[]*',
  '\\**',
  'a\\*b',
  '*%',
  '*\\\\*',
  '[!a-z]*',
  '??',
  '/s/*ß*',
  '*k*',
  '报告*',
  '**/s/ä*',
  '/S/KI??',
])('nor for a pattern: %s', async (pattern) => {
  const ref = await strangeArchive();
  const all = strangeNames.map((name) => Buffer.concat([Buffer.from('/s/'), name]));
  const expected = all.filter((path) => matchesPath(queryOfPattern(pattern), splitPath(path)));
  const found = (await search(ref, { pattern })).hits.filter(({ kind }) => kind === 'file');
  expect(found.map(({ path }) => path).sort(Buffer.compare)).toEqual(expected.sort(Buffer.compare));
});

let strange: Promise<ArchiveRef> | null = null;
function strangeArchive(): Promise<ArchiveRef> {
  strange ??= archiveWith(strangeNames.map((name) => file(Buffer.concat([Buffer.from('/s/'), name]))));
  return strange;
}

describe('a search', () => {
  test('goes through pages, stops at its limit, and goes on behind any hit', async () => {
    const names = Array.from({ length: 12_345 }, (_, i) => `/d${i % 7}/${i % 3 ? 'x' : 'y'}${i}`);
    const ref = await archiveWith(
      ...[0, 5_000, 10_000].map((at) => names.slice(at, at + 5_000).map((path) => file(path))),
    );
    const all = await search(ref, { name: 'y' });
    expect(all.hits).toHaveLength(4_115);
    expect(new Set(all.hits.map(({ path }) => `${path}`))).toEqual(new Set(names.filter((name) => name.includes('y'))));
    for (const limit of [1, 1_999, 2_000, 2_001, 4_114, 4_115, 4_116]) {
      const { hits, upTo, seq } = await search(ref, { name: 'y', limit });
      expect(hits).toEqual(all.hits.slice(0, limit));
      if (upTo === null) expect(limit).toBeGreaterThanOrEqual(4_115);
      const rest = upTo === null ? [] : (await search(ref, { name: 'y', after: upTo, moment: { at: null, seq } })).hits;
      expect([...hits, ...rest]).toEqual(all.hits);
    }
    // Below a folder that holds few, and below all.
    expect(await paths(ref, { name: 'y', path: Buffer.from('/d3') })).toEqual(
      names.filter((name) => name.startsWith('/d3/y')).sort(),
    );
    expect(await paths(ref, { pattern: '/D3/y*' })).toEqual(names.filter((name) => name.startsWith('/d3/y')).sort());
    expect((await search(ref)).hits).toHaveLength(12_345 + 7);
    const signal = AbortSignal.abort();
    await expect(search(ref, { name: 'y', signal })).rejects.toThrow(signal.reason);
  });

  test('below a folder that holds more than is listed one by one, it is the same', async () => {
    const inside = Array.from({ length: 5_200 }, (_, i) => `/big/sub/f${i}`);
    const ref = await archiveWith(
      inside.slice(0, 5_000).map((path) => file(path)),
      [...inside.slice(5_000), '/bigger/f1', '/f1', '/big'].map((path) =>
        file(path, path === '/big' ? { kind: 'directory' } : {}),
      ),
    );
    const expected = [...inside, '/big/sub'].sort();
    expect(await paths(ref, { path: Buffer.from('/big') })).toEqual(expected);
    expect(await paths(ref, { path: Buffer.from('/big'), name: 'F1' })).toEqual(
      inside.filter((path) => path.includes('f1')).sort(),
    );
    expect(await paths(ref, { path: Buffer.from('/bigger') })).toEqual(['/bigger/f1']);
  });

  test('is of its moment: what came later is not found, what was deleted later is', async () => {
    const ref = await archiveWith([file('/a1'), file('/a2')]);
    const { seq } = await search(ref, { name: 'a' });
    await commit(storage, ref, ref.run, [file('/a3'), deletion('/a1'), file('/q/a4')]);
    expect(await paths(ref, { name: 'a', moment: { at: null, seq } })).toEqual(['/a1', '/a2']);
    expect(await paths(ref, { name: 'a' })).toEqual(['/a2', '/a3', '/q/a4']);
    expect(await paths(ref, { name: 'a', deleted: true })).toEqual(['/a1', '/a2', '/a3', '/q/a4']);
    expect(await paths(ref, { name: 'q' })).toEqual(['/q']);
    expect(await paths(ref, { name: 'q', moment: { at: null, seq } })).toEqual([]);
  });

  test('by kind, size and time, at their edges, and of what was deleted as it last was', async () => {
    const ref = await archiveWith(
      [
        file('/f0', { size: 10, mtime: 1_000 }),
        file('/f1', { size: 11, mtime: 1_001 }),
        file('/g/link', { kind: 'symlink', size: 10, mtime: 1_000 }),
        file('/gone', { size: 10, mtime: 1_000 }),
      ],
      [deletion('/gone')],
    );
    const by = (filters: Partial<typeof noFilters>, deleted = false) =>
      paths(ref, { filters: { ...noFilters, ...filters }, deleted });
    expect(await by({ kind: 'file' })).toEqual(['/f0', '/f1']);
    expect(await by({ kind: 'directory' })).toEqual(['/g']);
    expect(await by({ kind: 'symlink' })).toEqual(['/g/link']);
    expect(await by({ bytesMin: 10 })).toEqual(['/f0', '/f1']);
    expect(await by({ bytesMin: 11 })).toEqual(['/f1']);
    expect(await by({ bytesMin: 12 })).toEqual([]);
    expect(await by({ bytesMax: 10 })).toEqual(['/f0']);
    expect(await by({ bytesMax: 9 })).toEqual([]);
    expect(await by({ bytesMin: 10, bytesMax: 10 }, true)).toEqual(['/f0', '/gone']);
    expect(await by({ modifiedFrom: 1_000 })).toEqual(['/f0', '/f1', '/g/link']);
    expect(await by({ modifiedFrom: 1_001 })).toEqual(['/f1']);
    expect(await by({ modifiedBefore: 1_001 })).toEqual(['/f0', '/g/link']);
    expect(await by({ modifiedBefore: 1_000 })).toEqual([]);
    expect(await by({ modifiedBefore: 1_001 }, true)).toEqual(['/f0', '/g/link', '/gone']);
  });

  test('is by a name or by a pattern', async () => {
    const ref = await archiveWith([file('/a')]);
    await expect(search(ref, { name: 'a', pattern: 'a' })).rejects.toMatchObject({ code: 'malformed_request' });
  });

  test('of names and paths as long and as deep as they may be', async () => {
    const longName = `/${'n'.repeat(limits.nameBytesMax)}`;
    const deep = '/d'.repeat(limits.pathDepthMax);
    const long = `/${'l'.repeat(2_047)}`.repeat(16);
    expect(Buffer.byteLength(long)).toBe(limits.pathBytesMax);
    const ref = await archiveWith([file(longName), file(deep), file(long)]);
    expect(await paths(ref, { name: 'N'.repeat(256) })).toEqual([longName]);
    expect(await paths(ref, { pattern: '**/d', filters: { ...noFilters, kind: 'file' } })).toEqual([deep]);
    expect(await paths(ref, { pattern: '/l*/**', filters: { ...noFilters, kind: 'file' } })).toEqual([long]);
    expect(await paths(ref, { path: Buffer.from(deep.slice(0, -2)) })).toEqual([deep]);
  });
});

describe('a search that is much work', () => {
  const pattern = `*${'?'.repeat(254)}k`;
  const candidates = Array.from({ length: 40 }, (_, i) => ({
    fileId: i + 1,
    parentId: 0,
    isFolder: false,
    name: Buffer.from('x'.repeat(2_048)),
  }));
  const nothingOut = { mayMatch: null, isOut: () => false };

  test('lets others have their turn, and ends when nobody waits for it', async () => {
    const controller = new AbortController();
    setImmediate(() => controller.abort(new Error('gone')));
    const parts = namedAmong(candidates, queryOfPattern(pattern), nothingOut, controller.signal);
    await expect(Array.fromAsync(parts)).rejects.toThrow('gone');
  });

  test('tells how far it is after so much of it', async () => {
    const parts = await Array.fromAsync(namedAmong(candidates, queryOfPattern(pattern), nothingOut));
    const each = Math.ceil(workMax / (2_048 * 256));
    expect(parts.map(({ upTo }) => upTo)).toEqual([each, null]);
    expect(parts.map(({ named }) => named.length)).toEqual([0, 0]);
    const ref = await archiveWith(Array.from({ length: 40 }, (_, i) => file(`/k${'x'.repeat(2_045)}${i + 10}`)));
    const { steps } = await searchArchive(storage, ref, { ...everything, pattern });
    expect((await Array.fromAsync(steps)).map(({ hits, upTo }) => [hits.length, upTo])).toEqual([
      [0, each],
      [0, null],
    ]);
  });

  test('takes no more names at a time than they may take, however long they are, and misses none', async () => {
    const ref = await archiveWith([file('/d/a'), file('/d/b')]);
    const { vault, archive } = ref;
    // After the folder and its two files.
    await storage.rows(
      `INSERT INTO files (vault_id, archive_id, file_id, parent_id, name, folder, implied, created_seq)
       SELECT $1::bigint, $2::bigint, n, 1, convert_to(rpad('Имя ' || n || ' ', 1026, 'я'), 'UTF8'), false, false, 1
         FROM generate_series(10, 10_510) n`,
      [vault, archive],
    );
    await storage.rows(
      `INSERT INTO versions (vault_id, archive_id, file_id, seq, committed_at, kind, deleted, size, mtime, attributes, mac, blocks)
       SELECT $1::bigint, $2::bigint, n, 1, now(), 'file', false, 0, 0, sha256('a'), sha256('b'), ''
         FROM unnest(ARRAY[10, 2_009, 2_010, 10_510]) n`,
      [vault, archive],
    );
    await storage.rows('UPDATE archives SET next_file_id = 10_511 WHERE vault_id = $1 AND archive_id = $2', [
      vault,
      archive,
    ]);
    /** Files that each statement was about. */
    const asked: number[] = [];
    const { database } = storage;
    const query: typeof database.query = async (statement, values) => {
      if (statement.name === 'files.searchRange') asked.push((values![3] as number) - (values![2] as number));
      const rows = await database.query(statement, values);
      for (const row of rows as { packed?: Buffer | null }[])
        expect(row.packed?.byteLength ?? 0).toBeLessThanOrEqual(packedBytesMax);
      return rows as never;
    };
    const counting = new Proxy(database, {
      get: (of, name) => (name === 'query' ? query : Reflect.get(of, name).bind(of)),
    });
    const found = async (name: string) => {
      const { steps } = await searchArchive({ ...storage, database: counting }, ref, { ...everything, name });
      return (await Array.fromAsync(steps)).flatMap(({ hits }) => hits.map(({ fileId }) => fileId));
    };
    expect(await found('имя')).toEqual([10, 2_009, 2_010, 10_510]);
    expect(asked.length).toBeGreaterThan(6);
    // What is too much is made before it is known to be: at the most twice what the range before has given, once the first is known.
    expect(Math.max(...asked.slice(asked.indexOf(fewFiles)))).toBeLessThanOrEqual(2 * fewFiles);
    expect(await found('ИМЯ 10510')).toEqual([10_510]);
  });

  test('reads the folders of many deep files in parts, each of little, and looks at the signal between levels', async () => {
    const deep = Array.from({ length: 40 }, (_, i) => `/a${'/n'.repeat(20)}/${i}${'/d'.repeat(20)}/f`);
    const ref = await archiveWith(deep.map((path) => file(path)));
    const { seq, hits } = await search(ref, { name: 'f' });
    expect(hits.map(({ path }) => `${path}`)).toEqual(deep);
    const about = { seq, names: queryOfPart('f').prefilter };
    const all = await candidatesInRange(storage.database, ref, { after: 0, upTo: 10_000 }, about);
    const files = [...all!].filter(({ name }) => `${name}` === 'f');
    const controller = new AbortController();
    const options = { ref, seq, folder: 0, paths: null, signal: controller.signal };
    const placed = async (bytesMax: number) => {
      const parts = await Array.fromAsync(new SearchFolders(storage, { ...options, bytesMax }).placesOf(files));
      const paths = parts.flat().map(({ file: { name }, folder }) => `${pathIn(folder!, name)}`);
      return { parts: parts.length, paths };
    };
    expect(await placed(1_000_000)).toEqual({ parts: 1, paths: deep });
    const { parts, paths } = await placed(50_000); // all of them take 170,000
    expect(paths).toEqual(deep);
    expect(parts).toBeGreaterThan(3);

    let statements = 0;
    const database = {
      query: (...asked: Parameters<typeof storage.database.query>) => {
        if (++statements === 3) controller.abort(new Error('gone'));
        return storage.database.query(...asked);
      },
    };
    const watched = new SearchFolders({ ...storage, database } as unknown as typeof storage, options);
    await expect(Array.fromAsync(watched.placesOf(files))).rejects.toThrow('gone');
    expect(statements).toBe(3);
  });
});

test('an answer says when versions were last deleted, and what is left of an earlier moment is shown', async () => {
  const ref = await newArchive(storage);
  const run = await newRun(storage, ref);
  await upload(storage, ref.vault, [block(1)]);
  await commit(storage, ref, run, [version('/a', [block(1)]), version('/b', [block(1)])]);
  const { seq, prunedAt } = await browse(ref);
  expect(prunedAt).toBeNull();
  await commit(storage, ref, run, [deletion('/a')]);
  await pruneDue(storage, pruneAtOnce);
  const later = await browse(ref, { moment: { at: null, seq } });
  expect(named(later)).toEqual(['b']);
  expect(later.prunedAt).not.toBeNull();
});
