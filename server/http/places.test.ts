/** No device takes what all of them need: the routes' places, on the real engine and directory. */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import type { ClientHttp2Session, ClientHttp2Stream, OutgoingHttpHeaders } from 'node:http2';
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { sha256 } from '../../protocol/hashes.ts';
import { encodeMessage, msgpackType } from '../../protocol/wire.ts';
import { type TestStorage, testStorage, upload } from '../../tests/helpers/storage.ts';
import { authenticateDevice } from '../directory/devices/access.ts';
import type { DeviceIdentity } from '../directory/devices/devices.ts';
import { registerDevice } from '../directory/devices/register.ts';
import { type Directory, openDirectory } from '../directory/directory.ts';
import { localKeyService } from '../directory/keys/local-keys.ts';
import { insertOrganization, insertTenant } from '../directory/organizations/inserting.ts';
import { newRegistrationKey } from '../directory/organizations/registration-key.ts';
import { insertUser } from '../directory/users/people.ts';
import { archiveRoutes } from './routes/archives.ts';
import { blockRoutes } from './routes/blocks.ts';
import { registrationRoutes } from './routes/registration.ts';
import type { HttpSettings } from './settings.ts';
import { answerOf, h2, problem, request, startTestServer, type TestServer, until } from './testing.ts';

interface Device extends DeviceIdentity {
  token: string;
}

const block = randomBytes(2 * 1024 * 1024);
const blockPath = `/v1/blocks/${sha256(block).toString('hex')}`;
const password = 'correct horse';
let storage: TestStorage;
let directory: Directory;
let mine: Device;
let theirs: Device;
let server: TestServer;
let session: ClientHttp2Session;

beforeAll(async () => {
  storage = await testStorage();
  const keys = localKeyService([randomBytes(32)]);
  directory = openDirectory({ database: storage.database, keys, passwordHashesMax: 2, signInsPerMinute: 5 });
  const registrationKey = newRegistrationKey();
  const passwordHash = await directory.passwords.hash(password);
  await storage.database.transaction(async (tx) => {
    const tenantId = await insertTenant(tx, 'tenant');
    const root = { tenantId, parentId: null, name: 'root', registrationKey };
    const organizationId = await insertOrganization(tx, root);
    for (const name of ['ann', 'ben']) await insertUser(tx, { tenantId, organizationId, name, passwordHash });
  });
  const register = async (userName: string): Promise<Device> => {
    const device = { name: 'laptop', platform: 'linux', agentVersion: '0.1.0' };
    const wanted = { registrationKey, userName, password, device, vaultKey: { level: 'standard' } };
    const { token } = await registerDevice(directory, wanted as never, '127.0.0.1');
    const identity = (await authenticateDevice(directory, token))!;
    await upload(storage, identity.vault, [block], 64 * 1024);
    return { ...identity, token };
  };
  mine = await register('ann');
  theirs = await register('ben');
});

afterAll(() => storage?.close());

async function start(settings: Partial<HttpSettings>): Promise<void> {
  server = await startTestServer({
    storage,
    directory,
    settings: { slotWaitMs: 100, fetchWaitMs: 100, ...settings },
    routes: (router, deps) => {
      registrationRoutes(router, deps);
      blockRoutes(router, deps);
      archiveRoutes(router, deps);
    },
  });
  session = await h2(server);
}

afterEach(async () => {
  session.destroy();
  await server.shutDown({ leaveMs: 0, drainMs: 1_000 });
});

const as = (device: Device, path: string, more: OutgoingHttpHeaders = {}): OutgoingHttpHeaders => ({
  ':path': path,
  authorization: `Bearer ${device.token}`,
  ...more,
});
const statusOf = async (headers: OutgoingHttpHeaders): Promise<number> => (await request(session, headers)).status;

