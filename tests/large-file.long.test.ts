/**
 * A large file from disk to disk, through the agent, the protocol and the engine: backed up, changed in extents, backed up
 * again, restored and compared. With HOLDFAST_TEST_LARGE_FILE_GIB=20 it is a file of 20 GiB, cut as files of that size
 * are (it takes three times as much disk, and minutes); without, a small one whose lists are small too.
 */
import { createCipheriv, createHash, randomBytes } from 'node:crypto';
import { createReadStream, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { type BackupOptions, type BackupResult, backup } from '../agent/backup/run.ts';
import { type Client, connect } from '../agent/client/index.ts';
import { createExcludes } from '../agent/files/excludes.ts';
import { restore } from '../agent/restore/restore.ts';
import { Cache } from '../agent/state/cache.ts';
import { keyringOf, type Registration } from '../agent/state/registration.ts';
import { hashCount, sha256 } from '../protocol/hashes.ts';
import { listing } from '../protocol/limits.ts';

import { openDirectory } from '../server/directory/directory.ts';
import { localKeyService } from '../server/directory/keys/local-keys.ts';
import { insertOrganization, insertTenant } from '../server/directory/organizations/inserting.ts';
import { newRegistrationKey } from '../server/directory/organizations/registration-key.ts';
import { insertUser } from '../server/directory/users/people.ts';
import { startTestServer, type TestServer } from '../server/http/testing.ts';
import { reclaimDue, settleDue } from '../storage/archive/deleting/reclaim.ts';
import { TestAgent } from './helpers/agent.ts';
import { type RunningServer, startServer } from './helpers/server.ts';
import { type TestStorage, testStorage } from './helpers/storage.ts';

const MiB = 1024 * 1024;
const asked = Number(process.env.HOLDFAST_TEST_LARGE_FILE_GIB ?? 0);
const fileBytes = asked > 0 ? asked * 1024 * MiB : 128 * MiB;
const naming = asked > 0 ? listing : { directBlocksMax: 16, minBlocks: 4, averageBlocks: 16, maxBlocks: 64 };
const extents = 4;
const minutes = 60_000;

/** Words of eight bytes in random order: six times smaller compressed, and every window of it is its own. */
class Content {
  readonly #words: BigUint64Array;
  readonly #cipher: ReturnType<typeof createCipheriv>;

  constructor(seed: string) {
    const key = sha256(Buffer.from(seed));
    this.#cipher = createCipheriv('aes-256-ctr', key, Buffer.alloc(16));
    const words = createCipheriv('aes-256-ctr', sha256(Buffer.from('words')), Buffer.alloc(16)).update(
      Buffer.alloc(2048),
    );
    this.#words = new BigUint64Array(new Uint8Array(words).buffer);
  }

  /** The next bytes: a multiple of eight of them. */
  next(bytes: number): Buffer {
    const choices = this.#cipher.update(Buffer.alloc(bytes / 8));
    const out = new BigUint64Array(bytes / 8);
    for (let i = 0; i < out.length; i++) out[i] = this.#words[choices[i]!]!;
    return Buffer.from(out.buffer);
  }
}

async function fill(handle: FileHandle, from: number, bytes: number, seed: string): Promise<void> {
  const content = new Content(seed);
  for (let at = 0; at < bytes; at += MiB) {
    const piece = content.next(Math.min(MiB, bytes - at));
    await handle.write(piece, 0, piece.byteLength, from + at);
  }
}

async function digestOf(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { highWaterMark: 4 * MiB })) hash.update(chunk);
  return hash.digest('hex');
}

const excludes = createExcludes({ platform: 'linux', home: null, patterns: [], defaults: false });

/** An agent's folder of its own, with a file to back up. */
interface Place {
  folder: string;
  file: string;
  cache: Cache;
}

function newPlace(): Place {
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-large-'));
  mkdirSync(join(folder, 'root'));
  return { folder, file: join(folder, 'root', 'image'), cache: new Cache(join(folder, 'home', 'cache.db'), 'test') };
}

