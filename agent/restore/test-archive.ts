/**
 * For tests: an archive in memory, sealed with real keys, that answers a restore as a server would: versions in order,
 * blocks in whatever order. Hostile manifests are made by committing what no agent would, with right MACs.
 */
import { type Attributes, encodeAttributes } from '../../protocol/attributes.ts';
import type { BlockFrame } from '../../protocol/block-frames.ts';
import { hashAt, hashCount, hashKey, joinHashes, sha256 } from '../../protocol/hashes.ts';
import { ListCutter, type ListSizes } from '../../protocol/lists.ts';
import type { FileKind, StoredVersion } from '../../protocol/messages.ts';
import { comparePaths, printablePath, splitPath } from '../../protocol/paths.ts';
import {
  chunkSizesFor,
  chunksOf,
  deriveKeys,
  makeKeyring,
  sealAsync,
  versionMac,
} from '../../protocol/sealing/index.ts';
import type { ThinnedInPlace } from '../../protocol/thinned.ts';

import { createExcludes } from '../files/excludes.ts';
import { openFile } from '../files/read.ts';
import { seededNumbers } from '../files/test-tree.ts';
import { walk } from '../files/walk.ts';
import { restore } from './restore.ts';
import type { RestoreOptions, RestoreReport, RestoreSource } from './types.ts';

export const archive = 7;
export const vault = 3;
const vaultKey = Buffer.alloc(32, 'vault key');
export const keys = deriveKeys(vaultKey);
export const keyring = makeKeyring([{ generation: 1, key: vaultKey }]);

export interface Entry {
  path: string | Buffer;
  kind?: FileKind;
  content?: Buffer;
  mtime?: number;
  attributes?: Partial<Attributes>;
}

export class TestArchive implements RestoreSource {
  readonly versionsByPath: StoredVersion[] = [];
  readonly blocks = new Map<string, Buffer>();
  readonly lists = new Map<string, Buffer>();
  /** When set, versions committed from now on name lists of these sizes. */
  listSizes: ListSizes | null = null;
  /** Hashes asked for, in all requests. */
  asked = 0;
  requests = 0;
  listRequests = 0;
  /** Called before each block is answered: to break, delay or abort. */
  onBlock: (count: number) => void | Promise<void> = () => undefined;
  /** Told, before any version, of what a server keeps nothing of. */
  readonly thinned: ThinnedInPlace[] = [];
  /** Gives versions in the order they were committed instead of the one promised. */
  unordered = false;
  readonly #random: () => number;

  constructor(seed = 1) {
    this.#random = seededNumbers(seed);
  }

