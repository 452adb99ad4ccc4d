/** What happens to a repository while bodies are on their way: cut, refused, raced, and drained. */
import { randomBytes } from 'node:crypto';
import { type ClientHttp2Session, type ClientHttp2Stream, constants } from 'node:http2';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { answerOf, h2, request } from '../testing.ts';
import { basic, nameOf, type ResticWorld, resticWorld, type TestRepository } from './testing.ts';

let world: ResticWorld;
let session: ClientHttp2Session;
let repository: TestRepository;
let authorization: string;

beforeEach(async () => {
  world = await resticWorld();
  session = await h2(world.server);
  repository = await world.repository('laptop');
  authorization = basic('ann', await world.token(repository));
});
afterEach(async () => {
  session?.destroy();
  await world?.close();
});

const headersOf = (method: string, path: string, length?: number) => ({
  ':method': method,
  ':path': `/restic/laptop/${path}`,
  authorization,
  ...(length !== undefined && { 'content-length': length }),
});
const ask = (method: string, path: string, body?: Uint8Array) =>
  request(session, headersOf(method, path, body?.byteLength), body);
const put = (bytes: Buffer) => ask('POST', `data/${nameOf(bytes)}`, bytes);
const status = async (method: string, bytes: Buffer) => (await ask(method, `data/${nameOf(bytes)}`)).status;
const versions = async () => (await world.storage.rows('SELECT 1 FROM versions')).length;
const begin = (bytes: Buffer): ClientHttp2Stream =>
  session.request(headersOf('POST', `data/${nameOf(bytes)}`, bytes.byteLength), { endStream: false });

/** Sends the first part, and waits until the server has it. */
async function half(bytes: Buffer): Promise<ClientHttp2Stream> {
  const stream = begin(bytes);
  stream.on('error', () => {});
  await new Promise<void>((resolve) => stream.write(bytes.subarray(0, bytes.byteLength >> 1), () => resolve()));
  return stream;
}

test.each([1_000, 2 * 1024 * 1024, 40 * 1024 * 1024])(
  'a body of %d bytes that is cut in the middle leaves no file',
  async (length) => {
    const bytes = randomBytes(length);
    const stream = await half(bytes);
    expect(await status('HEAD', bytes)).toBe(404);
    stream.close(constants.NGHTTP2_CANCEL);
    expect(await status('HEAD', bytes)).toBe(404);
    expect((await put(bytes)).status).toBe(200);
    expect((await ask('GET', `data/${nameOf(bytes)}`)).body.equals(bytes)).toBe(true);
    expect(await versions()).toBe(1);
  },
  60_000,
);

test('a cut upload that races a DELETE and the same POST again leaves the later, complete file', async () => {
  const bytes = randomBytes(300_000);
  const cut = await half(bytes);
  expect(await status('DELETE', bytes)).toBe(200);
  const [again] = await Promise.all([put(bytes), Promise.resolve().then(() => cut.close(constants.NGHTTP2_CANCEL))]);
  expect(again.status).toBe(200);
  expect((await ask('GET', `data/${nameOf(bytes)}`)).body.equals(bytes)).toBe(true);
});

test('a body that is longer or shorter than it said is no file', async () => {
  const bytes = randomBytes(1_000);
  for (const length of [999, 1_001]) {
    const stream = session.request(headersOf('POST', `data/${nameOf(bytes)}`, length));
    stream.end(bytes);
    const answer = await answerOf(stream);
    expect([length, answer.status === 200]).toEqual([length, false]);
  }
  session.destroy(); // a client of HTTP/2 gives up a connection on which it has broken its word
  session = await h2(world.server);
  const unsaid = session.request(headersOf('POST', `data/${nameOf(bytes)}`), { endStream: false });
  unsaid.end(bytes);
  expect((await answerOf(unsaid)).status).toBe(411);
  expect(await status('HEAD', bytes)).toBe(404);
});

describe('a quota', () => {
  const setQuota = (bytes: number) =>
    world.storage.rows(
      `INSERT INTO organization_settings (tenant_id, organization_id, name, value)
       SELECT tenant_id, organization_id, 'quotas.bytesPerUser', to_jsonb($1::bigint) FROM organizations
       ON CONFLICT (organization_id, name) DO UPDATE SET value = excluded.value`,
      [bytes],
    );

  test('that is used up refuses with 507, to the byte, and lets go on when it is raised', async () => {
    await setQuota(3_000);
    const [one, two, three] = [randomBytes(2_000), randomBytes(1_001), randomBytes(1_000)];
    expect((await put(one)).status).toBe(200);
    expect((await put(two)).status).toBe(507);
    expect(await status('HEAD', two)).toBe(404);
    expect((await put(three)).status).toBe(200);
    expect((await put(one)).status).toBe(200); // it is there
    await setQuota(10_000);
    expect((await put(two)).status).toBe(200);
  });

  test('binds what comes in pieces, too', async () => {
    await setQuota(20 * 1024 * 1024);
    const bytes = randomBytes(34 * 1024 * 1024);
    expect((await put(bytes)).status).toBe(507);
    expect(await status('HEAD', bytes)).toBe(404);
  }, 30_000);
});

