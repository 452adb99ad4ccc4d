/**
 * Bad input at the real server: messages that lie about themselves, bodies that break HTTP, and random bytes on every
 * route that takes a body. Whatever comes, the answer is a problem that names the field (or, for a body that breaks
 * HTTP itself, the end of the stream), the process lives, and its memory stays bounded.
 */
import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { joinHashes, sha256 } from '../protocol/hashes.ts';
import { limits } from '../protocol/limits.ts';
import { encodeMessage, msgpackType } from '../protocol/wire.ts';
import { type Random, seededRandom } from './helpers/random.ts';
import {
  hashes,
  named,
  nested,
  problemOf,
  type RawDevice,
  rawUpload,
  registerRawDevice,
  upload,
  uploadType,
  verdict,
} from './helpers/raw-device.ts';
import { type RawAnswer, rawHttp1, rawRequest, rawSession } from './helpers/raw-http.ts';
import { described, type Target } from './helpers/route-calls.ts';
import { everyRoute } from './helpers/routes.ts';
import { memoryOf, type RunningServer, startServer } from './helpers/server.ts';
import { version } from './helpers/storage.ts';

const MiB = 1024 * 1024;
const seed = Number(process.env.HOLDFAST_TEST_SEED ?? 11);
/** Random bodies per route. */
const randomBodies = Number(process.env.HOLDFAST_TEST_RANDOM_BODIES ?? 60);

let server: RunningServer;
let device: RawDevice;
let memoryBefore: number;

beforeAll(async () => {
  server = await startServer();
  device = await registerRawDevice(server);
  memoryBefore = memoryOf(server.pid).resident;
});

afterAll(async () => {
  device?.session.destroy();
  await server?.stop();
});

