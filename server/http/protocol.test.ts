/** Every route of the agent protocol on the real engine and directory, with its answers, its problems and its walls. */
import { randomBytes } from 'node:crypto';
import type { ClientHttp2Session } from 'node:http2';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { decodeBlockFrames } from '../../protocol/block-frames.ts';
import { bitAt, sha256 } from '../../protocol/hashes.ts';
import * as messages from '../../protocol/messages.ts';
import { encodeUpload } from '../../protocol/upload.ts';
import { decodeFrames, decodeMessage, encodeMessage, msgpackType } from '../../protocol/wire.ts';
import { type TestStorage, testStorage, version } from '../../tests/helpers/storage.ts';
import { type Directory, openDirectory } from '../directory/directory.ts';
import { localKeyService } from '../directory/keys/local-keys.ts';
import { insertOrganization, insertTenant } from '../directory/organizations/inserting.ts';
import { newRegistrationKey } from '../directory/organizations/registration-key.ts';
import { insertUser } from '../directory/users/people.ts';
import { type Answer, h2, problem, request, startTestServer, type TestServer } from './testing.ts';

interface Device {
  token: string;
  archive: number;
  guid: string;
}

let storage: TestStorage;
let directory: Directory;
let server: TestServer;
let session: ClientHttp2Session;
/** Two devices of one user, one of another user of the same tenant, one of another tenant. */
let own: Device;
let sibling: Device;
let colleague: Device;
let stranger: Device;
let registrationKey: string;
const password = 'correct horse';

beforeAll(async () => {
  storage = await testStorage();
  const { database } = storage;
  directory = openDirectory({
    database,
    keys: localKeyService([randomBytes(32)]),
    passwordHashesMax: 2,
    signInsPerMinute: 5,
  });
  server = await startTestServer({ storage, directory, readiness: { objects: () => storage.objects.check() } });
  session = await h2(server);
  registrationKey = await makeTenant('ann', 'ben', 'cat');
  own = await register('ann', registrationKey);
  sibling = await register('ann', registrationKey);
  colleague = await register('ben', registrationKey);
  stranger = await register('ann', await makeTenant('ann'));
});

afterAll(async () => {
  session?.destroy();
  await server?.shutDown({ leaveMs: 0, drainMs: 1_000 });
  await storage?.close();
});

async function makeTenant(...names: string[]): Promise<string> {
  const key = newRegistrationKey();
  const passwordHash = await directory.passwords.hash(password);
  await storage.database.transaction(async (tx) => {
    const tenantId = await insertTenant(tx, 'tenant');
    const organizationId = await insertOrganization(tx, {
      tenantId,
      parentId: null,
      name: 'root',
      registrationKey: key,
    });
    for (const name of names) await insertUser(tx, { tenantId, organizationId, name, passwordHash });
  });
  return key;
}

function registration(userName: string, key: string, more: object = {}) {
  const device = { name: `${userName}'s laptop`, platform: 'linux', agentVersion: '0.1.0' };
  return { registrationKey: key, userName, password, device, vaultKey: { level: 'standard' }, ...more };
}

async function register(userName: string, key: string): Promise<Device> {
  const answer = await send('POST', '/v1/register', { message: registration(userName, key) });
  expect(answer.status).toBe(201);
  return decodeMessage(messages.RegisterAnswer, answer.body);
}

interface Sent {
  device?: Device | null;
  message?: object;
  bytes?: Uint8Array;
  headers?: Record<string, string>;
}

function send(
  method: string,
  path: string,
  { device = null, message, bytes, headers = {} }: Sent = {},
): Promise<Answer> {
  const body = message ? encodeMessage(message) : bytes;
  return request(
    session,
    {
      ':method': method,
      ':path': path,
      ...(device ? { authorization: `Bearer ${device.token}` } : {}),
      ...(message ? { 'content-type': msgpackType } : {}),
      ...(body ? { 'content-length': body.byteLength } : {}),
      ...headers,
    },
    body,
  );
}

