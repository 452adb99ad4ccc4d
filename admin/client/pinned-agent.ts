/**
 * Opens connections to one server, whose certificate is pinned by its SHA-256 or vouched for by the system's authorities.
 * It is compared when TLS is established and before a byte of HTTP: a server that is not ours learns no token.
 */
import { createHash } from 'node:crypto';
import { type AgentOptions, Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import { isIP } from 'node:net';
import type { Duplex } from 'node:stream';
import { connect, type TLSSocket } from 'node:tls';
import { CertificateRefused, UsageError } from '../errors.ts';

export interface ServerAddress {
  /** Without a path: https://host:port */
  origin: string;
  /** 64 lower hex digits; null: the system's certificate authorities decide. */
  certificateSha256: string | null;
}

/** For TCP and TLS together. */
const connectMsMax = 15_000;
const thisMachine = ['localhost', '127.0.0.1', '[::1]'];

/** @throws UsageError for what is no address of a server, or would carry a password in the clear over a network */
export function readOrigin(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (!url || !['https:', 'http:'].includes(url.protocol) || url.host === '')
    throw new UsageError(
      `${JSON.stringify(text)} is no address of a server; it looks like https://backup.example:8443`,
    );
  if (url.username !== '' || url.password !== '' || url.search !== '' || url.hash !== '' || url.pathname !== '/')
    throw new UsageError('the address of a server is https://HOST:PORT, and nothing behind it');
  if (url.protocol === 'http:' && !thisMachine.includes(url.hostname))
    throw new UsageError(`${url.origin} is not encrypted; use https:// (http:// is for this same machine only)`);
  return url.origin;
}

/**
 * 64 lower hex digits of what a person pasted: with or without colons, in either case, with "SHA256:" before it.
 * @throws UsageError
 */
export function readFingerprint(text: string): string {
  const hex = text
    .trim()
    .replace(/^sha-?256[:=]\s*/i, '')
    .replaceAll(':', '')
    .toLowerCase();
  if (!/^[0-9a-f]{64}$/.test(hex))
    throw new UsageError('a fingerprint is the SHA-256 of a certificate: 64 hex digits, with or without colons');
  return hex;
}

export function agentFor({ origin, certificateSha256 }: ServerAddress): HttpAgent {
  const options: AgentOptions = { keepAlive: true, maxSockets: 2 };
  return origin.startsWith('https:') ? new PinnedAgent(origin, certificateSha256, options) : new HttpAgent(options);
}

class PinnedAgent extends HttpsAgent {
  readonly #origin: string;
  readonly #pin: string | null;

  constructor(origin: string, pin: string | null, options: AgentOptions) {
    super(options);
    this.#origin = origin;
    this.#pin = pin;
  }

  // The socket is handed over when it is known whose it is.
  override createConnection(
    _options: unknown,
    handOver: (error: Error | null, socket: Duplex) => void = () => undefined,
  ): undefined {
    const { hostname, port } = new URL(this.#origin);
    const host = hostname.replace(/^\[|\]$/g, '');
    const socket = connect({
      host,
      port: Number(port || 443),
      ALPNProtocols: ['http/1.1'],
      ...(isIP(host) === 0 ? { servername: host } : {}),
      // Judged below, so that the message can say which certificate it is.
      rejectUnauthorized: false,
      minVersion: 'TLSv1.2',
    });
    const fail = (error: Error): void => {
      socket.destroy();
      handOver(error, socket);
    };
    socket.once('error', fail);
    socket.setTimeout(connectMsMax, () => fail(new Error(`no answer within ${connectMsMax / 1000} s`)));
    socket.once('secureConnect', () => {
      socket.off('error', fail);
      socket.setTimeout(0);
      const refused = this.#judge(socket);
      if (refused) return fail(refused);
      handOver(null, socket);
    });
  }

  #judge(socket: TLSSocket): CertificateRefused | null {
    const raw = socket.getPeerX509Certificate()?.raw ?? Buffer.alloc(0);
    const shown = createHash('sha256').update(raw).digest('hex');
    if (this.#pin !== null) return shown === this.#pin ? null : otherCertificate(this.#origin, this.#pin, shown);
    return socket.authorized ? null : unknownCertificate(this.#origin, shown, String(socket.authorizationError));
  }
}

function otherCertificate(origin: string, pinned: string, shown: string): CertificateRefused {
  return new CertificateRefused(
    `${origin} showed another certificate than the one you signed in with, so nothing was sent to it.\n` +
      `  expected SHA-256 ${pinned}\n  shown    SHA-256 ${shown}\n` +
      'If the certificate was renewed, compare the new SHA-256 on the server (below) and sign in again with --fingerprint.\n' +
      `If it was not, something between here and the server answers in its place.\n${howToFind}`,
  );
}

function unknownCertificate(origin: string, shown: string, why: string): CertificateRefused {
  return new CertificateRefused(
    `No authority that this machine trusts vouches for the certificate of ${origin} (${why}), so nothing was sent to it.\n` +
      `  shown SHA-256 ${shown}\n` +
      `If the server says the same, sign in with --fingerprint and that number.\n${howToFind}`,
  );
}

const howToFind =
  'Where to find it: the embedded server prints it when it starts, and it is `certificateSha256` in first-start.json of\n' +
  'its data folder; of any other certificate: openssl x509 -in CERTIFICATE.pem -noout -fingerprint -sha256';