describe('what a message says of itself is checked against what is there:', () => {
  const bytes = Buffer.from('the bytes of a block');
  const hash = sha256(bytes);
  const none = Buffer.alloc(0);
  const other = Buffer.from('other bytes entirely');

  test.each<[string, () => Promise<RawAnswer>, string]>([
    [
      'an array of 2^32 - 1 items',
      () => device.post('/v1/blocks/claim', msgpackType, Buffer.from('ddffffffff', 'hex')),
      '(whole message)',
    ],
    [
      'a map of 2^32 - 1 entries',
      () => device.post('/v1/blocks/claim', msgpackType, Buffer.from('dfffffffff', 'hex')),
      '(whole message)',
    ],
    [
      'a string of 4 GiB',
      () => device.post('/v1/blocks/claim', msgpackType, Buffer.from('dbffffffff', 'hex')),
      '(whole message)',
    ],
    [
      'bytes of 4 GiB',
      () => device.post('/v1/blocks/claim', msgpackType, Buffer.from('c6ffffffff', 'hex')),
      '(whole message)',
    ],
    [
      'an extension',
      () => device.post('/v1/blocks/claim', msgpackType, Buffer.from('d40100', 'hex')),
      '(whole message)',
    ],
    [
      'a timestamp extension',
      () => device.post('/v1/blocks/claim', msgpackType, Buffer.from('d6ff00000000', 'hex')),
      '(whole message)',
    ],
    [
      'a hundred thousand arrays in one another',
      () => device.post('/v1/blocks/claim', msgpackType, nested(100_000)),
      '(whole message)',
    ],
    ['a million empty arrays', () => device.post('/v1/blocks/claim', msgpackType, bomb(0x90)), '(whole message)'],
    ['a million empty maps', () => device.post('/v1/blocks/claim', msgpackType, bomb(0x80)), '(whole message)'],
    ['nothing', () => device.post('/v1/blocks/claim', msgpackType, Buffer.alloc(0)), '(whole message)'],
    [
      'bytes left over',
      () =>
        device.post('/v1/blocks/claim', msgpackType, Buffer.concat([encodeMessage({ blocks: hash }), Buffer.of(0)])),
      '(whole message)',
    ],
    [
      'a message cut short',
      () => device.post('/v1/blocks/claim', msgpackType, encodeMessage({ blocks: hash }).subarray(0, -1)),
      '(whole message)',
    ],
    [
      'a key of Object.prototype',
      () => device.post('/v1/blocks/claim', msgpackType, encodeMessage({ blocks: hash, constructor: 1 })),
      '(whole message)',
    ],
    ['a prototype', () => device.post('/v1/blocks/claim', msgpackType, withPrototype(hash)), '(whole message)'],
    ['an unknown key', () => device.send('/v1/blocks/claim', { blocks: hash, more: 1 }), '(whole message)'],
    ['part of a hash', () => device.send('/v1/blocks/claim', { blocks: hash.subarray(1) }), 'blocks'],
    ['text for bytes', () => device.send('/v1/blocks/claim', { blocks: hash.toString('hex') }), 'blocks'],
    [
      'an upload header longer than the body',
      () => device.post('/v1/blocks', uploadType, Buffer.from('00001000c0', 'hex')),
      'header',
    ],
    [
      'an upload without blocks',
      () => device.post('/v1/blocks', uploadType, rawUpload({ blocks: Buffer.alloc(0), lengths: [] }, Buffer.alloc(0))),
      'blocks',
    ],
    [
      'more hashes than lengths',
      () => device.post('/v1/blocks', uploadType, rawUpload({ blocks: hashes(2), lengths: [20] }, bytes)),
      'lengths',
    ],
    [
      'lengths that promise more',
      () => device.post('/v1/blocks', uploadType, rawUpload({ blocks: hash, lengths: [21] }, bytes)),
      'lengths',
    ],
    [
      'lengths that promise less',
      () => device.post('/v1/blocks', uploadType, rawUpload({ blocks: hash, lengths: [19] }, bytes)),
      'lengths',
    ],
    [
      'a length of nothing',
      () => device.post('/v1/blocks', uploadType, rawUpload({ blocks: hash, lengths: [0] }, Buffer.alloc(0))),
      'lengths.0',
    ],
    [
      'a length below nothing',
      () => device.post('/v1/blocks', uploadType, rawUpload({ blocks: hash, lengths: [-1] }, bytes)),
      'lengths.0',
    ],
    [
      'a length that is no whole number',
      () => device.post('/v1/blocks', uploadType, rawUpload({ blocks: hash, lengths: [0.5] }, bytes)),
      'lengths.0',
    ],
    [
      'other bytes than the hash says',
      () => device.post('/v1/blocks', uploadType, rawUpload({ blocks: hash, lengths: [20] }, other)),
      'blocks.0',
    ],
    [
      'half a hash of a list',
      () => device.send('/v1/blocks/claim', { blocks: hash, lists: hash.subarray(1) }),
      'lists',
    ],
    [
      'a list of half a hash',
      () =>
        device.post(
          '/v1/blocks',
          uploadType,
          rawUpload({ blocks: none, lengths: [], lists: hash, listLengths: [33] }, Buffer.alloc(33)),
        ),
      'listLengths.0',
    ],
    [
      'a list without a length',
      () => device.post('/v1/blocks', uploadType, rawUpload({ blocks: hash, lengths: [20], lists: hash }, bytes)),
      'listLengths',
    ],
    [
      'a list of other hashes than its name says',
      () =>
        device.post(
          '/v1/blocks',
          uploadType,
          rawUpload({ blocks: none, lengths: [], lists: hash, listLengths: [32] }, Buffer.alloc(32)),
        ),
      'lists.0',
    ],
    [
      'a version of blocks and lists',
      () => device.commit(named(Buffer.from('/both'), { size: 1, blocks: hash, lists: hash })),
      'versions.0.lists',
    ],
    ['a wrong type', () => device.post('/v1/blocks/claim', 'application/json', Buffer.from('{}')), 'content-type'],
    [
      'an encoding',
      () =>
        device.post('/v1/blocks/claim', msgpackType, encodeMessage({ blocks: hash }), { 'content-encoding': 'gzip' }),
      'content-encoding',
    ],
    ['the root as a file', () => device.commit(named(Buffer.from('/'))), 'versions.0.path'],
    ['a path named twice', () => device.commit([version('/twice'), version('/twice')]), 'versions.1.path'],
    ['a path with ..', () => device.commit(named(Buffer.from('/a/../b'))), 'versions.0.path'],
    ['a path with NUL', () => device.commit(named(Buffer.from('/a\0b'))), 'versions.0.path'],
    ['a path without a slash', () => device.commit(named(Buffer.from('a'))), 'versions.0.path'],
    ['a size without blocks', () => device.commit(named(Buffer.from('/a'), { size: 1 })), 'versions.0.blocks'],
    [
      'blocks of a folder',
      () => device.commit(named(Buffer.from('/a'), { kind: 'directory', size: 1, blocks: hash })),
      'versions.0.blocks',
    ],
    ['a size past 2^53', () => device.commit(named(Buffer.from('/a'), { size: 2 ** 60 })), 'versions.0.size'],
    ['a time past the end of time', () => device.commit(named(Buffer.from('/a'), { mtime: 9e15 })), 'versions.0.mtime'],
    ['a short MAC', () => device.commit(named(Buffer.from('/a'), { mac: randomBytes(31) })), 'versions.0.mac'],
    ['a short commitId', () => device.commit([version('/a')], { commitId: randomBytes(15) }), 'commitId'],
    ['a run that is not there', () => device.commit([version('/a')], { run: 999_999_999 }), 'run'],
    ['a purge epoch of the future', () => device.commit([version('/a')], { purgeEpoch: 5 }), 'purgeEpoch'],
    ['a parameter nobody knows', () => device.get(device.at('tree?color=red')), 'color'],
    ['a parameter twice', () => device.get(device.at('tree?limit=1&limit=2')), 'limit'],
    ['a path that is not base64url', () => device.get(device.at('tree?path=%2F')), 'path'],
    ['a moment that is no number', () => device.get(device.at('tree?at=yesterday')), 'at'],
    ['a hash that is none', () => device.get('/v1/blocks/xyz'), 'hash'],
  ])('%s', async (_, ask, field) => {
    const problem = problemOf(await ask());
    expect(problem.field).toBe(field);
    expect(problem.status).toBeGreaterThanOrEqual(400);
    expect(problem.status).toBeLessThan(500);
  });

  test('nothing of a refused upload is kept', async () => {
    const good = Buffer.from('a good block before a bad one');
    const blocks = joinHashes([sha256(good), hash]);
    const answer = await device.post(
      '/v1/blocks',
      uploadType,
      rawUpload({ blocks, lengths: [29, 20] }, Buffer.concat([good, other])),
    );
    expect(verdict(answer)).toBe('block_corrupt blocks.1');
    expect((await device.get(`/v1/blocks/${sha256(good).toString('hex')}`)).status).toBe(404);
  });
});

