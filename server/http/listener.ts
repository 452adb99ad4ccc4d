/**
 * The port: HTTP/2 and HTTP/1.1, over TLS with ALPN or in cleartext behind an ingress, in front of one Koa app.
 * Every connection, session, stream, header and wait has a bound; what a peer does wrong ends its connection only.
 */
import { createServer, type Server as Http1Server, type RequestListener } from 'node:http';
import {
  createServer as createH2cServer,
  createSecureServer,
  type Http2SecureServer,
  type Http2Server,
  type ServerHttp2Session,
  type ServerOptions,
} from 'node:http2';
import { type AddressInfo, Server as NetServer, type Socket } from 'node:net';
import type Koa from 'koa';
import { Sessions } from './sessions.ts';
import type { HttpSettings } from './settings.ts';
import { sniffProtocol } from './sniffing.ts';

export interface Listeners {
  /** Starts listening. @throws the system's error (EADDRINUSE, EACCES) with its `port` */
  listen(): Promise<{ host: string; port: number }>;
  /** TCP connections that are open. */
  connections(): number;
  readonly sessions: Sessions;
  /** Takes no new connections. Those that are open go on. */
  stopAccepting(): void;
  /** Closes the HTTP/1.1 connections that serve no request. */
  closeIdleConnections(): void;
  /** Cuts everything that is still open. */
  destroy(): void;
}

/** Sockets and errors of peers that never became a request: for the log and the metrics. */
export interface ListenerEvents {
  onClientError?: (error: Error) => void;
}

export function createListeners(settings: HttpSettings, app: Koa, events: ListenerEvents = {}): Listeners {
  const sessions = new Sessions(settings);
  const handle = app.callback() as unknown as RequestListener;
  const sockets = new Set<Socket>();
  const onClientError = events.onClientError ?? (() => {});

  const onSession = (session: ServerHttp2Session): void => {
    // Node tells every peer 65,535 bytes for the whole connection, whatever the streams' windows are.
    session.setLocalWindowSize(settings.connectionWindowBytes);
    session.on('error', onClientError);
    session.on('frameError', () => {});
    sessions.add(session);
  };
  const watch = (server: NetServer): void => {
    server.maxConnections = settings.connectionsMax;
    server.on('connection', (socket: Socket) => {
      sockets.add(socket);
      socket.setNoDelay(true);
      socket.once('close', () => sockets.delete(socket));
    });
  };

  const server = settings.tls
    ? createTlsServer(settings, handle, onSession)
    : createCleartextServer(settings, handle, onSession);
  watch(server);
  server.on('clientError', (error: Error, socket: Socket) => {
    onClientError(error);
    refuse(error, socket);
  });
  server.on('tlsClientError', onClientError);
  server.on('sessionError', onClientError);

  return {
    sessions,
    connections: () => sockets.size,
    listen: () =>
      new Promise((resolve, reject) => {
        server.once('error', reject);
        server.listen({ host: settings.host, port: settings.port }, () => {
          server.off('error', reject);
          server.on('error', onClientError);
          const { address, port } = server.address() as AddressInfo;
          resolve({ host: address, port });
        });
      }),
    stopAccepting: () => {
      // Not the HTTP/2 server's own close(): that one sends GOAWAY at once, in the middle of uploads.
      if (server.listening) NetServer.prototype.close.call(server);
    },
    closeIdleConnections: () => server.closeIdleConnections(),
    destroy: () => {
      sessions.stop();
      for (const socket of sockets) socket.destroy();
    },
  };
}

