/** Looking around in an archive through the JSON API: paths as text and as bytes, pages of one moment, lines, and who may when. */
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { limits } from '../../protocol/limits.ts';
import { commit, deletion, newRun, version } from '../helpers/storage.ts';
import { ApiWorld, type Holder } from './world.ts';

let world: ApiWorld;
let holder: Holder;
let archive: number;
let run: number;
const notText = Buffer.from([0x66, 0xff]);

beforeAll(async () => {
  world = await ApiWorld.open();
  holder = await world.person('Desktop User', { name: 'reader' });
  const [row] = await world.storage.rows<{ archive: number }>(
    'SELECT archive_id AS archive FROM devices WHERE guid = $1',
    [holder.guid],
  );
  archive = row!.archive;
  run = await newRun(world.storage, ref());
  await commit(world.storage, ref(), run, [
    version('/d/a b.txt', [], { size: 3, mtime: Date.parse('2026-01-02T03:04:05.006Z') }),
    version('', [], { path: Buffer.concat([Buffer.from('/d/'), notText]) }),
    version('/d/ä+%.txt'),
    version('', [], { path: Buffer.concat([Buffer.from('/'), notText, Buffer.from('/in')]) }),
    version('/gone', [], { size: 9, mtime: 8.64e15 + 1 }),
  ]);
  await commit(world.storage, ref(), run, [deletion('/gone')]);
}, 60_000);
afterAll(() => world?.close());

const ref = () => ({ vault: holder.vault, archive });

type Query = Record<string, string>;
const pathOf = (what: string, query: Query = {}, guid = holder.guid): string =>
  `/v1/devices/${guid}/${what}?${new URLSearchParams(query)}`;
const ask = (what: string, query?: Query) => world.ask('GET', pathOf(what, query), { token: holder.token });
const search = async (query: Query) => {
  const { status, text } = await ask('search', query);
  expect(status).toBe(200);
  return text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
};

test('names and paths are text, and bytes where they are none, in answers and in questions', async () => {
  const { json } = await ask('tree', { path: '/d' });
  expect(json).toMatchObject({ seq: 6, prunedAt: null, next: null });
  const items = json.items as Record<string, unknown>[];
  expect(items.map(({ name, nameBytes }) => [name, nameBytes])).toEqual([
    ['a b.txt', undefined],
    [null, notText.toString('base64url')],
    ['ä+%.txt', undefined],
  ]);
  expect(items[0]).toEqual({
    name: 'a b.txt',
    kind: 'file',
    bytes: 3,
    modifiedAt: '2026-01-02T03:04:05.006Z',
    version: 1,
    committedAt: expect.any(String),
    deletedAt: null,
    hasEntries: false,
  });
  const bytes = (path: string | Buffer): string => Buffer.from(path).toString('base64url');
  expect((await ask('tree', { pathBytes: bytes('/d') })).json).toEqual(json);
  const inside = await ask('tree', { pathBytes: bytes(Buffer.concat([Buffer.from('/'), notText])) });
  expect((inside.json.items as { name: string }[]).map(({ name }) => name)).toEqual(['in']);
  const history = await ask('history', { path: '/d/ä+%.txt' });
  expect((history.json.items as { version: number }[]).map(({ version }) => version)).toEqual([3]);
});

test('a folder may end with a slash; a file is refused as one, and names what it is', async () => {
  const { json } = await ask('tree', { path: '/d' });
  expect((await ask('tree', { path: '/d/' })).json).toEqual(json);
  expect((await ask('history', { path: '/d/a b.txt/' })).json.items).toHaveLength(1);
  const file = await ask('tree', { path: '/d/a b.txt' });
  expect([file.status, file.json]).toMatchObject([409, { code: 'conflict', field: 'path', kind: 'file' }]);
  expect(file.json.detail).toContain('devices history list');
  expect((await ask('tree', { path: '/gone', seq: '5' })).status).toBe(409);
});

test('what was deleted is there on request; a time that is none is null', async () => {
  const { json } = await ask('tree', { deleted: '1' });
  const gone = (json.items as Record<string, unknown>[]).find(({ name }) => name === 'gone');
  expect(gone).toMatchObject({ bytes: 9, modifiedAt: null, version: 5, deletedAt: expect.any(String) });
  const { json: history } = await ask('history', { path: '/gone', limit: '1' });
  expect(history).toMatchObject({ items: [{ version: 6, deleted: true }], next: expect.any(String) });
  const { json: rest } = await ask('history', { path: '/gone', limit: '1', after: history.next as string });
  expect(rest).toMatchObject({ items: [{ version: 5, deleted: false, bytes: 9 }], next: null });
});