async function upload(device: Device, blocks: Uint8Array[]): Promise<Answer> {
  const { chunks } = encodeUpload(blocks.map((bytes) => ({ hash: sha256(bytes), bytes })));
  return send('POST', '/v1/blocks', {
    device,
    bytes: Buffer.concat(chunks),
    headers: { 'content-type': 'application/vnd.holdfast.upload' },
  });
}

const base64url = (text: string): string => Buffer.from(text).toString('base64url');

async function commitFile(device: Device, path: string, blocks: Uint8Array[]): Promise<Answer> {
  const started = await send('POST', `/v1/archives/${device.archive}/runs`, {
    device,
    message: { lastCommit: null, roots: [] },
  });
  const { run, purgeEpoch } = decodeMessage(messages.RunStartAnswer, started.body);
  const message = { commitId: randomBytes(16), run, purgeEpoch, versions: [version(path, blocks)] };
  return send('POST', `/v1/archives/${device.archive}/commits`, { device, message });
}

async function* once(bytes: Buffer): AsyncGenerator<Buffer> {
  yield bytes;
}

test('a backup and its way back, over every route', async () => {
  const blocks = [randomBytes(4_096), randomBytes(300_000), randomBytes(1)];
  const hashes = Buffer.concat(blocks.map(sha256));
  const claim = async () =>
    decodeMessage(
      messages.ClaimAnswer,
      (await send('POST', '/v1/blocks/claim', { device: own, message: { blocks: hashes } })).body,
    );
  const before = await claim();
  expect([0, 1, 2].map((i) => bitAt(before.blocks, i))).toEqual([true, true, true]);

  const uploaded = decodeMessage(messages.UploadAnswer, (await upload(own, blocks.slice(0, 2))).body);
  expect(uploaded).toMatchObject({ stored: 2, known: 0 });
  expect(uploaded.claimedUntil).toBeGreaterThan(Date.now());
  const put = await send('PUT', `/v1/blocks/${sha256(blocks[2]!).toString('hex')}`, {
    device: own,
    bytes: blocks[2]!,
    headers: { 'content-type': 'application/octet-stream' },
  });
  expect(decodeMessage(messages.UploadAnswer, put.body)).toMatchObject({ stored: 1, known: 0 });
  const after = await claim();
  expect([0, 1, 2].map((i) => bitAt(after.blocks, i))).toEqual([false, false, false]);

  const archive = `/v1/archives/${own.archive}`;
  const started = await send('POST', `${archive}/runs`, {
    device: own,
    message: { lastCommit: null, roots: [Buffer.from('/home')] },
  });
  expect(started.status).toBe(201);
  const { run, purgeEpoch, nextSeq } = decodeMessage(messages.RunStartAnswer, started.body);
  expect(nextSeq).toBe(1);
  const commit = { commitId: randomBytes(16), run, purgeEpoch, versions: [version('/home/a', blocks)] };
  const committed = await send('POST', `${archive}/commits`, { device: own, message: commit });
  expect(decodeMessage(messages.CommitAnswer, committed.body)).toEqual({ firstSeq: 1, count: 1, purgeEpoch: 0 });
  expect((await send('POST', `${archive}/commits`, { device: own, message: commit })).body.equals(committed.body)).toBe(
    true,
  );
  const counts = {
    filesSeen: 1,
    filesChanged: 1,
    filesDeleted: 0,
    filesSkipped: 0,
    bytesSeen: 1,
    bytesRead: 1,
    bytesSent: 1,
  };
  expect((await send('POST', `${archive}/runs/${run}/progress`, { device: own, message: { counts } })).status).toBe(
    200,
  );
  const finish = () =>
    send('POST', `${archive}/runs/${run}/finish`, { device: own, message: { outcome: 'completed', counts } });
  expect([(await finish()).status, (await finish()).status]).toEqual([200, 200]);

  for (const device of [own, sibling]) {
    const tree = decodeMessage(
      messages.TreeAnswer,
      (await send('GET', `${archive}/tree?path=${base64url('/home')}`, { device })).body,
    );
    expect(tree.entries.map((entry) => entry.name.toString())).toEqual(['a']);
    const versions = await send('GET', `${archive}/versions`, { device });
    expect(versions.headers['content-type']).toBe('application/vnd.holdfast.frames');
    const frames = await Array.fromAsync(decodeFrames(messages.VersionsFrame, once(versions.body)));
    expect(frames.map((frame) => frame.frame)).toEqual(['begin', 'versions', 'end']);
    const history = decodeMessage(
      messages.HistoryAnswer,
      (await send('GET', `${archive}/history?path=${base64url('/home/a')}&limit=1`, { device })).body,
    );
    expect(history.versions.map((each) => each.blocks.equals(hashes))).toEqual([true]);

    const missing = sha256(Buffer.from('nobody has this'));
    const fetched = await send('POST', '/v1/blocks/fetch', {
      device,
      message: { blocks: Buffer.concat([hashes, missing]) },
    });
    expect(fetched.headers['content-type']).toBe('application/vnd.holdfast.blocks');
    const got = await Array.fromAsync(decodeBlockFrames(once(fetched.body), 4));
    got.sort((a, b) => a.index - b.index);
    expect(got.map((frame) => frame.bytes?.equals(blocks[frame.index]!) ?? null)).toEqual([true, true, true, null]);
  }

  const self = decodeMessage(messages.SelfAnswer, (await send('GET', '/v1/self', { device: own })).body);
  expect(self.archives.map((each) => [each.archive, each.own]).sort()).toEqual(
    [
      [own.archive, true],
      [sibling.archive, false],
    ].sort(),
  );
  const metrics = (await send('GET', '/metrics')).body.toString();
  expect(metrics).toContain('holdfast_blocks_total{outcome="stored"} 3');
  expect(metrics).toContain('holdfast_http_received_bytes_total{route="/v1/blocks"}');
  expect(JSON.stringify(server.lines)).not.toContain(own.token);
});

