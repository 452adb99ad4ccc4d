import { EventEmitter, once } from 'node:events';
import type { ClientHttp2Session } from 'node:http2';
import { connect as connectTls } from 'node:tls';
import { afterEach, describe, expect, test } from '@jest/globals';
import { Problem, type ProblemCode, problemTable } from '../../protocol/problems.ts';
import { ObjectStoreFault } from '../../storage/objects/object-store.ts';
import { bytesRoutes } from './bytes-routes.testing.ts';
import {
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

async function start(options: TestServerOptions = {}): Promise<{ server: TestServer; session: ClientHttp2Session }> {
  const server = await startTestServer({ routes: bytesRoutes, ...options });
  servers.push(server);
  return { server, session: await dial(server) };
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

describe('problems', () => {
  test.each(Object.keys(problemTable) as ProblemCode[])('%s is problem+json with its status', async (code) => {
    const { session } = await start({
      routes: (router) =>
        router.get('/fails', () => {
          throw new Problem(code, 'because', { field: 'f', retryAfterSeconds: 7 });
        }),
    });
    const answer = await request(session, { ':path': '/fails' });
    expect(answer.status).toBe(problemTable[code][0]);
    expect(answer.headers['retry-after']).toBe('7');
    expect(answer.headers['cache-control']).toBe('no-store');
    expect(problem(answer)).toEqual({
      type: `urn:holdfast:problem:${code}`,
      title: problemTable[code][1],
      status: answer.status,
      code,
      detail: 'because',
      field: 'f',
    });
  });

  const lost = Object.assign(new Error('connect ECONNREFUSED 10.0.0.1:5432'), { code: 'ECONNREFUSED' });
  test.each<[string, unknown, string, number]>([
    ['an unknown error', new Error('SELECT secret FROM postgres://a:hunter2@b/c'), 'internal', 500],
    ['something that is no error', 'hunter2', 'internal', 500],
    ['a database that is away', lost, 'unavailable', 503],
    ['an error caused by one', new Error('reading failed', { cause: lost }), 'unavailable', 503],
    [
      'an object store that is away',
      new ObjectStoreFault('S3 says 500', { retryable: true, status: 500 }),
      'unavailable',
      503,
    ],
    ...['ENOSPC', 'EDQUOT', 'EMFILE', 'ENFILE', 'EIO', 'EROFS', '53100', '53200', '53300'].map(
      (code): [string, unknown, string, number] => [
        `a shortage (${code})`,
        new Error('writing failed', { cause: Object.assign(new Error('hunter2'), { code }) }),
        'unavailable',
        503,
      ],
    ),
  ])('%s tells nothing of the inside', async (_, error, code, status) => {
    const { session, server } = await start({
      routes: (router) =>
        router.get('/fails', () => {
          throw error;
        }),
    });
    const answer = await request(session, { ':path': '/fails' });
    expect(problem(answer)).toMatchObject({ code, status });
    expect(answer.body.toString()).not.toMatch(/hunter2|10\.0\.0\.1|S3|SELECT/);
    expect(JSON.stringify(server.lines)).not.toContain('postgres://a:hunter2');
    if (error instanceof Error) expect(JSON.stringify(server.lines)).toContain(error.message.slice(0, 9));
  });
});

test('a problem keeps nothing of the answer that was being made', async () => {
  const { session } = await start({
    routes: (router) =>
      router.get('/fails', (ctx) => {
        ctx.status = 206;
        ctx.set({ ETag: '"e"', 'Accept-Ranges': 'bytes', 'Content-Range': 'bytes 0-1/9', 'Content-Length': '2' });
        throw new Problem('overloaded', 'because');
      }),
  });
  const answer = await request(session, { ':path': '/fails' });
  expect(problem(answer)).toMatchObject({ code: 'overloaded', status: 503 });
  for (const name of ['etag', 'accept-ranges', 'content-range']) expect(answer.headers).not.toHaveProperty(name);
});

describe('a client that leaves', () => {
  test.each<[string, (signal: AbortSignal) => Promise<unknown>]>([
    ['what ends with the reason', (signal) => once(new EventEmitter(), 'never', { signal })],
    [
      'what wraps the reason',
      (signal) =>
        new Promise((_, reject) =>
          signal.addEventListener('abort', () => reject(new Error('put failed', { cause: signal.reason }))),
        ),
    ],
    [
      'what tells no reason',
      (signal) =>
        new Promise((_, reject) =>
          signal.addEventListener('abort', () => reject(Object.assign(new Error('aborted'), { name: 'AbortError' }))),
        ),
    ],
  ])('is no failure of the server: %s', async (_, work) => {
    const { session, server } = await start({
      routes: (router) =>
        router.get('/waits', async (ctx) => {
          await work(ctx.state.signal);
        }),
    });
    const stream = session.request({ ':path': '/waits' });
    stream.on('error', () => {});
    await until(() => server.deps.requests.open.size === 1);
    stream.close(8);
    await until(() => server.lines.some((line) => line.route === '/waits'));
    expect(server.lines.find((line) => line.route === '/waits')).toMatchObject({ status: 499, cut: true });
    expect(server.lines.filter((line) => Number(line.level) >= 40 || /warn|error/.test(String(line.level)))).toEqual(
      [],
    );
  });

  test('does not hide a failure of another kind', async () => {
    const { session, server } = await start({
      routes: (router) =>
        router.get('/waits', async (ctx) => {
          await once(ctx.state.signal, 'abort');
          throw new Error('an invariant broke');
        }),
    });
    const stream = session.request({ ':path': '/waits' });
    stream.on('error', () => {});
    await until(() => server.deps.requests.open.size === 1);
    stream.close(8);
    await until(() => JSON.stringify(server.lines).includes('an invariant broke'));
  });
});

describe('the log', () => {
  test('has a line per request, with its route and without its secrets', async () => {
    const { session, server } = await start();
    const answer = await request(session, {
      ':path': '/slow?ms=5',
      authorization: 'Bearer very-secret',
      'x-request-id': 'from-the-ingress.1',
    });
    expect(answer.headers['x-request-id']).toBe('from-the-ingress.1');
    await until(() => server.lines.some((line) => line.route === '/slow'));
    const line = server.lines.find((each) => each.route === '/slow')!;
    expect(line).toMatchObject({
      requestId: 'from-the-ingress.1',
      method: 'GET',
      status: 200,
      bytesIn: 0,
      bytesOut: 4,
    });
    expect(line.ms).toBeGreaterThanOrEqual(5);
    expect(JSON.stringify(server.lines)).not.toContain('very-secret');
    server.deps.log.info(
      { token: 'very-secret', nested: { password: 'very-secret', headers: { authorization: 'very-secret' } } },
      'x',
    );
    server.deps.log.error({ err: Object.assign(new Error('very bad'), { password: 'very-secret' }) }, 'x');
    expect(JSON.stringify(server.lines)).not.toContain('very-secret');
    expect(JSON.stringify(server.lines)).toContain('very bad');
  });

  test.each(['', 'short', 'with space in it', 'a'.repeat(65), '<script>alert(1)'])(
    'a request id like %j is replaced',
    async (given) => {
      const { session } = await start();
      const answer = await request(session, { ':path': '/livez', ...(given ? { 'x-request-id': given } : {}) });
      expect(answer.headers['x-request-id']).toMatch(/^[0-9a-f-]{36}$/);
    },
  );
});

describe('metrics', () => {
  test('count requests by route, never by path', async () => {
    const { session } = await start();
    await request(session, { ':path': '/slow?ms=1' });
    await request(session, { ':path': '/nowhere/42' });
    const text = (await request(session, { ':path': '/metrics' })).body.toString();
    expect(text).toContain('holdfast_http_request_seconds_count{method="GET",route="/slow",status="200"} 1');
    expect(text).toContain('holdfast_http_request_seconds_count{method="GET",route="none",status="404"} 1');
    expect(text).toContain('holdfast_budget_bytes{part="total"} 67108864');
    expect(text).toContain('holdfast_http_open{what="sessions"} 1');
    expect(text).toContain('holdfast_http_requests_in_flight 1');
    expect(text).not.toContain('nowhere');
  });

  test.each([
    [{}, 200],
    [{ 'x-forwarded-for': '203.0.113.9' }, 401],
    [{ authorization: 'Bearer right' }, 200],
    [{ authorization: 'Bearer right', 'x-forwarded-for': '203.0.113.9' }, 200],
    [{ authorization: 'Bearer wrong' }, 401],
  ])('with %j: %i', async (headers, status) => {
    const { session } = await start({ settings: { metricsToken: 'right' } });
    const answer = await request(session, { ':path': '/metrics', ...headers });
    expect(answer.status).toBe(status);
    if (status !== 401) return;
    expect(problem(answer)).toMatchObject({ code: 'unauthorized', title: 'The metrics token is needed' });
    expect(answer.headers['www-authenticate']).toBe('Bearer');
  });
});

describe('/readyz', () => {
  test('tells which part fails, and asks each at most once a moment', async () => {
    let asked = 0;
    let broken = false;
    const { session } = await start({
      settings: { readinessCacheMs: 200, readinessTimeoutMs: 100 },
      readiness: {
        database: async () => {
          asked++;
          if (broken) throw new Error('password hunter2 is wrong');
        },
        objects: async () => {
          if (broken) await new Promise(() => {}); // hangs for ever
        },
      },
    });
    const ask = () => request(session, { ':path': '/readyz' });
    const answers = await Promise.all(Array.from({ length: 50 }, ask));
    expect(new Set(answers.map((answer) => answer.status))).toEqual(new Set([200]));
    expect(asked).toBe(1);
    broken = true;
    await until(async () => (await ask()).status === 503);
    const { body } = await ask();
    expect(JSON.parse(body.toString())).toMatchObject({
      status: 'not ready',
      parts: { database: { ok: false }, objects: { ok: false } },
    });
    expect(body.toString()).not.toContain('hunter2');
    broken = false;
    await until(async () => (await ask()).status === 200);
  });

  test('shows what a part that works has to tell', async () => {
    const tell = { held: false, reason: 'contested', detail: 'two catalogs use this bucket' };
    const { session } = await start({
      readiness: { deleting: async () => ({ tell }), other: async () => ({ secret: 1 }) },
    });
    const { status, body } = await request(session, { ':path': '/readyz' });
    expect(status).toBe(200);
    const { parts } = JSON.parse(body.toString());
    expect(parts).toEqual({
      deleting: { ok: true, ms: expect.any(Number), ...tell },
      other: { ok: true, ms: expect.any(Number) },
    });
  });
});

describe('shutting down', () => {
  test('an upload in flight ends, new requests are sent away, then the session closes', async () => {
    const { server, session } = await start();
    const idle = await dial(server);
    const goaways: string[] = [];
    session.on('goaway', () => goaways.push('busy session'));
    const stream = session.request({
      ':method': 'POST',
      ':path': '/sum',
      'content-type': 'application/octet-stream',
      'content-length': 2_000_000,
    });
    stream.write(Buffer.alloc(1_000_000));
    await until(() => server.deps.budget.heldBytes > 500_000);

    const idleClosed = once(idle, 'close');
    const ending = server.shutDown({ leaveMs: 200, drainMs: 10_000 });
    expect((await request(session, { ':path': '/readyz' })).status).toBe(503);
    expect((await request(session, { ':path': '/slow?ms=1' })).status).toBe(200); // leaving, not draining
    await until(() => server.deps.requests.draining);
    await idleClosed;
    const refused = await request(session, { ':path': '/slow?ms=1' });
    expect(problem(refused)).toMatchObject({ code: 'shutting_down', status: 503 });
    expect(refused.headers['retry-after']).toBe('1');
    const socket = connectTls({ host: '127.0.0.1', port: server.port, rejectUnauthorized: false });
    await expect(once(socket, 'secureConnect')).rejects.toThrow(/ECONNREFUSED/);
    expect(goaways).toEqual([]);

    stream.end(Buffer.alloc(1_000_000));
    const answer = await answerOf(stream);
    expect(JSON.parse(answer.body.toString()).bytes).toBe(2_000_000);
    expect(await ending).toMatchObject({ cut: 0 });
    expect(session.destroyed || session.closed).toBe(true);
  });

  test('what does not end in time is cut and counted', async () => {
    const { server, session } = await start();
    // Longer than a busy machine takes to cut it.
    const slow = request(session, { ':path': '/slow?ms=30000' });
    await until(() => server.deps.requests.open.size === 1);
    const result = await server.shutDown({ leaveMs: 0, drainMs: 300 });
    expect(result.cut).toBe(1);
    expect(result.ms).toBeLessThan(20_000);
    expect(await slow).toMatchObject({ status: 0 });
  });

  test.each([false, true])('HTTP/1.1 connections end too (cleartext: %s)', async (cleartext) => {
    const { server } = await start({ cleartext });
    for (const session of sessions.splice(0)) session.destroy();
    const response = await new Promise<{ status: number; connection: string }>((resolve, reject) => {
      const url = `${server.origin}/slow?ms=300`;
      import(cleartext ? 'node:http' : 'node:https').then(({ get, Agent }) =>
        get(
          url,
          { rejectUnauthorized: false, agent: new Agent({ keepAlive: true, rejectUnauthorized: false } as never) },
          (answer: import('node:http').IncomingMessage) => {
            answer.resume();
            resolve({ status: answer.statusCode!, connection: String(answer.headers.connection) });
          },
        ).on('error', reject),
      );
      until(() => server.deps.requests.open.size === 1).then(
        () => server.shutDown({ leaveMs: 0, drainMs: 5_000 }),
        reject,
      );
    });
    expect(response).toEqual({ status: 200, connection: 'close' });
  });
});
