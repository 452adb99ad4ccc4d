/** A device that is blocked goes on backing up and restores nothing: asked of the routes, on the real engine. */
import { randomBytes } from 'node:crypto';
import type { ClientHttp2Session } from 'node:http2';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { sha256 } from '../../protocol/hashes.ts';
import { encodeMessage, msgpackType } from '../../protocol/wire.ts';
import { newRun, noCounts, type TestStorage, testStorage, upload, version } from '../../tests/helpers/storage.ts';
import { repeatLimits } from '../directory/audit/repeats.ts';
import { authenticateDevice, type DeviceAccess } from '../directory/devices/access.ts';
import { registerDevice } from '../directory/devices/register.ts';
import { type Directory, openDirectory } from '../directory/directory.ts';
import { localKeyService } from '../directory/keys/local-keys.ts';
import { insertOrganization, insertTenant } from '../directory/organizations/inserting.ts';
import { newRegistrationKey } from '../directory/organizations/registration-key.ts';
import { insertUser } from '../directory/users/people.ts';
import { h2, request, startTestServer, type TestServer } from './testing.ts';

const block = randomBytes(1_000);
const hash = sha256(block);
let storage: TestStorage;
let directory: Directory;
let server: TestServer;
let session: ClientHttp2Session;
let own: DeviceAccess & { token: string };
let other: DeviceAccess & { token: string };
let run: number;

beforeAll(async () => {
  storage = await testStorage();
  const keys = localKeyService([randomBytes(32)]);
  directory = openDirectory({ database: storage.database, keys, passwordHashesMax: 2, signInsPerMinute: 5 });
  const registrationKey = newRegistrationKey();
  const passwordHash = await directory.passwords.hash('correct horse');
  await storage.database.transaction(async (tx) => {
    const tenantId = await insertTenant(tx, 'tenant');
    const organizationId = await insertOrganization(tx, { tenantId, parentId: null, name: 'top', registrationKey });
    await insertUser(tx, { tenantId, organizationId, name: 'ann', passwordHash });
  });
  const register = async () => {
    const device = { name: 'laptop', platform: 'linux', agentVersion: '0.1.0' };
    const wanted = { registrationKey, userName: 'ann', password: 'correct horse', device };
    const asked = { ...wanted, vaultKey: { level: 'standard' } };
    const { token } = await registerDevice(directory, asked as never, '127.0.0.1');
    return { ...(await authenticateDevice(directory, token))!, token };
  };
  own = await register();
  other = await register();
  await upload(storage, own.vault, [block]);
  run = await newRun(storage, own);
  server = await startTestServer({ storage, directory });
  session = await h2(server);
});

afterAll(async () => {
  session?.destroy();
  await server?.shutDown({ leaveMs: 0, drainMs: 1_000 });
  await storage?.close();
});

type Call = [says: string, method: string, path: () => string, message: (() => object) | null];

async function status(method: string, path: string, message?: object): Promise<number> {
  const headers = { ':method': method, ':path': path, authorization: `Bearer ${own.token}` };
  if (!message) return (await request(session, headers)).status;
  return (await request(session, { ...headers, 'content-type': msgpackType }, encodeMessage(message))).status;
}

const none = Buffer.alloc(0);
const ofArchive = (path: string, device: () => DeviceAccess): (() => string) => {
  return () => `/v1/archives/${device().archive}/${path}`;
};
const backingUp: Call[] = [
  ['itself', 'GET', () => '/v1/self', null],
  ['its plans', 'GET', () => '/v1/self/plans', null],
  ['a claim', 'POST', () => '/v1/blocks/claim', () => ({ blocks: hash, lists: none })],
  ['a start', 'POST', ofArchive('runs', () => own), () => ({ lastCommit: null, roots: [] })],
  ['its versions', 'GET', ofArchive('versions', () => own), null],
  ['its folders', 'GET', ofArchive('tree', () => own), null],
  ['its damaged files', 'GET', ofArchive('damaged', () => own), null],
  ['its runs', 'GET', ofArchive('runs', () => own), null],
  ['lists, which are names', 'POST', () => '/v1/lists/fetch', () => ({ lists: hash })],
];
const restoring: Call[] = [
  ['a block', 'GET', () => `/v1/blocks/${hash.toString('hex')}`, null],
  ['blocks', 'POST', () => '/v1/blocks/fetch', () => ({ blocks: hash })],
];
const others: Call[] = [
  ["another device's folders", 'GET', ofArchive('tree', () => other), null],
  ["another device's versions", 'GET', ofArchive('versions', () => other), null],
];

const put = (state: string) =>
  storage.rows('UPDATE devices SET state = $2 WHERE device_id = $1', [own.deviceId, state]);

beforeEach(() => put('active'));

test('a commit of a run that goes on is taken', async () => {
  await put('blocked');
  const commit = { commitId: randomBytes(16), run, purgeEpoch: 0, versions: [version('/a', [block])] };
  expect(await status('POST', `/v1/archives/${own.archive}/commits`, commit)).toBe(200);
  const end = { outcome: 'completed', reason: '', counts: noCounts, skipped: [] };
  expect(await status('POST', `/v1/archives/${own.archive}/runs/${run}/finish`, end)).toBe(200);
});