describe('GET /v1/blocks/:hash', () => {
  const block = randomBytes(1_000);
  const path = `/v1/blocks/${sha256(block).toString('hex')}`;
  const etag = `"${sha256(block).toString('hex')}"`;
  const get = (headers: Record<string, string> = {}, method = 'GET') => send(method, path, { device: own, headers });

  beforeAll(async () => {
    await upload(own, [block]);
  });

  test('gives the block, for good', async () => {
    const answer = await get();
    expect(answer.body.equals(block)).toBe(true);
    expect(answer.headers).toMatchObject({
      etag,
      'content-length': '1000',
      'cache-control': 'private, max-age=31536000, immutable',
      'content-type': 'application/octet-stream',
    });
    const head = await get({}, 'HEAD');
    expect([head.status, head.body.byteLength, head.headers['content-length'], head.headers.etag]).toEqual([
      200,
      0,
      '1000',
      etag,
    ]);
  });

  test.each([
    [etag, 304],
    [`"other", W/${etag}`, 304],
    ['*', 304],
    ['"other"', 200],
  ])('If-None-Match %s: %i', async (value, status) => {
    const answer = await get({ 'if-none-match': value });
    expect([answer.status, answer.body.byteLength, answer.headers.etag]).toEqual([
      status,
      status === 200 ? 1_000 : 0,
      etag,
    ]);
  });

  test.each<[string, number, number, number]>([
    ['bytes=0-0', 206, 0, 1],
    ['bytes=999-', 206, 999, 1_000],
    ['bytes=10-19', 206, 10, 20],
    ['bytes=990-5000', 206, 990, 1_000],
    ['bytes=-10', 206, 990, 1_000],
    ['bytes=-5000', 206, 0, 1_000],
    ['bytes=0-1,5-6', 200, 0, 1_000],
    ['bytes=20-10', 200, 0, 1_000],
    ['lines=1-2', 200, 0, 1_000],
    ['bytes=-', 200, 0, 1_000],
  ])('Range %s: %i', async (range, status, from, to) => {
    const answer = await get({ range });
    expect(answer.status).toBe(status);
    expect(answer.body.equals(block.subarray(from, to))).toBe(true);
    expect(answer.headers['content-range']).toBe(status === 206 ? `bytes ${from}-${to - 1}/1000` : undefined);
  });

  test.each(['bytes=1000-', 'bytes=1000-2000', 'bytes=-0'])('Range %s lies outside', async (range) => {
    const answer = await get({ range });
    expect(problem(answer)).toMatchObject({ code: 'range_not_satisfiable', status: 416, length: 1_000 });
    expect(answer.headers['content-range']).toBe('bytes */1000');
    expect(answer.headers.etag).toBeUndefined();
  });

  test('If-Range holds the range to the content', async () => {
    expect((await get({ range: 'bytes=0-0', 'if-range': etag })).status).toBe(206);
    expect((await get({ range: 'bytes=0-0', 'if-range': '"other"' })).status).toBe(200);
  });
});