/** One array of as many empty containers as a message may hold. */
function bomb(item: number): Buffer {
  const body = Buffer.alloc(limits.messageBytesMax, item);
  body[0] = 0xdd;
  body.writeUInt32BE(limits.messageBytesMax - 5, 1);
  return body;
}

/** `{ blocks, __proto__: { polluted: true } }`, which no encoder of ours makes. */
function withPrototype(hash: Buffer): Buffer {
  const key = (text: string): Buffer => Buffer.concat([Buffer.of(0xa0 | text.length), Buffer.from(text)]);
  const blocks = Buffer.concat([Buffer.of(0xc4, 32), hash]);
  return Buffer.concat([
    Buffer.of(0x82),
    key('blocks'),
    blocks,
    key('__proto__'),
    Buffer.of(0x81),
    key('polluted'),
    Buffer.of(0xc3),
  ]);
}

describe('a body that is not as long as its Content-Length', () => {
  const body = encodeMessage({ blocks: hashes(100) });
  const headers = (length: number) => ({
    ':method': 'POST',
    ':path': '/v1/blocks/claim',
    ...device.authorized,
    'content-type': msgpackType,
    'content-length': String(length),
  });

  test.each([-1, 1, 1_000_000])('by %i bytes, over HTTP/2, is refused or its stream is reset', async (by) => {
    const own = await rawSession(server.url); // a server may end the connection of a peer that breaks HTTP
    try {
      const answer = await rawRequest(own, headers(body.byteLength + by), body);
      if (!answer.cut) expect(problemOf(answer).status).toBeLessThan(500);
      expect(answer.status).not.toBe(200);
    } finally {
      own.destroy();
    }
    expect(await device.isServed()).toBe(true);
  });

  test.each(['-5', '1e3', '0x10', '99999999999999999999', '12, 12', ' '])('but says %j, is refused', async (length) => {
    const own = await rawSession(server.url);
    try {
      const answer = await rawRequest(own, { ...headers(0), 'content-length': length }, body).catch(() => null);
      if (answer && !answer.cut && answer.status !== 0) expect(problemOf(answer).status).toBeLessThan(500);
      expect(answer?.status).not.toBe(200);
    } finally {
      own.destroy();
    }
    expect(await device.isServed()).toBe(true);
  });

  test('over HTTP/1.1, and ends early, gets no 2xx', async () => {
    const head = `POST /v1/blocks/claim HTTP/1.1\r\nhost: x\r\nauthorization: ${device.authorized.authorization}\r\ncontent-type: ${msgpackType}\r\ncontent-length: ${body.byteLength + 10}\r\n\r\n`;
    const said = await rawHttp1(server.url, Buffer.concat([Buffer.from(head), body]), { end: true, waitMs: 5_000 });
    expect(said).not.toMatch(/^HTTP\/1.1 2/);
    expect(await device.isServed()).toBe(true);
  });

  test('an upload without a Content-Length is told to give one', async () => {
    const answer = await rawRequest(
      device.session,
      { ':method': 'POST', ':path': '/v1/blocks', ...device.authorized, 'content-type': uploadType },
      upload([Buffer.from('x')]),
    );
    expect(verdict(answer)).toBe('length_required');
  });
});

