/** Restores over HTTP: what real programs open, who may and how much, passwords, and the states that let nobody. */
import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { wrapKey } from '../../protocol/sealing/index.ts';
import { vaultKeyContext } from '../../server/directory/keys/key-service.ts';
import { begin, end } from '../../server/directory/restores/requests.ts';
import { until } from '../../server/http/testing.ts';
import { key, readZip } from '../../server/restoring/testing.ts';
import { testWith } from '../helpers/tools.ts';
import {
  actsOf,
  asJson,
  begun,
  big,
  closeWorld,
  engine,
  fetched,
  folder,
  hasEnded,
  holder,
  keyOf,
  opened,
  openWorld,
  plan,
  planned,
  setting,
  show,
  text,
  world,
} from './restoring.ts';
import type { Holder } from './world.ts';

beforeAll(openWorld, 60_000);
afterAll(closeWorld);

const run = promisify(execFile);

testWith('unzip')('a zip that unzip opens: planned, fetched, and in the history and the log', async () => {
  const { status, json } = await plan(['/d', '/d/small', '/none']);
  expect(status).toBe(201);
  const bytes = text('small').length + text('umlaut').length + text('no text').length;
  expect(json).toMatchObject({
    state: 'planned',
    permission: 'restore.personal',
    reason: null,
    format: 'zip',
    paths: 3,
    planned: { files: 3, folders: 1, links: 0, bytes, damaged: 0, gone: 0, thinned: 0, missing: 1 },
    askedBy: { kind: 'user', id: holder.user, name: 'holder' },
    done: { files: 0, bytes: 0, sentBytes: 0, leftOut: 0 },
  });
  const id = json.id as number;
  const { answer, bytes: zip } = await fetched(id);
  expect([answer.status, answer.headers.get('content-type')]).toEqual([200, 'application/zip']);
  expect(answer.headers.get('cache-control')).toBe('no-store');
  expect(answer.headers.get('x-content-type-options')).toBe('nosniff');
  const day = (json.createdAt as string).slice(0, 10);
  expect(answer.headers.get('content-disposition')).toBe(
    `attachment; filename="_nns L_ptop ${day}.zip"; filename*=UTF-8''%C3%84nns%20L%C3%A4ptop%20${day}.zip`,
  );
  await writeFile(join(folder, 'a.zip'), zip);
  expect((await run('unzip', ['-t', join(folder, 'a.zip')])).stdout).toMatch(/No errors detected/);
  expect([...readZip(zip).keys()]).toEqual(expect.arrayContaining(['d/', 'd/f%{FF}', 'd/small', 'RESTORE-NAMES.txt']));
  expect(readZip(zip).get('d/ärger.txt')!.content.equals(text('umlaut'))).toBe(true);

  const done = await show(id);
  expect(done).toMatchObject({
    state: 'completed',
    why: null,
    tries: 1,
    done: { files: 3, bytes, sentBytes: zip.length },
  });
  expect(done.selected).toEqual([{ path: '/d' }, { path: '/d/small' }, { path: '/none' }]);
  expect((await actsOf(id)).map(({ action, result }) => [action, result])).toEqual([
    ['restore.plan', 'done'],
    ['restore.begin', 'done'],
    ['key.unseal', 'done'],
    ['restore.end', 'done'],
  ]);
  const again = await fetched(id);
  expect([again.answer.status, JSON.parse(again.bytes.toString()).state]).toEqual([409, 'completed']);
});