/** Node's own bounds on one HTTP/2 session, spelled out. */
function sessionOptions(settings: HttpSettings): ServerOptions {
  return {
    settings: {
      initialWindowSize: settings.streamWindowBytes,
      maxConcurrentStreams: settings.sessionStreamsMax,
      maxHeaderListSize: settings.headerBytesMax,
      enablePush: false,
    },
    maxSessionMemory: settings.sessionMemoryMb,
    maxHeaderListPairs: settings.headerPairsMax,
    maxDeflateDynamicTableSize: 4_096,
    maxSettings: 32,
    maxOutstandingPings: 4,
    // Streams refused for being too many, and frames that make no sense, before the session is ended.
    maxSessionRejectedStreams: 100,
    maxSessionInvalidFrames: 100,
    // Resets by the peer ("rapid reset"): a burst, then so many per second.
    streamResetBurst: 1_000,
    streamResetRate: 50,
    unknownProtocolTimeout: settings.handshakeTimeoutMs,
  };
}

function http1Options(settings: HttpSettings) {
  return {
    maxHeaderSize: settings.headerBytesMax,
    headersTimeout: settings.headersTimeoutMs,
    requestTimeout: settings.requestTimeoutMs,
    keepAliveTimeout: settings.keepAliveTimeoutMs,
    // How often the two are looked at, so how late they may be.
    connectionsCheckingInterval: Math.max(100, Math.min(5_000, Math.floor(settings.headersTimeoutMs / 2))),
    requireHostHeader: true,
  };
}

function createTlsServer(
  settings: HttpSettings,
  handle: RequestListener,
  onSession: (session: ServerHttp2Session) => void,
) {
  const http1 = http1Options(settings);
  const options = {
    ...sessionOptions(settings),
    ...http1,
    http1Options: http1,
    ...settings.tls!,
    allowHTTP1: true,
    ALPNProtocols: ['h2', 'http/1.1'],
    minVersion: 'TLSv1.2' as const,
    handshakeTimeout: settings.handshakeTimeoutMs,
  };
  const server = createSecureServer(options, handle as never) as Http2SecureServer & {
    closeIdleConnections(): void;
    maxHeadersCount: number;
  };
  server.on('session', onSession);
  server.maxHeadersCount = settings.headerPairsMax;
  return server;
}

/** The HTTP/1.1 server listens, because only a listening one times its connections; HTTP/2 gets its connections from it. */
function createCleartextServer(
  settings: HttpSettings,
  handle: RequestListener,
  onSession: (session: ServerHttp2Session) => void,
): Http1Server {
  const server = createServer(http1Options(settings), handle);
  server.maxHeadersCount = settings.headerPairsMax;
  const h2c: Http2Server = createH2cServer(sessionOptions(settings), handle as never);
  h2c.on('session', onSession);
  h2c.on('sessionError', () => {});
  const [serveHttp1] = server.listeners('connection') as ((socket: Socket) => void)[];
  server.removeAllListeners('connection');
  server.on('connection', (socket: Socket) =>
    sniffProtocol(socket, settings.handshakeTimeoutMs, (protocol) => {
      if (protocol === 'h2') {
        // As a server of HTTP/1.1 takes them, connections may be half closed; a peer of HTTP/2 that has gone would be found out
        // by the next PING only, and hold its long answers till then.
        socket.allowHalfOpen = false;
        h2c.emit('connection', socket);
      } else serveHttp1!.call(server, socket);
    }),
  );
  return server;
}

const refusals: Record<string, string> = {
  HPE_HEADER_OVERFLOW: '431 Request Header Fields Too Large',
  ERR_HTTP_REQUEST_TIMEOUT: '408 Request Timeout',
};

/** What HTTP/1.1 could not make a request of gets a bare answer, as far as the connection still takes one. */
function refuse(error: Error & { code?: string }, socket: Socket): void {
  if (!socket.writable || error.code === 'ECONNRESET') {
    socket.destroy();
    return;
  }
  const status = refusals[error.code ?? ''] ?? '400 Bad Request';
  const body = JSON.stringify({ type: 'about:blank', title: status.slice(4), status: Number(status.slice(0, 3)) });
  socket.end(
    `HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Type: application/problem+json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
  socket.destroySoon();
}
