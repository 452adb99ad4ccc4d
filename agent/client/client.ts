/**
 * A device's view of its server: one method per endpoint of docs/protocol.md, every message checked both ways.
 * Requests are repeated as retry.ts decides; long answers go on where they broke.
 */
import type { z } from 'zod';
import { type BlockFrame, decodeBlockFrames } from '../../protocol/block-frames.ts';
import { hashAt, hashCount, joinHashes } from '../../protocol/hashes.ts';
import { limits } from '../../protocol/limits.ts';
import type { List } from '../../protocol/lists.ts';
import {
  ClaimAnswer,
  CommitAnswer,
  type CommitRequest,
  DamagedAnswer,
  DevicesAnswer,
  type DevicesRequest,
  EmptyAnswer,
  HistoryAnswer,
  PlansAnswer,
  RaiseAnswer,
  type RaiseRequest,
  RegisterAnswer,
  type RegisterRequest,
  type RunFinishRequest,
  type RunProgressRequest,
  RunStartAnswer,
  type RunStartRequest,
  RunsAnswer,
  SelfAnswer,
  type StoredVersion,
  TreeAnswer,
  type TreeEntry,
  UploadAnswer,
  VersionsFrame,
} from '../../protocol/messages.ts';
import { Problem } from '../../protocol/problems.ts';
import { isThinned, type ThinnedInPlace, ThinnedPlaces } from '../../protocol/thinned.ts';
import { encodeUpload, type SealedBlock } from '../../protocol/upload.ts';
import { decodeFrames, encodeMessage, msgpackType } from '../../protocol/wire.ts';
import { BandwidthLimiter } from './bandwidth.ts';
import { CommandCalls } from './command-calls.ts';
import { ConnectionLost, NotAServer } from './errors.ts';
import { parseFingerprint } from './pinned-session.ts';
import { read } from './read-answer.ts';
import { defaultRetryPolicy, type RetryPolicy } from './retry.ts';
import { type Request, Transport } from './transport.ts';

export interface ConnectOptions {
  /** https://host:port; http:// only to this same machine. */
  url: string;
  /** SHA-256 of the server's certificate (hex, colons allowed). Without it the system's authorities decide. */
  certificateSha256?: string | null;
  /** The device's token; not needed to register. */
  token?: string;
  /** HTTP/2 connections at most; default 1. */
  connections?: number;
  connectTimeoutMs?: number;
  /** A request on which no byte moves for this long is sent again; default 90 s: a commit may take 30. */
  idleTimeoutMs?: number;
  retry?: Partial<RetryPolicy>;
  limitUploadBytesPerSecond?: number;
  signal?: AbortSignal;
  onRetry?: (error: Error, delayMs: number) => void;
}

export interface TreeQuery {
  /** Archive path bytes; default the root. */
  path?: Uint8Array;
  /** Milliseconds since the epoch; default now. */
  at?: number;
  deleted?: boolean;
}

export interface VersionsQuery extends TreeQuery {
  /** Pins the moment: the `seq` of an earlier stream's begin. */
  seq?: number;
  /** Full path of the last version already had. */
  after?: Uint8Array;
}

export interface VersionsStream {
  /** The moment the stream shows, as the archive counts and as its server's clock says (ms). */
  seq: number;
  at: number;
  /** Depth first, parents before children, names in byte order. Goes on by itself when the connection breaks. */
  versions: AsyncGenerator<StoredVersion>;
}

/** Streamed answers are taken up again this often without a single frame of progress in between. */
const resumptionsMax = 8;

/** A client of the server at `url`. Nothing is sent, and no connection made, before the first request. */
export function connect(options: ConnectOptions): Client {
  const certificateSha256 = options.certificateSha256 ? parseFingerprint(options.certificateSha256) : null;
  if (options.certificateSha256 && certificateSha256 === null) {
    throw new NotAServer(`'${options.certificateSha256}' is not the SHA-256 of a certificate: 64 hex digits are`);
  }
  const transport = new Transport({
    url: parseUrl(options.url),
    certificateSha256,
    connections: options.connections ?? 1,
    connectTimeoutMs: options.connectTimeoutMs ?? 15_000,
    idleTimeoutMs: options.idleTimeoutMs ?? 90_000,
    retry: { ...defaultRetryPolicy, ...options.retry },
    limiter: options.limitUploadBytesPerSecond ? new BandwidthLimiter(options.limitUploadBytesPerSecond) : null,
    signal: options.signal ?? null,
    onRetry: options.onRetry ?? null,
  });
  return new Client(transport, options.token);
}

function parseUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (!url || !['https:', 'http:'].includes(url.protocol))
    throw new NotAServer(`'${text}' is not a server's address like https://backup.example:4443`);
  return url;
}

