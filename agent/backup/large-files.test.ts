/**
 * Files that name lists, against the server in memory: what is sent, what is not, and what happens when the server
 * loses some of it. Lists are made small here, so that a file of some megabytes has several.
 */
import { randomBytes } from 'node:crypto';
import { closeSync, openSync, readFileSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { hashAt, hashCount, hashKey, splitHashes } from '../../protocol/hashes.ts';
import type { StoredVersion } from '../../protocol/messages.ts';
import { restore } from '../restore/restore.ts';
import { keyringOf } from '../state/registration.ts';
import { forgetBlock, type MemoryServer } from '../testing/memory-server.ts';
import { ClaimRenewals } from './claim-renewals.ts';
import { ContentNames } from './content-names.ts';
import type { BackupOptions, BackupResult } from './run.ts';
import { TestBackup } from './test-backup.ts';

const naming = { directBlocksMax: 4, minBlocks: 2, averageBlocks: 4, maxBlocks: 8 };
const MB = 1_000_000;

let world: TestBackup;
let root: string;
let file: string;
let server: MemoryServer;
beforeEach(async () => {
  world = await TestBackup.start();
  ({ root, server } = world);
  file = join(root, 'image');
});
afterEach(() => world.close());

const run = (options: Partial<BackupOptions> = {}): Promise<BackupResult> => world.run({ naming, ...options });

const settle = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 80));

async function write(bytes: Uint8Array): Promise<void> {
  writeFileSync(file, bytes);
  await settle();
}

function overwrite(position: number, bytes: Uint8Array): void {
  const fd = openSync(file, 'r+');
  writeSync(fd, bytes, 0, bytes.byteLength, position);
  closeSync(fd);
}

const version = (): StoredVersion => server.state().get(Buffer.from(file).toString('latin1'))!;

/** Of the folders above, times change whenever somebody else makes a file there. */
const versionsBelowRoot = (): number => server.versions.filter((each) => each.path.toString().startsWith(root)).length;

async function expectRestored(): Promise<void> {
  const to = join(world.folder, `to-${randomBytes(4).toString('hex')}`);
  const keys = keyringOf(world.registration);
  const report = await restore({ client: world.client, keys, archive: 9, vault: 7, path: Buffer.from(file), to });
  expect(report.problems).toEqual([]);
  expect(readFileSync(join(to, 'image')).equals(readFileSync(file))).toBe(true);
}

describe('a large file', () => {
  test('names lists whose blocks make it up, in order; below the bound it names its blocks', async () => {
    await write(randomBytes(24 * MB));
    const { counts } = await run();
    const { blocks, lists } = version();
    expect(blocks.byteLength).toBe(0);
    expect(hashCount(lists)).toBeGreaterThan(2);
    expect(counts).toMatchObject({ listsSent: hashCount(lists), listsKnown: 0, filesChanged: 1 });
    expect(
      new Set(
        splitHashes(lists)
          .flatMap((list) => splitHashes(server.lists.get(hashKey(list))!))
          .map(hashKey),
      ).size,
    ).toBe(counts.blocksSent);
    await expectRestored();

    writeFileSync(join(root, 'small'), randomBytes(2 * MB));
    await run();
    const small = server.state().get(`${join(root, 'small')}`)!;
    expect(small.lists.byteLength).toBe(0);
    expect(hashCount(small.blocks)).toBeGreaterThan(0);
  });

  test('read again unchanged sends no list; changed in one place, it sends the lists around that place', async () => {
    await write(randomBytes(40 * MB));
    const first = await run();
    expect((await run({ rehash: true })).counts).toMatchObject({
      listsSent: 0,
      listsKnown: first.counts.listsSent,
      blocksSent: 0,
      filesChanged: 0,
    });
    overwrite(20 * MB, randomBytes(1_000));
    await settle();
    server.requests.length = 0;
    const second = await run();
    // A claim for each list, and for the blocks that changed; not for the others.
    const claims = server.requests.filter((request) => request === 'POST /v1/blocks/claim').length;
    expect(claims).toBeLessThanOrEqual(second.counts.listsSent + second.counts.listsKnown + 4);
    expect(second.counts.blocksKnown).toBeGreaterThan(20);
    expect(second.counts.filesChanged).toBe(1);
    expect(second.counts.listsSent).toBeGreaterThanOrEqual(1);
    expect(second.counts.listsSent).toBeLessThanOrEqual(3);
    expect(second.counts.blocksSent).toBeLessThanOrEqual(3);
    await expectRestored();
  });

  test('of one block over and over sends a list of it once', async () => {
    await write(Buffer.alloc(0));
    truncateSync(file, 200 * 1024 ** 2);
    await settle();
    const { counts } = await run();
    const distinct = new Set(splitHashes(version().lists).map(hashKey)).size;
    expect(hashCount(version().lists)).toBeGreaterThan(distinct + 1);
    expect(counts.listsSent).toBe(distinct);
    await expectRestored();
  });

  test('a lost cache is learnt from the archive: no list is sent, and no version made', async () => {
    await write(randomBytes(16 * MB));
    await run();
    world.cache.close();
    world.cache = world.openCache('another.db');
    const again = await run();
    expect(again.reconciled).not.toBeNull();
    expect(again.counts).toMatchObject({ listsSent: 0, blocksSent: 0, filesChanged: 0 });
    expect(server.versions.filter((each) => each.path.equals(version().path))).toHaveLength(1);
  });
});

