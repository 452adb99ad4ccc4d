/** Lists, runs and damage over HTTP, on the real engine: what a device is told of them, and what nobody else is. */
import { randomBytes } from 'node:crypto';
import type { ClientHttp2Session } from 'node:http2';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { decodeBlockFrames } from '../../protocol/block-frames.ts';
import { bitAt, joinHashes, sha256 } from '../../protocol/hashes.ts';
import type { List } from '../../protocol/lists.ts';
import * as messages from '../../protocol/messages.ts';
import { encodeUpload } from '../../protocol/upload.ts';
import { decodeMessage, encodeMessage, msgpackType } from '../../protocol/wire.ts';
import { findDamageUsers } from '../../storage/archive/checking/damage.ts';
import { markBlocksDamaged } from '../../storage/catalog/checking/mark-damaged.ts';
import { type TestStorage, testStorage, version } from '../../tests/helpers/storage.ts';
import { openDirectory } from '../directory/directory.ts';
import { localKeyService } from '../directory/keys/local-keys.ts';
import { insertOrganization, insertTenant } from '../directory/organizations/inserting.ts';
import { newRegistrationKey } from '../directory/organizations/registration-key.ts';
import { insertUser } from '../directory/users/people.ts';
import { type Answer, h2, problem, request, startTestServer, type TestServer } from './testing.ts';

interface Device {
  token: string;
  archive: number;
}

let storage: TestStorage;
let server: TestServer;
let session: ClientHttp2Session;
/** Two devices of one user, and one of another. */
let own: Device;
let sibling: Device;
let colleague: Device;

beforeAll(async () => {
  storage = await testStorage();
  const { database } = storage;
  const keys = localKeyService([randomBytes(32)]);
  const directory = openDirectory({ database, keys, passwordHashesMax: 2, signInsPerMinute: 5 });
  server = await startTestServer({ storage, directory });
  session = await h2(server);
  const registrationKey = newRegistrationKey();
  const passwordHash = await directory.passwords.hash('password');
  await database.transaction(async (tx) => {
    const tenantId = await insertTenant(tx, 'tenant');
    const organizationId = await insertOrganization(tx, { tenantId, parentId: null, name: 'root', registrationKey });
    for (const name of ['ann', 'ben']) await insertUser(tx, { tenantId, organizationId, name, passwordHash });
  });
  const register = async (userName: string): Promise<Device> => {
    const device = { name: 'device', platform: 'linux', agentVersion: '1' };
    const sent = { registrationKey, userName, password: 'password', device, vaultKey: { level: 'standard' } };
    return decodeMessage(messages.RegisterAnswer, (await send(null, 'POST', '/v1/register', { message: sent })).body);
  };
  own = await register('ann');
  sibling = await register('ann');
  colleague = await register('ben');
});

afterAll(async () => {
  session?.destroy();
  await server?.shutDown({ leaveMs: 0, drainMs: 1_000 });
  await storage?.close();
});

function send(
  device: Device | null,
  method: string,
  path: string,
  { message, bytes, type = msgpackType }: { message?: object; bytes?: Uint8Array; type?: string } = {},
): Promise<Answer> {
  const body = message ? encodeMessage(message) : bytes;
  const authorization = device ? { authorization: `Bearer ${device.token}` } : {};
  const described = body ? { 'content-type': type, 'content-length': body.byteLength } : {};
  return request(session, { ':method': method, ':path': path, ...authorization, ...described }, body);
}

function upload(device: Device, blocks: readonly Uint8Array[], lists: readonly List[]): Promise<Answer> {
  const { chunks } = encodeUpload(
    blocks.map((bytes) => ({ hash: sha256(bytes), bytes })),
    lists,
  );
  return send(device, 'POST', '/v1/blocks', { bytes: Buffer.concat(chunks), type: 'application/vnd.holdfast.upload' });
}

function listOf(blocks: readonly Uint8Array[]): List {
  const hashes = joinHashes(blocks.map(sha256));
  return { hash: sha256(hashes), blocks: hashes };
}

async function claim(device: Device, blocks: Buffer, lists: Buffer): Promise<messages.ClaimAnswer> {
  return decodeMessage(
    messages.ClaimAnswer,
    (await send(device, 'POST', '/v1/blocks/claim', { message: { blocks, lists } })).body,
  );
}

async function fetchLists(device: Device, lists: Buffer, count: number): Promise<(Buffer | null)[]> {
  const answer = await send(device, 'POST', '/v1/lists/fetch', { message: { lists } });
  expect(answer.headers['content-type']).toBe('application/vnd.holdfast.blocks');
  const fetched = new Array<Buffer | null>(count).fill(null);
  const body = (async function* () {
    yield answer.body;
  })();
  for await (const { index, bytes } of decodeBlockFrames(body, count)) fetched[index] = bytes;
  return fetched;
}

