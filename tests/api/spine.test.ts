/** What every request of the JSON API has in common: keys of repeated requests, versions, bad input, refusals in the log. */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { ApiWorld } from './world.ts';

let world: ApiWorld;
let chief: { user: number; token: string };
let admin: { user: number; token: string };

beforeAll(async () => {
  world = await ApiWorld.open();
  chief = await world.person('Customer Cloud Admin', { name: 'boss' });
  admin = await world.person('Org Admin', { name: 'department' });
}, 60_000);
afterAll(() => world?.close());

const create = (name: string, headers: Record<string, string> = {}, token = chief.token) =>
  world.ask('POST', '/v1/organizations', { token, body: { name, parent: world.top }, headers });

async function countOf(name: string): Promise<number> {
  const rows = await world.storage.rows<{ n: number }>('SELECT count(*) AS n FROM organizations WHERE name = $1', [
    name,
  ]);
  return rows[0]!.n;
}

describe('an Idempotency-Key', () => {
  test('makes a repeated request be answered as the first, and not made again', async () => {
    const first = await create('once', { 'idempotency-key': 'a' });
    const again = await create('once', { 'idempotency-key': 'a' });
    expect([first.status, again.status]).toEqual([201, 201]);
    expect(again.json).toEqual(first.json);
    expect([first.headers.get('idempotency-replayed'), again.headers.get('idempotency-replayed')]).toEqual([
      null,
      'true',
    ]);
    expect(await countOf('once')).toBe(1);
  });

  test('of many at once makes one', async () => {
    const answers = await Promise.all(Array.from({ length: 8 }, () => create('race', { 'idempotency-key': 'race' })));
    expect(answers.map(({ status }) => status)).toEqual(Array(8).fill(201));
    expect(new Set(answers.map(({ json }) => json.id)).size).toBe(1);
    expect(await countOf('race')).toBe(1);
  });

  test('is not good for another request, nor for another person', async () => {
    await create('mine', { 'idempotency-key': 'b' });
    const other = await create('another', { 'idempotency-key': 'b' });
    expect([other.status, other.json.code]).toEqual([422, 'idempotency_key_reused']);
    const somebody = await world.person('Customer Cloud Admin', { name: 'somebody else' });
    expect((await create('mine', { 'idempotency-key': 'b' }, somebody.token)).status).toBe(201);
    expect(await countOf('mine')).toBe(2);
  });

  test.each<[key: string, status: number]>([
    ['x'.repeat(100), 201],
    ['x'.repeat(101), 400],
    ['with space', 400],
  ])('%s: %s', async (key, status) => {
    expect((await create('bounds', { 'idempotency-key': key })).status).toBe(status);
  });

  test('that failed may be used again', async () => {
    const body = { name: 'depends', parent: 999_999_999 };
    const headers = { 'idempotency-key': 'failed' };
    expect((await world.ask('POST', '/v1/organizations', { token: chief.token, body, headers })).status).toBe(404);
    expect((await create('depends', headers)).status).toBe(201);
  });

  describe('whose request cannot be made again, because it was', () => {
    const remove = (path: string, key: string, token = chief.token) =>
      world.ask('DELETE', path, { token, headers: { 'idempotency-key': key } });
    async function gone(name: string) {
      const { json } = await create(name);
      const path = `/v1/organizations/${json.id}`;
      await world.ask('POST', `${path}/deactivate`, { token: chief.token });
      return path;
    }

    test('is answered as it was: what was deleted is not "not there"', async () => {
      const path = await gone('deleted once');
      const [first, again] = [await remove(path, 'delete'), await remove(path, 'delete')];
      expect([first.status, again.status, again.json]).toEqual([200, 200, first.json]);
      expect([first.headers.get('idempotency-replayed'), again.headers.get('idempotency-replayed')]).toEqual([
        null,
        'true',
      ]);
      expect((await remove(path, 'another-key')).status).toBe(404);
      expect((await world.ask('DELETE', path, { token: chief.token })).status).toBe(404);
    });

    test('of two at once deletes once, and both hear it', async () => {
      const path = await gone('deleted by two');
      const both = await Promise.all([remove(path, 'race-of-two'), remove(path, 'race-of-two')]);
      expect(both.map(({ status }) => status)).toEqual([200, 200]);
      expect(new Set(both.map(({ headers }) => headers.get('idempotency-replayed')))).toEqual(new Set([null, 'true']));
    });

    test('tells nobody else, and nothing of another request', async () => {
      const [path, other] = [await gone('deleted by me'), await gone('deleted too')];
      await remove(path, 'mine');
      await remove(other, 'theirs');
      const somebody = await world.person('Customer Cloud Admin', { name: 'not me' });
      expect((await remove(path, 'mine', somebody.token)).status).toBe(404);
      expect((await remove(path, 'theirs')).status).toBe(404);
    });

    test('tells no more than may be seen now', async () => {
      const mover = await world.person('Org Admin', { name: 'mover', organization: world.top });
      const made = await world.person('PROe User', { name: 'moved' });
      const request = {
        token: mover.token,
        body: { displayName: 'A secret name' },
        headers: { 'idempotency-key': 'moved-since' },
      };
      const path = `/v1/users/${made.user}`;
      const first = await world.ask('PATCH', path, request);
      expect([first.status, first.json.displayName]).toEqual([200, 'A secret name']);
      // Its roles reach another organization from now on.
      await world.storage.rows('UPDATE user_roles SET organization_id = $2 WHERE user_id = $1', [
        mover.user,
        world.places.sibling.organization,
      ]);
      await world.storage.rows('UPDATE users SET organization_id = $2 WHERE user_id = $1', [
        mover.user,
        world.places.sibling.organization,
      ]);
      const again = await world.ask('PATCH', path, request);
      expect([again.status, again.json]).toEqual([200, { id: first.json.id, version: first.json.version }]);
      expect(again.headers.get('idempotency-replayed')).toBe('true');
      expect((await world.ask('GET', path, { token: mover.token })).status).toBe(404);
    });
  });

  test('never keeps a secret: it is shown once', async () => {
    const body = {
      name: 'program',
      organization: world.top,
      permissions: ['org.read'],
      scope: 'tree',
      expiresAt: new Date(Date.now() + 86_400_000).toISOString(),
    };
    const ask = () =>
      world.ask('POST', '/v1/clients', { token: chief.token, body, headers: { 'idempotency-key': 'secret' } });
    const first = await ask();
    expect(first.status).toBe(201);
    expect(first.json.clientSecret).toMatch(/^[\w-]{43}$/);
    const again = await ask();
    expect([again.status, again.json.id, again.json.clientSecret]).toEqual([201, first.json.id, undefined]);
    const kept = await world.storage.rows<{ all: string }>(
      `SELECT string_agg(answer::text, ' ') AS all FROM requests_made`,
    );
    expect(kept[0]!.all).not.toContain(first.json.clientSecret);
  });
});

