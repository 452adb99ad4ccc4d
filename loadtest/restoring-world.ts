/**
 * What the load tests of restores share: a made-up tree backed up by the real agent to a real server, and the ways to get
 * it back. Each says how many bytes came, and none is taken for done that did not bring all of them.
 */
import { createReadStream } from 'node:fs';
import { mkdir, open, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { defaultRetryPolicy } from '../agent/client/index.ts';
import { Transport } from '../agent/client/transport.ts';
import { type Program, startProgram } from './child-process.ts';
import { residentBytes } from './process-memory.ts';
import type { ServerProcess } from './server-process.ts';

const agentMain = fileURLToPath(new URL('../agent/main.ts', import.meta.url));
const MiB = 1024 * 1024;
/** How long what is staged may be there before it is seen. */
const stagedPollMs = 20;

export interface Stage {
  scratch: string;
  say: (line: string) => void;
  onStart: (program: Program) => void;
}

/** Pieces of random bytes, put together anew for each file: no two blocks are equal, and nothing can be compressed. */
export class MadeUpBytes {
  readonly #pool: Buffer;
  #turn = 0;

  constructor(pool: Buffer) {
    this.#pool = pool;
  }

  next(bytes: number): Buffer {
    const piece = Buffer.allocUnsafe(bytes);
    const from = (this.#turn * 23_456_789) % Math.max(1, this.#pool.byteLength - bytes);
    this.#pool.copy(piece, 0, from, from + bytes);
    // Another number in each KiB: pieces that lie over each other in the pool have no block in common.
    for (let at = 0; at + 4 <= bytes; at += 1024) piece.writeUInt32LE((this.#turn * 2_654_435_761 + at) >>> 0, at);
    this.#turn++;
    return piece;
  }
}

export async function makeLargeFiles(folder: string, bytes: number, made: MadeUpBytes): Promise<void> {
  await mkdir(folder, { recursive: true });
  const file = await open(join(folder, 'large'), 'w');
  try {
    for (let at = 0; at < bytes; at += 8 * MiB) await file.write(made.next(Math.min(8 * MiB, bytes - at)));
  } finally {
    await file.close();
  }
}

/** Files of 1 to 31 KiB, 200 in a folder. @returns bytes of all */
export async function makeSmallFiles(folder: string, count: number, made: MadeUpBytes): Promise<number> {
  let bytes = 0;
  for (let i = 0; i < count; i++) {
    const parent = join(folder, `folder ${Math.floor(i / 200)}`);
    if (i % 200 === 0) await mkdir(parent, { recursive: true });
    const content = made.next(1024 + ((i * 7_331) % (30 * 1024)));
    bytes += content.byteLength;
    await writeFile(join(parent, `file ${i}`), content);
  }
  return bytes;
}

/** The files of the server's object store and their bytes, but for those known before. */
export async function objectFiles(
  server: ServerProcess,
  but: ReadonlySet<string> = new Set(),
): Promise<{ files: string[]; bytes: number }> {
  const folder = join(server.data, 'objects', 'objects');
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  const kept = files.filter((file) => !but.has(file));
  let bytes = 0;
  for (const file of kept) bytes += (await stat(file)).size;
  return { files: kept, bytes };
}

/** Reads files into nothing, one after the other, as the store reads an object. */
export async function readFiles(files: readonly string[]): Promise<number> {
  let bytes = 0;
  for (const file of files)
    for await (const piece of createReadStream(file, { highWaterMark: 512 * 1024 }))
      bytes += (piece as Buffer).byteLength;
  return bytes;
}

export interface AgentEnd {
  elapsedMs: number;
  bytesRestored: number;
  bytesFetched: number;
  outcome: string;
  /** Most resident bytes of the agent's process seen. */
  peakBytes: number;
}

/** Runs the agent's command in a folder of its own. @throws Error with what it said when it did not end well */
export async function runAgent(
  stage: Pick<Stage, 'onStart'>,
  server: Pick<ServerProcess, 'data'>,
  words: readonly string[],
  nodeArguments: readonly string[] = [],
): Promise<AgentEnd> {
  let end: AgentEnd | null = null;
  const program = startProgram(agentMain, [...words, '--json'], {
    environment: { HOLDFAST_DATA: server.data },
    nodeArguments: ['--max-semi-space-size=8', ...nodeArguments], // as `npm run agent`
    onLine: (line) => {
      const event = JSON.parse(line) as AgentEnd & { event: string };
      if (event.event === 'end') end = event;
    },
  });
  stage.onStart(program);
  let peakBytes = 0;
  const timer = setInterval(() => {
    peakBytes = Math.max(peakBytes, residentBytes(program.pid) ?? 0);
  }, 50);
  const code = await program.ended;
  clearInterval(timer);
  if (code !== 0 || !end)
    throw new Error(`${words[0]} ended with ${code}: ${program.output().slice(-2_000)}${program.errors()}`);
  return { ...(end as AgentEnd), peakBytes };
}

/** Restores with the agent's command, and removes what came. @throws Error when it is not all there */
export async function agentRestore(
  stage: Pick<Stage, 'onStart'>,
  server: Pick<ServerProcess, 'data'>,
  asked: { path: string; to: string; bytes: number; nodeArguments?: readonly string[] },
): Promise<AgentEnd> {
  try {
    const end = await runAgent(stage, server, ['restore', asked.path, '--to', asked.to], asked.nodeArguments);
    if (end.outcome !== 'completed' || end.bytesRestored !== asked.bytes)
      throw new Error(`the agent restored ${end.bytesRestored} of ${asked.bytes} bytes: ${end.outcome}`);
    return end;
  } finally {
    await rm(asked.to, { recursive: true, force: true });
  }
}

export interface ApiClient {
  clientId: string;
  clientSecret: string;
}

export interface PlannedRestore {
  device: string;
  path: string;
  format: 'zip' | 'tar';
}

/** The JSON API and restores over it, as one person or program. HTTP/2, with the windows of the agent's client. */
export class WebClient {
  readonly #transport: Transport;
  #token = '';

  constructor(url: string, certificateSha256: string, retry = { ...defaultRetryPolicy, giveUpAfterMs: 0 }) {
    this.#transport = new Transport({
      url: new URL(url),
      certificateSha256,
      connections: 1,
      connectTimeoutMs: 15_000,
      idleTimeoutMs: 120_000,
      retry,
      limiter: null,
      signal: null,
      onRetry: null,
    });
  }

  /** The access token of whoever signed in. */
  get token(): string {
    return this.#token;
  }

  async ask<T>(method: 'GET' | 'POST' | 'PUT', path: string, body?: object): Promise<T> {
    const answer = await this.#transport.request({
      method,
      path,
      headers: { ...this.#auth(), ...(body ? { 'content-type': 'application/json' } : {}) },
      ...(body ? { body: [Buffer.from(JSON.stringify(body))] } : {}),
    });
    return JSON.parse(answer.body.toString()) as T;
  }

  async signIn(server: Pick<ServerProcess, 'registrationKey' | 'userName' | 'password'>): Promise<void> {
    const { registrationKey: tenant, userName, password } = server;
    this.#token = '';
    const made = await this.ask<{ accessToken: string }>('POST', '/v1/sessions', { tenant, userName, password });
    this.#token = made.accessToken;
  }

  async signInAsClient({ clientId, clientSecret }: ApiClient): Promise<void> {
    this.#token = '';
    const body = { grant_type: 'client_credentials', client_id: clientId, client_secret: clientSecret };
    this.#token = (await this.ask<{ access_token: string }>('POST', '/v1/clients/token', body)).access_token;
  }

  async plan(asked: PlannedRestore, kind: 'streamed' | 'staged' = 'streamed'): Promise<number> {
    const { device, path, format } = asked;
    const body = { device, paths: [path], format, kind, reason: 'a load test' };
    return (await this.ask<{ id: number }>('POST', '/v1/restores', body)).id;
  }

  /** Fetches a planned restore into nothing. @param onBytes told as they come. @throws as the transport; Problem overloaded */
  async fetch(restore: number, onBytes: (bytes: number) => void | Promise<void> = () => {}): Promise<number> {
    const path = `/v1/restores/${restore}/content`;
    const { body } = await this.#transport.stream({ method: 'GET', path, headers: this.#auth() });
    let bytes = 0;
    for await (const piece of body) {
      bytes += piece.byteLength;
      await onBytes(piece.byteLength);
    }
    return bytes;
  }

  /** Plans, fetches, and looks that it says of itself that it was whole. @returns bytes of the archive */
  async restore(asked: PlannedRestore & { bytes: number }): Promise<number> {
    const id = await this.plan(asked);
    const bytes = await this.fetch(id);
    await this.assertWhole(id, asked.bytes);
    return bytes;
  }

  /** Has one staged by a worker, and waits for it. @returns its number; cancel it when it is needed no more */
  async stage(asked: PlannedRestore & { bytes: number }): Promise<number> {
    const id = await this.plan(asked, 'staged');
    for (;;) {
      const { state } = await this.ask<{ state: string }>('GET', `/v1/restores/${id}`);
      if (state !== 'planned' && state !== 'running') break;
      await sleep(stagedPollMs);
    }
    await this.assertWhole(id, asked.bytes);
    return id;
  }

  async cancel(restore: number): Promise<void> {
    await this.ask('POST', `/v1/restores/${restore}/cancel`);
  }

  async assertWhole(restore: number, plainBytes: number): Promise<void> {
    const row = await this.ask<{ state: string; done: { bytes: number; leftOut: number } }>(
      'GET',
      `/v1/restores/${restore}`,
    );
    if (row.state !== 'completed' || row.done.bytes !== plainBytes || row.done.leftOut > 0)
      throw new Error(`restore ${restore} of ${plainBytes} bytes ended as ${JSON.stringify(row)}`);
  }

  async device(): Promise<string> {
    const { items } = await this.ask<{ items: { guid: string }[] }>('GET', '/v1/devices');
    if (!items[0]) throw new Error('no device is registered');
    return items[0].guid;
  }

  close(): void {
    this.#transport.destroy();
  }

  #auth(): Record<string, string> {
    return this.#token === '' ? {} : { authorization: `Bearer ${this.#token}` };
  }
}

/** What a part of a crowd is told, in a file. */
export interface CrowdTask {
  url: string;
  certificateSha256: string;
  go: string;
  path: string;
  bytes: number;
  /** Where agents restore to; each has a folder there. */
  to: string;
  device: string;
  archive: number;
  /** The folders of those that are agents. */
  agents: readonly string[];
  browsers: readonly ApiClient[];
  /** Fetch, but take nothing after the first bytes: so many seconds, then go away. 0: as fast as it comes. */
  stallSeconds: number;
}

export interface CrowdEnd {
  /** From the moment all began: when its first bytes came, and its last. */
  firstMs: number;
  endMs: number;
  bytes: number;
}

/** After each turn: what the kernel still does for one is not to fall on the next. */
export const settle = (): Promise<void> => sleep(200);
