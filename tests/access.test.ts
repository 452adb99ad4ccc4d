/**
 * Who may reach what, asked of every route there is but those of the JSON API (tests/api): the routes are taken from the router, and one that is not
 * described here fails the first test. Each is called as its owner (to know that the call is right), without a token,
 * with tokens that are nobody's any more, and by devices of others: another tenant's, another user's of the same
 * tenant, and another of the same user. What belongs to somebody else answers byte for byte as what does not exist.
 */
import { randomBytes } from 'node:crypto';
import type { ClientHttp2Session } from 'node:http2';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { type Client, connect } from '../agent/client/index.ts';
import { sha256 } from '../protocol/hashes.ts';
import type { RegisterAnswer, RegisterRequest } from '../protocol/messages.ts';
import { decodeMessage, encodeMessage, msgpackType } from '../protocol/wire.ts';
import { registerDevice } from '../server/directory/devices/register.ts';
import { type Directory, openDirectory } from '../server/directory/directory.ts';
import { localKeyService } from '../server/directory/keys/local-keys.ts';
import { insertOrganization, insertTenant } from '../server/directory/organizations/inserting.ts';
import { newRegistrationKey } from '../server/directory/organizations/registration-key.ts';
import { insertUser } from '../server/directory/users/people.ts';
import { certificateSha256 } from '../server/embedded/certificate.ts';
import { startTestServer, type TestServer } from '../server/http/testing.ts';
import { type RawAnswer, rawRequest, rawSession } from './helpers/raw-http.ts';
import { type Described, described, hex, registration, secretPath, type Target } from './helpers/route-calls.ts';
import { everyRoute, type Route } from './helpers/routes.ts';
import type { Person } from './helpers/server.ts';
import { type TestStorage, testStorage, version } from './helpers/storage.ts';

interface Device extends RegisterAnswer {
  person: Person;
}

let storage: TestStorage;
let directory: Directory;
let server: TestServer;
let session: ClientHttp2Session;
const password = 'of everybody here';

/** Whose things are asked for; everyone else is not to learn of them. */
let owner: Device;
let devices: Record<'otherDevice' | 'otherUser' | 'otherTenant' | 'replaced', Device>;

const content = randomBytes(1_000);
const path = secretPath;
let ownersRun: number;

/** @returns its people, by the names given */
async function makeTenant(...names: string[]): Promise<Person[]> {
  const registrationKey = newRegistrationKey();
  const passwordHash = await directory.passwords.hash(password);
  await storage.database.transaction(async (tx) => {
    const tenantId = await insertTenant(tx, 'tenant');
    const organizationId = await insertOrganization(tx, { tenantId, parentId: null, name: 'root', registrationKey });
    const user = { tenantId, organizationId, passwordHash };
    for (const name of names) await insertUser(tx, { ...user, name });
  });
  return names.map((userName) => ({ registrationKey, userName, password }));
}

async function register(person: Person, more: Partial<RegisterRequest> = {}): Promise<Device> {
  return { ...(await registerDevice(directory, registration(person, more), '192.0.2.1')), person };
}

function clientOf(device: Device): Client {
  return connect({
    url: server.origin,
    certificateSha256: certificateSha256(server.tls!.cert as string),
    token: device.token,
  });
}

beforeAll(async () => {
  storage = await testStorage();
  directory = openDirectory({
    database: storage.database,
    keys: localKeyService([randomBytes(32)]),
    passwordHashesMax: 2,
    signInsPerMinute: 100_000,
  });
  server = await startTestServer({ storage, directory });
  session = await rawSession(server.origin);
  const [ann, bob] = await makeTenant('wilhelmina', 'bob');
  const [eve] = await makeTenant('wilhelmina'); // the same name in another tenant is another user
  const replaced = await register(ann!);
  owner = await register(ann!, { replace: replaced.guid });
  devices = {
    replaced,
    otherDevice: await register(ann!),
    otherUser: await register(bob!),
    otherTenant: await register(eve!),
  };
  const client = clientOf(owner);
  ({ run: ownersRun } = await client.startRun(owner.archive, { lastCommit: null, roots: [path] }));
  await client.upload([{ hash: sha256(content), bytes: content }]);
  await client.commit(owner.archive, {
    commitId: randomBytes(16),
    run: ownersRun,
    purgeEpoch: 0,
    versions: [version(path.toString(), [content])],
  });
  client.destroy();
});

