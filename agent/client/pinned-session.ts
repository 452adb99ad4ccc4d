/**
 * Opens HTTP/2 connections to one server, whose certificate is pinned by its SHA-256. The certificate is compared
 * when TLS is established and before HTTP/2 begins: a server that is not ours learns neither the token nor a path.
 */
import { createHash } from 'node:crypto';
import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2';
import { connect as connectTcp, isIP, type Socket } from 'node:net';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { CertificateRefused, ConnectionLost, NotAServer } from './errors.ts';

// 8 MiB: 100 ms x 1 Gbit/s = 12.5 MB in flight, so two streams can fill the link when a restore reads.
const streamWindowBytes = 8 * 1024 * 1024;
// Node leaves the connection's own window at 65,535 bytes unless told; four fetches run side by side.
const sessionWindowBytes = 4 * streamWindowBytes;

export interface SessionOptions {
  url: URL;
  /** 64 lower hex digits; null: the system's certificate authorities decide. */
  certificateSha256: string | null;
  connectTimeoutMs: number;
  /** A connection on which nothing, not even a ping, came back for this long is given up. */
  silenceMsMax: number;
}

/**
 * 64 lower hex digits of what a person pasted: with or without colons, in either case, with "SHA256:" before it.
 * null when it is not a SHA-256.
 */
export function parseFingerprint(text: string): string | null {
  const hex = text
    .trim()
    .replace(/^sha-?256[:=]\s*/i, '')
    .replaceAll(':', '')
    .toLowerCase();
  return /^[0-9a-f]{64}$/.test(hex) ? hex : null;
}

/**
 * A connected session, its windows raised, pinged while it has requests.
 * @throws CertificateRefused, NotAServer, ConnectionLost
 */
export async function openSession(options: SessionOptions): Promise<ClientHttp2Session> {
  const socket = options.url.protocol === 'https:' ? await openPinned(options) : await openLoopback(options);
  const session = connectHttp2(options.url.origin, {
    createConnection: () => socket,
    settings: { initialWindowSize: streamWindowBytes, enablePush: false },
  });
  try {
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(
        () => reject(new ConnectionLost(`${options.url.origin} did not begin HTTP/2 in time`)),
        options.connectTimeoutMs,
      );
      session.once('remoteSettings', () => {
        clearTimeout(timer);
        resolve();
      });
      session.once('error', (error) => {
        clearTimeout(timer);
        reject(new ConnectionLost(`${options.url.origin}: ${error.message}`, { cause: error }));
      });
      session.once('close', () => {
        clearTimeout(timer);
        reject(new ConnectionLost(`${options.url.origin} closed the connection`));
      });
    });
  } catch (error) {
    session.destroy();
    throw error;
  }
  session.setLocalWindowSize(sessionWindowBytes);
  watchSilence(session, socket, options.silenceMsMax);
  return session;
}

/** Where the URL points, for connecting: IPv6 addresses without their brackets. */
function addressOf(url: URL): { host: string; port: number } {
  return {
    host: url.hostname.replace(/^\[|\]$/g, ''),
    port: Number(url.port || (url.protocol === 'https:' ? 443 : 80)),
  };
}

function openPinned(options: SessionOptions): Promise<TLSSocket> {
  const { host, port } = addressOf(options.url);
  const socket = connectTls({
    host,
    port,
    ALPNProtocols: ['h2'],
    ...(isIP(host) === 0 ? { servername: host } : {}),
    // With a pin, the pin decides, and alone: a self-signed certificate has no authority to ask.
    rejectUnauthorized: options.certificateSha256 === null,
    minVersion: 'TLSv1.2',
  });
  return established(socket, 'secureConnect', options, () => {
    if (options.certificateSha256 !== null) {
      const raw = socket.getPeerX509Certificate()?.raw ?? Buffer.alloc(0);
      const shown = createHash('sha256').update(raw).digest('hex');
      if (shown !== options.certificateSha256)
        return new CertificateRefused(options.url.origin, options.certificateSha256, shown);
    }
    if (socket.alpnProtocol !== 'h2') return new NotAServer(`${options.url.origin} does not speak HTTP/2`);
    return null;
  });
}

/** Plain HTTP/2, for a server on this machine only: a token never crosses a network in the clear. */
function openLoopback(options: SessionOptions): Promise<Socket> {
  const { host, port } = addressOf(options.url);
  if (!['localhost', '127.0.0.1', '::1'].includes(host)) {
    throw new NotAServer(
      `${options.url.origin} is not encrypted; use https:// (http:// is for this same machine only)`,
    );
  }
  return established(connectTcp({ host, port }), 'connect', options, () => null);
}

function established<S extends Socket>(
  socket: S,
  event: string,
  options: SessionOptions,
  fault: () => Error | null,
): Promise<S> {
  return new Promise((resolve, reject) => {
    const fail = (error: Error): void => {
      socket.destroy();
      reject(error);
    };
    const timer = setTimeout(
      () =>
        fail(new ConnectionLost(`${options.url.origin} did not answer within ${options.connectTimeoutMs / 1000} s`)),
      options.connectTimeoutMs,
    );
    const onError = (error: Error & { code?: string }): void => {
      clearTimeout(timer);
      const untrusted = error.code !== undefined && /CERT|SELF_SIGNED|ISSUER|ALTNAME/.test(error.code);
      fail(
        untrusted
          ? new NotAServer(
              `${options.url.origin}: ${error.message}. Give --fingerprint with the SHA-256 its administrator names`,
              { cause: error },
            )
          : new ConnectionLost(`cannot reach ${options.url.origin}: ${error.message || error.code}`, { cause: error }),
      );
    };
    socket.once('error', onError);
    socket.once(event, () => {
      clearTimeout(timer);
      const refused = fault();
      if (refused) return fail(refused);
      socket.off('error', onError);
      socket.setNoDelay(true);
      resolve(socket);
    });
  });
}

/** A network that swallows packets gives no error for many minutes (a laptop that slept); a ping that stays out does. */
function watchSilence(session: ClientHttp2Session, socket: Socket, silenceMsMax: number): void {
  let unanswered = false;
  let bytesRead = -1;
  const timer = setInterval(() => {
    if (session.destroyed || session.closed) return clearInterval(timer);
    // Anything that arrives is a sign of life: on a slow line a ping may wait behind an upload's bytes.
    if (unanswered && socket.bytesRead === bytesRead) {
      return void session.destroy(new Error(`nothing came back for ${silenceMsMax / 1000} s`));
    }
    bytesRead = socket.bytesRead;
    unanswered = true;
    session.ping((error) => {
      if (!error) unanswered = false;
    });
  }, silenceMsMax);
  timer.unref();
  session.once('close', () => clearInterval(timer));
}
