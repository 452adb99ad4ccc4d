/**
 * One request and its answer on one HTTP/2 stream. The answer may come, and end, before the body is sent: it then
 * decides, and the rest of the body is not sent. An answer that was cut short is never taken for a whole one.
 */
import { type ClientHttp2Stream, constants, type Http2Session, type IncomingHttpHeaders } from 'node:http2';
import { type BandwidthLimiter, pieceBytesMax } from './bandwidth.ts';
import { ConnectionLost } from './errors.ts';

export interface Request {
  method: 'GET' | 'POST' | 'PUT';
  /** With its query. */
  path: string;
  headers?: Record<string, string>;
  /** Sent one after the other, never joined. */
  body?: readonly Uint8Array[];
  /** false: the request is not sent twice, because the server may have acted on it. Not connecting is still retried. */
  repeatable?: boolean;
  /** It is not sent again at all, nor another connection tried: the caller decides. */
  once?: boolean;
  /** In place of the connection's; 0: it may be silent as long as it likes. */
  idleTimeoutMs?: number;
  signal?: AbortSignal;
}

export interface StreamedAnswer {
  status: number;
  headers: IncomingHttpHeaders;
  /** Throws ConnectionLost when the answer is cut short. Leaving the loop early cancels the request. */
  body: AsyncGenerator<Buffer>;
}

/** Written at once: TLS copies what it is given, and holds it a second time encrypted. */
const writeBytesMax = 256 * 1024;

const streamCounts = new WeakMap<Http2Session, number>();

/** Requests under way on a session. */
export function openStreams(session: Http2Session): number {
  return streamCounts.get(session) ?? 0;
}

function countStream(session: Http2Session | undefined, by: 1 | -1): void {
  if (session) streamCounts.set(session, openStreams(session) + by);
}

export class Exchange {
  readonly #stream: ClientHttp2Stream;
  readonly #request: Request;
  readonly #headers: Promise<IncomingHttpHeaders>;
  #answered = false;
  #failure: Error | null = null;

  constructor(stream: ClientHttp2Stream, request: Request, idleTimeoutMs: number, signal: AbortSignal | undefined) {
    this.#stream = stream;
    this.#request = request;
    const session = stream.session;
    countStream(session, 1);
    const onAbort = (): void => void stream.close(constants.NGHTTP2_CANCEL);
    signal?.addEventListener('abort', onAbort, { once: true });
    stream.setTimeout(idleTimeoutMs, () => {
      this.#failure ??= new ConnectionLost(
        `nothing moved on ${request.method} ${request.path} for ${idleTimeoutMs / 1000} s`,
      );
      stream.close(constants.NGHTTP2_CANCEL);
    });
    stream.on('error', (error: Error) => {
      this.#failure ??= new ConnectionLost(`the connection broke: ${error.message}`, { cause: error });
    });
    this.#headers = new Promise((resolve, reject) => {
      stream.once('response', (headers) => {
        this.#answered = true;
        resolve(headers);
      });
      stream.once('close', () => {
        countStream(session, -1);
        signal?.removeEventListener('abort', onAbort);
        reject(this.#failure ?? new ConnectionLost('the connection closed before the answer came'));
      });
    });
    this.#headers.catch(() => undefined); // answer() reports it
  }

  async answer(): Promise<StreamedAnswer> {
    const headers = await this.#headers;
    return { status: Number(headers[':status']), headers, body: this.#body(headers) };
  }

  async *#body(headers: IncomingHttpHeaders): AsyncGenerator<Buffer> {
    const promised = headers['content-length'] === undefined ? null : Number(headers['content-length']);
    let have = 0;
    let ended = false;
    try {
      for await (const chunk of this.#stream) {
        have += (chunk as Buffer).byteLength;
        yield chunk as Buffer;
      }
      // A reset without an error code looks like a clean end to the reader: the length and the code tell.
      ended =
        !this.#failure &&
        this.#stream.rstCode === constants.NGHTTP2_NO_ERROR &&
        (promised === null || have === promised);
    } catch (error) {
      throw (
        this.#failure ?? new ConnectionLost(`the answer was cut short: ${(error as Error).message}`, { cause: error })
      );
    } finally {
      if (!this.#stream.closed) this.#stream.close(ended ? constants.NGHTTP2_NO_ERROR : constants.NGHTTP2_CANCEL);
    }
    if (!ended) throw this.#failure ?? new ConnectionLost(`the answer to ${this.#request.path} was cut short`);
  }

  /** Sends the body as fast as flow control and the limiter allow; stops when the answer is there before its end. */
  async write(
    body: readonly Uint8Array[],
    limiter: BandwidthLimiter | null,
    onSent: (bytes: number) => void,
  ): Promise<void> {
    try {
      for (const part of body) {
        for (const piece of pieces(part, limiter ? pieceBytesMax : writeBytesMax)) {
          if (this.#over()) return;
          if (limiter) await limiter.take(piece.byteLength);
          if (this.#over()) return;
          onSent(piece.byteLength);
          if (!this.#stream.write(piece)) await this.#drained();
        }
      }
      if (!this.#over()) this.#stream.end();
    } catch (error) {
      this.#failure ??= new ConnectionLost(`the upload broke: ${(error as Error).message}`, { cause: error });
      this.#stream.close(constants.NGHTTP2_CANCEL);
    }
  }

  #over(): boolean {
    return this.#answered || this.#stream.closed || this.#stream.destroyed;
  }

  #drained(): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        this.#stream.off('drain', done);
        this.#stream.off('close', done);
        this.#stream.off('response', done);
        resolve();
      };
      this.#stream.once('drain', done);
      this.#stream.once('close', done);
      this.#stream.once('response', done);
    });
  }
}

function* pieces(bytes: Uint8Array, bytesMax: number): Generator<Uint8Array> {
  for (let at = 0; at < bytes.byteLength; at += bytesMax) yield bytes.subarray(at, at + bytesMax);
}
