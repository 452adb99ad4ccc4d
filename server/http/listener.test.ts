import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { request as http1Request } from 'node:http';
import type { ClientHttp2Session } from 'node:http2';
import { request as https1Request } from 'node:https';
import { connect as connectTcp } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { afterEach, describe, expect, test } from '@jest/globals';
import { bytesRoutes } from './bytes-routes.testing.ts';
import {
  type Answer,
  answerOf,
  h2,
  problem,
  request,
  startTestServer,
  type TestServer,
  type TestServerOptions,
  until,
} from './testing.ts';

const servers: TestServer[] = [];
const sessions: ClientHttp2Session[] = [];

async function start(options: TestServerOptions = {}): Promise<TestServer> {
  const server = await startTestServer({ routes: bytesRoutes, ...options });
  servers.push(server);
  return server;
}

async function dial(server: TestServer): Promise<ClientHttp2Session> {
  const session = await h2(server);
  sessions.push(session);
  return session;
}

afterEach(async () => {
  for (const session of sessions.splice(0)) session.destroy();
  await Promise.all(servers.splice(0).map((server) => server.shutDown({ leaveMs: 0, drainMs: 100 })));
});

interface Http1Answer {
  status: number;
  version: string;
  headers: Record<string, unknown>;
  body: string;
}

function http1(
  server: TestServer,
  path: string,
  options: { method?: string; headers?: Record<string, string | number>; body?: Uint8Array } = {},
): Promise<Http1Answer> {
  const make = server.tls ? https1Request : http1Request;
  return new Promise((resolve, reject) => {
    const sent = make(
      `${server.origin}${path}`,
      {
        method: options.method ?? 'GET',
        headers: options.headers ?? {},
        rejectUnauthorized: false,
        agent: false,
      } as never,
      (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk) => chunks.push(chunk));
        response.on('error', reject);
        response.on('end', () =>
          resolve({
            status: response.statusCode!,
            version: response.httpVersion,
            headers: response.headers,
            body: Buffer.concat(chunks).toString(),
          }),
        );
      },
    );
    sent.on('error', reject);
    sent.end(options.body);
  });
}

/** What a raw connection gets back until it is closed, and after how long. */
async function raw(
  server: TestServer,
  bytes: Uint8Array | string,
  options: { alpn?: string[] } = {},
): Promise<{ text: string; ms: number }> {
  const startedAt = performance.now();
  const socket = server.tls
    ? connectTls({
        host: '127.0.0.1',
        port: server.port,
        rejectUnauthorized: false,
        ...(options.alpn ? { ALPNProtocols: options.alpn } : {}),
      })
    : connectTcp({ host: '127.0.0.1', port: server.port });
  const chunks: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  socket.on('error', () => {});
  socket.write(bytes);
  await new Promise((resolve) => socket.once('close', resolve));
  return { text: Buffer.concat(chunks).toString('latin1'), ms: performance.now() - startedAt };
}

