/** restic's protocol on the real engine and directory, over each protocol that the port speaks. */
import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { everyResticRoute } from '../../../tests/helpers/routes.ts';
import { type Ask, type ResticAnswer, type Wire, type WireClient, wireClient } from './client.testing.ts';
import { basic, nameOf, type ResticWorld, resticWorld, type TestRepository } from './testing.ts';

const listV1 = 'application/vnd.x.restic.rest.v1';
const listV2 = 'application/vnd.x.restic.rest.v2';
const absent = 'ab'.repeat(32);

describe.each<Wire>(['HTTP/2', 'HTTP/1.1', 'HTTP/1.1 in cleartext'])('over %s', (wire) => {
  let world: ResticWorld;
  let client: WireClient;
  let repository: TestRepository;
  let token: string;

  beforeAll(async () => {
    world = await resticWorld({ cleartext: wire.endsWith('cleartext') });
    client = await wireClient(world.server, wire);
    repository = await world.repository('laptop');
    token = await world.token(repository);
  });
  afterAll(async () => {
    client?.close();
    await world?.close();
  });

  interface More {
    body?: Uint8Array;
    as?: string;
    headers?: Record<string, string>;
    in?: string;
  }
  const ask = (method: string, path: string, { body, as = token, headers = {}, in: name = 'laptop' }: More = {}) =>
    client.ask({
      method,
      path: `/restic/${name}/${path}`,
      headers: { accept: listV2, authorization: basic('ann', as), ...headers },
      ...(body && { body }),
    });
  const put = async (type: string, bytes: Buffer, more: More = {}): Promise<string> => {
    const name = nameOf(bytes);
    const answer = await ask('POST', `${type}/${name}`, { body: bytes, ...more });
    expect([answer.status, answer.body.toString()]).toEqual([200, '']);
    return name;
  };
  const list = async (type: string): Promise<{ name: string; size: number }[]> =>
    JSON.parse((await ask('GET', `${type}/`)).body.toString());

  test('a repository is made again and again, and only with create=true', async () => {
    for (let i = 0; i < 2; i++) {
      const made = await ask('POST', '?create=true', {
        body: Buffer.alloc(0),
        headers: { 'content-type': 'binary/octet-stream' },
      });
      expect([made.status, made.body.byteLength]).toEqual([200, 0]);
    }
    expect((await ask('POST', '?create=false')).status).toBe(400);
    expect((await ask('POST', '')).status).toBe(400);
  });

  test('config is put once, and given back; the same again is no fault, another is refused', async () => {
    expect((await ask('HEAD', 'config')).status).toBe(404);
    expect((await ask('GET', 'config')).status).toBe(404);
    const config = randomBytes(155);
    for (let i = 0; i < 2; i++) expect((await ask('POST', 'config', { body: config })).status).toBe(200);
    expect((await ask('POST', 'config', { body: randomBytes(155) })).status).toBe(403);
    const head = await ask('HEAD', 'config');
    expect([head.status, head.headers['content-length'], head.body.byteLength]).toEqual([200, '155', 0]);
    const got = await ask('GET', 'config', { headers: { range: 'bytes=0-' } });
    expect([got.status, got.headers['content-length'], got.body.equals(config)]).toEqual([206, '155', true]);
    for (let i = 0; i < 2; i++) expect((await ask('DELETE', 'config')).status).toBe(200);
    expect((await ask('HEAD', 'config')).status).toBe(404);
    const other = randomBytes(64 * 1024);
    expect((await ask('POST', 'config', { body: other })).status).toBe(200);
    expect((await ask('GET', 'config')).body.equals(other)).toBe(true);
    expect((await ask('POST', 'config', { body: randomBytes(64 * 1024 + 1) })).status).toBe(413);
  });

  test.each(['data', 'keys', 'locks', 'snapshots', 'index'])(
    '%s: put, listed, given, hidden, put again',
    async (type) => {
      expect(await list(type)).toEqual([]);
      const bytes = randomBytes(3_000);
      const name = await put(type, bytes);
      await put(type, bytes);
      expect(await list(type)).toEqual([{ name, size: 3_000 }]);
      const head = await ask('HEAD', `${type}/${name}`);
      expect([head.status, head.headers['content-length'], head.body.byteLength]).toEqual([200, '3000', 0]);
      const got = await ask('GET', `${type}/${name}`);
      expect([got.status, got.headers['content-length'], got.headers['content-encoding']]).toEqual([
        200,
        '3000',
        undefined,
      ]);
      expect(got.body.equals(bytes)).toBe(true);
      for (let i = 0; i < 2; i++) expect((await ask('DELETE', `${type}/${name}`)).status).toBe(200);
      expect((await ask('HEAD', `${type}/${name}`)).status).toBe(404);
      expect((await ask('GET', `${type}/${name}`)).status).toBe(404);
      expect(await list(type)).toEqual([]);
      await put(type, bytes);
      expect((await ask('GET', `${type}/${name}`)).body.equals(bytes)).toBe(true);
      expect((await ask('DELETE', `${type}/${absent}`)).status).toBe(200);
    },
  );

  test('lists are of version 2 for whoever asks for it, of version 1 for others, by exactly their types', async () => {
    const name = await put('snapshots', randomBytes(10));
    const all = (await list('snapshots')).map((each) => each.name);
    expect(all).toContain(name);
    const second = await ask('GET', 'snapshots/');
    expect([second.status, second.headers['content-type']]).toEqual([200, listV2]);
    const first = await ask('GET', 'snapshots/', { headers: { accept: '*/*' } });
    expect([first.status, first.headers['content-type']]).toEqual([200, listV1]);
    expect(JSON.parse(first.body.toString())).toEqual(all);
    expect((await ask('GET', 'keys/', { headers: { accept: listV1 } })).headers['content-type']).toBe(listV1);
  });

  test('what does not hash to its name is refused, and so is what ends too early; nothing of either is there', async () => {
    for (const body of [randomBytes(500), Buffer.alloc(0)]) {
      const name = nameOf(randomBytes(500));
      expect((await ask('POST', `data/${name}`, { body })).status).toBe(400);
      expect((await ask('HEAD', `data/${name}`)).status).toBe(404);
    }
  });

  test('an empty file is one, and its whole is what any range of it gives', async () => {
    const name = await put('data', Buffer.alloc(0));
    const got = await ask('GET', `data/${name}`, { headers: { range: 'bytes=0-' } });
    expect([got.status, got.headers['content-length'], got.body.byteLength]).toEqual([200, '0', 0]);
    const head = await ask('HEAD', `data/${name}`);
    expect([head.status, head.headers['content-length']]).toEqual([200, '0']);
    expect(await list('data')).toContainEqual({ name, size: 0 });
  });

  describe('a range', () => {
    const bytes = randomBytes(1_000);
    let name: string;
    beforeAll(async () => {
      name = await put('index', bytes);
    });
    test.each([
      ['bytes=0-', 0, 1_000],
      ['bytes=0-0', 0, 1],
      ['bytes=0-999', 0, 1_000],
      ['bytes=1-998', 1, 999],
      ['bytes=999-999', 999, 1_000],
      ['bytes=901-1000', 901, 1_000],
      ['bytes=500-', 500, 1_000],
    ])('%s gives what it names', async (range, from, to) => {
      const got = await ask('GET', `index/${name}`, { headers: { range } });
      expect([got.status, got.headers['content-length'], got.headers['content-range']]).toEqual([
        206,
        String(to - from),
        `bytes ${from}-${to - 1}/1000`,
      ]);
      expect(got.body.equals(bytes.subarray(from, to))).toBe(true);
    });
    test.each(['bytes=1000-', 'bytes=1000-1099', 'bytes=99999999999-'])('%s lies outside', async (range) => {
      const got = await ask('GET', `index/${name}`, { headers: { range } });
      expect([got.status, got.headers['content-range']]).toEqual([416, 'bytes */1000']);
    });
  });

  test.each([
    ['data/foobar'],
    [`data/${'AB'.repeat(32)}`],
    [`data/${'ab'.repeat(31)}`],
    [`data/${'ab'.repeat(33)}`],
    [`data/${'ab'.repeat(31)}%00`],
    [`data/${'ab'.repeat(31)}a%2F`],
    [`data/ab/${absent}`],
    [`things/${absent}`],
    ['data'],
    ['things/'],
    ['config/'],
    ['%00'],
    [`..%2f..%2fconfig/${absent}`],
    [`data/${'a'.repeat(20_000)}`],
  ])('%s is nothing', async (path) => {
    for (const method of path.endsWith('/') ? ['GET', 'HEAD'] : ['GET', 'POST', 'DELETE', 'HEAD'])
      expect([method, (await ask(method, path, method === 'POST' ? { body: Buffer.from('x') } : {})).status]).toEqual([
        method,
        404,
      ]);
  });

  test.each([
    ['PUT', 'config', 'HEAD, GET, POST, DELETE'],
    ['PATCH', `data/${absent}`, 'HEAD, GET, POST, DELETE'],
    ['DELETE', 'data/', 'HEAD, GET'],
    ['DELETE', '', 'POST'],
    ['GET', '', 'POST'],
  ])('%s %s is no method of it', async (method, path, allow) => {
    const answer = await ask(method, path);
    expect([answer.status, answer.headers.allow]).toEqual([405, allow]);
  });

  test('a token that may append writes, and deletes locks only', async () => {
    const as = await world.token(repository, 'append');
    const kept = await put('data', randomBytes(100), { as });
    const lock = await put('locks', randomBytes(100), { as });
    expect((await ask('DELETE', `data/${kept}`, { as })).status).toBe(403);
    expect((await ask('DELETE', 'config', { as })).status).toBe(403);
    expect((await ask('HEAD', `data/${kept}`, { as })).status).toBe(200);
    expect((await ask('DELETE', `locks/${lock}`, { as })).status).toBe(200);
    expect((await ask('HEAD', `locks/${lock}`, { as })).status).toBe(404);
  });

  test('a token that may read writes locks only, and small ones', async () => {
    const as = await world.token(repository, 'read');
    const bytes = randomBytes(100);
    const name = await put('data', bytes);
    expect((await ask('GET', `data/${name}`, { as })).body.equals(bytes)).toBe(true);
    expect((await ask('POST', `data/${absent}`, { as, body: bytes })).status).toBe(403);
    expect((await ask('POST', 'config', { as, body: bytes })).status).toBe(403);
    expect((await ask('POST', '?create=true', { as })).status).toBe(403);
    expect((await ask('DELETE', `data/${name}`, { as })).status).toBe(403);
    const lock = await put('locks', randomBytes(64 * 1024), { as });
    expect((await ask('POST', `locks/${absent}`, { as, body: randomBytes(64 * 1024 + 1) })).status).toBe(413);
    expect((await ask('DELETE', `locks/${lock}`, { as })).status).toBe(200);
  });

  test('33 MiB are cut into pieces, given back whole, and by ranges over the cut', async () => {
    const bytes = randomBytes(33 * 1024 * 1024);
    const name = await put('data', bytes);
    const got = await ask('GET', `data/${name}`);
    expect([got.status, got.headers['content-length'], got.body.equals(bytes)]).toEqual([
      200,
      String(bytes.byteLength),
      true,
    ]);
    const cut = 16 * 1024 * 1024;
    const over = await ask('GET', `data/${name}`, { headers: { range: `bytes=${cut - 10}-${2 * cut + 9}` } });
    expect([over.status, over.headers['content-length']]).toEqual([206, String(cut + 20)]);
    expect(over.body.equals(bytes.subarray(cut - 10, 2 * cut + 10))).toBe(true);
    const wrong = await ask('POST', `data/${nameOf(Buffer.from('other'))}`, { body: bytes });
    expect(wrong.status).toBe(400);
    const stored = await world.storage.rows('SELECT 1 FROM blocks WHERE byte_length >= 1000000');
    expect(stored).toHaveLength(3);
  }, 60_000);

  describe('whoever is not let in is told the same:', () => {
    const refused = async (asked: Promise<ResticAnswer>): Promise<void> => {
      const answer = await asked;
      expect([answer.status, answer.headers['www-authenticate']]).toEqual([
        401,
        'Basic realm="Holdfast", charset="UTF-8"',
      ]);
      expect(JSON.parse(answer.body.toString())).toMatchObject({ code: 'unauthorized' });
    };
    const as = (user: string, secret: string, name = 'laptop') =>
      client.ask({
        method: 'GET',
        path: `/restic/${name}/config`,
        headers: { authorization: basic(user, secret) },
      });
    /** Failures are counted, and what is tested here is not that. */
    const forgetFailures = (): void => {
      Object.assign(world.directory.signIns, { programFailed: () => {} });
    };
    beforeAll(forgetFailures);

    test('nobody, a wrong token, another name, a wrong scheme', async () => {
      await refused(client.ask({ method: 'GET', path: '/restic/laptop/config' }));
      await refused(as('ann', `hfr_${'A'.repeat(43)}`));
      await refused(as('ann', token.slice(0, -1)));
      await refused(as('ann', token.slice(4)));
      await refused(as('ben', token));
      await refused(as('', token));
      await refused(
        client.ask({ method: 'GET', path: '/restic/laptop/config', headers: { authorization: `Bearer ${token}` } }),
      );
      expect((await as('ANN', token)).status).toBe(200);
    });

    test('another repository of the user, another user’s of that name, one that is not there', async () => {
      await world.repository('server');
      const bens = await world.token(await world.repository('laptop', 'ben'));
      await refused(as('ann', token, 'server'));
      await refused(as('ann', bens));
      await refused(as('ann', token, 'nowhere'));
      await refused(as('ann', token, 'Laptop'));
      expect((await as('ben', bens)).status).toBe(404); // let in: there is no config yet
    });

    test('a token that was revoked, or has ended', async () => {
      const [revoked, ended] = [
        await world.token(repository),
        await world.token(repository, 'full', { expires: '-1 ms' }),
      ];
      expect((await as('ann', revoked)).status).toBe(200);
      await world.storage.rows(
        'UPDATE restic_tokens SET revoked_at = now() WHERE token_id = (SELECT max(token_id) - 1 FROM restic_tokens)',
      );
      await refused(as('ann', revoked));
      await refused(as('ann', ended));
      expect((await as('ann', await world.token(repository, 'full', { expires: '1 hour' }))).status).toBe(200);
    });

    test.each([
      ['devices', 'deactivated', 401],
      ['devices', 'deauthorized', 401],
      ['devices', 'blocked', 403],
      ['users', 'deactivated', 401],
      ['users', 'blocked', 403],
      ['organizations', 'deactivated', 401],
      ['tenants', 'suspended', 403],
    ])('%s %s: %d', async (table, state, status) => {
      await world.storage.rows(`UPDATE ${table} SET state = $1`, [state]);
      const answer = await as('ann', token);
      await world.storage.rows(`UPDATE ${table} SET state = 'active'`);
      expect(answer.status).toBe(status);
    });

    test('on every route there is', async () => {
      const routes = everyResticRoute();
      expect(routes.length).toBeGreaterThanOrEqual(11);
      for (const { method, path } of routes) {
        const at = path.replace(':repository', 'laptop').replace(':type', 'data').replace(':name', absent);
        const answer = await client.ask({ method, path: at, ...(method === 'POST' && { body: Buffer.from('x') }) });
        expect([method, path, answer.status]).toEqual([method, path, 401]);
      }
    });
  });

  test('a token that came in cleartext from elsewhere is not looked at', async () => {
    const answer = await ask('GET', 'data/', { headers: { 'x-forwarded-for': '203.0.113.9' } });
    expect(answer.status).toBe(wire.endsWith('cleartext') ? 403 : 200);
  });

  test('when a token was used is noted, once a minute', async () => {
    const mine = await world.token(repository);
    const used = async () =>
      (
        await world.storage.rows<{ at: Date | null }>(
          'SELECT last_used_at AS at FROM restic_tokens ORDER BY token_id DESC LIMIT 1',
        )
      )[0]!.at;
    expect(await used()).toBeNull();
    await ask('HEAD', 'config', { as: mine });
    const first = await used();
    expect(first).not.toBeNull();
    await ask('HEAD', 'config', { as: mine });
    expect(await used()).toEqual(first);
  });
});

test('wrong tokens are counted by address, and right ones go on', async () => {
  const world = await resticWorld();
  const client = await wireClient(world.server, 'HTTP/2');
  const token = await world.token(await world.repository('laptop'));
  const ask: Ask = client.ask;
  const as = async (secret: string) =>
    (await ask({ method: 'GET', path: '/restic/laptop/data/', headers: { authorization: basic('ann', secret) } }))
      .status;
  for (let i = 0; i < 5; i++) expect(await as('hfr_wrong')).toBe(401);
  for (let i = 0; i < 60; i++) expect(await as('hfr_wrong')).toBe(429);
  expect(await as(token)).toBe(200);
  // Nobody else behind that address is kept from signing in by it.
  for (const address of ['127.0.0.1', '::1', '::ffff:127.0.0.1'])
    expect(() => world.directory.signIns.attempt('ann', address)).not.toThrow();
  client.close();
  await world.close();
});