describe('bytes that are no request', () => {
  test.each([
    ['random ones', randomBytes(4_096)],
    ['a request line without end', Buffer.alloc(200_000, 'G')],
    ['headers without end', Buffer.concat([Buffer.from('GET / HTTP/1.1\r\n'), Buffer.from('x: y\r\n'.repeat(50_000))])],
    ['an HTTP/2 preface on HTTP/1.1', Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')],
    [
      'two lengths',
      Buffer.from('POST /v1/register HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx'),
    ],
    [
      'a length and chunks',
      Buffer.from(
        'POST /v1/register HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n',
      ),
    ],
  ])('%s get no 2xx', async (_, bytes) => {
    expect(await rawHttp1(server.url, bytes, { end: false, waitMs: 1_000 })).not.toMatch(/^HTTP\/1.1 2/);
    expect(await device.isServed()).toBe(true);
  });

  test('headers past their bound are refused', async () => {
    const own = await rawSession(server.url);
    try {
      const headers = { ':method': 'GET', ':path': '/livez', 'x-long': 'h'.repeat(200_000) };
      const answer = await rawRequest(own, headers).catch(() => ({ cut: true, status: 0 }));
      expect(answer.cut || answer.status >= 400).toBe(true);
    } finally {
      own.destroy();
    }
    expect(await device.isServed()).toBe(true);
  });
});

describe(`seed ${seed}: on every route that takes a body,`, () => {
  const withBody = everyRoute().filter(({ method }) => /^(POST|PUT)$/.test(method));
  const target = (): Target => {
    const content = Buffer.from('a block that a right call names');
    const { archive, run } = device;
    return { archive, run, hash: sha256(content), content, guid: '1' };
  };

  test.each(withBody)(
    '$method $path takes random bytes, and right ones with some of them changed',
    async ({ method, path }) => {
      const random = seededRandom(seed);
      const call = described[`${method} ${path}`]!.call(target(), server.firstStart);
      for (let i = 0; i < randomBodies; i++) {
        const body = i % 2 === 0 ? randomBody(random) : mutated(call.body!, random);
        const headers = {
          ':method': method,
          ':path': call.path,
          ...device.authorized,
          'content-type': call.type!,
          'content-length': String(body.byteLength),
        };
        const answer = await rawRequest(device.session, headers, body);
        expect([i, answer.cut]).toEqual([i, false]);
        if (answer.status >= 300) {
          const problem = problemOf(answer);
          expect([i, problem.status < 500]).toEqual([i, true]);
          if (problem.code === 'malformed_request' || problem.code === 'out_of_bounds')
            expect([i, typeof problem.field]).toEqual([i, 'string']);
        }
      }
      expect(await device.isServed()).toBe(true);
    },
  );
});

/** Of any kind of msgpack, and of any length: most are short, because those get furthest. */
function randomBody(random: Random): Buffer {
  return random.bytes(random.chance(0.8) ? random.below(64) : random.below(20_000));
}

/** A right body with a few bytes changed, cut off, or put in. */
function mutated(body: Buffer, random: Random): Buffer {
  const bytes = Buffer.from(body);
  for (let n = 1 + random.below(4); n > 0; n--) {
    const at = random.below(bytes.byteLength);
    bytes[at] = random.chance(0.3)
      ? random.pick([0x00, 0x7f, 0x80, 0x90, 0xc0, 0xc1, 0xdd, 0xdf, 0xff])
      : random.below(256);
  }
  if (random.chance(0.2)) return bytes.subarray(0, random.below(bytes.byteLength));
  if (random.chance(0.1)) return Buffer.concat([bytes, random.bytes(1 + random.below(16))]);
  return bytes;
}

// Last, after all of the above.
test('after all of this the same process serves, and heavy bodies one after the other take no more memory', async () => {
  const heavy = Buffer.alloc(limits.commitBodyBytesMax, 0xc1);
  const refuseHeavy = async (times: number): Promise<void> => {
    for (let i = 0; i < times; i++)
      expect(verdict(await device.post(device.at('commits'), msgpackType, heavy))).toMatch(/^malformed_request/);
  };
  await refuseHeavy(8);
  const { resident: before } = memoryOf(server.pid);
  await refuseHeavy(24);
  const { resident: after, peak } = memoryOf(server.pid);
  // 24 x 32 MiB came. What is held at a time is within the byte budget of 64 MiB; the collector takes back the rest.
  expect(after - before).toBeLessThan(128 * MiB);
  expect(peak - memoryBefore).toBeLessThan(512 * MiB);
  expect(await device.isServed()).toBe(true);
  expect(server.logs()).not.toMatch(/request failed|uncaught|unhandled/i);
});
