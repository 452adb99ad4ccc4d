import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import type { ClientHttp2Session, ClientHttp2Stream } from 'node:http2';
import { connect as connectTcp } from 'node:net';
import { afterEach, describe, expect, test } from '@jest/globals';
import { encodeMessage, msgpackType } from '../../protocol/wire.ts';
import { roomFor } from './body-receiver.ts';
import { bytesMax, bytesRoutes } from './bytes-routes.testing.ts';
import {
  answerOf,
  h2,
  problem,
  request,
  slowWay,
  startTestServer,
  type TestServer,
  type TestServerOptions,
  until,
} from './testing.ts';

const MiB = 1024 * 1024;
const servers: TestServer[] = [];
const sessions: ClientHttp2Session[] = [];

async function start(options: TestServerOptions = {}): Promise<{ server: TestServer; session: ClientHttp2Session }> {
  const server = await startTestServer({ routes: bytesRoutes, ...options });
  servers.push(server);
  const session = await h2(server);
  sessions.push(session);
  return { server, session };
}

afterEach(async () => {
  for (const session of sessions.splice(0)) session.destroy();
  await Promise.all(servers.splice(0).map((server) => server.shutDown({ leaveMs: 0, drainMs: 100 })));
});

const post = (path: string, headers: Record<string, string | number>) => ({
  ':method': 'POST',
  ':path': path,
  ...headers,
});
const bytesType = { 'content-type': 'application/octet-stream' };
const messageType = { 'content-type': msgpackType };

function openUpload(session: ClientHttp2Session, length: number, headers = {}): ClientHttp2Stream {
  const stream = session.request(post('/sum', { ...bytesType, 'content-length': length, ...headers }));
  stream.on('error', () => {});
  return stream;
}

describe('what is refused before it is read', () => {
  test.each([
    ['no Content-Length', '/sum', bytesType, 'length_required', 411],
    ['a length past the bound', '/sum', { ...bytesType, 'content-length': bytesMax + 1 }, 'body_too_large', 413],
    ['another type', '/sum', { 'content-type': 'text/plain' }, 'unsupported_media_type', 415],
    ['an encoded body', '/sum', { ...bytesType, 'content-encoding': 'gzip' }, 'unsupported_media_type', 415],
    ['another type for a message', '/message', { 'content-type': 'application/json' }, 'unsupported_media_type', 415],
    ['a path nobody serves', '/nowhere', bytesType, 'not_found', 404],
    ['a method nobody serves', '/livez', bytesType, 'method_not_allowed', 405],
  ])('%s', async (_, path, headers, code, status) => {
    const { session } = await start();
    const stream = session.request(post(path, headers));
    stream.on('error', () => {});
    stream.write(Buffer.alloc(100)); // and the client is still sending
    const answer = await answerOf(stream);
    expect(problem(answer)).toMatchObject({ code, status });
    expect(answer.status).toBe(status);
    expect(answer.reset).toBe(false);
    if (status === 405) expect(answer.headers.allow).toBe('HEAD, GET');
  });

  test('a large body that is refused early does not break the session', async () => {
    const { session } = await start();
    const body = randomBytes(8 * MiB);
    const refused = await request(session, post('/nowhere', { ...bytesType, 'content-length': body.byteLength }), body);
    expect(problem(refused)).toMatchObject({ code: 'not_found' });
    const served = await request(session, post('/sum', { ...bytesType, 'content-length': body.byteLength }), body);
    expect(served.status).toBe(200);
  });

  test('an HTTP/1.1 sender that goes on after its refusal is cut', async () => {
    const { server } = await start({ cleartext: true });
    const socket = connectTcp({ host: '127.0.0.1', port: server.port });
    socket.on('error', () => {});
    socket.write('POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n');
    const [first] = (await once(socket, 'data')) as [Buffer];
    expect(first.toString()).toContain('HTTP/1.1 404');
    const dripping = setInterval(() => socket.write('a'), 100);
    await new Promise((resolve) => socket.once('close', resolve));
    clearInterval(dripping);
  }, 15_000);
});

describe('messages', () => {
  test('a message is decoded, with or without a length', async () => {
    const { session } = await start();
    const body = encodeMessage({ n: 7 });
    const headers = { ...messageType, 'content-length': body.byteLength };
    expect((await request(session, post('/message', headers), body)).body.toString()).toBe('{"n":7}');
    expect((await request(session, post('/message', messageType), body)).body.toString()).toBe('{"n":7}');
  });

  test.each([
    ['nothing', Buffer.alloc(0), 'malformed_request'],
    ['random bytes', Buffer.from('c1ffee', 'hex'), 'malformed_request'],
    ['a map that promises more than there is', Buffer.from('df7fffffff', 'hex'), 'malformed_request'],
    ['a string of 4 GiB', Buffer.from('dbffffffff', 'hex'), 'malformed_request'],
    ['two messages', Buffer.concat([encodeMessage({ n: 1 }), encodeMessage({ n: 1 })]), 'malformed_request'],
    ['an extension', Buffer.from('81a16ed40000', 'hex'), 'malformed_request'],
    ['an unknown key', encodeMessage({ n: 1, m: 2 }), 'malformed_request'],
    ['a wrong type', encodeMessage({ n: 'x' }), 'malformed_request'],
  ])('%s is a problem', async (_, body, code) => {
    const { session, server } = await start();
    const answer = await request(session, post('/message', messageType), body);
    expect(problem(answer)).toMatchObject({ code, status: 400 });
    expect(server.deps.budget.heldBytes).toBe(0);
  });

  test('the bound holds at the edge and one past it, with and without a length', async () => {
    const { session } = await start();
    const [at, past] = [Buffer.alloc(1_000), Buffer.alloc(1_001)];
    // 1,000 zero bytes are within the bound, and no message.
    expect(problem(await request(session, post('/message', messageType), at))).toMatchObject({
      code: 'malformed_request',
    });
    for (const headers of [messageType, { ...messageType, 'content-length': 1_001 }]) {
      expect(problem(await request(session, post('/message', headers), past))).toMatchObject({
        code: 'body_too_large',
        bytesMax: 1_000,
      });
    }
  });
});

