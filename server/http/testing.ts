/** For the tests of this folder: a server on loopback with any routes, and clients that behave and misbehave. */
import { once } from 'node:events';
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  constants,
  type OutgoingHttpHeaders,
} from 'node:http2';
import { type AddressInfo, connect as connectTcp, createServer, type Socket } from 'node:net';
import type Router from '@koa/router';
import KoaRouter from '@koa/router';
import { generate } from 'selfsigned';
import type { Storage } from '../../storage/storage.ts';
import type { Directory } from '../directory/directory.ts';
import { createLog } from '../log.ts';
import { createMetrics, type Metrics } from '../metrics.ts';
import { createShell } from './app.ts';
import type { AppDeps, ReadinessCheck, RequestState } from './deps.ts';
import { createHttpServer, type HttpServer } from './http-server.ts';
import { type BudgetSettings, type HttpSettings, httpDefaults, type TlsSettings } from './settings.ts';

let certificate: Promise<TlsSettings> | null = null;

export function testCertificate(): Promise<TlsSettings> {
  certificate ??= generate([{ name: 'commonName', value: 'localhost' }], {
    keyType: 'ec',
    extensions: [{ name: 'subjectAltName', altNames: [{ type: 2, value: 'localhost' }] }],
  } as never).then((made) => ({ key: made.private, cert: made.cert }));
  return certificate;
}

export interface TestServer {
  origin: string;
  port: number;
  tls: TlsSettings | null;
  deps: AppDeps;
  metrics: Metrics;
  /** What was logged, parsed. */
  lines: Record<string, unknown>[];
  shutDown: HttpServer['shutDown'];
}

export interface TestServerOptions {
  settings?: Partial<Omit<HttpSettings, 'budget'>>;
  budget?: Partial<BudgetSettings>;
  cleartext?: boolean;
  routes?: (router: Router<RequestState>, deps: AppDeps) => void;
  /** Without it the routes must not ask for the engine or the directory. */
  storage?: Storage;
  directory?: Directory;
  readiness?: Record<string, ReadinessCheck>;
}

/** With `routes`, those alone are served; without, the whole protocol. */
export async function startTestServer(options: TestServerOptions): Promise<TestServer> {
  const tls = options.cleartext ? null : await testCertificate();
  const lines: Record<string, unknown>[] = [];
  const metrics = createMetrics();
  const settings: HttpSettings = {
    ...httpDefaults,
    host: '127.0.0.1',
    port: 0,
    tls,
    ...options.settings,
    budget: { ...httpDefaults.budget, ...options.budget },
  };
  const noEngine = { database: { pool: { total: 0, idle: 0, waiting: 0 } } } as unknown as Storage;
  let deps: AppDeps | undefined;
  const { routes } = options;
  const server = createHttpServer(
    {
      storage: options.storage ?? noEngine,
      directory: options.directory ?? (undefined as never),
      metrics,
      log: createLog('debug', { write: (line) => lines.push(JSON.parse(line)) }),
      readiness: options.readiness ?? {},
      settings,
    },
    routes
      ? (made) => {
          deps = made;
          const router = new KoaRouter<RequestState>();
          routes(router, made);
          return createShell(made, router);
        }
      : undefined,
  );
  const { port } = await server.listen();
  const origin = `${tls ? 'https' : 'http'}://127.0.0.1:${port}`;
  return { origin, port, tls, deps: deps!, metrics, lines, shutDown: server.shutDown };
}

export async function h2(server: { origin: string }): Promise<ClientHttp2Session> {
  // What waits to be sent counts as the session's memory: past it, a client resets the streams of its own answers.
  const session = connect(server.origin, { rejectUnauthorized: false, maxSessionMemory: 1_000 });
  session.on('error', () => {});
  await once(session, 'connect');
  return session;
}

export interface Answer {
  status: number;
  headers: Record<string, string | undefined>;
  body: Buffer;
  /** The stream was reset: the answer, if any, is not whole. */
  reset: boolean;
}

/** One request with a body sent as it is. */
export async function request(
  session: ClientHttp2Session,
  headers: OutgoingHttpHeaders,
  body?: Uint8Array,
): Promise<Answer> {
  const stream = session.request(headers, { endStream: body === undefined });
  if (body) stream.end(body);
  return answerOf(stream);
}

export async function answerOf(stream: ClientHttp2Stream): Promise<Answer> {
  const answer: Answer = { status: 0, headers: {}, body: Buffer.alloc(0), reset: false };
  const chunks: Buffer[] = [];
  stream.on('response', (headers) => {
    answer.headers = headers as Answer['headers'];
    answer.status = headers[':status'] ?? 0;
  });
  stream.on('data', (chunk: Buffer) => chunks.push(chunk));
  stream.on('error', () => {});
  await new Promise((resolve) => stream.once('end', resolve).once('close', resolve));
  const reset = stream.rstCode !== 0;
  // An answer that came early: what is still to be written would keep the stream open on this side.
  if (!stream.writableFinished) stream.close(constants.NGHTTP2_CANCEL);
  return { ...answer, body: Buffer.concat(chunks), reset };
}

export function problem(answer: Answer): Record<string, unknown> {
  if (answer.headers['content-type'] !== 'application/problem+json') {
    throw new Error(`not a problem: ${answer.status} ${answer.headers['content-type']} ${answer.body}`);
  }
  return JSON.parse(answer.body.toString());
}

/** A way to a server that takes `delayMs` each way: what a window is needed for. */
export async function slowWay(server: TestServer, delayMs: number): Promise<{ origin: string; close(): void }> {
  const sockets = new Set<Socket>();
  const relay = (from: Socket, to: Socket): void => {
    sockets.add(from);
    from.on('data', (bytes) => setTimeout(() => to.destroyed || to.write(bytes), delayMs));
    from.on('error', () => {});
    from.on('close', () => setTimeout(() => to.destroy(), delayMs));
  };
  const way = createServer((client) => {
    const upstream = connectTcp({ host: '127.0.0.1', port: server.port });
    relay(client, upstream);
    relay(upstream, client);
  });
  way.listen(0, '127.0.0.1');
  await once(way, 'listening');
  const { port } = way.address() as AddressInfo;
  return {
    origin: `https://127.0.0.1:${port}`,
    close: () => {
      way.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

/** Waits, for a bounded time, until something is so. */
export async function until(isSo: () => boolean | Promise<boolean>, withinMs = 5_000): Promise<void> {
  const end = performance.now() + withinMs;
  while (!(await isSo())) {
    if (performance.now() > end) throw new Error(`not so within ${withinMs} ms: ${isSo}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