testWith('tar')("a tar that tar opens, fetched with a browser's form that brings its token", async () => {
  const notText = Buffer.from([...Buffer.from('/d/'), 0x66, 0xff]).toString('base64url');
  const id = await planned(['/big'], { pathBytes: [notText], format: 'tar' });
  const form = (fields: Record<string, string>) =>
    fetch(`${world.server.origin}/v1/restores/${id}/content`, { method: 'POST', body: new URLSearchParams(fields) });
  expect((await form({})).status).toBe(401);
  expect((await form({ access_token: 'wrong' })).status).toBe(401);
  const unknown = await form({ access_token: holder.token, other: '1' });
  expect(unknown.status).toBe(400);
  const answer = await form({ access_token: holder.token });
  expect([answer.status, answer.headers.get('content-type')]).toEqual([200, 'application/x-tar']);
  await writeFile(join(folder, 'a.tar'), Buffer.from(await answer.arrayBuffer()));
  const { stdout } = await run('tar', ['-tf', join(folder, 'a.tar'), '--quoting-style=escape'], {
    env: { ...process.env, LC_ALL: 'C' },
  });
  expect(stdout.trim().split('\n').sort()).toEqual(['big', 'd/f\\377']);
  await run('tar', ['-xf', join(folder, 'a.tar'), '-C', folder, 'big']);
  expect((await readFile(join(folder, 'big'))).equals(big)).toBe(true);
  expect(await show(id)).toMatchObject({ state: 'completed', done: { bytes: big.length + text('no text').length } });
});

test('HEAD begins nothing', async () => {
  const id = await planned(['/d']);
  const { answer } = await fetched(id, holder, { method: 'HEAD' });
  expect(answer.status).toBe(200);
  expect(await show(id)).toMatchObject({ state: 'planned', tries: 0 });
});

describe('how much', () => {
  test.each([
    ['webRestore.userBytesMax', 'Desktop User', 'restore.personal'],
    ['webRestore.administratorBytesMax', 'Admin Restore Limited', 'restore.limited'],
  ])('%s binds at its edge, when it is planned and when it is fetched', async (name, role, permission) => {
    const who = role === 'Desktop User' ? holder : await world.person(role, { name: `limited by ${name}` });
    const more = role === 'Desktop User' ? {} : { reason: 'a test' };
    const bytes = text('small').length;
    await setting(name, bytes);
    const id = await planned(['/d/small'], more, who);
    await setting(name, bytes - 1);
    const { answer, bytes: body } = await fetched(id, who);
    const problem = { code: 'forbidden', permission, bytes, bytesMax: bytes - 1 };
    expect([answer.status, JSON.parse(body.toString())]).toEqual([403, expect.objectContaining(problem)]);
    expect((await plan(['/d/small'], more, who)).json).toMatchObject(problem);
    await setting(name, 0);
    expect((await plan(['/none'], more, who)).json).toMatchObject({ code: 'forbidden', bytesMax: 0 });
    await setting(name, bytes);
    expect((await fetched(id, who)).answer.status).toBe(200);
    await setting(name, null);
  });

  test('restore.all is bound by nothing; the larger of two limits counts', async () => {
    await setting('webRestore.administratorBytesMax', 0);
    await setting('webRestore.userBytesMax', 0);
    const all = await world.person('Admin Restore', { name: 'admin of all' });
    const id = await planned(['/big'], { reason: 'a test' }, all);
    expect(await show(id, all)).toMatchObject({ permission: 'restore.all', planned: { bytes: big.length } });
    const both = await world.person('Admin Restore Limited', { name: 'both' });
    await world.storage.rows(
      `INSERT INTO user_roles (tenant_id, user_id, role, scope, organization_id) VALUES ($1, $2, 'Desktop User', 'self', $3)`,
      [world.tenant, both.user, world.places.own.organization],
    );
    await setting('webRestore.userBytesMax', 10);
    const own = await world.ask('POST', '/v1/restores', {
      token: both.token,
      body: { device: both.guid, paths: ['/'] },
    });
    expect([own.status, own.json.permission]).toEqual([201, 'restore.personal']);
    await setting('webRestore.administratorBytesMax', null);
    await setting('webRestore.userBytesMax', null);
  });
});

test('paths that are not there at the moment, all of them, are no restore; beside one that is they are counted', async () => {
  const { status, json } = await plan(['/nöne', '/none/2']);
  expect([status, json]).toEqual([404, expect.objectContaining({ code: 'not_found', field: 'paths' })]);
  expect(json.detail).toContain('nothing at /none/2, nor at 1 more as of this moment');
  expect((await plan(['/d'], { seq: 0 })).json).toMatchObject({ code: 'not_found', seq: 0 });
  expect((await plan(['/d', '/none'])).json.planned).toMatchObject({ files: 3, missing: 1 });
});