/** Marks blocks as a verification that found them changed does, and finds out who names them. */
async function markDamaged(vault: number, hashes: Buffer[]): Promise<void> {
  const places = await storage.database.query<{ hash: Buffer; objectId: number; offset: number }>(
    {
      name: '',
      text: 'SELECT hash, object_id AS "objectId", byte_offset AS "offset" FROM blocks WHERE vault_id = $1 AND hash = ANY ($2)',
    },
    [vault, hashes],
  );
  await storage.database.transaction((tx) => markBlocksDamaged(tx, vault, places));
  await findDamageUsers(storage);
}

const blocks = (count: number): Buffer[] => Array.from({ length: count }, () => randomBytes(1_000));

describe('lists', () => {
  test('come with the blocks they name, are known then, and come back; to the devices of one user only', async () => {
    const sent = blocks(5);
    const [first, second] = [listOf(sent.slice(0, 3)), listOf(sent.slice(2))];
    const both = joinHashes([first.hash, second.hash]);
    const answer = decodeMessage(messages.UploadAnswer, (await upload(own, sent, [first, second])).body);
    expect(answer).toMatchObject({ stored: 5, known: 0, listsStored: 2 });
    expect(answer.claimedForMs).toBe(storage.settings.claimWindowMs);
    expect(answer.claimedUntil).toBeGreaterThan(Date.now());
    expect(decodeMessage(messages.UploadAnswer, (await upload(own, [], [first])).body)).toMatchObject({
      stored: 0,
      known: 0,
      listsStored: 0,
    });

    for (const device of [own, sibling]) {
      const claimed = await claim(device, sha256(sent[0]!), both);
      expect([bitAt(claimed.blocks, 0), bitAt(claimed.lists, 0), bitAt(claimed.lists, 1)]).toEqual([
        false,
        false,
        false,
      ]);
      expect(claimed.claimedForMs).toBe(storage.settings.claimWindowMs);
      const absent = randomBytes(32);
      expect(await fetchLists(device, joinHashes([second.hash, absent, first.hash]), 3)).toEqual([
        second.blocks,
        null,
        first.blocks,
      ]);
    }
    const strange = await claim(colleague, Buffer.alloc(0), both);
    expect([bitAt(strange.lists, 0), bitAt(strange.lists, 1)]).toEqual([true, true]);
    expect(await fetchLists(colleague, both, 2)).toEqual([null, null]);
    expect(problem(await upload(colleague, [], [first]))).toMatchObject({ code: 'blocks_missing', field: 'lists' });
  });

  test('that name a block the vault does not hold are refused, naming it; the blocks that came with them stay', async () => {
    const sent = blocks(2);
    const absent = randomBytes(1_000);
    const refused = await upload(own, sent, [listOf([...sent, absent])]);
    expect(problem(refused)).toMatchObject({
      status: 409,
      code: 'blocks_missing',
      field: 'lists',
      missing: [sha256(absent).toString('hex')],
    });
    const { blocks: wanted } = await claim(own, joinHashes(sent.map(sha256)), Buffer.alloc(0));
    expect(bitAt(wanted, 0) || bitAt(wanted, 1)).toBe(false);
  });

  test('under a wrong name are refused', async () => {
    const sent = blocks(2);
    const wrong = { hash: randomBytes(32), blocks: listOf(sent).blocks };
    expect(problem(await upload(own, sent, [wrong]))).toMatchObject({
      status: 422,
      code: 'list_corrupt',
      field: 'lists.0',
      index: 0,
      hash: wrong.hash.toString('hex'),
    });
  });

  test('are what a version of a large file names, and gives back to who reads it', async () => {
    const sent = blocks(4);
    const list = listOf(sent);
    await upload(own, sent, [list]);
    const archive = `/v1/archives/${own.archive}`;
    const started = await send(own, 'POST', `${archive}/runs`, { message: { lastCommit: null, roots: [] } });
    const { run } = decodeMessage(messages.RunStartAnswer, started.body);
    const large = version('/large', [], { lists: joinHashes([list.hash, list.hash]), size: 8_000 });
    const commit = { commitId: randomBytes(16), run, purgeEpoch: 0, versions: [large] };
    expect((await send(own, 'POST', `${archive}/commits`, { message: commit })).status).toBe(200);
    const history = await send(
      sibling,
      'GET',
      `${archive}/history?path=${Buffer.from('/large').toString('base64url')}`,
    );
    expect(decodeMessage(messages.HistoryAnswer, history.body).versions).toMatchObject([
      { lists: large.lists, blocks: Buffer.alloc(0), mac: large.mac },
    ]);
    const missing = { ...commit, commitId: randomBytes(16), versions: [{ ...large, lists: randomBytes(32) }] };
    expect(problem(await send(own, 'POST', `${archive}/commits`, { message: missing }))).toMatchObject({
      code: 'blocks_missing',
      missing: [],
      missingLists: [missing.versions[0]!.lists.toString('hex')],
    });
  });
});

