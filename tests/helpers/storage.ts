/** The engine on a real PostgreSQL and an in-memory object store, with the few calls that tests of its verbs repeat. */
import { randomBytes } from 'node:crypto';
import { afterAll, afterEach, beforeAll, beforeEach } from '@jest/globals';
import { sha256 } from '../../protocol/hashes.ts';
import type { CommitAnswer, CommitRequest, RunCounts, VersionMessage } from '../../protocol/messages.ts';
import { encodeMessage } from '../../protocol/wire.ts';
import { type Fence, openFence } from '../../storage/archive/checking/fence.ts';
import { onlyPolicy } from '../../storage/archive/retention/policies.ts';
import type { PruneDeps } from '../../storage/archive/retention/prune.ts';
import { defaultRetention } from '../../storage/archive/retention/retention.ts';
import { commitVersions } from '../../storage/archive/writing/commit.ts';
import { startRun } from '../../storage/archive/writing/runs.ts';
import { type UploadResult, uploadBlocks } from '../../storage/archive/writing/upload.ts';
import { databaseDefaults, openDatabase } from '../../storage/catalog/database.ts';
import { createArchive, createVault } from '../../storage/catalog/vaults.ts';
import { MemoryStore } from '../../storage/objects/memory-store.ts';
import type { ObjectStore } from '../../storage/objects/object-store.ts';
import {
  type ArchiveRef,
  openStorage,
  type Storage,
  type StorageSettings,
  storageDefaults,
} from '../../storage/storage.ts';
import { testDatabase } from './postgres.ts';

export interface TestStorage extends Storage {
  connectionString: string;
  /** Any SQL, for what no verb tells or does. */
  rows<Row = Record<string, unknown>>(text: string, values?: readonly unknown[]): Promise<Row[]>;
  close(): Promise<void>;
}

export interface TestStorageOptions {
  objects?: ObjectStore;
  settings?: Partial<StorageSettings>;
  poolMax?: number;
}

export async function testStorage(options: TestStorageOptions = {}): Promise<TestStorage> {
  const { connectionString, drop } = await testDatabase();
  const database = openDatabase({ ...databaseDefaults, connectionString, poolMax: options.poolMax ?? 10 });
  const objects = options.objects ?? new MemoryStore();
  const storage = await openStorage({ database, objects, settings: { ...storageDefaults, ...options.settings } });
  const close = async (): Promise<void> => {
    await database.close();
    await objects.close();
    await drop();
  };
  const rows = <Row>(text: string, values?: readonly unknown[]): Promise<Row[]> =>
    database.query<Row>({ name: '', text }, values);
  return { ...storage, connectionString, rows, close };
}

/** One storage for all tests of a file: made before the first, gone after the last. Empty until then. */
export function storageForFile(options: TestStorageOptions = {}): TestStorage {
  const storage = {} as TestStorage;
  beforeAll(async () => void Object.assign(storage, await testStorage(options)));
  afterAll(() => storage.close?.());
  return storage;
}

/** A storage of its own for every test of a file. Empty between them. @param options asked for each */
export function storageForEachTest(options: () => TestStorageOptions = () => ({})): TestStorage {
  const storage = {} as TestStorage;
  beforeEach(async () => void Object.assign(storage, await testStorage(options())));
  afterEach(() => storage.close?.());
  return storage;
}

let userId = 0;
let deviceId = 0;

/** A vault of a new user (or the one given) with a new archive in it. */
export async function newArchive(storage: Storage, vault?: number): Promise<ArchiveRef> {
  return storage.database.transaction(async (tx) => {
    const in_ = vault ?? (await createVault(tx, { userId: ++userId }))!;
    return { vault: in_, archive: await createArchive(tx, { vault: in_, deviceId: ++deviceId }) };
  });
}

/** The fence of a server that runs well: it may delete. */
export async function newHeldFence(storage: Storage): Promise<Fence> {
  const fence = openFence(storage, { beatMs: 60_000, beatsBeforeDeleting: 1 });
  await fence.beat();
  return fence;
}

/** What a prune needs: nobody stops it, and deleted files go at once. */
export const pruneAtOnce: PruneDeps = {
  readPolicies: async () => onlyPolicy({ ...defaultRetention, deletedAfterDays: 0 }),
  assertMayDelete: async () => {},
  assertStillHeld: () => {},
};

export async function newRun(storage: Storage, ref: ArchiveRef): Promise<number> {
  return (await startRun(storage, ref, { lastCommit: null, roots: [] })).run;
}

/** 500 bytes, others for every seed. */
export function block(seed: number): Buffer {
  return Buffer.alloc(500, `block ${seed} `);
}

/** Bytes as one upload; the body comes in pieces of `pieceBytes`. */
export async function upload(
  storage: Storage,
  vault: number,
  blocks: readonly Uint8Array[],
  pieceBytes = 1000,
): Promise<UploadResult> {
  const header = { blocks: Buffer.concat(blocks.map(sha256)), lengths: blocks.map((block) => block.byteLength) };
  return uploadBlocks(storage, vault, header, pieces(Buffer.concat(blocks), pieceBytes));
}

export async function* pieces(bytes: Uint8Array, pieceBytes: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.byteLength; at += pieceBytes) yield bytes.subarray(at, at + pieceBytes);
}

/** A version as an agent sends it; attributes and MAC are opaque to the engine. */
export function version(
  path: string,
  blocks: readonly Uint8Array[] = [],
  rest: Partial<VersionMessage> = {},
): VersionMessage {
  return {
    path: Buffer.from(path),
    kind: 'file',
    size: blocks.reduce((sum, block) => sum + block.byteLength, 0),
    mtime: 1_700_000_000_000,
    attributes: Buffer.from(`attributes of ${path}`),
    blocks: Buffer.concat(blocks.map(sha256)),
    lists: Buffer.alloc(0),
    mac: randomBytes(32),
    deleted: false,
    ...rest,
  };
}

export function deletion(path: string): VersionMessage {
  return version(path, [], { deleted: true, attributes: Buffer.alloc(0) });
}

/** What a run tells that has seen nothing. */
export const noCounts: RunCounts = {
  filesSeen: 0,
  filesChanged: 0,
  filesDeleted: 0,
  filesSkipped: 0,
  bytesSeen: 0,
  bytesRead: 0,
  bytesSent: 0,
};

/** Sends a commit as the server would hand it on. */
export async function commit(
  storage: Storage,
  ref: ArchiveRef,
  run: number,
  versions: VersionMessage[],
  rest: Partial<CommitRequest> = {},
): Promise<CommitAnswer> {
  const request: CommitRequest = { commitId: randomBytes(16), run, purgeEpoch: 0, versions, ...rest };
  return commitVersions(storage, ref, request, sha256(encodeMessage(request)));
}