test("another's archive: with the permission and a reason, for whoever planned it alone", async () => {
  const limited = await world.person('Admin Restore Limited', { name: 'helper' });
  const stranger = await world.person('Desktop User', { name: 'stranger' });
  expect((await plan(['/d'], { reason: 'why not' }, stranger)).status).toBe(404);
  const without = await plan(['/d'], {}, limited);
  expect([without.status, without.json.field]).toEqual([400, 'reason']);
  const { status, json } = await plan(['/d'], { reason: ' lost her laptop ' }, limited);
  expect([status, json.reason, json.permission]).toEqual([201, 'lost her laptop', 'restore.limited']);
  const id = json.id as number;
  expect((await fetched(id)).answer.status).toBe(404);
  expect((await fetched(id, stranger)).answer.status).toBe(404);
  const chief = await world.person('Customer Cloud Admin', { name: 'another chief' });
  expect((await fetched(id, chief)).answer.status).toBe(409);
  expect((await fetched(id, limited)).answer.status).toBe(200);
  const acts = await actsOf(id);
  expect(acts.find(({ action }) => action === 'restore.plan')!.details).toMatchObject({ reason: 'lost her laptop' });
  expect(acts.find(({ action }) => action === 'key.unseal')!.details.reason).toMatch(/lost her laptop$/);
  // What they see of it: an administrator all, whose archive it is what they did themselves.
  const listed = async (who: Holder, query = '') =>
    ((await world.ask('GET', `/v1/restores${query}`, { token: who.token })).json.items as { id: number }[]).map(
      (item) => item.id,
    );
  expect(await listed(limited, `?device=${holder.guid}&askedBy=${limited.user}&state=completed`)).toEqual([id]);
  expect(await listed(limited, `?since=${json.createdAt}&askedBy=${limited.user}`)).toEqual([id]);
  expect(await listed(limited, `?device=${holder.guid}&until=${json.createdAt}`)).not.toContain(id);
  expect(await listed(holder, `?device=${holder.guid}&limit=1000`)).not.toContain(id);
  expect((await listed(holder)).length).toBeGreaterThan(0);
  expect(await listed(stranger)).toEqual([stranger.pushed, stranger.restore]);
});

test('a history goes on page by page, newest first', async () => {
  const first = await world.ask('GET', '/v1/restores?limit=2', { token: holder.token });
  const items = first.json.items as { id: number }[];
  expect(items).toHaveLength(2);
  const next = await world.ask('GET', `/v1/restores?limit=2&after=${first.json.next}`, { token: holder.token });
  const ids = [...items, ...(next.json.items as { id: number }[])].map(({ id }) => id);
  expect(ids).toEqual([...ids].sort((a, b) => b - a));
  expect(new Set(ids).size).toBe(ids.length);
});

