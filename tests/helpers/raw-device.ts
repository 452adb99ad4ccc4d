/**
 * A registered device that sends what it likes, and what its answers say: for tests of bad input. One server, one
 * HTTP/2 connection, nothing repeated and nothing mended.
 */
import { randomBytes } from 'node:crypto';
import type { ClientHttp2Session } from 'node:http2';
import { joinHashes, sha256 } from '../../protocol/hashes.ts';
import type { VersionMessage } from '../../protocol/messages.ts';
import { encodeUpload } from '../../protocol/upload.ts';
import { encodeMessage, msgpackType } from '../../protocol/wire.ts';
import { type RawAnswer, rawRequest, rawSession } from './raw-http.ts';
import { registration } from './route-calls.ts';
import { clientOf, type RunningServer } from './server.ts';
import { version } from './storage.ts';

export const uploadType = 'application/vnd.holdfast.upload';

export interface ProblemDocument {
  code: string;
  field?: string;
  status: number;
  detail: string;
}

export class RawDevice {
  readonly server: RunningServer;
  readonly session: ClientHttp2Session;
  readonly archive: number;
  /** A run of its archive that has not ended. */
  readonly run: number;
  readonly authorized: { authorization: string };

  /** Use `registerRawDevice`. */
  constructor(server: RunningServer, session: ClientHttp2Session, is: { archive: number; run: number; token: string }) {
    this.server = server;
    this.session = session;
    this.archive = is.archive;
    this.run = is.run;
    this.authorized = { authorization: `Bearer ${is.token}` };
  }

  post(path: string, type: string, body: Uint8Array, more: Record<string, string> = {}): Promise<RawAnswer> {
    const described = { 'content-type': type, 'content-length': String(body.byteLength), ...more };
    return rawRequest(this.session, { ':method': 'POST', ':path': path, ...this.authorized, ...described }, body);
  }

  get(path: string): Promise<RawAnswer> {
    return rawRequest(this.session, { ':method': 'GET', ':path': path, ...this.authorized });
  }

  send(path: string, message: object): Promise<RawAnswer> {
    return this.post(path, msgpackType, encodeMessage(message));
  }

  commit(versions: VersionMessage[], more: object = {}): Promise<RawAnswer> {
    const request = { commitId: randomBytes(16), run: this.run, purgeEpoch: 0, versions, ...more };
    return this.send(this.at('commits'), request);
  }

  /** A path below its archive's. */
  at(rest: string): string {
    return `/v1/archives/${this.archive}/${rest}`;
  }

  /** Whether the server answers a new connection rightly. */
  async isServed(): Promise<boolean> {
    const fresh = await rawSession(this.server.url);
    try {
      const answer = await rawRequest(fresh, { ':method': 'GET', ':path': '/v1/self', ...this.authorized });
      return answer.status === 200;
    } finally {
      fresh.destroy();
    }
  }
}

/** The caller destroys its session. */
export async function registerRawDevice(server: RunningServer): Promise<RawDevice> {
  const registering = clientOf(server);
  const { archive, token } = await registering.register(registration(server.firstStart));
  await registering.close();
  const client = clientOf(server, token);
  const { run } = await client.startRun(archive, { lastCommit: null, roots: [] });
  await client.close();
  return new RawDevice(server, await rawSession(server.url), { archive, run, token });
}

/** The problem an answer is. @throws Error when it is none, or has not the form that every problem has */
export function problemOf({ status, headers, body }: RawAnswer): ProblemDocument {
  const type = headers['content-type'];
  if (type !== 'application/problem+json') throw new Error(`${status} ${type} is no problem: ${body}`);
  const problem = JSON.parse(body.toString()) as ProblemDocument & { type: string; title: string };
  const whole =
    problem.type === `urn:holdfast:problem:${problem.code}` &&
    typeof problem.title === 'string' &&
    typeof problem.detail === 'string' &&
    problem.status === status;
  if (!whole) throw new Error(`a problem of another form: ${body}`);
  return problem;
}

/** What a caller learns: 'accepted', or the problem's code and the field at fault. */
export function verdict(answer: RawAnswer): string {
  if (answer.status >= 200 && answer.status < 300) return 'accepted';
  const { code, field } = problemOf(answer);
  return field === undefined ? code : `${code} ${field}`;
}

/** Hashes of nothing that is stored, different for every salt. */
export const hashes = (count: number, salt = 0): Buffer =>
  joinHashes(Array.from({ length: count }, (_, i) => sha256(Buffer.from(`${salt} ${i}`))));

/** The body of an upload as it should be. */
export function upload(blocks: Buffer[]): Buffer {
  return Buffer.concat(encodeUpload(blocks.map((bytes) => ({ hash: sha256(bytes), bytes }))).chunks);
}

/** An upload whose header says what it likes. */
export function rawUpload(header: object, body: Uint8Array): Buffer {
  const encoded = encodeMessage(header);
  const prefix = Buffer.alloc(4);
  prefix.writeUInt32BE(encoded.byteLength);
  return Buffer.concat([prefix, encoded, body]);
}

/** A commit's versions: one, of this path. */
export const named = (path: Buffer, rest: Partial<VersionMessage> = {}): VersionMessage[] => [
  { ...version('/x'), path, ...rest },
];
/** Arrays in arrays: `depth` of them, and a nil in the innermost. */
export function nested(depth: number): Buffer {
  return Buffer.concat([Buffer.alloc(depth, 0x91), Buffer.of(0xc0)]);
}