/** An answer whose reader takes its time: it has begun, and is much longer than the reader's window. */
async function unread(headers: OutgoingHttpHeaders, body?: Uint8Array): Promise<ClientHttp2Stream> {
  const stream = session.request(headers, { endStream: body === undefined });
  stream.on('error', () => {});
  if (body) stream.end(body);
  const [answer] = await once(stream, 'response');
  expect(answer[':status']).toBe(200);
  return stream;
}

function fetchUnread(device: Device): Promise<ClientHttp2Stream> {
  const headers = as(device, '/v1/blocks/fetch', { ':method': 'POST', 'content-type': msgpackType });
  return unread(headers, encodeMessage({ blocks: sha256(block) }));
}

test('readers of single blocks take the same places as fetches, and give them back', async () => {
  await start({ fetchesMax: 2, fetchesPerDeviceMax: 1 });
  const reading = await unread(as(mine, blockPath));
  const refused = await request(session, as(mine, blockPath, { range: 'bytes=0-9' }));
  expect(problem(refused)).toMatchObject({ code: 'overloaded', status: 503 });
  expect(refused.headers).not.toHaveProperty('content-range');
  expect(await statusOf(as(mine, blockPath, { ':method': 'HEAD' }))).toBe(200); // reads nothing

  const fetching = await fetchUnread(theirs);
  expect(await statusOf(as(theirs, blockPath))).toBe(503);
  reading.close(8);
  fetching.close(8);
  await until(() => server.deps.requests.open.size === 0);
  expect(await statusOf(as(mine, blockPath))).toBe(200);
});

test('a fetch holds nothing of the byte budget while its answer is read', async () => {
  await start({});
  const fetching = await fetchUnread(mine);
  const { bodies, heldBytes, windowBytes } = server.deps.budget;
  expect({ bodies, heldBytes, windowBytes }).toEqual({ bodies: 0, heldBytes: 0, windowBytes: 0 });
  expect(server.deps.requests.open.size).toBe(1);
  expect((await answerOf(fetching)).body.byteLength).toBeGreaterThan(block.byteLength);
});

test('one device has so many requests under way, and leaves the others alone', async () => {
  await start({ requestsPerDeviceMax: 2 });
  const reading = [await unread(as(mine, blockPath)), await unread(as(mine, blockPath))];
  expect(problem(await request(session, as(mine, '/v1/self')))).toMatchObject({ code: 'overloaded', status: 503 });
  expect(await statusOf(as(theirs, '/v1/self'))).toBe(200);
  for (const stream of reading) stream.close(8);
  await until(() => server.deps.requests.open.size === 0);
  expect(await statusOf(as(mine, '/v1/self'))).toBe(200);
});

test('one device has so many streams of versions under way', async () => {
  await start({ versionStreamsPerDeviceMax: 1 });
  const versions = (device: Device) => statusOf(as(device, `/v1/archives/${device.archive}/versions`));
  const release = await server.deps.slots.versionStreams.take(mine.deviceId);
  expect([await versions(mine), await versions(theirs)]).toEqual([503, 200]);
  release();
  expect([await versions(mine), await versions(mine)]).toEqual([200, 200]);
});

test('who has no token yet shares few places, and none with the devices', async () => {
  await start({ strangersMax: 1 });
  const headers = { ':method': 'POST', 'content-type': msgpackType };
  const dripping = session.request({ ...headers, ':path': '/v1/register' });
  dripping.on('error', () => {});
  dripping.write(Buffer.alloc(1));
  await until(() => server.deps.budget.bodies === 1);
  const query = () => request(session, { ...headers, ':path': '/v1/devices/query' }, encodeMessage({}));
  expect(problem(await query())).toMatchObject({ code: 'overloaded', status: 503 });
  expect(await statusOf(as(mine, '/v1/self'))).toBe(200);
  dripping.close(8);
  await until(() => server.deps.requests.open.size === 0);
  expect(problem(await query())).toMatchObject({ code: 'malformed_request' });
});
