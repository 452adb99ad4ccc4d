/** For tests: an archive on a real catalog and a directory store, sealed as an agent seals, and what opens archives. */
import { execFile } from 'node:child_process';
import { open as openFile, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { type Attributes, encodeAttributes } from '../../protocol/attributes.ts';
import { joinHashes, sha256 } from '../../protocol/hashes.ts';
import { ListCutter, type ListSizes } from '../../protocol/lists.ts';
import type { FileKind, VersionMessage } from '../../protocol/messages.ts';
import {
  chunkSizesFor,
  chunksOf,
  deriveKeys,
  makeKeyring,
  sealAsync,
  versionMac,
} from '../../protocol/sealing/index.ts';
import { storeLists } from '../../storage/archive/writing/lists.ts';
import { uploadBlocks } from '../../storage/archive/writing/upload.ts';
import { openDirectoryStore } from '../../storage/objects/directory-store.ts';
import type { ArchiveRef, StorageSettings } from '../../storage/storage.ts';
import {
  commit,
  newArchive,
  newHeldFence,
  newRun,
  pieces,
  type TestStorage,
  testStorage,
} from '../../tests/helpers/storage.ts';
import { type Assemble, type AssembleOptions, type Assembly, assembleArchive, type Way } from './assemble.ts';
import { planRestore } from './plan.ts';
import type { AssembleReport, Selection } from './types.ts';

export const run = promisify(execFile);

export const key = Buffer.alloc(32, 'vault key');
export const keys = deriveKeys(key);
export const keyring = makeKeyring([{ generation: 1, key }]);

export interface Entry {
  path: string | Buffer;
  /** A file when there is content, else a directory. */
  kind?: FileKind;
  content?: Buffer | (() => AsyncIterable<Buffer>);
  size?: number;
  /** The content is one block, so many times. */
  repeat?: { block: Buffer; times: number };
  mtime?: number;
  attributes?: Partial<Attributes>;
  /** Changes the version after its MAC was made. */
  forge?: (version: VersionMessage) => unknown;
  lists?: ListSizes;
}

export interface World {
  storage: TestStorage;
  ref: ArchiveRef;
  fence: Assemble['fence'];
  folder: string;
  back(...entries: Entry[]): Promise<Buffer[][]>;
  remove(...paths: string[]): Promise<void>;
  selection(paths: (string | Buffer)[], rest?: { deleted?: boolean }): Promise<Selection>;
  /** A zip, unless `rest` says otherwise. */
  assemble(selection: Selection, rest?: Partial<AssembleOptions> & Partial<Way>): Assembly;
  close(): Promise<void>;
}

export async function makeWorld(folder: string, settings: Partial<StorageSettings> = {}): Promise<World> {
  const objects = await openDirectoryStore({ path: join(folder, 'store'), create: true });
  const storage = await testStorage({ objects, settings });
  const ref = await newArchive(storage);
  const fence = await newHeldFence(storage);
  const runId = await newRun(storage, ref);
  return {
    storage,
    ref,
    fence,
    folder,
    async back(...entries) {
      const made: { version: VersionMessage; hashes: Buffer[] }[] = [];
      const sender = new Sender(storage, ref.vault);
      for (const entry of entries) made.push(await backUp(storage, ref, sender, entry));
      await sender.flush();
      for (let at = 0; at < made.length; at += 2_000)
        await commit(
          storage,
          ref,
          runId,
          made.slice(at, at + 2_000).map(({ version }) => version),
        );
      return made.map(({ hashes }) => hashes);
    },
    async remove(...paths) {
      const none = Buffer.alloc(0);
      const gone = paths.map((path): VersionMessage => {
        const about = {
          kind: 'file',
          size: 0,
          mtime: 0,
          attributes: none,
          blocks: none,
          lists: none,
          mac: sha256(none),
        };
        return { path: Buffer.from(path), ...about, deleted: true } as VersionMessage;
      });
      await commit(storage, ref, runId, gone);
    },
    async selection(paths, { deleted = false } = {}) {
      const asked = { paths: paths.map((path) => Buffer.from(path)), deleted };
      const { seq } = await planRestore(storage, ref, { ...asked, moment: { at: null } });
      return { ...asked, seq };
    },
    assemble: (selection, rest = {}) =>
      assembleArchive({ storage, ref, keyring, fence, selection, format: 'zip', ...rest } as Assemble),
    close: () => storage.close(),
  };
}

/** Gathers blocks into uploads of some MiB. */
class Sender {
  readonly #storage: TestStorage;
  readonly #vault: number;
  #blocks = new Map<string, Buffer>();
  #bytes = 0;

  constructor(storage: TestStorage, vault: number) {
    this.#storage = storage;
    this.#vault = vault;
  }

  async add(sealed: Buffer): Promise<Buffer> {
    const hash = sha256(sealed);
    this.#blocks.set(hash.toString('hex'), sealed);
    this.#bytes += sealed.byteLength;
    if (this.#bytes > 8 * 1024 * 1024 || this.#blocks.size > 4_000) await this.flush();
    return hash;
  }

  async flush(): Promise<void> {
    const blocks = [...this.#blocks.values()];
    if (blocks.length === 0) return;
    const header = { blocks: joinHashes(blocks.map(sha256)), lengths: blocks.map((block) => block.byteLength) };
    await uploadBlocks(this.#storage, this.#vault, header, pieces(Buffer.concat(blocks), 1024 * 1024));
    this.#blocks = new Map();
    this.#bytes = 0;
  }
}

async function backUp(storage: TestStorage, ref: ArchiveRef, sender: Sender, entry: Entry) {
  const { path, content, mtime = 1_600_000_000_123, kind = content || entry.repeat ? 'file' : 'directory' } = entry;
  const size = entry.size ?? (Buffer.isBuffer(content) ? content.byteLength : 0);
  const hashes: Buffer[] = [];
  const source = Buffer.isBuffer(content) ? once(content) : content?.();
  if (source && size > 0)
    for await (const chunk of chunksOf(source, keys.gear, chunkSizesFor(size)))
      hashes.push(
        await sender.add(await sealAsync(keys, { type: 'block', vault: ref.vault, generation: 1 }, Buffer.from(chunk))),
      );
  if (entry.repeat) {
    const { block, times } = entry.repeat;
    const sealed = await sealAsync(keys, { type: 'block', vault: ref.vault, generation: 1 }, block);
    hashes.push(...new Array<Buffer>(times).fill(await sender.add(sealed)));
  }
  const plain = {
    mode: kind === 'directory' ? 0o755 : kind === 'symlink' ? 0o777 : 0o644,
    uid: 1000,
    gid: 1000,
    mtimeNs: 456_789,
    ...entry.attributes,
  };
  const none = Buffer.alloc(0);
  const version: VersionMessage = {
    path: Buffer.from(path),
    kind,
    size: kind === 'file' ? size : 0,
    mtime,
    attributes: await sealAsync(keys, { type: 'attributes', vault: ref.vault, generation: 1 }, encodeAttributes(plain)),
    blocks: entry.lists ? none : joinHashes(hashes),
    lists: none,
    deleted: false,
    mac: none,
  };
  if (entry.lists) {
    await sender.flush();
    const cutter = new ListCutter(entry.lists);
    const lists = hashes.flatMap((hash) => cutter.add(hash) ?? []);
    lists.push(...[cutter.finish() ?? []].flat());
    await storeLists(storage, ref.vault, lists);
    version.lists = joinHashes(lists.map((list) => list.hash));
  }
  version.mac = versionMac(keys, ref.archive, version);
  entry.forge?.(version);
  return { version, hashes };
}

export const symlink = (path: string, target: string): Entry => ({
  path,
  kind: 'symlink',
  attributes: { target: Buffer.from(target) },
});

async function* once(content: Buffer): AsyncGenerator<Buffer> {
  yield content;
}

/** The whole archive in memory. */
export async function collect(assembly: Assembly): Promise<{ bytes: Buffer; report: AssembleReport }> {
  const parts: Buffer[] = [];
  for await (const part of assembly.bytes) parts.push(Buffer.from(part));
  return { bytes: Buffer.concat(parts), report: assembly.report };
}

/** Turns one byte of a stored block over, or removes its object. */
export async function damage(world: World, hash: Buffer, how: 'flip' | 'remove' | 'truncate'): Promise<void> {
  const [place] = await world.storage.rows<{ key: string; offset: number; length: number }>(
    `SELECT o.key, b.byte_offset AS "offset", b.byte_length AS "length" FROM blocks b JOIN objects o USING (vault_id, object_id) WHERE b.hash = $1`,
    [hash],
  );
  const named = place!.key.split('/').at(-1)!.slice(0, 64);
  const files = await readdir(join(world.folder, 'store'), { recursive: true });
  const path = join(world.folder, 'store', files.find((file) => file.includes(named))!);
  if (how === 'remove') return rm(path);
  const file = await openFile(path, 'r+');
  try {
    if (how === 'truncate') return await file.truncate(place!.offset + place!.length - 1);
    const byte = Buffer.alloc(1);
    const at = place!.offset + (place!.length >> 1);
    await file.read(byte, 0, 1, at);
    byte[0]! ^= 1;
    await file.write(byte, 0, 1, at);
  } finally {
    await file.close();
  }
}

export async function isMarked(world: World, hash: Buffer): Promise<boolean> {
  const rows = await world.storage.rows(`SELECT 1 FROM blocks WHERE hash = $1 AND damaged_at IS NOT NULL`, [hash]);
  return rows.length > 0;
}

/** What a zip says and holds, read by its directory: a second reader, that trusts nothing of the writer. */
export function readZip(bytes: Buffer): Map<string, { content: Buffer; mode: number; mtime: number | null }> {
  const end = bytes.lastIndexOf(Buffer.from('PK\x05\x06', 'latin1'));
  let entries = bytes.readUInt16LE(end + 10);
  let at = bytes.readUInt32LE(end + 16);
  if (entries === 0xffff || at === 0xffff_ffff) {
    const wide = Number(bytes.readBigUInt64LE(end - 20 + 8));
    entries = Number(bytes.readBigUInt64LE(wide + 32));
    at = Number(bytes.readBigUInt64LE(wide + 48));
  }
  const found = new Map<string, { content: Buffer; mode: number; mtime: number | null }>();
  for (let i = 0; i < entries; i++) {
    if (bytes.readUInt32LE(at) !== 0x02014b50) throw new Error(`no directory record at ${at}`);
    const [nameBytes, extraBytes] = [bytes.readUInt16LE(at + 28), bytes.readUInt16LE(at + 30)];
    const name = new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(at + 46, at + 46 + nameBytes));
    const size = bytes.readUInt32LE(at + 24);
    const local = bytes.readUInt32LE(at + 42);
    const from = local + 30 + bytes.readUInt16LE(local + 26) + bytes.readUInt16LE(local + 28);
    const extra = bytes.subarray(at + 46 + nameBytes, at + 46 + nameBytes + extraBytes);
    const mtime = extra.readUInt16LE(0) === 0x5455 ? extra.readInt32LE(5) : null;
    if (found.has(name)) throw new Error(`${name} is in it twice`);
    const content = bytes.subarray(from, from + size);
    found.set(name, { content, mode: bytes.readUInt32LE(at + 38) >>> 16, mtime });
    at += 46 + nameBytes + extraBytes;
  }
  return found;
}

/** Entries of a tar, headers only, as GNU tar lists them. */
export async function listTar(path: string): Promise<string[]> {
  const { stdout } = await run('tar', ['-tvf', path, '--numeric-owner', '--quoting-style=escape', '--full-time'], {
    env: { ...process.env, LC_ALL: 'C', TZ: 'UTC' },
    maxBuffer: 64 * 1024 * 1024,
  });
  return stdout.trimEnd().split('\n');
}
