/**
 * Sends requests to one server. What failed on the way is sent again, a bounded number of times, when that cannot do
 * anything twice: nothing of it had been sent, or the server knows the repetition by its key.
 */
import type { Agent, IncomingMessage } from 'node:http';
import { request as requestHttp } from 'node:http';
import { request as requestHttps } from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Problem, problemFromResponse } from '../../protocol/problems.ts';
import { CertificateRefused, ConnectionLost, NotAServer } from '../errors.ts';
import { agentFor, type ServerAddress } from './pinned-agent.ts';

export interface Asked {
  method: string;
  /** From the slash on, with the query. */
  path: string;
  headers?: Record<string, string>;
  /** Sent as JSON. */
  body?: unknown;
  /** Sending it twice does it once. */
  repeatable: boolean;
  /** Asked once, whatever happens: somebody waits, and there is something to do without it. */
  once?: boolean;
}

export interface Answer {
  status: number;
  headers: IncomingMessage['headers'];
  body: IncomingMessage;
}

export interface ConnectionOptions extends ServerAddress {
  /** What this program calls itself; sessions show it. */
  userAgent: string;
  /** Told before each wait, so that a person can be. */
  onRetry: (error: Error) => void;
}

/** Waits between the attempts, in ms: together under 8 seconds, the patience of whoever waits for a prompt. */
const retryDelaysMs = [250, 500, 1_000, 2_000];
/** A server that asks for more is not waited for: the person is told how long. */
const retryAfterMsMax = 4_000;
/** No byte for this long. A listing may be looked for a while before its first line. */
const silenceMsMax = 120_000;
/** Of an answer that is collected whole: a page of 1,000 items of some KiB. */
const answerBytesMax = 64 * 1024 * 1024;
const problemBytesMax = 1024 * 1024;

export class Connection {
  readonly origin: string;
  readonly #options: ConnectionOptions;
  readonly #agent: Agent;

  constructor(options: ConnectionOptions) {
    this.origin = options.origin;
    this.#options = options;
    this.#agent = agentFor(options);
  }

  /**
   * Sends a request until it is answered with what is no error (304 is none), and gives the answer as it arrives.
   * @throws Problem, ConnectionLost, CertificateRefused
   */
  async send(asked: Asked): Promise<Answer> {
    for (let attempt = 0; ; attempt++) {
      try {
        const answer = await this.#sendOnce(asked);
        if (answer.status < 400) return answer;
        throw await problemOf(answer);
      } catch (error) {
        const delayMs = retryDelayMs(error, asked, attempt);
        if (delayMs === null) throw error;
        this.#options.onRetry(error as Error);
        await sleep(delayMs);
      }
    }
  }

  /** As `send`, and the answer's JSON. @throws NotAServer when it holds none */
  async json(asked: Asked): Promise<unknown> {
    const { body } = await this.send(asked);
    const text = (await collect(body, answerBytesMax)).toString('utf8');
    try {
      return JSON.parse(text) as unknown;
    } catch (cause) {
      throw new NotAServer(`${this.origin} answered ${asked.method} ${asked.path} with what is no JSON`, { cause });
    }
  }

  close(): void {
    this.#agent.destroy();
  }

  #sendOnce({ method, path, headers, body }: Asked): Promise<Answer> {
    const bytes = body === undefined ? null : Buffer.from(JSON.stringify(body));
    const { hostname, port, protocol } = new URL(this.origin);
    const request = (protocol === 'https:' ? requestHttps : requestHttp)({
      agent: this.#agent,
      host: hostname.replace(/^\[|\]$/g, ''),
      ...(port !== '' && { port: Number(port) }),
      method,
      path,
      headers: {
        'user-agent': this.#options.userAgent,
        accept: 'application/json, */*',
        ...(bytes && { 'content-type': 'application/json', 'content-length': String(bytes.byteLength) }),
        ...headers,
      },
    });
    return new Promise((resolve, reject) => {
      let sent = false;
      request.once('socket', (socket) => {
        // A socket that is handed over has been connected, and judged, unless it is a plain one still on its way.
        if (socket.connecting)
          socket.once('connect', () => {
            sent = true;
          });
        else sent = true;
      });
      request.setTimeout(silenceMsMax, () =>
        request.destroy(new Error(`nothing came back for ${silenceMsMax / 1000} s`)),
      );
      request.once('response', (answer) =>
        resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body: answer }),
      );
      request.on('error', (error: Error & { code?: string }) => {
        if (error instanceof CertificateRefused) return reject(error);
        const what = sent ? `the connection to ${this.origin} broke` : `cannot reach ${this.origin}`;
        reject(new ConnectionLost(`${what}: ${error.message || error.code}`, { cause: error, sent }));
      });
      request.end(bytes ?? undefined);
    });
  }
}

function retryDelayMs(error: unknown, { repeatable, once }: Asked, attempt: number): number | null {
  const backoff = once ? undefined : retryDelaysMs[attempt];
  if (backoff === undefined) return null;
  // Half fixed, half random: those who lost the same server do not come back together.
  const delay = backoff / 2 + (backoff / 2) * Math.random();
  if (error instanceof ConnectionLost) return repeatable || !error.sent ? delay : null;
  const { status, extras } = error as Partial<Problem>;
  // A 500 comes again, most often, and a 503 passes.
  if (status !== 503 || !repeatable) return null;
  const asked = (extras?.retryAfterSeconds ?? 0) * 1_000;
  return asked > retryAfterMsMax ? null : Math.max(delay, asked);
}

async function problemOf({ status, headers, body }: Answer): Promise<Problem> {
  // What was cut off still has its status.
  const bytes = await collect(body, problemBytesMax).catch(() => Buffer.alloc(0));
  return problemFromResponse(status, bytes, headers['retry-after']);
}

/** @throws ConnectionLost when it is cut off, NotAServer when it does not end */
export async function collect(body: IncomingMessage, bytesMax: number): Promise<Buffer> {
  const parts: Buffer[] = [];
  let have = 0;
  try {
    for await (const part of body) {
      have += (part as Buffer).byteLength;
      if (have > bytesMax) throw new NotAServer(`an answer of more than ${bytesMax} bytes came`);
      parts.push(part as Buffer);
    }
  } catch (cause) {
    if (cause instanceof NotAServer) throw cause;
    throw new ConnectionLost(`the answer was cut off: ${(cause as Error).message}`, { cause, sent: true });
  }
  return Buffer.concat(parts);
}