describe('what the server lost while a file was being sent', () => {
  test('a block, after its list was stored: the file is read again, and what is missing is sent', async () => {
    await write(randomBytes(24 * MB));
    let lost: Buffer | null = null;
    server.faults = (request) => {
      if (request !== 'POST /v1/archive/commits' || lost || server.lists.size === 0) return null;
      lost = Buffer.from(hashAt(server.lists.values().next().value!, 0));
      forgetBlock(server, lost);
      return null;
    };
    const result = await run();
    expect(lost).not.toBeNull();
    expect(result).toMatchObject({ outcome: 'completed', counts: { filesChanged: 1, filesSkipped: 0 } });
    expect(server.blocks.has(hashKey(lost!))).toBe(true);
    await expectRestored();
  });

  test('a block, before its list is stored', async () => {
    await write(randomBytes(24 * MB));
    let lost: Buffer | null = null;
    server.faults = (request) => {
      if (request !== 'POST /v1/blocks/claim' || lost || server.blocks.size < 2) return null;
      lost = Buffer.from([...server.blocks.keys()].at(-1)!, 'latin1');
      forgetBlock(server, lost);
      return null;
    };
    const result = await run({ sender: { uploadBytes: MB } });
    expect(lost).not.toBeNull();
    expect(result).toMatchObject({ outcome: 'completed', counts: { filesChanged: 1, filesSkipped: 0 } });
    await expectRestored();
  });

  test('a block of the version before that did not change: nobody asked about it, and it is sent all the same', async () => {
    await write(randomBytes(24 * MB));
    await run();
    const lost = Buffer.from(hashAt(server.lists.get(hashKey(version().lists.subarray(0, 32)))!, 0));
    forgetBlock(server, lost);
    overwrite(20 * MB, randomBytes(1_000));
    await settle();
    const result = await run();
    expect(result).toMatchObject({ outcome: 'completed', counts: { filesChanged: 1, filesSkipped: 0 } });
    expect(server.blocks.has(hashKey(lost))).toBe(true);
    await expectRestored();
  });

  test('lists only, at every other commit: they are sent again', async () => {
    await write(randomBytes(24 * MB));
    let commits = 0;
    server.faults = (request) => {
      if (request === 'POST /v1/archive/commits' && commits++ % 2 === 0) server.lists.clear();
      return null;
    };
    const result = await run();
    expect(result.outcome).toBe('completed');
    expect(commits).toBe(2);
    await expectRestored();
  });

  test('lost connections, lost answers and 503s change nothing in the result', async () => {
    await write(randomBytes(24 * MB));
    let count = 0;
    server.faults = () => {
      count++;
      if (count % 11 === 3) return { kind: 'drop' };
      if (count % 11 === 6) return { kind: 'lose_answer' };
      return count % 11 === 9 ? { kind: 'problem', code: 'unavailable' } : null;
    };
    expect((await run()).outcome).toBe('completed');
    server.faults = () => null;
    await expectRestored();
  });
});

test('files of which the server has damaged blocks are read again though they did not change, and heal it', async () => {
  const small = join(root, 'small');
  writeFileSync(small, randomBytes(1_000));
  await write(randomBytes(24 * MB));
  await run();
  const versions = versionsBelowRoot();
  const smallBlock = server.state().get(small)!.blocks;
  const largeBlock = Buffer.from(hashAt(server.lists.get(hashKey(version().lists.subarray(32, 64)))!, 0));
  for (const hash of [smallBlock, largeBlock]) forgetBlock(server, hash);
  expect((await run()).counts).toMatchObject({ bytesRead: 0, blocksSent: 0 });

  server.damaged = [Buffer.from(file), Buffer.from(small)];
  expect((await run()).counts).toMatchObject({
    bytesRead: 24 * MB + 1_000,
    blocksSent: 2,
    listsSent: 1,
    filesChanged: 0,
  });
  server.damaged = [];
  expect(versionsBelowRoot()).toBe(versions);
  await expectRestored();
  expect((await run()).counts).toMatchObject({ bytesRead: 0 });
});

describe('claims of content on its way', () => {
  class Claims {
    asked: { blocks: number; lists: number }[] = [];
    async claim(blocks: Uint8Array, lists: Uint8Array = Buffer.alloc(0)) {
      this.asked.push({ blocks: hashCount(blocks), lists: hashCount(lists) });
      return { blocks: Buffer.alloc(2048), lists: Buffer.alloc(2048), claimedUntil: 0, claimedForMs: 9_000 };
    }
  }

  test('are renewed a third of their duration after the last time: lists, and the blocks of the incomplete one', async () => {
    const claims = new Claims();
    const renewals = new ClaimRenewals(claims);
    const names = new ContentNames(naming);
    let sent = 0;
    for (let i = 0; i < 50; i++) sent += names.add(randomBytes(32)).length;
    const release = renewals.hold(names);
    const now = Date.now();
    await renewals.renewIfDue(now + 10_000_000);
    expect(claims.asked).toEqual([]); // nothing was promised yet
    renewals.learn(9_000);
    await renewals.renewIfDue(now + 2_900);
    expect(claims.asked).toEqual([]);
    await renewals.renewIfDue(now + 3_100);
    expect(claims.asked).toEqual([{ blocks: hashCount(names.blocks), lists: sent }]);
    await renewals.renewIfDue();
    expect(claims.asked).toHaveLength(1);
    release();
    await renewals.renewIfDue(now + 100_000);
    expect(claims.asked).toHaveLength(1);
  });

  test('of more names than one claim takes go in several', async () => {
    const claims = new Claims();
    const renewals = new ClaimRenewals(claims);
    renewals.learn(3);
    renewals.hold({ blocks: Buffer.alloc(20_000 * 32), lists: Buffer.alloc(16_384 * 32) });
    await renewals.renewIfDue(Date.now() + 10);
    expect(claims.asked).toEqual([
      { blocks: 16_384, lists: 0 },
      { blocks: 3_616, lists: 0 },
      { blocks: 0, lists: 16_384 },
    ]);
  });
});