afterAll(async () => {
  session?.destroy();
  await server?.shutDown({ leaveMs: 0, drainMs: 1_000 });
  await storage?.close();
});

/** A HEAD is its GET without the body. */
const nameOf = ({ method, path: at }: Route): string => `${method === 'HEAD' ? 'GET' : method} ${at}`;
const routes = everyRoute();
const withNeeds = (...needs: Described['needs'][]): Route[] =>
  routes.filter((route) => needs.includes(described[nameOf(route)]?.needs ?? 'open'));

const owned = (): Target => ({
  archive: owner.archive,
  run: ownersRun,
  hash: sha256(content),
  content,
  guid: owner.guid,
});

/** The same shape, and nothing of it exists. */
function absent(): Target {
  const bytes = randomBytes(content.byteLength);
  const none = 987_654_321;
  return {
    archive: none,
    run: none,
    hash: sha256(bytes),
    content: bytes,
    guid: '9223372036854775806',
  };
}

async function send(
  route: Route,
  target: Target,
  { token, as }: { token?: string; as?: Person } = {},
): Promise<RawAnswer> {
  const call = described[nameOf(route)]!.call(target, as ?? owner.person);
  const headers = {
    ':method': route.method,
    ':path': call.path,
    ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
    ...(call.type ? { 'content-type': call.type, 'content-length': String(call.body!.byteLength) } : {}),
  };
  return rawRequest(session, headers, call.body);
}

/** All that an answer tells, without what is different for every request. */
function told({ status, headers, body }: RawAnswer): object {
  const { date: _date, 'x-request-id': _id, 'request-id': _request, ...rest } = headers;
  return { status, headers: { ...rest }, body: body.toString('latin1') };
}

