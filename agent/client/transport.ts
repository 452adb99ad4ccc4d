/**
 * Sends requests to one server over a few HTTP/2 connections that are opened when needed and replaced when they
 * break or the server says it is leaving (GOAWAY). A request that failed in a way that sending it again can cure is
 * sent again; the caller sees an answer, a problem, or that the server could not be reached for a long time.
 */
import type { ClientHttp2Session, ClientHttp2Stream, IncomingHttpHeaders } from 'node:http2';
import { setTimeout as sleep } from 'node:timers/promises';
import { limits } from '../../protocol/limits.ts';
import { type Problem, problemFromResponse } from '../../protocol/problems.ts';
import type { BandwidthLimiter } from './bandwidth.ts';
import { ConnectionLost, NotAServer } from './errors.ts';
import { Exchange, openStreams, type Request, type StreamedAnswer } from './exchange.ts';
import { openSession } from './pinned-session.ts';
import { type RetryPolicy, retryDelayMs } from './retry.ts';

export interface TransportOptions {
  url: URL;
  certificateSha256: string | null;
  /** HTTP/2 connections at most. One fills most links; several spread over the server's processes. */
  connections: number;
  connectTimeoutMs: number;
  /** A request on which no byte moved for this long is given up (and sent again). */
  idleTimeoutMs: number;
  retry: RetryPolicy;
  limiter: BandwidthLimiter | null;
  /** Ends everything under way, and every wait. */
  signal: AbortSignal | null;
  /** Told before each wait, so that a person can be. */
  onRetry: ((error: Error, delayMs: number) => void) | null;
}

export type { Request, StreamedAnswer } from './exchange.ts';

export interface Answer {
  status: number;
  headers: IncomingHttpHeaders;
  body: Buffer;
}

/** Bytes of an answer that is collected whole: a page of 1,000 versions of 16,384 blocks would be far above it. */
const answerBytesMax = 64 * 1024 * 1024;
/** A connection this long without a ping's answer or any other byte is given up. */
const silenceMsMax = 30_000;

export class Transport {
  readonly #options: TransportOptions;
  readonly #sessions = new Set<Session>();
  #closed = false;
  /** Body bytes given to the network, repeats included. */
  bytesSent = 0;

  constructor(options: TransportOptions) {
    this.#options = options;
  }