describe.each([
  ['TLS', false],
  ['cleartext', true],
])('over %s', (_, cleartext) => {
  test('HTTP/2 and HTTP/1.1 are served on one port', async () => {
    const server = await start({ cleartext });
    const session = await dial(server);
    const over2 = await request(session, { ':path': '/livez' });
    expect([over2.status, over2.body.toString()]).toEqual([200, '{"status":"ok"}']);
    const over1 = await http1(server, '/livez');
    expect([over1.status, over1.version, over1.body]).toEqual([200, '1.1', '{"status":"ok"}']);
  });

  test('a body goes both ways whole, over either', async () => {
    const server = await start({ cleartext });
    const body = randomBytes(3_000_001);
    const headers = { 'content-type': 'application/octet-stream', 'content-length': body.byteLength };
    const over2 = await request(await dial(server), { ':method': 'POST', ':path': '/echo', ...headers }, body);
    expect(over2.body.equals(body)).toBe(true);
    const over1 = await http1(server, '/sum', { method: 'POST', headers, body });
    expect(JSON.parse(over1.body).bytes).toBe(body.byteLength);
    expect(server.deps.budget.heldBytes).toBe(0);
  });

  test('the header bound: at it served, past it refused, and the server goes on', async () => {
    const server = await start({ cleartext, settings: { headerBytesMax: 16 * 1024 } });
    const session = await dial(server);
    // HTTP/2 counts name + value + 32 per field (RFC 9113, 6.5.2).
    const own =
      ':method'.length +
      3 +
      32 +
      ':path'.length +
      6 +
      32 +
      ':scheme'.length +
      server.origin.split(':')[0]!.length +
      32 +
      ':authority'.length +
      server.origin.split('//')[1]!.length +
      32;
    const pad = 16 * 1024 - own - 'x-pad'.length - 32;
    expect((await request(session, { ':path': '/livez', 'x-pad': 'a'.repeat(pad) })).status).toBe(200);
    const past = await request(session, { ':path': '/livez', 'x-pad': 'a'.repeat(pad + 1) });
    expect(past.status === 431 || past.reset).toBe(true);
    expect((await http1(server, '/livez', { headers: { 'x-pad': 'a'.repeat(15 * 1024) } })).status).toBe(200);
    expect((await http1(server, '/livez', { headers: { 'x-pad': 'a'.repeat(17 * 1024) } })).status).toBe(431);
    expect((await request(await dial(server), { ':path': '/livez' })).status).toBe(200);
  });

  test('headers that never end are cut', async () => {
    const server = await start({ cleartext, settings: { headersTimeoutMs: 400 } });
    const { text, ms } = await raw(server, 'GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: ');
    expect(ms).toBeLessThan(3_000);
    expect(text).toContain('408');
    expect(text).toContain('application/problem+json');
  });

  test('a connection that says nothing is cut', async () => {
    const server = await start({ cleartext, settings: { headersTimeoutMs: 400, handshakeTimeoutMs: 400 } });
    const { ms } = await raw(server, '');
    expect(ms).toBeLessThan(3_000);
  });

  test('an idle HTTP/1.1 connection is closed', async () => {
    const server = await start({ cleartext, settings: { keepAliveTimeoutMs: 300 } });
    const { text, ms } = await raw(server, 'GET /livez HTTP/1.1\r\nHost: x\r\n\r\n');
    expect(text).toContain('200 OK');
    expect(ms).toBeLessThan(5_000);
  });

  test('any bytes on the port end their connection and nothing else', async () => {
    const server = await start({ cleartext, settings: { headersTimeoutMs: 500, handshakeTimeoutMs: 500 } });
    const session = await dial(server);
    const preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
    const garbage = [
      randomBytes(10_000),
      Buffer.concat([preface, randomBytes(10_000)]),
      Buffer.concat([preface, Buffer.alloc(10_000)]),
      Buffer.from('GET / HTTP/1.1\r\n\r\n'),
      Buffer.from('POST /sum HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nzz'),
      Buffer.from('PRI * HTTP/2.0\r\n\r\nXX'),
      Buffer.from(`GET /${'a'.repeat(200_000)} HTTP/1.1\r\n`),
    ];
    await Promise.all(garbage.flatMap((bytes) => [raw(server, bytes), raw(server, bytes, { alpn: ['h2'] })]));
    expect((await request(session, { ':path': '/livez' })).status).toBe(200);
  });
});

test('TLS garbage before a handshake does no harm', async () => {
  const server = await start({ settings: { handshakeTimeoutMs: 500 } });
  for (const bytes of [randomBytes(5_000), Buffer.from('GET / HTTP/1.1\r\n\r\n')]) {
    const socket = connectTcp({ host: '127.0.0.1', port: server.port });
    socket.on('error', () => {});
    socket.on('data', () => {});
    socket.write(bytes);
    await new Promise((resolve) => socket.once('close', resolve));
  }
  expect((await request(await dial(server), { ':path': '/livez' })).status).toBe(200);
});

test('a client without ALPN is served HTTP/1.1', async () => {
  const server = await start({ settings: { keepAliveTimeoutMs: 200 } });
  const { text } = await raw(server, 'GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
  expect(text).toContain('HTTP/1.1 200 OK');
});

test('the preface may come byte by byte', async () => {
  const server = await start({ cleartext: true, settings: { sessionIdleMs: 400 } });
  const bytes = Buffer.concat([
    Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
    Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]),
  ]);
  const socket = connectTcp({ host: '127.0.0.1', port: server.port });
  socket.setNoDelay(true);
  const first = once(socket, 'data');
  for (const byte of bytes) {
    socket.write(Buffer.of(byte));
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  const [answer] = (await first) as [Buffer];
  expect(answer[3]).toBe(4); // a SETTINGS frame
  socket.destroy();
});

test('the connection window is what the settings say, not 65,535', async () => {
  const server = await start();
  const session = await dial(server);
  await until(() => (session.state.remoteWindowSize ?? 0) > 65_535);
  expect(session.state.remoteWindowSize).toBe(16 * 1024 * 1024);
  expect(session.remoteSettings.initialWindowSize).toBe(256 * 1024);
  expect(session.remoteSettings.maxConcurrentStreams).toBe(100);
});

