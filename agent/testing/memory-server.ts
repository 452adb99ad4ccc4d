/**
 * A server of the agent protocol over real HTTP/2, for the agent's tests: one archive, in memory, and faults on
 * command. It keeps the promises an agent relies on (claims, commits by commitId, numbering) and checks every message
 * with the protocol's own schemas. What it does not try to be: durable, concurrent or fast.
 */
import { createServer, type Http2Server, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { encodeBlockFrameHeader, encodeBlockFramesEnd } from '../../protocol/block-frames.ts';
import { bitmapOf, hashAt, hashCount, hashKey, hashKeyAt, sha256, splitHashes } from '../../protocol/hashes.ts';
import {
  ClaimRequest,
  CommitRequest,
  FetchRequest,
  type KeptKey,
  ListFetchRequest,
  type PlanMessage,
  RunFinishRequest,
  RunProgressRequest,
  RunStartRequest,
  type StoredVersion,
} from '../../protocol/messages.ts';
import { Problem, type ProblemCode } from '../../protocol/problems.ts';
import { readUploadHeader } from '../../protocol/upload.ts';
import { ByteReader, decodeMessage, encodeFrame, encodeMessage } from '../../protocol/wire.ts';
import { MemoryCommands } from './memory-commands.ts';

export type Fault =
  | { kind: 'problem'; code: ProblemCode; retryAfterSeconds?: number }
  /** The connection breaks before the request is looked at. */
  | { kind: 'drop' }
  /** The request is done, and the connection breaks before its answer. */
  | { kind: 'lose_answer' };

export interface MemoryServer {
  url: string;
  blocks: Map<string, Buffer>;
  /** The hashes of each list's blocks. */
  lists: Map<string, Buffer>;
  /** Paths to be told as damaged. */
  damaged: Buffer[];
  /** What a claim promises, and so when an agent renews it. */
  claimedForMs: number;
  /** Every version, in order of seq; purged or rolled-back ones are gone. */
  versions: StoredVersion[];
  nextSeq: number;
  purgeEpoch: number;
  /** What the device is told to back up. */
  plans: PlanMessage[];
  /** What `self` says of the vault's keys. */
  vaultKeys: KeptKey[];
  /** What the device is told to do. */
  commands: MemoryCommands;
  runs: { finish: RunFinishRequest | null; skipped: RunFinishRequest['skipped'] }[];
  /** 'POST /v1/blocks' and the like, in order; archive numbers left out. */
  requests: string[];
  commits: Map<string, { digest: Buffer; firstSeq: number; count: number }>;
  /** Asked before every request: the fault to have, or null. */
  faults: (request: string) => Fault | null;
  /** The live state: path (latin1) -> its latest version, deletions left out. */
  state(): Map<string, StoredVersion>;
  /** Forgets everything from this seq on, as a restored database would. */
  rollBackTo(seq: number): void;
  dropConnections(): void;
  close(): Promise<void>;
}

export async function startMemoryServer(): Promise<MemoryServer> {
  const http2: Http2Server = createServer();
  const sessions = new Set<ServerHttp2Session>();
  http2.on('session', (session) => {
    sessions.add(session);
    session.on('error', () => undefined);
    session.on('close', () => sessions.delete(session));
  });
  const server: MemoryServer = {
    url: '',
    blocks: new Map(),
    lists: new Map(),
    damaged: [],
    claimedForMs: 60_000,
    versions: [],
    nextSeq: 1,
    purgeEpoch: 0,
    runs: [],
    requests: [],
    plans: [],
    commands: new MemoryCommands(),
    vaultKeys: [{ level: 'standard', generation: 1 }],
    commits: new Map(),
    faults: () => null,
    state() {
      const latest = new Map<string, StoredVersion>();
      for (const version of server.versions) latest.set(version.path.toString('latin1'), version);
      for (const [path, version] of latest) if (version.deleted) latest.delete(path);
      return latest;
    },
    rollBackTo(seq) {
      server.versions = server.versions.filter((version) => version.seq < seq);
      server.nextSeq = seq;
      for (const [id, commit] of server.commits) if (commit.firstSeq >= seq) server.commits.delete(id);
    },
    dropConnections() {
      for (const session of sessions) session.destroy();
    },
    async close() {
      server.dropConnections();
      await new Promise((resolve) => http2.close(resolve));
    },
  };
  http2.on('stream', (stream: ServerHttp2Stream, headers) => {
    stream.on('error', () => undefined);
    void handle(
      server,
      stream,
      String(headers[':method']),
      String(headers[':path']),
      Number(headers['content-length'] ?? 0),
    );
  });
  await new Promise<void>((resolve) => http2.listen(0, '127.0.0.1', resolve));
  server.url = `http://127.0.0.1:${(http2.address() as AddressInfo).port}`;
  return server;
}

async function handle(
  server: MemoryServer,
  stream: ServerHttp2Stream,
  method: string,
  path: string,
  contentLength: number,
): Promise<void> {
  const url = new URL(path, server.url);
  const request = `${method} ${url.pathname.replace(/\/archives\/\d+/, '/archive').replace(/\/(run|command)s\/\d+/, '/$1')}`;
  server.requests.push(request);
  const fault = server.faults(request);
  try {
    if (fault?.kind === 'drop') return stream.session?.destroy();
    if (fault?.kind === 'problem')
      throw new Problem(
        fault.code,
        'on command',
        fault.retryAfterSeconds === undefined ? {} : { retryAfterSeconds: fault.retryAfterSeconds },
      );
    if (request === 'GET /v1/self/commands') return server.commands.listen(stream, url.searchParams.has('once'));
    const answer = await answerTo(server, request, url, new ByteReader(stream), contentLength);
    if (fault?.kind === 'lose_answer') return stream.session?.destroy();
    if (stream.destroyed) return;
    stream.respond({ ':status': 200 });
    for (const part of answer) stream.write(part);
    stream.end();
  } catch (error) {
    if (stream.destroyed) return;
    const problem = error instanceof Problem ? error : new Problem('internal', String(error));
    const retry = problem.extras.retryAfterSeconds;
    stream.respond({
      ':status': problem.status,
      'content-type': 'application/problem+json',
      ...(retry === undefined ? {} : { 'retry-after': String(retry) }),
    });
    stream.end(JSON.stringify(problem));
  }
}

async function answerTo(
  server: MemoryServer,
  request: string,
  url: URL,
  reader: ByteReader,
  contentLength: number,
): Promise<Buffer[]> {
  const body = async (): Promise<Buffer> =>
    contentLength === 0 ? Buffer.alloc(0) : (await reader.read(contentLength))!;
  const { claimedForMs } = server;
  const promise = { claimedUntil: Date.now() + claimedForMs, claimedForMs };
  switch (request) {
    case 'POST /v1/blocks/claim': {
      const { blocks, lists } = decodeMessage(ClaimRequest, await body());
      return [encodeMessage({ blocks: absent(blocks, server.blocks), lists: absent(lists, server.lists), ...promise })];
    }
    case 'POST /v1/blocks': {
      const header = await readUploadHeader(reader, contentLength);
      let stored = 0;
      for (const [index, length] of header.lengths.entries()) {
        const bytes = Buffer.from((await reader.read(length))!);
        if (!sha256(bytes).equals(hashAt(header.blocks, index))) throw new Problem('block_corrupt', `block ${index}`);
        if (!server.blocks.has(hashKeyAt(header.blocks, index))) stored++;
        server.blocks.set(hashKeyAt(header.blocks, index), bytes);
      }
      let listsStored = 0;
      for (const [index, length] of header.listLengths.entries()) {
        const hashes = Buffer.from((await reader.read(length))!);
        if (!sha256(hashes).equals(hashAt(header.lists, index))) throw new Problem('list_corrupt', `list ${index}`);
        const missing = missingOf(hashes, server.blocks);
        if (missing.length > 0)
          throw new Problem('blocks_missing', `${missing.length} blocks`, { field: 'lists', missing });
        if (!server.lists.has(hashKeyAt(header.lists, index))) listsStored++;
        server.lists.set(hashKeyAt(header.lists, index), hashes);
      }
      return [encodeMessage({ stored, known: header.lengths.length - stored, listsStored, ...promise })];
    }
    case 'POST /v1/blocks/fetch':
      return framesOf(decodeMessage(FetchRequest, await body()).blocks, server.blocks);
    case 'POST /v1/lists/fetch':
      return framesOf(decodeMessage(ListFetchRequest, await body()).lists, server.lists);
    case 'GET /v1/self': {
      const self = { guid: '5', deviceName: 'd', userName: 'u', vault: 1, archive: 1, archives: [] };
      return [encodeMessage({ ...self, serverTime: Date.now(), vaultKeys: server.vaultKeys })];
    }
    case 'GET /v1/self/plans':
      return [encodeMessage({ plans: server.plans })];
    case 'POST /v1/self/command/progress':
    case 'POST /v1/self/command/end':
    case 'POST /v1/self/command/answer': {
      const [id, what] = url.pathname.split('/').slice(-2);
      return [server.commands.heard(Number(id), what!, await body())];
    }
    case 'GET /v1/archive/history': {
      const [path, before] = [
        url.searchParams.get('path'),
        Number(url.searchParams.get('after') ?? Number.MAX_SAFE_INTEGER),
      ];
      const versions = server.versions.filter((each) => each.path.toString('base64url') === path && each.seq < before);
      return [encodeMessage({ versions: versions.reverse(), more: false })];
    }
    case 'POST /v1/archive/runs': {
      const { lastCommit } = decodeMessage(RunStartRequest, await body());
      if (lastCommit && server.commits.get(lastCommit.commitId.toString('hex'))?.firstSeq !== lastCommit.seq)
        throw new Problem('archive_rolled_back', 'that commit is not known');
      server.runs.push({ finish: null, skipped: [] });
      return [
        encodeMessage({
          run: server.runs.length,
          nextSeq: server.nextSeq,
          purgeEpoch: server.purgeEpoch,
          serverTime: Date.now(),
          damaged: server.damaged.length > 0,
        }),
      ];
    }
    case 'POST /v1/archive/run/progress':
      server.runs.at(-1)!.skipped.push(...decodeMessage(RunProgressRequest, await body()).skipped);
      return [encodeMessage({})];
    case 'POST /v1/archive/run/finish': {
      const finish = decodeMessage(RunFinishRequest, await body());
      Object.assign(server.runs.at(-1)!, { finish, skipped: [...server.runs.at(-1)!.skipped, ...finish.skipped] });
      return [encodeMessage({})];
    }
    case 'POST /v1/archive/commits':
      return [commit(server, await body())];
    case 'GET /v1/archive/versions':
      return versionFrames(server, url);
    case 'GET /v1/archive/damaged': {
      // A page of one path: so that whoever asks has to go on.
      const after = Buffer.from(url.searchParams.get('after') ?? '', 'base64url');
      const left = server.damaged.filter((path) => Buffer.compare(path, after) > 0).sort(Buffer.compare);
      return [encodeMessage({ paths: left.slice(0, 1), more: left.length > 1 })];
    }
    default:
      throw new Problem('not_found', request);
  }
}

function commit(server: MemoryServer, body: Buffer): Buffer {
  const message = decodeMessage(CommitRequest, body);
  const id = message.commitId.toString('hex');
  const known = server.commits.get(id);
  if (known && !known.digest.equals(sha256(body))) throw new Problem('commit_id_reused', 'another body');
  if (!known) {
    if (message.purgeEpoch < server.purgeEpoch)
      throw new Problem('archive_changed', 'paths were purged', { purgeEpoch: server.purgeEpoch });
    const paths = new Set(message.versions.map((version) => version.path.toString('latin1')));
    if (paths.size !== message.versions.length) throw new Problem('path_repeated', 'a path twice');
    const missing = message.versions.flatMap(({ blocks }) => missingOf(blocks, server.blocks));
    const missingLists = message.versions.flatMap(({ lists }) => missingOf(lists, server.lists));
    if (missing.length + missingLists.length > 0)
      throw new Problem('blocks_missing', 'not all is there', { missing, missingLists });
    server.commits.set(id, { digest: sha256(body), firstSeq: server.nextSeq, count: message.versions.length });
    for (const version of message.versions)
      server.versions.push({ ...version, seq: server.nextSeq++, committedAt: Date.now() });
  }
  const { firstSeq, count } = server.commits.get(id)!;
  return encodeMessage({ firstSeq, count, purgeEpoch: server.purgeEpoch });
}

/** A bit for each hash that is not held. */
function absent(hashes: Buffer, held: ReadonlyMap<string, Buffer>): Buffer {
  return bitmapOf(hashCount(hashes), (index) => !held.has(hashKeyAt(hashes, index)));
}

/** The hashes that are not held, each once, in hexadecimal. */
function missingOf(hashes: Buffer, held: ReadonlyMap<string, Buffer>): string[] {
  const missing = new Set<string>();
  for (let index = 0; index < hashCount(hashes); index++)
    if (!held.has(hashKeyAt(hashes, index))) missing.add(hashAt(hashes, index).toString('hex'));
  return [...missing];
}

function framesOf(hashes: Buffer, held: ReadonlyMap<string, Buffer>): Buffer[] {
  const frames = Array.from({ length: hashCount(hashes) }, (_, index) => {
    const bytes = held.get(hashKeyAt(hashes, index)) ?? Buffer.alloc(0);
    return Buffer.concat([encodeBlockFrameHeader(index, bytes.byteLength), bytes]);
  });
  return [...frames, encodeBlockFramesEnd(frames.length)];
}

function versionFrames(server: MemoryServer, url: URL): Buffer[] {
  const bytesOf = (name: string): Buffer => Buffer.from(url.searchParams.get(name) ?? '', 'base64url');
  const [root, after] = [bytesOf('path').toString('latin1'), bytesOf('after')];
  const states = url.searchParams.has('deleted')
    ? new Map(server.versions.map((version) => [version.path.toString('latin1'), version]))
    : server.state();
  const versions = [...states]
    .filter(([path]) => root.length <= 1 || path === root || path.startsWith(`${root}/`))
    .map(([, version]) => version)
    .sort((a, b) => Buffer.compare(a.path, b.path))
    .filter((version) => Buffer.compare(version.path, after) > 0);
  const pages: Buffer[] = [];
  for (let at = 0; at < versions.length; at += 100)
    pages.push(encodeFrame({ frame: 'versions', versions: versions.slice(at, at + 100) }));
  return [
    encodeFrame({ frame: 'begin', seq: server.nextSeq - 1, at: Date.now() }),
    ...pages,
    encodeFrame({ frame: 'end' }),
  ];
}

/** Forgets a block, as a server that lost it does, and the lists that name it. */
export function forgetBlock(server: MemoryServer, hash: Uint8Array): void {
  server.blocks.delete(hashKey(hash));
  for (const [key, hashes] of server.lists)
    if (splitHashes(hashes).some((each) => each.equals(hash))) server.lists.delete(key);
}