function backUp(
  { folder, cache }: Place,
  client: Client,
  registration: Registration,
  options: Partial<BackupOptions>,
): Promise<BackupResult> {
  const roots = [join(folder, 'root')];
  return backup({ client, cache, registration, roots, excludes, oneFileSystem: true, ...options });
}

async function restored(place: Place, client: Client, registration: Registration): Promise<string> {
  const { archive, vault } = registration;
  const to = join(place.folder, 'to');
  const path = Buffer.from(place.file);
  const report = await restore({ client, keys: keyringOf(registration), archive, vault, path, to });
  expect(report.problems).toEqual([]);
  return join(to, 'image');
}

describe('a large file', () => {
  let server: RunningServer;
  let agent: TestAgent;
  let place: Place;
  let client: Client;

  beforeAll(async () => {
    server = await startServer();
    agent = new TestAgent();
    await agent.succeed(...agent.signIn(server, server.firstStart));
    client = connect({ ...agent.registration, connections: 2 });
    place = newPlace();
  });
  afterAll(async () => {
    client?.destroy();
    place?.cache.close();
    agent?.remove();
    await server?.stop();
    if (place) rmSync(place.folder, { recursive: true, force: true });
  });

  test(
    `of ${Math.round(fileBytes / MiB)} MiB, 1% of it changed in ${extents} extents, sends what changed and comes back`,
    async () => {
      const { registration } = agent;
      const handle = await open(place.file, 'w');
      await fill(handle, 0, fileBytes, 'image');
      const first = await timed('first backup', () => backUp(place, client, registration, { naming }));
      expect(first).toMatchObject({ outcome: 'completed', counts: { filesChanged: 1, filesSkipped: 0 } });
      const listsBefore = first.counts.listsSent;
      expect(listsBefore).toBeGreaterThan(1);

      const extentBytes = Math.floor(fileBytes / 100 / extents / 8) * 8;
      for (let extent = 0; extent < extents; extent++)
        await fill(handle, Math.floor(((extent + 0.4) * fileBytes) / extents), extentBytes, `extent ${extent}`);
      await handle.close();
      await sleep(100); // longer than a tick of the file system: so its times are believed the next time
      const second = await timed('second backup', () => backUp(place, client, registration, { naming }));
      expect(second).toMatchObject({ outcome: 'completed', counts: { filesChanged: 1 } });
      expect(second.counts.listsSent).toBeGreaterThanOrEqual(1);
      expect(second.counts.listsSent).toBeLessThanOrEqual(Math.ceil(listsBefore / 100) + 2 * extents);
      // The blocks the extents lie in, and at the ends of each some more until the cuts agree again.
      expect(second.counts.blocksSent).toBeLessThanOrEqual(Math.ceil(first.counts.blocksSent / 100) + 5 * extents);

      const third = await backUp(place, client, registration, { naming });
      expect(third.counts).toMatchObject({ filesUnchanged: 1, bytesRead: 0 });

      const back = await timed('restore', () => restored(place, client, registration));
      expect(await digestOf(back)).toBe(await digestOf(place.file));
    },
    60 * minutes,
  );

  /** Figures of a run with a file of some GiB, for whoever runs it. */
  async function timed<T>(what: string, work: () => Promise<T>): Promise<T> {
    const begunAt = performance.now();
    const result = await work();
    if (asked > 0) {
      const { listsSent, listsKnown, blocksSent, blocksKnown, bytesSent } =
        (result as Partial<BackupResult>).counts ?? ({} as Partial<BackupResult['counts']>);
      const figures = { listsSent, listsKnown, blocksSent, blocksKnown, bytesSent };
      process.stderr.write(
        `${what}: ${Math.round((performance.now() - begunAt) / 1000)} s ${JSON.stringify(figures)}\n`,
      );
    }
    return result;
  }
});