describe('a version', () => {
  test('is an ETag, and a change made from an older one is refused', async () => {
    const { json, headers } = await create('versions');
    const path = `/v1/organizations/${json.id}`;
    expect(headers.get('etag')).toBe(`"${json.version}"`);
    const rename = (name: string, match: string) =>
      world.ask('PATCH', path, { token: chief.token, body: { name }, headers: { 'if-match': match } });
    const renamed = await rename('renamed', `"${json.version}"`);
    expect([renamed.status, renamed.json.name]).toEqual([200, 'renamed']);
    const late = await rename('too late', `"${json.version}"`);
    expect([late.status, late.json.code, late.json.version]).toEqual([
      412,
      'precondition_failed',
      renamed.json.version,
    ]);
    expect((await rename('whatever', '*')).status).toBe(200);
    expect((await rename('nonsense', 'W/"1"')).json.field).toBe('if-match');
  });
});

describe('bad input names the field', () => {
  test.each<[what: string, method: string, path: string, body: unknown, status: number, field: string]>([
    ['a name nobody knows', 'GET', '/v1/users?nobody=1', undefined, 400, ''],
    ['a value twice', 'GET', '/v1/users?limit=1&limit=2', undefined, 400, 'limit'],
    ['a limit of 0', 'GET', '/v1/users?limit=0', undefined, 400, 'limit'],
    ['a limit of 1001', 'GET', '/v1/users?limit=1001', undefined, 400, 'limit'],
    ['a cursor of another kind', 'GET', '/v1/users?after=nonsense', undefined, 400, 'after'],
    ['a body that is no JSON', 'POST', '/v1/organizations', '{', 400, '(whole message)'],
    ['a name too long', 'POST', '/v1/organizations', { name: 'x'.repeat(256), parent: null }, 400, 'name'],
    ['a member nobody knows', 'POST', '/v1/organizations', { name: 'x', parent: null, colour: 1 }, 400, ''],
    ['no body', 'POST', '/v1/organizations', undefined, 415, 'content-type'],
  ])('%s', async (_, method, path, body, status, field) => {
    const answer = await world.ask(method, path, { token: chief.token, ...(body !== undefined && { body }) });
    expect([answer.status, answer.headers.get('content-type')]).toEqual([status, 'application/problem+json']);
    if (field) expect(answer.json.field).toBe(field);
  });

  test('a body where none is taken', async () => {
    const path = `/v1/organizations/${world.places.child.organization}/unblock`;
    const { status, json } = await world.ask('POST', path, { token: chief.token, body: { a: 1 } });
    expect([status, json.field]).toEqual([400, '(whole message)']);
  });

  test('a body over its bound, and at it', async () => {
    const bytes = (length: number) => `{"name":"x","parent":null${' '.repeat(length - 26)}}`;
    const post = (body: string) => world.ask('POST', '/v1/organizations', { token: chief.token, body });
    expect((await post(bytes(64 * 1024))).status).toBe(201);
    expect((await post(bytes(64 * 1024 + 1))).json).toMatchObject({ code: 'body_too_large', bytesMax: 64 * 1024 });
  });
});