describe('to a blocked device', () => {
  test.each(backingUp)('%s is as to any', async (_, method, path, message) => {
    const before = await status(method, path(), message?.());
    await put('blocked');
    expect(before).toBeLessThan(300);
    expect(await status(method, path(), message?.())).toBe(before);
  });

  test.each(restoring)('%s: forbidden', async (_, method, path, message) => {
    expect(await status(method, path(), message?.())).toBe(200);
    await put('blocked');
    expect(await status(method, path(), message?.())).toBe(403);
  });

  test.each(others)('%s: not there', async (_, method, path) => {
    await storage.rows(`UPDATE devices SET state = 'active' WHERE device_id = $1`, [other.deviceId]);
    await put('blocked');
    expect(await status(method, path())).toBe(404);
  });
});

test.each([...backingUp, ...restoring, ...others])(
  'to a deauthorized device %s: no',
  async (_, method, path, message) => {
    await put('deauthorized');
    expect(await status(method, path(), message?.())).toBe(401);
  },
);

test('what a device begins to read is in the log: whose, where and as of when; going on with it is not written again', async () => {
  const before = (await storage.rows("SELECT 1 FROM acts WHERE action = 'archive.read'")).length;
  const at = Date.now();
  const path = Buffer.from('/aé').toString('base64url');
  expect(await status('GET', ofArchive(`versions?path=${path}&at=${at}&deleted=1`, () => other)())).toBe(404);
  expect(await status('GET', ofArchive('versions', () => own)())).toBe(200);
  const [moment] = await storage.rows<{ seq: number }>(
    'SELECT next_seq - 1 AS seq FROM archives WHERE archive_id = $1',
    [own.archive],
  );
  const goingOn = `versions?after=${Buffer.from('/a').toString('base64url')}&seq=${moment!.seq}`;
  for (let i = 0; i < 3; i++) expect(await status('GET', ofArchive(goingOn, () => own)())).toBe(200);
  const history = `history?path=${Buffer.from('/b').toString('base64url')}`;
  await status('GET', ofArchive(history, () => own)());
  for (let i = 0; i < 3; i++) await status('GET', ofArchive(`${history}&after=9`, () => own)());
  const rows = await storage.rows<Record<string, unknown>>(
    `SELECT party_kind AS "partyKind", party_id AS "partyId", target_id AS "targetId", details FROM acts
      WHERE action = 'archive.read' ORDER BY number OFFSET $1`,
    [before],
  );
  const user = own.userId;
  expect(rows).toEqual([
    {
      ...{ partyKind: 'device', partyId: own.guid, targetId: other.guid },
      details: { user, own: false, path: '/aé', at: new Date(at).toISOString(), deleted: true },
    },
    {
      ...{ partyKind: 'device', partyId: own.guid, targetId: own.guid },
      details: { user, own: true, path: '/', at: null, deleted: false },
    },
    {
      ...{ partyKind: 'device', partyId: own.guid, targetId: own.guid },
      details: { user, own: true, path: '/b', at: null, deleted: true },
    },
  ]);
});

test('nor is there a place to go on from, made up, by which anything is read that is not in the log', async () => {
  const acts = () =>
    storage.rows<{ path: string; at: string | null; deleted: boolean }>(
      `SELECT details->>'path' AS path, details->>'at' AS at, (details->>'deleted')::boolean AS deleted FROM acts
        WHERE action = 'archive.read' ORDER BY number`,
    );
  const [moment] = await storage.rows<{ seq: number }>(
    'SELECT next_seq - 1 AS seq FROM archives WHERE archive_id = $1',
    [own.archive],
  );
  const { seq } = moment!;
  const base64url = (text: string) => Buffer.from(text).toString('base64url');
  const asked: [path: string, told: string][] = [
    [`history?path=${base64url('/c')}&after=${Number.MAX_SAFE_INTEGER}`, '/c'],
    // Of what was written down for another file, or as a reading of another kind.
    [`history?path=${base64url('/d')}&after=${Number.MAX_SAFE_INTEGER}`, '/d'],
    [`versions?path=${base64url('/c')}&after=${base64url('/')}&seq=${seq}`, '/c'],
    [`versions?after=${base64url('/')}`, '/'],
    [`versions?path=${base64url('/e')}&after=${base64url('/')}&seq=${seq}`, '/e'],
    [`versions?path=${base64url('/e')}&after=${base64url('/')}&seq=${seq}&deleted=1`, '/e'],
    [`versions?path=${base64url('/e')}&after=${base64url('/')}&seq=${seq - 1}`, '/e'],
  ];
  for (const [query, path] of asked) {
    const before = await acts();
    await status('GET', ofArchive(query, () => own)());
    expect([query, (await acts()).slice(before.length).map((act) => act.path)]).toEqual([query, [path]]);
  }
});

test('and each time it begins, however often: what was done is not counted as a refusal is', async () => {
  const count = async (): Promise<number> =>
    (await storage.rows("SELECT 1 FROM acts WHERE action = 'archive.read' AND result = 'done'")).length;
  const before = await count();
  for (let i = 0; i < repeatLimits.ofOneParty + 2; i++) await status('GET', ofArchive('versions', () => own)());
  expect((await count()) - before).toBe(repeatLimits.ofOneParty + 2);
});