test('no request waits for whoever holds the row of its repository, to note that it was seen', async () => {
  const seenAt = async () =>
    (
      await world.storage.rows<{ at: Date | null }>('SELECT last_seen_at AS at FROM devices WHERE guid = $1', [
        repository.guid,
      ])
    )[0]!.at;
  const bytes = randomBytes(1_000);
  await world.storage.database.transaction(async (tx) => {
    await tx.query({ name: '', text: 'SELECT 1 FROM devices WHERE guid = $1 FOR UPDATE' }, [repository.guid]);
    const answers = Promise.all([put(bytes), ask('GET', 'data/')]);
    const late = new Promise((_, reject) => setTimeout(() => reject(new Error('they wait')), 30_000).unref());
    for (const answer of (await Promise.race([answers, late])) as Awaited<typeof answers>)
      expect(answer.status).toBe(200);
    expect(await seenAt()).toBeNull();
  });
  expect(await status('HEAD', bytes)).toBe(200);
  expect(await seenAt()).not.toBeNull();
}, 60_000);

test('a refusal is told after the body, which is read, so that any client hears it', async () => {
  authorization = basic('ann', await world.token(repository, 'read'));
  const bytes = randomBytes(4 * 1024 * 1024);
  const stream = begin(bytes);
  const answered = answerOf(stream);
  let isAnswered = false;
  stream.on('response', () => (isAnswered = true));
  await new Promise<void>((resolve) => stream.write(bytes.subarray(0, 3 * 1024 * 1024), () => resolve()));
  expect(isAnswered).toBe(false);
  stream.end(bytes.subarray(3 * 1024 * 1024));
  const answer = await answered;
  expect([answer.status, answer.reset, stream.rstCode]).toEqual([403, false, constants.NGHTTP2_NO_ERROR]);
});

test('of what a server that ends has begun to take, everything is taken before its GOAWAY', async () => {
  const bytes = randomBytes(500_000);
  const large = randomBytes(34 * 1024 * 1024);
  const events: string[] = [];
  session.on('goaway', () => events.push('goaway'));
  const streams = [await half(bytes), await half(large)];
  const answers = streams.map(answerOf);
  const ended = world.server.shutDown({ leaveMs: 0, drainMs: 20_000 });
  expect((await ask('POST', `data/${nameOf(Buffer.from('x'))}`, Buffer.from('x'))).status).toBe(503);
  for (const [i, body] of [bytes, large].entries()) {
    streams[i]!.end(body.subarray(body.byteLength >> 1));
    expect([(await answers[i]!).status, events.length * (1 - i)]).toEqual([200, 0]);
  }
  expect(await ended).toMatchObject({ cut: 0 });
  const there = await world.storage.rows('SELECT 1 FROM versions WHERE NOT deleted');
  expect(there).toHaveLength(2);
}, 60_000);

test('many who put the same and others, and hide them, all at once, leave whole files and no drift', async () => {
  const files = Array.from({ length: 8 }, () => randomBytes(20_000));
  const work = Array.from({ length: 72 }, (_, i) => {
    const bytes = files[(i * 7) % files.length]!;
    return i % 3 === 2 ? status('DELETE', bytes) : put(bytes).then((answer) => answer.status);
  });
  // 16 requests of a repository are under way at a time, and 64 more may wait.
  expect(new Set(await Promise.all(work))).toEqual(new Set([200]));
  const listed = JSON.parse((await ask('GET', 'data/')).body.toString()) as string[];
  for (const bytes of files) {
    const got = await ask('GET', `data/${nameOf(bytes)}`);
    expect(got.status === 200).toBe(listed.includes(nameOf(bytes)));
    if (got.status === 200) expect(got.body.equals(bytes)).toBe(true);
  }
  const drift = await world.storage.rows(
    `SELECT b.refs, (SELECT count(*) FROM versions v WHERE v.vault_id = b.vault_id AND v.blocks = b.hash) AS named FROM blocks b`,
  );
  for (const { refs, named } of drift) expect(refs).toBe(Number(named));
}, 60_000);

test('a list is made no faster than it is read, so never held whole', async () => {
  await put(randomBytes(10));
  await world.storage.rows(
    `WITH folder AS (SELECT vault_id, archive_id, file_id FROM files WHERE parent_id = 0 AND name = 'data'),
          made AS (
            INSERT INTO files (vault_id, archive_id, file_id, parent_id, name, folder, implied, created_seq)
            SELECT f.vault_id, f.archive_id, 1000 + i, f.file_id, convert_to(encode(sha256(i::text::bytea), 'hex'), 'UTF8'), false, false, 10 + i
              FROM folder f, generate_series(1, 40000) i
            RETURNING vault_id, archive_id, file_id)
     INSERT INTO versions (vault_id, archive_id, file_id, seq, committed_at, kind, deleted, size, mtime, attributes, mac, blocks)
     SELECT vault_id, archive_id, file_id, file_id, now(), 'file', false, 7, 0, '', sha256(''), '' FROM made`,
  );
  const { database } = world.storage;
  const query = database.query.bind(database);
  let pages = 0;
  Object.assign(database, {
    query: (asked: { name: string }, values: unknown[]) => {
      if (asked.name === 'plainFiles.listPage') pages++;
      return query(asked as never, values);
    },
  });
  const stream = session.request({ ...headersOf('GET', 'data/'), accept: 'application/vnd.x.restic.rest.v2' });
  await new Promise((resolve) => stream.once('response', resolve));
  // Nobody reads; then the pages that are made come to an end long before the list does.
  for (let before = -1; before !== pages; ) {
    before = pages;
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  expect(pages).toBeLessThan(20);
  const answer = await answerOf(stream);
  expect(JSON.parse(answer.body.toString())).toHaveLength(40_001);
  expect(pages).toBe(41);
}, 60_000);