describe('a vault that a password wraps', () => {
  const password = 'correct horse';
  beforeAll(async () => {
    await keyOf(
      engine.ref.vault,
      'password',
      await wrapKey(key, password, { generation: 1, memoryKiB: 64 * 1024, passes: 12, parallelism: 1 }),
    );
  });
  afterAll(async () => {
    await keyOf(engine.ref.vault, 'standard', await world.directory.keys.seal(key, vaultKeyContext(holder.user, 1)));
  });

  test('opens with it, and not with another or none; it is kept nowhere', async () => {
    const id = await planned(['/d']);
    for (const init of [{}, asJson({})]) {
      const { answer, bytes } = await fetched(id, holder, init);
      expect([answer.status, JSON.parse(bytes.toString()).field]).toEqual([400, 'password']);
    }
    expect((await fetched(id, holder, asJson({ password: '' }))).answer.status).toBe(400);
    const wrong = await fetched(id, holder, asJson({ password: 'wrong horse' }));
    expect([wrong.answer.status, JSON.parse(wrong.bytes.toString())]).toEqual([
      403,
      expect.objectContaining({ code: 'forbidden', field: 'password' }),
    ]);
    expect(await show(id)).toMatchObject({ state: 'broken', why: expect.stringMatching(/not the archive password/) });
    // One at a time in the process: it may take 256 MiB.
    const [first, second] = [await planned(['/d/small']), await planned(['/d/small'])];
    const opening = fetched(first, holder, asJson({ password }));
    await until(async () => (await show(first)).state === 'running');
    const meanwhile = await fetched(second, holder, asJson({ password }));
    expect([meanwhile.answer.status, meanwhile.answer.headers.get('retry-after')]).toEqual([429, '2']);
    expect((await opening).answer.status).toBe(200);
    const right = await fetched(id, holder, asJson({ password }));
    expect(right.answer.status).toBe(200);
    expect(readZip(right.bytes).get('d/small')!.content.equals(text('small'))).toBe(true);
    const [row] = await world.storage.rows<{ told: string }>(
      `SELECT (SELECT json_agg(r)::text FROM restore_requests r) || (SELECT json_agg(a)::text FROM acts a) ||
              coalesce((SELECT json_agg(m)::text FROM requests_made m), '') AS told`,
    );
    expect(row!.told).toContain('restore.begin');
    expect(row!.told + wrong.bytes.toString() + JSON.stringify(world.server.lines)).not.toMatch(
      /(correct|wrong) horse/,
    );
  });
});

test('a vault whose key is its user’s alone is refused, with what to do', async () => {
  const id = await planned(['/d']);
  await keyOf(engine.ref.vault, 'custom', Buffer.alloc(32));
  const { status, json } = await plan(['/d']);
  expect([status, json.level, json.detail]).toEqual([409, 'custom', expect.stringMatching(/agent/)]);
  expect((await fetched(id)).answer.status).toBe(409);
  expect(await show(id)).toMatchObject({ state: 'planned', tries: 0 });
  await keyOf(engine.ref.vault, 'standard', await world.directory.keys.seal(key, vaultKeyContext(holder.user, 1)));
});