test('pages go on at the moment of the first one, and not at another', async () => {
  const { json: first } = await ask('tree', {
    path: '/d',
    limit: '1',
    at: new Date(Date.now() + 60_000).toISOString(),
  });
  const after = first.next as string;
  await commit(world.storage, ref(), run, [version('/d/b-new')]);
  const { json: second } = await ask('tree', { path: '/d', limit: '10', after });
  expect(second.seq).toBe(first.seq);
  expect(second.items).toHaveLength(2);
  expect((await ask('tree', { path: '/d', after, seq: String(first.seq) })).status).toBe(200);
  const other = await ask('tree', { path: '/d', after, seq: '1' });
  expect([other.status, other.json.field]).toEqual([400, 'seq']);
  await commit(world.storage, ref(), run, [deletion('/d/b-new')]);
});

test('a search begins with its moment, and ends by saying so or where to go on', async () => {
  const all = await search({ name: 'TXT', seq: '6' });
  expect(all[0]).toEqual({ seq: 6, prunedAt: null });
  expect(all.slice(1, -1).map(({ path }) => path)).toEqual(['/d/a b.txt', '/d/ä+%.txt']);
  expect(all.at(-1)).toEqual({ end: true, hits: 2, next: null });
  const cut = await search({ name: 'TXT', limit: '1', seq: '6' });
  expect(cut.at(-1)).toEqual({ end: true, hits: 1, next: cut[1]!.place });
  const rest = await search({ name: 'TXT', seq: '6', after: cut[1]!.place as string });
  expect(rest.slice(1, -1)).toEqual(all.slice(2, -1));
  expect((await search({ pattern: '/D/*', kind: 'file', seq: '6' })).filter(({ pathBytes }) => pathBytes)).toEqual([
    expect.objectContaining({ path: null }),
  ]);
  expect((await search({ minBytes: '9', maxBytes: '9', deleted: '1' }))[1]).toMatchObject({ path: '/gone' });
  expect(
    (await search({ modifiedFrom: '2026-01-02T03:04:05.006Z', modifiedBefore: '2026-01-02T03:04:05.007Z' }))[1],
  ).toMatchObject({ path: '/d/a b.txt' });
});

test.each<[what: string, query: Query, status: number, field: string]>([
  ['tree', { path: 'd' }, 400, 'path'],
  ['tree', { path: '' }, 400, 'path'],
  ['tree', { path: '/d/../d' }, 400, 'path'],
  ['tree', { path: '/d//' }, 400, 'path'],
  ['tree', { path: '//' }, 400, 'path'],
  ['tree', { path: '/d\0' }, 400, 'path'],
  ['tree', { path: '/d', pathBytes: 'L2Q' }, 400, 'pathBytes'],
  ['tree', { pathBytes: 'ZA' }, 400, 'pathBytes'],
  ['tree', { pathBytes: '+' }, 400, 'pathBytes'],
  ['tree', { path: '/none' }, 404, 'path'],
  ['tree', { seq: '99' }, 400, 'seq'],
  ['tree', { seq: '-1' }, 400, 'seq'],
  ['tree', { seq: '1', at: '2026-01-01T00:00:00Z' }, 400, 'seq'],
  ['tree', { at: 'yesterday' }, 400, 'at'],
  ['tree', { limit: '0' }, 400, 'limit'],
  ['tree', { limit: '1001' }, 400, 'limit'],
  ['tree', { after: 'x' }, 400, 'after'],
  ['history', { after: Buffer.from('{"seq":1,"name":"YQ"}').toString('base64url') }, 400, 'after'],
  ['search', { name: 'a', pattern: 'a' }, 400, 'pattern'],
  ['search', { name: '' }, 400, 'name'],
  ['search', { name: 'x'.repeat(257) }, 400, 'name'],
  ['search', { pattern: 'x'.repeat(257) }, 400, 'pattern'],
  ['search', { pattern: '*a'.repeat(17) }, 400, 'pattern'],
  ['search', { pattern: '[' }, 400, 'pattern'],
  ['search', { kind: 'socket' }, 400, 'kind'],
  ['search', { minBytes: '1e3' }, 400, 'minBytes'],
  ['search', { limit: '10001' }, 400, 'limit'],
  ['search', { after: '5' }, 400, 'seq'],
  ['search', { after: '0', seq: '1' }, 400, 'after'],
])('%s %j: %i, %s', async (what, query, status, field) => {
  const answer = await ask(what, query);
  expect([answer.status, answer.json.field]).toEqual([status, field]);
});

test('the longest path there may be is asked for, and one longer is refused', async () => {
  const longest = Buffer.from(`/${'l'.repeat(2_047)}`.repeat(16));
  expect(longest.byteLength).toBe(limits.pathBytesMax);
  expect((await ask('tree', { pathBytes: longest.toString('base64url') })).status).toBe(404);
  expect((await ask('history', { path: longest.toString() })).status).toBe(404);
  const longer = Buffer.concat([longest, Buffer.from('x')]);
  for (const query of [{ pathBytes: longer.toString('base64url') }, { path: longer.toString() }] as Query[])
    expect((await ask('tree', query)).status).toBe(400);
  expect((await search({ name: 'x'.repeat(256) })).at(-1)).toEqual({ end: true, hits: 0, next: null });
});