test('a session without requests is closed after a while', async () => {
  const server = await start({ settings: { sessionIdleMs: 300 } });
  const session = await dial(server);
  await request(session, { ':path': '/livez' });
  await once(session, 'close');
  expect((await request(await dial(server), { ':path': '/livez' })).status).toBe(200);
});

test('a peer that no longer answers is found by PING', async () => {
  const server = await start({ settings: { pingEveryMs: 200, sessionIdleMs: 60_000 } });
  // Opens a session by hand, and from then on answers nothing.
  const socket = connectTls({ host: '127.0.0.1', port: server.port, rejectUnauthorized: false, ALPNProtocols: ['h2'] });
  await once(socket, 'secureConnect');
  socket.on('error', () => {});
  socket.on('data', () => {});
  socket.write(
    Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0])]),
  );
  await new Promise((resolve) => socket.once('close', resolve));
  const alive = await dial(server);
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  expect(alive.closed).toBe(false);
});

test('an upload goes on to its end after its client said that it will send no other', async () => {
  const server = await start({ settings: { pingEveryMs: 200, sessionIdleMs: 60_000 } });
  const session = await dial(server);
  const stream = session.request({
    ':method': 'POST',
    ':path': '/sum',
    'content-type': 'application/octet-stream',
    'content-length': 2_000,
  });
  stream.write(Buffer.alloc(1_000));
  await until(() => server.deps.requests.open.size === 1);
  session.goaway(0);
  await new Promise((resolve) => setTimeout(resolve, 1_000)); // time for several PINGs
  stream.end(Buffer.alloc(1_000));
  const answer = await answerOf(stream);
  expect(answer.status).toBe(200);
  expect(JSON.parse(answer.body.toString())).toMatchObject({ bytes: 2_000 });
});

test('connections past the bound are closed at once', async () => {
  const server = await start({ settings: { connectionsMax: 2 } });
  const first = await dial(server);
  await dial(server);
  const third = connectTcp({ host: '127.0.0.1', port: server.port });
  third.on('error', () => {});
  await new Promise((resolve) => third.once('close', resolve));
  expect((await request(first, { ':path': '/livez' })).status).toBe(200);
});

test('a flood of resets ends its own session only', async () => {
  const server = await start();
  const [bad, good] = [await dial(server), await dial(server)];
  for (let i = 0; i < 60 && !bad.destroyed && !bad.closed; i++) {
    const streams = Array.from({ length: 50 }, () => bad.request({ ':path': '/slow?ms=2000' }));
    for (const stream of streams) stream.on('error', () => {});
    // A reset before the headers have left would just unsay them; once a PING is answered they have.
    await new Promise((resolve) => {
      if (bad.destroyed || !bad.ping(resolve)) resolve(null);
    });
    for (const stream of streams) stream.close(8);
  }
  await until(() => bad.destroyed || bad.closed);
  expect((await request(good, { ':path': '/livez' })).status).toBe(200);
});

test('a reader that takes nothing is cut, and the log says so', async () => {
  const server = await start({ settings: { writeStallMs: 300 } });
  const session = await dial(server);
  const stream = session.request({ ':path': '/endless' });
  stream.on('error', () => {});
  await once(stream, 'response');
  stream.pause();
  await new Promise((resolve) => stream.once('close', resolve));
  await until(() => server.lines.some((line) => line.route === '/endless' && line.cut === true));
});

test('an error in the middle of a stream resets it; one before it is a problem', async () => {
  const server = await start();
  const session = await dial(server);
  const late = await request(session, { ':path': '/breaks?after=3' });
  expect([late.status, late.reset]).toEqual([200, true]);
  const early: Answer = await request(session, { ':path': '/breaks?after=0' });
  expect(problem(early)).toMatchObject({ status: 500, code: 'internal' });
  await expect(http1(server, '/breaks?after=3')).rejects.toThrow();
});

test('a client that leaves ends the stream that was made for it', async () => {
  const server = await start();
  const session = await dial(server);
  const stream = session.request({ ':path': '/endless' });
  stream.on('error', () => {});
  await once(stream, 'data');
  stream.close(8);
  await until(() => server.lines.some((line) => line.msg === 'endless stream returned'));
  expect(server.deps.requests.open.size).toBe(0);
});

test('HEAD answers like GET, without a body', async () => {
  const server = await start();
  const answer = await answerOf((await dial(server)).request({ ':method': 'HEAD', ':path': '/endless' }));
  expect([answer.status, answer.body.byteLength, answer.headers['content-type']]).toEqual([
    200,
    0,
    'application/octet-stream',
  ]);
  expect((await http1(server, '/livez', { method: 'HEAD' })).body).toBe('');
  expect(server.deps.requests.open.size).toBe(0);
});