export class Client {
  readonly #transport: Transport;
  readonly #auth: Record<string, string>;
  /** What this device is told to do. */
  readonly commands: CommandCalls;

  constructor(transport: Transport, token: string | undefined) {
    this.#transport = transport;
    this.#auth = token ? { authorization: `Bearer ${token}` } : {};
    this.commands = new CommandCalls(transport, this.#auth);
  }

  /** Body bytes sent so far, repeats included. */
  get bytesSent(): number {
    return this.#transport.bytesSent;
  }

  /** Waits for requests under way, then ends the connections. */
  close(): Promise<void> {
    return this.#transport.close();
  }

  /** Breaks the connections at once. */
  destroy(): void {
    this.#transport.destroy();
  }

  // --- registration ---------------------------------------------------------------------------------------------

  /**
   * @throws Problem sign_in_failed, too_many_requests, second_factor_needed, password_change_needed, not_found (no such
   *   device to replace), conflict { field: 'token' } when the token is that of another device
   */
  register(request: RegisterRequest): Promise<RegisterAnswer> {
    // Without a token of ours a lost answer may have made a device; whoever asks decides whether to ask again.
    const repeatable = request.token !== undefined;
    return this.#message('POST', '/v1/register', request, RegisterAnswer, { repeatable });
  }

  /** The devices of the user who signs in. A code of the second factor is used up. @throws Problem as `register` */
  devices(request: z.infer<typeof DevicesRequest>): Promise<z.infer<typeof DevicesAnswer>> {
    return this.#message('POST', '/v1/devices/query', request, DevicesAnswer, { repeatable: false });
  }

  /** What the server knows of this device, and which archives it may read. */
  self(): Promise<SelfAnswer> {
    return this.#message('GET', '/v1/self', null, SelfAnswer);
  }

  /**
   * What this device is told to back up, and when.
   * @param etag of the answer that the caller has; null: none
   * @returns null when that is still the answer
   * @throws Problem not_found from a server that knows no plans
   */
  async plans(etag: string | null): Promise<{ plans: PlansAnswer['plans']; etag: string | null } | null> {
    const headers = etag === null ? this.#auth : { ...this.#auth, 'if-none-match': etag };
    const answer = await this.#transport.request({ method: 'GET', path: '/v1/self/plans', headers });
    if (answer.status === 304) return null;
    return { ...read(PlansAnswer, answer), etag: answer.headers.etag ?? null };
  }

  /**
   * Raises the level of the user's keys.
   * @throws Problem sign_in_failed, second_factor_needed, too_many_requests, conflict { field, level }
   */
  raise(request: RaiseRequest): Promise<RaiseAnswer> {
    // A lost answer may have raised it; whoever asks looks first (self) whether to ask again.
    return this.#message('POST', '/v1/keys/raise', request, RaiseAnswer, { repeatable: false });
  }

  // --- blocks ---------------------------------------------------------------------------------------------------

  /**
   * @param blocks n x 32 bytes, and as many of lists; limits.claimBlocksMax of both together. The answer's bitmaps have
   *   a 1 for each to be sent.
   */
  claim(blocks: Uint8Array, lists: Uint8Array = Buffer.alloc(0)): Promise<ClaimAnswer> {
    const message = lists.byteLength > 0 ? { blocks, lists } : { blocks };
    return this.#message('POST', '/v1/blocks/claim', message, ClaimAnswer);
  }

  /**
   * Sends blocks, and lists that may name them, within limits.uploadBytesMax, uploadBlocksMax and uploadListsMax in one
   * request. Durable when it returns.
   * @throws Problem blocks_missing { missing } when a list names blocks that are not stored; what came with it is
   */
  async upload(blocks: readonly SealedBlock[], lists: readonly List[] = []): Promise<UploadAnswer> {
    const { chunks } = encodeUpload(blocks, lists);
    const headers = { ...this.#auth, 'content-type': 'application/vnd.holdfast.upload' };
    const request: Request = { method: 'POST', path: '/v1/blocks', headers, body: chunks };
    return read(UploadAnswer, await this.#transport.request(request));
  }

  async putBlock(block: SealedBlock): Promise<UploadAnswer> {
    const headers = { ...this.#auth, 'content-type': 'application/octet-stream' };
    const path = `/v1/blocks/${Buffer.from(block.hash).toString('hex')}`;
    return read(UploadAnswer, await this.#transport.request({ method: 'PUT', path, headers, body: [block.bytes] }));
  }

  /** A block's sealed bytes. @throws Problem not_found */
  async getBlock(hash: Uint8Array): Promise<Buffer> {
    const path = `/v1/blocks/${Buffer.from(hash).toString('hex')}`;
    return (await this.#transport.request({ method: 'GET', path, headers: this.#auth })).body;
  }

  /**
   * Blocks by their hashes, each once, in the order the server reads them; `bytes` is null for one it does not have.
   * The bytes are not checked against the hash here. Goes on by itself when the connection breaks.
   * @param blocks n x 32 bytes, n <= limits.fetchBlocksMax
   */
  fetchBlocks(blocks: Uint8Array, signal?: AbortSignal): AsyncGenerator<BlockFrame> {
    return this.#fetch({ path: '/v1/blocks/fetch', field: 'blocks', names: blocks }, signal);
  }

  /** Lists, as `fetchBlocks` gives blocks: the bytes are hashes. @param lists n x 32 bytes, n <= limits.fetchListsMax */
  fetchLists(lists: Uint8Array, signal?: AbortSignal): AsyncGenerator<BlockFrame> {
    return this.#fetch({ path: '/v1/lists/fetch', field: 'lists', names: lists }, signal);
  }

  async *#fetch(
    { path, field, names }: { path: string; field: 'blocks' | 'lists'; names: Uint8Array },
    signal?: AbortSignal,
  ): AsyncGenerator<BlockFrame> {
    let left = Array.from({ length: hashCount(names) }, (_, index) => index);
    for (let attempts = 0; left.length > 0; ) {
      const asked = left;
      const got = new Set<number>();
      const body = [encodeMessage({ [field]: joinHashes(asked.map((index) => hashAt(names, index))) })];
      const answer = await this.#transport.stream({
        method: 'POST',
        path,
        headers: this.#headers(true),
        body,
        signal,
      });
      try {
        for await (const frame of decodeBlockFrames(answer.body, asked.length)) {
          if (got.has(frame.index)) continue;
          got.add(frame.index);
          attempts = 0;
          yield { index: asked[frame.index]!, bytes: frame.bytes };
        }
      } catch (error) {
        if (signal?.aborted) throw signal.reason;
        if (!wasCut(error) || ++attempts > resumptionsMax) throw error;
      }
      left = asked.filter((_, index) => !got.has(index));
      if (left.length > 0 && ++attempts > resumptionsMax) {
        throw new ConnectionLost(
          `the server left out ${left.length} of ${asked.length} ${field}, ${resumptionsMax} times over`,
        );
      }
    }
  }

  // --- runs and commits -----------------------------------------------------------------------------------------

  /** @throws Problem archive_rolled_back, archive_not_active */
  startRun(archive: number, request: RunStartRequest): Promise<RunStartAnswer> {
    return this.#message('POST', `/v1/archives/${archive}/runs`, request, RunStartAnswer);
  }

  async runProgress(archive: number, run: number, request: RunProgressRequest): Promise<void> {
    await this.#message('POST', `/v1/archives/${archive}/runs/${run}/progress`, request, EmptyAnswer);
  }

  async finishRun(archive: number, run: number, request: RunFinishRequest): Promise<void> {
    await this.#message('POST', `/v1/archives/${archive}/runs/${run}/finish`, request, EmptyAnswer);
  }

  /** One page of the archive's runs, newest first; `before` is the last run of the page before. */
  runs(archive: number, query: { before?: number; limit?: number } = {}): Promise<RunsAnswer> {
    return this.#message('GET', `/v1/archives/${archive}/runs${queryString(query)}`, null, RunsAnswer);
  }

  /** One page of the paths whose latest version names damaged blocks; `after` is the last path of the page before. */
  damaged(archive: number, query: { after?: Uint8Array; limit?: number } = {}): Promise<DamagedAnswer> {
    return this.#message('GET', `/v1/archives/${archive}/damaged${queryString(query)}`, null, DamagedAnswer);
  }

  /** @throws Problem blocks_missing { missing, missingLists }, archive_changed { purgeEpoch }, commit_id_reused, run_finished */
  commit(archive: number, request: CommitRequest): Promise<CommitAnswer> {
    return this.commitEncoded(archive, encodeMessage(request));
  }

  /** A commit whose body was encoded before: what is sent again under one commitId must be the same bytes. */
  async commitEncoded(archive: number, body: Uint8Array): Promise<CommitAnswer> {
    const request: Request = {
      method: 'POST',
      path: `/v1/archives/${archive}/commits`,
      headers: this.#headers(true),
      body: [body],
    };
    return read(CommitAnswer, await this.#transport.request(request));
  }

  // --- reading --------------------------------------------------------------------------------------------------

  /** One page of a folder; `after` is the last name of the page before. */
  tree(archive: number, query: TreeQuery & { after?: Uint8Array; limit?: number } = {}): Promise<TreeAnswer> {
    return this.#message('GET', `/v1/archives/${archive}/tree${queryString(query)}`, null, TreeAnswer);
  }

  /** All entries of a folder, page by page. */
  async *treeEntries(archive: number, query: TreeQuery = {}): AsyncGenerator<TreeEntry> {
    const at = query.at ?? Date.now(); // one moment for all pages
    let after: Uint8Array | undefined;
    for (;;) {
      const page = await this.tree(archive, { ...query, at, after, limit: limits.pageEntriesMax });
      yield* page.entries;
      const last = page.entries.at(-1);
      if (!page.more || !last) return;
      after = last.name;
    }
  }

  /**
   * The state of `path` and everything below it as of a moment.
   * @param onThinned told, while the versions are read, of what was there of which nothing is kept up to the moment
   * @throws Problem not_found
   */
  async versions(
    archive: number,
    query: VersionsQuery = {},
    signal?: AbortSignal,
    onThinned?: (thinned: ThinnedInPlace) => void,
  ): Promise<VersionsStream> {
    const frames = await this.#versionFrames(archive, query, signal);
    return {
      seq: frames.begin.seq,
      at: frames.begin.at,
      versions: this.#resumedVersions({ archive, query, onThinned }, frames, signal),
    };
  }

  /** All versions of one path, newest first, from one page on (`after` = seq of the last one had). */
  history(archive: number, query: { path: Uint8Array; after?: number; limit?: number }): Promise<HistoryAnswer> {
    return this.#message('GET', `/v1/archives/${archive}/history${queryString(query)}`, null, HistoryAnswer);
  }

  async *#resumedVersions(
    {
      archive,
      query,
      onThinned,
    }: { archive: number; query: VersionsQuery; onThinned: ((thinned: ThinnedInPlace) => void) | undefined },
    first: VersionFrames,
    signal?: AbortSignal,
  ): AsyncGenerator<StoredVersion> {
    let frames: VersionFrames | null = first;
    let after = query.after;
    const places = new ThinnedPlaces();
    for (let attempts = 0; ; ) {
      try {
        // A moment once begun is pinned by its seq: what is committed meanwhile does not mix in.
        frames ??= await this.#versionFrames(archive, { ...query, seq: first.begin.seq, after }, signal);
        for await (const frame of frames.rest) {
          if (frame.frame === 'end') {
            for (const each of places.end()) onThinned?.(each);
            return;
          }
          if (frame.frame !== 'versions') continue;
          attempts = 0;
          for (const each of places.page(frame.versions, frame.thinned ?? [])) {
            if (isThinned(each)) onThinned?.(each);
            else yield each;
          }
          after = frame.upTo ?? frame.versions.at(-1)?.path ?? after;
        }
        throw new ConnectionLost('the list of versions was cut short');
      } catch (error) {
        if (signal?.aborted) throw signal.reason;
        if (!wasCut(error) || ++attempts > resumptionsMax) throw error;
        frames = null;
      }
    }
  }

  async #versionFrames(archive: number, query: VersionsQuery, signal?: AbortSignal): Promise<VersionFrames> {
    for (let attempts = 0; ; ) {
      try {
        const path = `/v1/archives/${archive}/versions${queryString(query)}`;
        const answer = await this.#transport.stream({ method: 'GET', path, headers: this.#auth, signal });
        const rest = decodeFrames(VersionsFrame, answer.body);
        const first = await rest.next();
        if (!first.done && first.value.frame === 'begin') return { begin: first.value, rest };
        throw new ConnectionLost('the list of versions was cut short before it began');
      } catch (error) {
        if (!wasCut(error) || ++attempts > resumptionsMax) throw error;
      }
    }
  }

  #headers(hasBody: boolean): Record<string, string> {
    return hasBody ? { ...this.#auth, 'content-type': msgpackType } : this.#auth;
  }

  async #message<T extends z.ZodType>(
    method: 'GET' | 'POST',
    path: string,
    message: object | null,
    schema: T,
    options: { repeatable?: boolean } = {},
  ): Promise<z.infer<T>> {
    const body = message ? [encodeMessage(message)] : undefined;
    return read(
      schema,
      await this.#transport.request({ method, path, headers: this.#headers(message !== null), body, ...options }),
    );
  }
}

interface VersionFrames {
  begin: { seq: number; at: number };
  rest: AsyncGenerator<VersionsFrame>;
}

/** Whether a streamed answer ended early: as a broken connection, or as a stream that stops inside a frame. */
function wasCut(error: unknown): boolean {
  return (
    error instanceof ConnectionLost ||
    (error instanceof Problem && error.code === 'malformed_request' && error.extras.field === 'body')
  );
}

function queryString(query: object): string {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query) as [string, unknown][]) {
    if (value === undefined || value === false) continue;
    if (value instanceof Uint8Array) parameters.set(name, Buffer.from(value).toString('base64url'));
    else parameters.set(name, value === true ? '1' : String(value));
  }
  const text = parameters.toString();
  return text ? `?${text}` : '';
}