describe('uploads', () => {
  test('bytes in frames of any size arrive in few chunks, and are charged once', async () => {
    const { session, server } = await start();
    const body = randomBytes(300_000);
    const stream = openUpload(session, body.byteLength);
    let most = 0;
    for (let at = 0; at < body.byteLength; ) {
      const bytes = 1 + ((at * 7) % 997);
      if (!stream.write(body.subarray(at, at + bytes))) await once(stream, 'drain');
      at += bytes;
      most = Math.max(most, server.deps.budget.heldBytes);
    }
    stream.end();
    const { body: sum } = await answerOf(stream);
    expect(JSON.parse(sum.toString())).toMatchObject({ bytes: body.byteLength });
    expect(JSON.parse(sum.toString()).chunks).toBeLessThan(body.byteLength / 8_192);
    expect(most).toBeLessThanOrEqual(roomFor(body.byteLength));
    expect(server.deps.budget.heldBytes).toBe(0);
    expect(server.deps.budget.windowBytes).toBe(0);
  });

  test('a client that vanishes in the middle gives its bytes back', async () => {
    const { session, server } = await start();
    const other = await h2(server);
    sessions.push(other);
    const streams = [openUpload(session, 32 * MiB), openUpload(session, 32 * MiB), openUpload(other, 32 * MiB)];
    for (const stream of streams) stream.write(randomBytes(4 * MiB));
    await until(() => server.deps.budget.heldBytes >= 12 * MiB);
    streams[0]!.close(8);
    await until(() => server.deps.budget.bodies === 2);
    session.destroy();
    await until(() => server.deps.budget.bodies === 1);
    other.socket?.destroy();
    await until(() => server.deps.budget.bodies === 0 && server.deps.requests.open.size === 0);
    expect([server.deps.budget.heldBytes, server.deps.budget.windowBytes]).toEqual([0, 0]);
    expect(server.lines.filter((line) => line.route === '/sum').map((line) => line.status)).toEqual([499, 499, 499]);
  });

  test('a body that stalls is told so', async () => {
    const { session, server } = await start({ budget: { idleMs: 300 } });
    const stream = openUpload(session, 1_000);
    stream.write(Buffer.alloc(10));
    const answer = await answerOf(stream);
    expect(problem(answer)).toMatchObject({ code: 'request_timeout', status: 408 });
    expect(server.deps.budget.bodies).toBe(0);
  });

  test('without room a newcomer is told when to come again', async () => {
    const { session, server } = await start({
      budget: { totalBytes: roomFor(33 * MiB), bodyBytesMax: roomFor(33 * MiB), rateBytesPerSecondMin: 0, waitMs: 300 },
    });
    const first = openUpload(session, 33 * MiB);
    first.write(Buffer.alloc(20 * MiB));
    await until(() => server.deps.budget.heldBytes >= 20 * MiB);
    const second = openUpload(session, 33 * MiB); // the room that is left is what the first one needs
    second.write(Buffer.alloc(2 * MiB));
    const answer = await answerOf(second);
    expect(problem(answer)).toMatchObject({ code: 'overloaded', status: 503 });
    expect(Number(answer.headers['retry-after'])).toBeGreaterThan(0);
    first.end(Buffer.alloc(13 * MiB));
    expect((await answerOf(first)).status).toBe(200);
  });

  test('two uploads that together do not fit both end', async () => {
    const { session, server } = await start({
      budget: { totalBytes: 34 * MiB, waitMs: 10_000 },
    });
    const body = randomBytes(30 * MiB);
    const headers = post('/sum', { ...bytesType, 'content-length': body.byteLength });
    const answers = await Promise.all([request(session, headers, body), request(session, headers, body)]);
    expect(answers.map((answer) => answer.status)).toEqual([200, 200]);
    expect(server.deps.budget.heldBytes).toBe(0);
  });

  test('windows grow on a long way, and shrink when room is short', async () => {
    const { server } = await start({ settings: { streamWindowBytesMax: 2 * MiB } });
    const way = await slowWay(server, 20);
    const session = await h2(way);
    sessions.push(session);
    const uploads = [openUpload(session, 33 * MiB), openUpload(session, 33 * MiB), openUpload(session, 33 * MiB)];
    const window = (): number => session.remoteSettings.initialWindowSize!;
    await until(() => window() === 256 * 1024);
    uploads[0]!.write(Buffer.alloc(24 * MiB));
    await until(() => window() > 256 * 1024);
    expect(session.remoteSettings.maxConcurrentStreams).toBeLessThan(100);

    for (const upload of uploads.slice(1)) upload.write(Buffer.alloc(24 * MiB));
    await until(() => window() === 64 * 1024);
    expect(session.remoteSettings.maxConcurrentStreams).toBe(100);
    for (const upload of uploads) upload.close(8);
    await until(() => server.deps.budget.bodies === 0);
    expect([server.deps.budget.heldBytes, server.deps.budget.windowBytes]).toEqual([0, 0]);
    way.close();
  });
});