test('runs are listed, newest first, page by page, with the moment before each', async () => {
  const archive = `/v1/archives/${sibling.archive}`;
  const started: number[] = [];
  for (let i = 0; i < 3; i++) {
    const answer = await send(sibling, 'POST', `${archive}/runs`, { message: { lastCommit: null, roots: [] } });
    const { run } = decodeMessage(messages.RunStartAnswer, answer.body);
    started.push(run);
    const versions = [version(`/${i}`), version('/again')];
    await send(sibling, 'POST', `${archive}/commits`, {
      message: { commitId: randomBytes(16), run, purgeEpoch: 0, versions },
    });
  }
  const counts = {
    filesSeen: 2,
    filesChanged: 2,
    filesDeleted: 0,
    filesSkipped: 0,
    bytesSeen: 0,
    bytesRead: 0,
    bytesSent: 0,
  };
  const end = { outcome: 'failed', reason: 'no more', counts };
  await send(sibling, 'POST', `${archive}/runs/${started[2]}/finish`, { message: end });
  const page = async (query: string): Promise<messages.RunsAnswer> =>
    decodeMessage(messages.RunsAnswer, (await send(own, 'GET', `${archive}/runs${query}`)).body);
  const first = await page('?limit=2');
  expect(first.more).toBe(true);
  expect(first.runs).toMatchObject([
    { run: started[2], outcome: 'failed', reason: 'no more', counts, beforeSeq: 4, suspicious: false },
    { run: started[1], outcome: 'interrupted', counts: null, beforeSeq: 2 },
  ]);
  expect(first.runs[0]!.finishedAt).toBeGreaterThanOrEqual(first.runs[0]!.startedAt);
  expect(await page(`?limit=2&before=${started[1]}`)).toMatchObject({
    more: false,
    runs: [{ run: started[0], beforeSeq: 0 }],
  });
  expect(problem(await send(colleague, 'GET', `${archive}/runs`)).code).toBe('not_found');
});

test('a device is told which of its files name damaged blocks, also behind lists, until they are sent again', async () => {
  const archive = `/v1/archives/${colleague.archive}`;
  const damagedOnes = async (query = ''): Promise<string[]> => {
    const answer = await send(colleague, 'GET', `${archive}/damaged${query}`);
    return decodeMessage(messages.DamagedAnswer, answer.body).paths.map(String);
  };
  const start = async (): Promise<messages.RunStartAnswer> => {
    const answer = await send(colleague, 'POST', `${archive}/runs`, { message: { lastCommit: null, roots: [] } });
    return decodeMessage(messages.RunStartAnswer, answer.body);
  };
  const sent = blocks(4);
  const list = listOf(sent.slice(0, 2));
  await upload(colleague, sent, [list]);
  const versions = [
    version('/listed', [], { lists: list.hash, size: 2_000 }),
    version('/named', [sent[2]!]),
    version('/well', [sent[3]!]),
  ];
  const { run, damaged } = await start();
  expect(damaged).toBe(false);
  await send(colleague, 'POST', `${archive}/commits`, {
    message: { commitId: randomBytes(16), run, purgeEpoch: 0, versions },
  });
  expect(await damagedOnes()).toEqual([]);

  const ill = [sent[0]!, sent[2]!];
  const { vault } = decodeMessage(messages.SelfAnswer, (await send(colleague, 'GET', '/v1/self')).body);
  await markDamaged(vault, ill.map(sha256));
  expect((await start()).damaged).toBe(true);
  expect(await damagedOnes()).toEqual(['/listed', '/named']);
  expect(await damagedOnes('?limit=1')).toEqual(['/listed']);
  expect(await damagedOnes(`?limit=1&after=${Buffer.from('/listed').toString('base64url')}`)).toEqual(['/named']);
  expect(problem(await send(own, 'GET', `${archive}/damaged`)).code).toBe('not_found');

  expect(bitAt((await claim(colleague, Buffer.alloc(0), list.hash)).lists, 0)).toBe(true);
  await upload(colleague, ill, [list]);
  expect(bitAt((await claim(colleague, Buffer.alloc(0), list.hash)).lists, 0)).toBe(false);
  await findDamageUsers(storage);
  expect(await damagedOnes()).toEqual([]);
  expect((await start()).damaged).toBe(false);
});