describe('states', () => {
  test('a blocked user fetches nothing, from a blocked device neither where others may not be read, nor from an expired archive', async () => {
    const id = await planned(['/d']);
    await world.storage.rows(`UPDATE devices SET state = 'deactivated', state_before = 'active' WHERE guid = $1`, [
      holder.guid,
    ]);
    expect([(await plan(['/d'])).status, (await fetched(id)).answer.status]).toEqual([403, 403]);
    await world.storage.rows(`UPDATE devices SET state = 'active', state_before = null WHERE guid = $1`, [holder.guid]);
    const { vault, archive } = engine.ref;
    const of = [vault, archive];
    await world.storage.rows(`UPDATE archives SET state = 'expired' WHERE vault_id = $1 AND archive_id = $2`, of);
    expect([(await plan(['/d'])).json.state, (await fetched(id)).answer.status]).toEqual(['expired', 409]);
    await world.storage.rows(`UPDATE archives SET state = 'active' WHERE vault_id = $1 AND archive_id = $2`, of);
    await world.storage.rows(`UPDATE users SET state = 'blocked' WHERE user_id = $1`, [holder.user]);
    expect([(await plan(['/d'])).status, (await fetched(id)).answer.status]).toEqual([401, 401]);
    await world.storage.rows(`UPDATE users SET state = 'active' WHERE user_id = $1`, [holder.user]);
    expect((await fetched(id)).answer.status).toBe(200);
  });

  test('one whose moment is kept no more', async () => {
    const id = await planned(['/d']);
    await world.storage.rows('DELETE FROM restores WHERE vault_id = $1', [engine.ref.vault]);
    expect((await fetched(id)).answer.status).toBe(410);
    expect(await show(id)).toMatchObject({ state: 'lapsed' });
    const other = await planned(['/d']);
    await world.storage.rows(`UPDATE restore_requests SET lapses_at = now() WHERE restore_id = $1`, [other]);
    expect(await show(other)).toMatchObject({ state: 'lapsed', tries: 0 });
    expect((await fetched(other)).answer.status).toBe(409);
    const cancelled = await world.ask('POST', `/v1/restores/${other}/cancel`, { token: holder.token });
    expect(cancelled.status).toBe(409);
  });

  test('one that was cancelled before it was fetched', async () => {
    const id = await planned(['/d']);
    const cancel = () => world.ask('POST', `/v1/restores/${id}/cancel`, { token: holder.token });
    expect((await cancel()).json).toMatchObject({ state: 'cancelled', why: 'cancelled by user holder' });
    expect((await cancel()).status).toBe(200);
    expect((await fetched(id)).answer.status).toBe(409);
  });

  test('of two that fetch one at once the second is told so; one that is silent for long may be begun anew', async () => {
    const id = await planned(['/big']);
    const stream = opened(id);
    await begun(id);
    const { answer, bytes } = await fetched(id);
    expect([answer.status, JSON.parse(bytes.toString()).state]).toEqual([409, 'running']);
    stream.destroy();
    await hasEnded(id, 'broken');

    const by = {
      tenant: world.tenant,
      party: { kind: 'user', id: holder.user, name: 'holder' },
      address: null,
    } as const;
    const of = { tenant: world.tenant, restore: id, permission: 'restore.personal' };
    const first = { ...of, attempt: randomUUID() };
    const transaction = world.storage.database.transaction.bind(world.storage.database);
    // Two in a transaction at once: one begins it; and the same again, as when a COMMIT's outcome was not known.
    const both = await Promise.allSettled(
      [first, { ...of, attempt: randomUUID() }].map((each) => transaction((tx) => begin(tx, by, each))),
    );
    expect(both.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    const [row] = await world.storage.rows<{ attempt: string; attempts: number }>(
      'SELECT attempt, attempts FROM restore_requests WHERE restore_id = $1',
      [id],
    );
    await transaction((tx) => begin(tx, by, { ...of, attempt: row!.attempt }));
    expect((await show(id)).tries).toBe(row!.attempts);
    await world.storage.rows(`UPDATE restore_requests SET seen_at = now() - interval '61 s' WHERE restore_id = $1`, [
      id,
    ]);
    expect((await show(id)).state).toBe('broken');
    expect((await fetched(id)).answer.status).toBe(200);
    // The end of the one that was silent is not this one's.
    const progress = { files: 0, bytes: 0, sentBytes: 0, leftOut: 0 };
    const late = { state: 'broken', why: 'late', progress, leftOutFirst: [], brokeOffAt: null, leaseMs: 1 } as const;
    await transaction((tx) => end(tx, by, { ...of, attempt: row!.attempt }, late));
    expect(await show(id)).toMatchObject({ state: 'completed', why: null });
  });
});

test.each<[what: string, body: object, status: number, field: string]>([
  ['no path', { paths: [] }, 400, 'paths'],
  ['a path too many', { paths: new Array(1_001).fill('/d') }, 400, 'paths'],
  ['a path too many as bytes', { paths: new Array(1_000).fill('/d'), pathBytes: ['L2Q'] }, 400, 'paths'],
  ['bytes that are no path', { paths: [], pathBytes: ['ZA'] }, 400, 'pathBytes.0'],
  ['no root', { paths: ['d'] }, 400, 'paths.0'],
  ['a way up', { paths: ['/d', '/a/../b'] }, 400, 'paths.1'],
  ['two moments', { paths: ['/d'], at: '2026-01-01T00:00:00Z', seq: 1 }, 400, 'seq'],
  ['a moment to come', { paths: ['/d'], seq: 1_000_000 }, 400, 'seq'],
  ['another format', { paths: ['/d'], format: 'rar' }, 400, 'format'],
  ['an empty reason', { paths: ['/d'], reason: ' ' }, 400, 'reason'],
  ['its own numbers', { paths: ['/d'], bytes: 1 }, 400, '(whole message)'],
])('a plan with %s', async (_, body, status, field) => {
  const answer = await plan([], body);
  expect([answer.status, answer.json.field]).toEqual([status, field]);
});