describe('what is asked wrongly', () => {
  test.each<[string, string, string, number, string]>([
    ['GET', '/v1/blocks/xyz', 'malformed_request', 400, 'hash'],
    ['GET', `/v1/blocks/${'A'.repeat(64)}`, 'malformed_request', 400, 'hash'],
    ['GET', `/v1/blocks/${'a'.repeat(64)}`, 'not_found', 404, ''],
    ['GET', `/v1/blocks/${'a'.repeat(64)}?x=1`, 'malformed_request', 400, 'x'],
    ['GET', '/v1/archives/own/tree?path=%2F', 'malformed_request', 400, 'path'],
    ['GET', `/v1/archives/own/tree?path=${base64url('no/slash')}`, 'path_invalid', 400, 'path'],
    ['GET', `/v1/archives/own/tree?path=${base64url('/nowhere')}`, 'not_found', 404, ''],
    ['GET', '/v1/archives/own/tree?limit=0', 'out_of_bounds', 400, 'limit'],
    ['GET', '/v1/archives/own/tree?limit=1000', '', 200, ''],
    ['GET', '/v1/archives/own/tree?limit=1001', 'out_of_bounds', 400, 'limit'],
    ['GET', '/v1/archives/own/tree?at=soon', 'malformed_request', 400, 'at'],
    ['GET', '/v1/archives/own/tree?deleted=yes', 'malformed_request', 400, 'deleted'],
    ['GET', '/v1/archives/own/tree?limit=1&limit=2', 'malformed_request', 400, 'limit'],
    ['GET', '/v1/archives/own/versions?seq=-1', 'malformed_request', 400, 'seq'],
    ['GET', '/v1/archives/0/tree', 'not_found', 404, ''],
    ['GET', '/v1/archives/99999999999999999999/tree', 'not_found', 404, ''],
    ['GET', '/v1/archives/1e3/tree', 'not_found', 404, ''],
    ['GET', '/v1/archives/own', 'not_found', 404, ''],
    ['GET', '/v1/self/', 'not_found', 404, ''],
    ['GET', '/V1/self', 'not_found', 404, ''],
    ['DELETE', '/v1/self', 'method_not_allowed', 405, ''],
    ['GET', '/v1/blocks', 'method_not_allowed', 405, ''],
    ['GET', '/v1/archives/%zz/tree', 'not_found', 404, ''],
  ])('%s %s: %s %i', async (method, path, code, status, field) => {
    const answer = await send(method, path.replace('/own/', `/${own.archive}/`), { device: own });
    expect(answer.status).toBe(status);
    if (code) expect(problem(answer)).toMatchObject({ code, status, ...(field ? { field } : {}) });
    if (status === 405) expect(answer.headers.allow).toBeTruthy();
  });

  test('an upload that lies about its blocks stores nothing', async () => {
    const good = randomBytes(100);
    const bad = randomBytes(100);
    const { chunks } = encodeUpload([
      { hash: sha256(good), bytes: good },
      { hash: sha256(good.subarray(1)), bytes: bad },
    ]);
    const answer = await send('POST', '/v1/blocks', {
      device: own,
      bytes: Buffer.concat(chunks),
      headers: { 'content-type': 'application/vnd.holdfast.upload' },
    });
    expect(problem(answer)).toMatchObject({ code: 'block_corrupt', status: 422, index: 1 });
    expect((await send('GET', `/v1/blocks/${sha256(good).toString('hex')}`, { device: own })).status).toBe(404);
  });

  test.each<[string, Buffer, string]>([
    ['nothing at all', Buffer.alloc(0), 'malformed_request'],
    ['a header longer than the body', Buffer.from([0, 0, 1, 0, 1, 2]), 'malformed_request'],
    ['a header past its bound', Buffer.from([0xff, 0xff, 0xff, 0xff, 0]), 'out_of_bounds'],
    ['a header that is no msgpack', Buffer.from([0, 0, 0, 2, 0xc1, 0xc1]), 'malformed_request'],
    ['no blocks', Buffer.concat(encodeUpload([]).chunks), 'out_of_bounds'],
    [
      'bytes left over',
      Buffer.concat([...encodeUpload([{ hash: sha256(Buffer.of(1)), bytes: Buffer.of(1) }]).chunks, Buffer.of(0)]),
      'malformed_request',
    ],
  ])('an upload of %s', async (_, bytes, code) => {
    const answer = await send('POST', '/v1/blocks', {
      device: own,
      bytes,
      headers: { 'content-type': 'application/vnd.holdfast.upload', 'content-length': String(bytes.byteLength) },
    });
    expect(problem(answer)).toMatchObject({ code, status: 400 });
  });

  test('a commit that names what nobody sent says what is missing', async () => {
    const absent = randomBytes(10);
    const answer = await commitFile(own, '/absent', [absent]);
    expect(problem(answer)).toMatchObject({
      code: 'blocks_missing',
      status: 409,
      missing: [sha256(absent).toString('hex')],
    });
  });

  test('a wrong sign-in is one problem, whichever part is wrong, and is slowed down', async () => {
    const attempts = [
      registration('ann', 'AAAA-AAAA-AAAA-AAAA'),
      registration('nobody', registrationKey),
      registration('ann', registrationKey, { password: 'wrong' }),
    ];
    const details = new Set<unknown>();
    for (const message of attempts) {
      const told = problem(await send('POST', '/v1/register', { message }));
      expect(told).toMatchObject({ code: 'sign_in_failed', status: 401 });
      details.add(told.detail);
    }
    expect(details.size).toBe(1);
    const { registrationKey: key, userName } = registration('ben', registrationKey);
    const query = (secret: string) =>
      send('POST', '/v1/devices/query', { message: { registrationKey: key, userName, password: secret } });
    expect(decodeMessage(messages.DevicesAnswer, (await query(password)).body).devices).toHaveLength(1);
    const statuses: number[] = [];
    for (let i = 0; i < 7; i++) statuses.push((await query('wrong')).status);
    expect(statuses).toContain(429);
  });
});