describe('a file whose upload takes longer than a claim', () => {
  const claimWindowMs = 2_500;
  let storage: TestStorage;
  let server: TestServer;
  let place: Place;
  let client: Client;
  let registration: Registration;
  let reclaimed = 0;
  let sweeping = true;
  let sweeps: Promise<void>;

  beforeAll(async () => {
    storage = await testStorage({ settings: { claimWindowMs, freedMarginMs: 500 } });
    const keys = localKeyService([randomBytes(32)]);
    const directory = openDirectory({ database: storage.database, keys, passwordHashesMax: 2, signInsPerMinute: 5 });
    server = await startTestServer({ storage, directory, cleartext: true });
    const registrationKey = newRegistrationKey();
    const passwordHash = await directory.passwords.hash('password');
    await storage.database.transaction(async (tx) => {
      const tenantId = await insertTenant(tx, 'tenant');
      const organizationId = await insertOrganization(tx, { tenantId, parentId: null, name: 'root', registrationKey });
      await insertUser(tx, { tenantId, organizationId, name: 'ann', passwordHash });
    });
    const person = { registrationKey, userName: 'ann', password: 'password' };
    registration = await register(server.origin, person);
    client = connect({ ...registration, limitUploadBytesPerSecond: 2 * MiB });
    place = newPlace();
    sweeps = sweep();
  });
  afterAll(async () => {
    sweeping = false;
    await sweeps;
    client?.destroy();
    place?.cache.close();
    await server?.shutDown({ leaveMs: 0, drainMs: 1_000 });
    await storage?.close();
    if (place) rmSync(place.folder, { recursive: true, force: true });
  });

  /** Takes away what nothing refers to and nobody claims, all the time. */
  async function sweep(): Promise<void> {
    while (sweeping) {
      await settleDue(storage);
      const { blocks, lists } = await reclaimDue(storage);
      reclaimed += blocks + lists;
      await sleep(100);
    }
  }

  async function register(
    url: string,
    person: { registrationKey: string; userName: string; password: string },
  ): Promise<Registration> {
    const stranger = connect({ url });
    const device = { name: 'device', platform: 'linux' as const, agentVersion: '1' };
    const answer = await stranger.register({ ...person, device, vaultKey: { level: 'standard' } });
    stranger.destroy();
    const { guid, deviceName, token, vault, archive, vaultKey } = answer;
    if (vaultKey.level !== 'standard') throw new Error('the vault is not the one asked for');
    return {
      url,
      certificateSha256: null,
      userName: 'ann',
      guid,
      deviceName,
      token,
      vault,
      archive,
      level: 'standard',
      keyGeneration: vaultKey.generation,
      vaultKey: vaultKey.key,
    };
  }

  test(
    'commits all the same: its lists keep its blocks, and what they do not is claimed again',
    async () => {
      const lost = randomBytes(100_000);
      await client.upload([{ hash: sha256(lost), bytes: lost }]); // nobody comes back for it

      const handle = await open(place.file, 'w');
      for (let i = 0; i < 32; i++) await handle.write(randomBytes(MiB));
      await handle.close();
      const begunAt = performance.now();
      const result = await backUp(place, client, registration, {
        naming: { directBlocksMax: 4, minBlocks: 2, averageBlocks: 4, maxBlocks: 8 },
        sender: { uploadBytes: MiB, heldBytesMax: 6 * MiB, parallelUploads: 1 },
        committer: { ageMsMax: 0 },
      });
      // Twice the window is how long a block that is sent stays without being asked about again.
      expect(performance.now() - begunAt).toBeGreaterThan(4 * claimWindowMs);
      expect(result).toMatchObject({ outcome: 'completed', counts: { filesChanged: 1, filesSkipped: 0 } });
      expect(result.counts.listsSent).toBeGreaterThan(3);

      expect(reclaimed).toBeGreaterThan(0);
      expect((await client.claim(sha256(lost))).blocks).toEqual(Buffer.of(1));
      const { versions } = await client.history(registration.archive, { path: Buffer.from(place.file) });
      expect(versions).toHaveLength(1);
      const lists = hashCount(versions[0]!.lists);
      expect(lists).toBeGreaterThan(3);
      // On a busy machine some were reclaimed before the version named them, and were sent again.
      expect(lists).toBeLessThanOrEqual(result.counts.listsSent);
      const back = await restored(place, client, registration);
      expect(await digestOf(back)).toBe(await digestOf(place.file));
    },
    5 * minutes,
  );
});