describe('every route', () => {
  test('is described here, and nothing else is', () => {
    expect([...new Set(routes.map(nameOf))].sort()).toEqual(Object.keys(described).sort());
    expect(routes.length).toBeGreaterThan(Object.keys(described).length); // the HEADs
  });

  test.each(withNeeds('open'))('$method $path is for everybody, and says nothing of anybody', async (route) => {
    const answer = await send(route, owned());
    expect(answer.status).toBe(200);
    for (const secret of [
      owner.token,
      owner.guid,
      owner.person.registrationKey,
      owner.person.userName,
      path.toString(),
    ])
      expect(answer.body.includes(secret)).toBe(false);
  });

  const badTokens: [string, () => string | undefined][] = [
    ['no token', () => undefined],
    ['a token of nobody', () => randomBytes(32).toString('base64url')],
    ['a token cut short', () => owner.token.slice(0, -1)],
    ['a token with something added', () => `${owner.token}A`],
    ['what is no token', () => "' OR 1=1 --"],
    ['a registration key', () => owner.person.registrationKey],
    ['the hash of a token', () => sha256(Buffer.from(owner.token, 'base64url')).toString('base64url')],
  ];
  test.each(withNeeds('token', 'read', 'own'))(
    '$method $path takes no request without a token that holds',
    async (route) => {
      for (const [what, token] of badTokens) {
        const answer = await send(route, owned(), { token: token() });
        expect([what, answer.status]).toEqual([what, 401]);
        expect(told(answer)).toEqual(told(await send(route, absent(), { token: token() })));
      }
    },
  );

  test.each(withNeeds('token', 'read', 'own'))(
    '$method $path is closed to a device that was replaced',
    async (route) => {
      const answer = await send(route, owned(), { token: devices.replaced.token });
      expect(answer.status).toBe(401);
      expect(told(answer)).toEqual(told(await send(route, absent(), { token: devices.replaced.token })));
    },
  );

  describe.each(['otherTenant', 'otherUser'] as const)('to %s', (who) => {
    test.each(withNeeds('read', 'own'))('$method $path tells of an archive as if it did not exist', async (route) => {
      const { token } = devices[who];
      const answer = await send(route, owned(), { token });
      expect(answer.status).toBe(404);
      expect(told(answer)).toEqual(told(await send(route, absent(), { token })));
    });

    test.each(withNeeds('own').filter(({ path: at }) => at.includes(':run')))(
      '$method $path tells of a run in their own archive as if it did not exist',
      async (route) => {
        const { token, archive } = devices[who];
        const answer = await send(route, { ...owned(), archive }, { token });
        expect(answer.status).toBe(404);
        expect(told(answer)).toEqual(told(await send(route, { ...absent(), archive }, { token })));
      },
    );

    test('a commit that names a block they never sent is told to send it, whoever has it', async () => {
      const { token, archive } = devices[who];
      const client = clientOf(devices[who]);
      const { run } = await client.startRun(archive, { lastCommit: null, roots: [] });
      client.destroy();
      const route = { method: 'POST', path: '/v1/archives/:archive/commits' };
      const nothing = absent();
      const answers = [
        await send(route, { ...owned(), archive, run }, { token }),
        await send(route, { ...nothing, archive, run }, { token }),
      ].map((answer) => JSON.parse(answer.body.toString()));
      expect(answers[0]).toMatchObject({ code: 'blocks_missing', missing: [hex(sha256(content))] });
      expect({ ...answers[0], missing: [] }).toEqual({ ...answers[1], missing: [] });
    });

    test.each(withNeeds('token').filter(({ path: at }) => at !== '/v1/self'))(
      '$method $path tells of a block as if nobody had it',
      async (route) => {
        const { token } = devices[who];
        // A vault that has stored the bytes itself has them: those calls are made with bytes of the owner's that are new.
        const writes = route.method === 'PUT' || route.path === '/v1/blocks';
        const target = writes ? await ownersNewBlock() : owned();
        const [theirs, nobodys] = [await send(route, target, { token }), await send(route, absent(), { token })];
        expect(theirs.status).toBeLessThan(500);
        expect(withoutClaim(theirs)).toEqual(withoutClaim(nobodys));
        expect(theirs.body.includes(content.subarray(0, 100))).toBe(false);
      },
    );

    test('GET /v1/self names nothing of the owner', async () => {
      const answer = await send({ method: 'GET', path: '/v1/self' }, owned(), { token: devices[who].token });
      const self = decodeMessageLoosely(answer.body);
      expect(self).toMatchObject({ guid: devices[who].guid, archive: devices[who].archive });
      expect((self.archives as { guid: string }[]).map(({ guid }) => guid)).toEqual([devices[who].guid]);
    });

    test('a registration cannot take the place of a device of the owner', async () => {
      const route = { method: 'POST', path: '/v1/register' };
      const { person: as } = devices[who];
      const answer = await send(route, owned(), { as });
      expect(answer.status).toBe(404);
      expect(told(answer)).toEqual(told(await send(route, absent(), { as })));
    });

    test('the devices to replace are their own', async () => {
      const answer = await send({ method: 'POST', path: '/v1/devices/query' }, owned(), { as: devices[who].person });
      const { devices: listed } = decodeMessageLoosely(answer.body) as { devices: { guid: string }[] };
      expect(listed.map(({ guid }) => guid)).toEqual([devices[who].guid]);
    });
  });

  test.each(withNeeds('signIn'))('$method $path says the same whichever part of a sign-in is wrong', async (route) => {
    const { person } = owner;
    const wrong: Person[] = [
      { ...person, userName: 'nobody' },
      { ...person, registrationKey: 'AAAA-BBBB-CCCC-DDDD' },
      { ...person, registrationKey: devices.otherTenant.person.registrationKey, userName: 'bob' },
    ];
    const answers = await Promise.all(wrong.map((as) => send(route, owned(), { as })));
    const call = described[nameOf(route)]!.call(owned(), person);
    const body = encodeMessage({ ...(decodeMessageLoosely(call.body!) as object), password: 'not the one' });
    const headers = { ':method': 'POST', ':path': call.path, 'content-type': msgpackType };
    answers.push(await rawRequest(session, headers, body));
    for (const answer of answers) {
      expect(answer.status).toBe(401);
      expect(told(answer)).toEqual(told(answers[0]!));
    }
  });

  test.each(withNeeds('own'))('$method $path is closed to another device of the same user', async (route) => {
    const { token } = devices.otherDevice;
    const answer = await send(route, owned(), { token });
    expect(answer.status).toBe(404);
    expect(told(answer)).toEqual(told(await send(route, absent(), { token })));
  });

  test.each(withNeeds('read'))('$method $path lets another device of the same user read', async (route) => {
    const [mine, other] = [owner, devices.otherDevice].map((device) => send(route, owned(), { token: device.token }));
    expect((await other!).status).toBe(200);
    expect(withoutMoment(await other!)).toEqual(withoutMoment(await mine!));
  });

  // Last: the calls of the owner change what is there.
  // A registration would end the owner's token; that one has tests of its own, beside its code.
  test.each(routes.filter(({ path: at }) => at !== '/v1/register'))(
    '$method $path answers its owner',
    async (route) => {
      const { status } = described[nameOf(route)]!;
      const client = clientOf(owner);
      const { run } = await client.startRun(owner.archive, { lastCommit: null, roots: [] }); // the one before ends with it
      client.destroy();
      const answer = await send(route, { ...owned(), run }, { token: owner.token });
      expect([answer.cut, answer.status]).toEqual([false, status]);
    },
  );

  test('nothing of what the others tried has left a trace', async () => {
    const client = clientOf(owner);
    try {
      const { versions } = await client.versions(owner.archive);
      const paths = (await Array.fromAsync(versions)).map((each) => each.path.toString());
      expect(paths).toEqual(['/planted', '/secret/plans']); // '/planted' is the owner's own, by the test before
      expect((await client.history(owner.archive, { path })).versions).toHaveLength(1);
    } finally {
      client.destroy();
    }
    const [row] = await storage.database.query<{ guids: number }>(
      { name: '', text: 'SELECT count(*) AS guids FROM devices WHERE guid = $1::bigint AND state = $2' },
      [owner.guid, 'active'],
    );
    expect(Number(row!.guids)).toBe(1);
  });
});

/** A block more in the owner's vault. */
async function ownersNewBlock(): Promise<Target> {
  const bytes = randomBytes(content.byteLength);
  const client = clientOf(owner);
  await client.upload([{ hash: sha256(bytes), bytes }]);
  client.destroy();
  return { ...owned(), hash: sha256(bytes), content: bytes };
}

const anything = { safeParse: (data: unknown) => ({ success: true as const, data }) };

function decodeMessageLoosely(bytes: Buffer): Record<string, unknown> {
  return decodeMessage(anything as never, bytes) as Record<string, unknown>;
}

/** An answer about blocks, without the moment until which they are kept: that differs by milliseconds. */
function withoutClaim(answer: RawAnswer): object {
  if (answer.headers['content-type'] !== msgpackType || answer.body.byteLength === 0) return told(answer);
  const { claimedUntil: _, ...rest } = decodeMessageLoosely(answer.body);
  return { ...told(answer), body: rest };
}

/** An answer about an archive, without the moment it was made at. */
function withoutMoment(answer: RawAnswer): object {
  if (answer.headers['content-type'] === msgpackType) return told(answer);
  return { ...told(answer), body: answer.body.byteLength };
}