describe('walls', () => {
  const block = randomBytes(500);
  const hash = sha256(block).toString('hex');
  const counts = {
    filesSeen: 0,
    filesChanged: 0,
    filesDeleted: 0,
    filesSkipped: 0,
    bytesSeen: 0,
    bytesRead: 0,
    bytesSent: 0,
  };

  beforeAll(async () => {
    await upload(own, [block]);
    expect((await commitFile(own, '/secret', [block])).status).toBe(200);
  });

  /** Every route that names an archive, as somebody who writes or reads there would ask. */
  const writes: [string, object][] = [
    ['/commits', { commitId: randomBytes(16), run: 1, purgeEpoch: 0, versions: [version('/x')] }],
    ['/runs', { lastCommit: null, roots: [] }],
    ['/runs/1/progress', { counts }],
    ['/runs/1/finish', { outcome: 'completed', counts }],
  ];
  const reads = ['/tree', '/versions', `/history?path=${base64url('/secret')}`];

  test('another user, or another tenant, sees the same as if the archive did not exist', async () => {
    for (const device of [colleague, stranger]) {
      for (const [path, message] of writes) {
        const there = problem(await send('POST', `/v1/archives/${own.archive}${path}`, { device, message }));
        const nowhere = problem(await send('POST', `/v1/archives/123456789${path}`, { device, message }));
        expect(there).toMatchObject({ code: 'not_found', status: 404 });
        expect(there).toEqual(nowhere);
      }
      for (const path of reads) {
        const there = problem(await send('GET', `/v1/archives/${own.archive}${path}`, { device }));
        expect(there).toEqual(problem(await send('GET', `/v1/archives/123456789${path}`, { device })));
        expect(there.code).toBe('not_found');
      }
      expect(problem(await send('GET', `/v1/blocks/${hash}`, { device })).code).toBe('not_found');
      const claim = await send('POST', '/v1/blocks/claim', { device, message: { blocks: Buffer.from(hash, 'hex') } });
      expect(bitAt(decodeMessage(messages.ClaimAnswer, claim.body).blocks, 0)).toBe(true); // "send it": not known here
      const fetched = await send('POST', '/v1/blocks/fetch', { device, message: { blocks: Buffer.from(hash, 'hex') } });
      expect((await Array.fromAsync(decodeBlockFrames(once(fetched.body), 1)))[0]!.bytes).toBeNull();
    }
  });

  test('another device of the user reads, and does not write', async () => {
    for (const path of reads)
      expect((await send('GET', `/v1/archives/${own.archive}${path}`, { device: sibling })).status).toBe(200);
    for (const [path, message] of writes) {
      expect(problem(await send('POST', `/v1/archives/${own.archive}${path}`, { device: sibling, message })).code).toBe(
        'not_found',
      );
    }
  });

  test('without a valid token nothing but registration and probes answers', async () => {
    const asked: [string, string][] = [
      ...writes.map(([path]): [string, string] => ['POST', `/v1/archives/${own.archive}${path}`]),
      ...reads.map((path): [string, string] => ['GET', `/v1/archives/${own.archive}${path}`]),
      ['POST', '/v1/blocks/claim'],
      ['POST', '/v1/blocks'],
      ['POST', '/v1/blocks/fetch'],
      ['GET', `/v1/blocks/${hash}`],
      ['PUT', `/v1/blocks/${hash}`],
      ['GET', '/v1/self'],
    ];
    const headers = [
      '',
      'Bearer',
      'Bearer x',
      `Bearer ${randomBytes(32).toString('base64url')}`,
      `Basic ${own.token}`,
      `Bearer ${own.token} x`,
    ];
    for (const [method, path] of asked) {
      for (const authorization of headers) {
        const answer = await send(method, path, { headers: authorization ? { authorization } : {} });
        expect(problem(answer)).toMatchObject({ code: 'unauthorized', status: 401 });
        expect(answer.headers['www-authenticate']).toBe('Bearer');
      }
    }
  });

  test('a replaced device is told so', async () => {
    const first = await register('cat', registrationKey);
    const message = registration('cat', registrationKey, { replace: first.guid });
    const second = decodeMessage(messages.RegisterAnswer, (await send('POST', '/v1/register', { message })).body);
    expect(second.archive).toBe(first.archive);
    const refused = problem(await send('GET', '/v1/self', { device: first }));
    expect(refused).toMatchObject({ code: 'device_deauthorized', status: 401 });
    expect((await send('GET', '/v1/self', { device: second })).status).toBe(200);
  });
});