describe('a refusal', () => {
  test('is in the log, with more than the caller is told', async () => {
    const sibling = world.places.sibling;
    const path = `/v1/organizations/${sibling.organization}`;
    const { status, json } = await world.ask('GET', path, { token: admin.token });
    expect([status, json.detail]).toEqual([404, 'there is no such thing here']);
    const found = await world.ask('GET', '/v1/audit?action=request.refused&limit=1000', { token: chief.token });
    const acts = found.json.items as {
      party: { id: number };
      target: { id: number } | null;
      details: { why: string };
    }[];
    const ours = acts.filter(({ party }) => Number(party.id) === admin.user);
    expect(ours.map(({ target, details }) => [Number(target?.id), details.why])).toEqual([
      [sibling.organization, 'out_of_scope'],
    ]);
  });

  test('of somebody whose roles do not let them sign in is in the log, at the door and with a token', async () => {
    const person = await world.person('PROe User', { name: 'without roles' });
    await world.storage.rows('DELETE FROM user_roles WHERE user_id = $1', [person.user]);
    const hash = await world.directory.passwords.hash('a horse of many colours');
    await world.storage.rows('UPDATE users SET password_hash = $2 WHERE user_id = $1', [person.user, hash]);
    const asked = await world.ask('GET', '/v1/organizations', { token: person.token });
    const body = { tenant: String(world.tenant), userName: 'without roles', password: 'a horse of many colours' };
    const signedIn = await world.ask('POST', '/v1/sessions', { body });
    expect([asked.status, signedIn.status, signedIn.json.code]).toEqual([403, 403, 'forbidden']);
    const found = await world.ask('GET', `/v1/audit?partyKind=user&partyId=${person.user}`, { token: chief.token });
    const acts = found.json.items as { action: string; result: string; details: object }[];
    expect(acts.filter(({ result }) => result === 'refused')).toMatchObject([
      { action: 'session.create', details: { permission: 'console.login', why: 'not_held' } },
      { action: 'request.refused', details: { permission: 'console.login', why: 'not_held' } },
    ]);
  });

  test('of what one may see says which permission is missing', async () => {
    const helper = await world.person('Org Help Desk', { name: 'helper' });
    const path = `/v1/organizations/${world.places.child.organization}`;
    const { status, json } = await world.ask('PATCH', path, { token: helper.token, body: { name: 'x' } });
    expect([status, json.detail]).toEqual([403, 'this needs the permission org.update_deactivate here']);
  });
});

test('whoever may change something and not see it is told no more than that it was changed', async () => {
  const blind = await world.person('Org Computer Modify', { name: 'blind' });
  const path = `/v1/devices/${world.places.child.guid}`;
  const changed = await world.ask('PATCH', path, { token: blind.token, body: { name: 'renamed unseen' } });
  expect([changed.status, Object.keys(changed.json).sort()]).toEqual([200, ['guid', 'version']]);
  expect((await world.ask('GET', path, { token: blind.token })).status).toBe(404);
  expect((await world.ask('GET', path, { token: chief.token })).json.name).toBe('renamed unseen');
});

test('every change is in the log, with who did it', async () => {
  const { json } = await create('logged');
  const found = await world.ask('GET', `/v1/audit?targetKind=organization&targetId=${json.id}`, { token: chief.token });
  expect(found.json.items).toMatchObject([
    {
      action: 'organization.create',
      result: 'done',
      party: { kind: 'user', name: 'boss' },
      target: { name: 'logged' },
    },
  ]);
});

test('the document is OpenAPI 3.1, names every route, and the page shows it', async () => {
  const { status, json } = await world.ask('GET', '/v1/openapi.json');
  expect([status, json.openapi]).toEqual([200, '3.1.0']);
  const paths = json.paths as Record<string, Record<string, { operationId: string; responses: object }>>;
  expect(Object.keys(paths).length).toBeGreaterThan(30);
  const ids = Object.values(paths).flatMap((path) => Object.values(path).map(({ operationId }) => operationId));
  expect(new Set(ids).size).toBe(ids.length);
  const page = await world.ask('GET', '/api');
  expect([page.status, page.headers.get('content-type')]).toEqual([200, 'text/html; charset=utf-8']);
  for (const file of ['swagger-ui.css', 'swagger-ui-bundle.js', 'show.js'])
    expect([file, (await world.ask('GET', `/api/files/${file}`)).status]).toEqual([file, 200]);
  for (const file of ['package.json', '..%2Fpackage.json', '__proto__'])
    expect([file, (await world.ask('GET', `/api/files/${file}`)).status]).toEqual([file, 404]);
});