  /** Backs up what lies at a local path, with the walk and reading the agent uses. */
  async backup(root: string, options: { folderHandles?: boolean } = {}): Promise<void> {
    const excludes = createExcludes({ platform: 'linux', home: null, patterns: [], defaults: false });
    for await (const event of walk([root], { excludes, oneFileSystem: true, ...options })) {
      if (event.type === 'root') continue;
      if (event.type !== 'file') throw new Error(`${printablePath(event.path)}: ${event.reason} ${event.detail}`);
      const { file } = event;
      let content: AsyncIterable<Uint8Array> = empty();
      const opened = file.kind === 'file' ? await openFile(file) : null;
      if (opened) content = opened.chunks();
      await this.#commit(
        { path: file.path, kind: file.kind, size: file.size, mtime: file.mtimeMs },
        file.attributes,
        content,
      );
      await opened?.close();
    }
  }

  /** Commits a made-up entry, with a right MAC whatever it says. */
  async commit(entry: Entry): Promise<StoredVersion> {
    const {
      path,
      kind = entry.content ? 'file' : 'directory',
      content = Buffer.alloc(0),
      mtime = 1_600_000_000_000,
    } = entry;
    const plain = { mode: kind === 'directory' ? 0o755 : 0o644, uid: 0, gid: 0, mtimeNs: 0, ...entry.attributes };
    const head = { path: Buffer.from(path), kind, size: content.byteLength, mtime };
    return this.#commit(head, encodeAttributes(plain), content.byteLength > 0 ? one(content) : empty());
  }

  symlink(path: string, target: string | Buffer): Promise<StoredVersion> {
    return this.commit({ path, kind: 'symlink', attributes: { target: Buffer.from(target), mode: 0o777 } });
  }

  async #commit(
    head: { path: Buffer; kind: FileKind; size: number; mtime: number },
    attributes: Buffer,
    content: AsyncIterable<Uint8Array>,
  ): Promise<StoredVersion> {
    const hashes: Buffer[] = [];
    for await (const chunk of chunksOf(content, keys.gear, chunkSizesFor(head.size))) {
      hashes.push(await this.store(chunk));
    }
    const version: StoredVersion = {
      ...head,
      attributes: await sealAsync(keys, { type: 'attributes', vault, generation: 1 }, attributes),
      ...this.#named(hashes),
      deleted: false,
      mac: Buffer.alloc(32),
      seq: this.versionsByPath.length + 1,
      committedAt: 0,
    };
    version.mac = versionMac(keys, archive, version);
    this.versionsByPath.push(version);
    return version;
  }

  #named(hashes: Buffer[]): { blocks: Buffer; lists: Buffer } {
    if (!this.listSizes || hashes.length === 0) return { blocks: joinHashes(hashes), lists: Buffer.alloc(0) };
    const cutter = new ListCutter(this.listSizes);
    const lists = hashes.flatMap((hash) => cutter.add(hash) ?? []);
    lists.push(...[cutter.finish() ?? []].flat());
    for (const { hash, blocks } of lists) this.lists.set(hashKey(hash), blocks);
    return { blocks: Buffer.alloc(0), lists: joinHashes(lists.map((list) => list.hash)) };
  }

  /** Seals and keeps one block; the answer is its hash. */
  async store(plain: Buffer): Promise<Buffer> {
    const sealed = await sealAsync(keys, { type: 'block', vault, generation: 1 }, plain);
    const hash = sha256(sealed);
    this.blocks.set(hashKey(hash), sealed);
    return hash;
  }

  /** Sets a version's MAC right again after a test changed the version. */
  sign(version: StoredVersion): void {
    version.mac = versionMac(keys, archive, version);
  }

  async versions(
    _archive: number,
    query: { path?: Uint8Array },
    _signal?: AbortSignal,
    onThinned?: (thinned: ThinnedInPlace) => void,
  ) {
    for (const each of this.thinned) onThinned?.(each);
    const asked = splitPath(query.path ?? Buffer.from('/'));
    const chosen = this.versionsByPath.filter((version) => {
      const names = splitPath(version.path);
      return asked.every((name, index) => names[index]?.equals(name));
    });
    if (!this.unordered) chosen.sort((a, b) => comparePaths(a.path, b.path));
    return { seq: this.versionsByPath.length, at: 1_700_000_000_000, versions: each(chosen) };
  }

  async *fetchBlocks(hashes: Uint8Array, signal?: AbortSignal): AsyncGenerator<BlockFrame> {
    this.requests++;
    const order = Array.from({ length: hashCount(hashes) }, (_, index) => index);
    for (let i = order.length - 1; i > 0; i--) {
      const j = this.#random() % (i + 1);
      [order[i], order[j]] = [order[j]!, order[i]!];
    }
    for (const index of order) {
      signal?.throwIfAborted();
      await this.onBlock(++this.asked);
      yield { index, bytes: this.blocks.get(hashKey(hashAt(hashes, index))) ?? null };
    }
  }

  async *fetchLists(hashes: Uint8Array): AsyncGenerator<BlockFrame> {
    this.listRequests++;
    for (let index = hashCount(hashes) - 1; index >= 0; index--)
      yield { index, bytes: this.lists.get(hashKey(hashAt(hashes, index))) ?? null };
  }

  restore(to: string, options: Partial<Omit<RestoreOptions, 'path'>> & { path?: string } = {}): Promise<RestoreReport> {
    const { path = '/', ...rest } = options;
    return restore({ client: this, keys: keyring, archive, vault, to, path: Buffer.from(path), ...rest });
  }
}

/** The order the protocol promises: names in byte order, level by level. */

async function* each<T>(items: T[]): AsyncGenerator<T> {
  for (const item of items) yield item;
}

async function* one(bytes: Buffer): AsyncGenerator<Buffer> {
  yield bytes;
}

async function* empty(): AsyncGenerator<Buffer> {}