test('a long search without a hit says how far it is, and goes on from there', async () => {
  // Numbers of files that retention has long taken.
  await world.storage.rows('UPDATE archives SET next_file_id = 600001 WHERE archive_id = $1', [archive]);
  await commit(world.storage, ref(), run, [version('/late')]);
  const all = await search({ name: 'late' });
  const searched = all.filter((line) => 'searched' in line).map((line) => Number(line.searched));
  expect(searched.length).toBeGreaterThanOrEqual(2);
  expect(all.at(-2)).toMatchObject({ place: '600001', path: '/late' });
  const [{ seq }] = all as [{ seq: number }];
  const rest = await search({ name: 'late', seq: String(seq), after: String(searched.at(-1)) });
  expect(rest.at(-2)).toEqual(all.at(-2));
  expect((await search({ name: 'late', seq: String(seq), after: '600001' })).at(-1)).toEqual({
    end: true,
    hits: 0,
    next: null,
  });
});

test('where nothing is at the moment is no folder, though something was, or came later', async () => {
  const at = async (path: string, seq: number | null, more: Query = {}): Promise<unknown> => {
    const { status, json } = await ask('tree', { path, ...(seq !== null && { seq: String(seq) }), ...more });
    return status === 200 ? { items: (json.items as unknown[]).length } : [status, json.field];
  };
  const before = (await ask('tree')).json.seq as number;
  await commit(world.storage, ref(), run, [version('/empty', [], { kind: 'directory' }), version('/implied/x')]);
  const then = before + 2;
  await commit(world.storage, ref(), run, [deletion('/empty'), deletion('/implied/x')]);
  const nothing = [404, 'path'];
  for (const path of ['/empty', '/implied']) expect([path, await at(path, before)]).toEqual([path, nothing]);
  expect([await at('/empty', then), await at('/implied', then)]).toEqual([{ items: 0 }, { items: 1 }]);
  expect([await at('/empty', null), await at('/empty', null, { deleted: '1' })]).toEqual([nothing, { items: 0 }]);
  // A folder that nobody has told of is there as soon as something was in it: in its parent, and so here.
  expect([await at('/implied', null), await at('/implied', null, { deleted: '1' })]).toEqual([
    { items: 0 },
    { items: 1 },
  ]);
  expect([await at('/gone', null), await at('/gone', 4)]).toEqual([nothing, nothing]);
  expect(await at('/gone', null, { deleted: '1' })).toEqual([409, 'path']);
  expect([await at('/', 0), await at('/d', 0)]).toEqual([{ items: 0 }, nothing]);
  // Of later pages, too.
  const behind = (seq: number): string =>
    Buffer.from(JSON.stringify({ seq, name: Buffer.from('y').toString('base64url') })).toString('base64url');
  expect(await at('/empty', null, { after: behind(then) })).toEqual({ items: 0 });
  expect(await at('/empty', null, { after: behind(then + 2) })).toEqual(nothing);
  const { json } = await ask('tree', { path: '/gone' });
  expect(json.detail).toContain('`deleted`');
  expect((await ask('tree', { path: '/implied', seq: String(before), deleted: '1' })).json.detail).not.toContain('`');
});

test('what a state of the device stops: for its user, for an administrator', async () => {
  const administrator = await world.person('Org Admin', { name: 'administrator' });
  const helper = await world.person('Org Help Desk', { name: 'helper' });
  const nobody = await world.person('Org Help Desk - No Restore', { name: 'no restore' });
  const as = async (token: string): Promise<number[]> =>
    Promise.all(
      ['tree', 'history', 'search'].map(async (what) => (await world.ask('GET', pathOf(what), { token })).status),
    );
  const set = (state: string) =>
    world.storage.rows('UPDATE devices SET state = $2 WHERE guid = $1', [holder.guid, state]);
  const readOthers = (value: boolean) =>
    world.storage.rows(
      `INSERT INTO organization_settings (tenant_id, organization_id, name, value, locked) VALUES ($1, $2, 'devices.readOthers', $3, false)
       ON CONFLICT (organization_id, name) DO UPDATE SET value = excluded.value`,
      [world.tenant, world.places.own.organization, JSON.stringify(value)],
    );
  const all = (status: number): number[] => [status, status, status];
  for (const [state, own] of [
    ['active', 200],
    ['deauthorized', 200],
    ['blocked', 200],
    ['deactivated', 403],
  ] as const) {
    await set(state);
    expect([state, await as(holder.token)]).toEqual([state, all(own)]);
    expect([state, await as(administrator.token)]).toEqual([state, all(200)]);
    expect([state, await as(helper.token)]).toEqual([state, all(200)]);
    expect([state, await as(nobody.token)]).toEqual([state, all(403)]);
  }
  await set('blocked');
  await readOthers(false);
  expect(await as(holder.token)).toEqual(all(403));
  expect(await as(administrator.token)).toEqual(all(200));
  await set('active');
  expect(await as(holder.token)).toEqual(all(200));
});