  /**
   * Sends a request until it is answered, and collects the answer.
   * @throws Problem for an answer that is neither 2xx nor 304; ConnectionLost, CertificateRefused, NotAServer
   */
  async request(request: Request): Promise<Answer> {
    return this.#repeating(request, async (stream) => {
      const parts: Buffer[] = [];
      let have = 0;
      for await (const part of stream.body) {
        have += part.byteLength;
        if (have > answerBytesMax)
          throw new NotAServer(`an answer of more than ${answerBytesMax} bytes came for ${request.path}`);
        parts.push(part);
      }
      return { status: stream.status, headers: stream.headers, body: Buffer.concat(parts, have) };
    });
  }

  /**
   * Sends a request until its answer begins, and gives the rest as it arrives. The caller resumes a broken one.
   * @throws as `request`
   */
  async stream(request: Request): Promise<StreamedAnswer> {
    return this.#repeating(request, async (stream) => stream);
  }

  /** Ends idle connections at once and busy ones when their requests are answered. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all([...this.#sessions].map((session) => session.close()));
  }

  /** Breaks every connection. */
  destroy(): void {
    this.#closed = true;
    for (const session of this.#sessions) session.destroy();
  }

  async #repeating<T>(request: Request, receive: (stream: StreamedAnswer) => Promise<T>): Promise<T> {
    const signal = anySignal(this.#options.signal, request.signal);
    let failures = 0;
    let firstFailureAt = 0;
    for (;;) {
      let sent = false;
      try {
        signal?.throwIfAborted();
        const session = await this.#session();
        sent = true;
        const stream = await this.#send(session, request, signal);
        // 304 comes only to a request that named what it has (If-None-Match).
        if ((stream.status >= 200 && stream.status < 300) || stream.status === 304) return await receive(stream);
        throw await readProblem(stream);
      } catch (error) {
        if (signal?.aborted) throw signal.reason;
        const now = performance.now();
        failures++;
        if (failures === 1) firstFailureAt = now;
        const retriable = !request.once && (!sent || request.repeatable !== false);
        const delayMs = retriable
          ? retryDelayMs(this.#options.retry, {
              error,
              failures,
              sinceFirstMs: now - firstFailureAt,
              random: Math.random(),
            })
          : null;
        if (delayMs === null) throw error;
        this.#options.onRetry?.(error as Error, delayMs);
        await sleep(delayMs, undefined, { signal });
      }
    }
  }

  /** The connection with the fewest requests; a new one while there are fewer than allowed and all are busy. */
  async #session(): Promise<ClientHttp2Session> {
    if (this.#closed) throw new Error('the connection to the server was closed by this program');
    const usable = [...this.#sessions].filter((session) => session.usable).sort((a, b) => a.load - b.load);
    const idlest = usable[0];
    if (idlest && (idlest.load === 0 || usable.length >= this.#options.connections)) return idlest.acquire();
    const session = new Session(this.#options, (gone) => this.#sessions.delete(gone));
    this.#sessions.add(session);
    return session.acquire();
  }

  async #send(session: ClientHttp2Session, request: Request, signal: AbortSignal | undefined): Promise<StreamedAnswer> {
    const body = request.body ?? [];
    const length = body.reduce((sum, part) => sum + part.byteLength, 0);
    let stream: ClientHttp2Stream;
    try {
      stream = session.request(
        {
          ':method': request.method,
          ':path': request.path,
          ...request.headers,
          ...(request.body ? { 'content-length': String(length) } : {}),
        },
        { endStream: length === 0 },
      );
    } catch (error) {
      // The session went away between its choice and its use.
      throw new ConnectionLost(`the connection closed: ${(error as Error).message}`, { cause: error });
    }
    const exchange = new Exchange(stream, request, request.idleTimeoutMs ?? this.#options.idleTimeoutMs, signal);
    if (length > 0) {
      void exchange.write(body, this.#options.limiter, (bytes) => {
        this.bytesSent += bytes;
      });
    }
    return exchange.answer();
  }
}

/** One connection's life: opened on first use, usable until it breaks or the server says GOAWAY. */
class Session {
  readonly #opening: Promise<ClientHttp2Session>;
  #session: ClientHttp2Session | null = null;
  #waiting = 0;
  #going = false;

  constructor(options: TransportOptions, onGone: (session: Session) => void) {
    this.#opening = openSession({
      url: options.url,
      certificateSha256: options.certificateSha256,
      connectTimeoutMs: options.connectTimeoutMs,
      silenceMsMax,
    }).then(
      (session) => {
        this.#session = session;
        // Requests under way are finished by the server or fail one by one; new ones go over a new connection.
        session.on('goaway', () => {
          this.#going = true;
          onGone(this);
          session.close();
        });
        session.on('error', () => undefined); // every request of it fails with the same error and reports it
        session.once('close', () => {
          this.#going = true;
          onGone(this);
        });
        return session;
      },
      (error: unknown) => {
        this.#going = true;
        onGone(this);
        throw error;
      },
    );
    this.#opening.catch(() => undefined); // whoever acquires sees it
  }

  get usable(): boolean {
    return !this.#going && !(this.#session?.destroyed || this.#session?.closed);
  }

  /** Requests on it, and those waiting for it to open. */
  get load(): number {
    return this.#waiting + (this.#session ? openStreams(this.#session) : 0);
  }

  async acquire(): Promise<ClientHttp2Session> {
    this.#waiting++;
    try {
      return await this.#opening;
    } finally {
      this.#waiting--;
    }
  }

  async close(): Promise<void> {
    const session = await this.#opening.catch(() => null);
    if (!session || session.destroyed) return;
    await new Promise<void>((resolve) => session.close(resolve));
  }

  destroy(): void {
    this.#going = true;
    this.#opening.then(
      (session) => session.destroy(),
      () => undefined,
    );
  }
}

async function readProblem(stream: StreamedAnswer): Promise<Problem> {
  const parts: Buffer[] = [];
  let have = 0;
  try {
    for await (const part of stream.body) {
      parts.push(part);
      have += part.byteLength;
      if (have > limits.messageBytesMax) break;
    }
  } catch {
    // The status has come and decides; a refused upload's connection often breaks behind it.
  }
  return problemFromResponse(stream.status, Buffer.concat(parts), stream.headers['retry-after'] as string | undefined);
}

function anySignal(...signals: (AbortSignal | null | undefined)[]): AbortSignal | undefined {
  const present = signals.filter((signal) => signal !== null && signal !== undefined);
  return present.length > 1 ? AbortSignal.any(present) : present[0];
}
