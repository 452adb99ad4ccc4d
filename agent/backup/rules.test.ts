import { randomBytes } from 'node:crypto';
import { describe, expect, test } from '@jest/globals';
import { hashAt, hashCount, hashKey, sha256 } from '../../protocol/hashes.ts';
import type { ClaimAnswer, UploadAnswer } from '../../protocol/messages.ts';
import type { SealedBlock } from '../../protocol/upload.ts';
import { JobPool } from '../files/job-pool.ts';
import type { CachedFile, RootIdentity } from '../state/cache.ts';
import { BlockSender, missingHashes } from './block-sender.ts';
import { isStatTrustworthy, isUnchanged } from './compare.ts';
import { pauseMs } from './cpu-pacer.ts';
import { RecentHashes } from './recent-hashes.ts';
import { rootSuspicion } from './root-check.ts';

describe('unchanged by stat', () => {
  const stat = { size: 5, mtimeNs: 10n, ctimeNs: 20n, inode: 30n };
  const cached: CachedFile = {
    id: 1,
    kind: 'file',
    mtimeMs: 0,
    trusted: true,
    attributesDigest: Buffer.alloc(32),
    seq: 1,
    generation: 1,
    storedAtMs: 0,
    ...stat,
  };
  test.each<[string, Partial<CachedFile>, boolean]>([
    ['the same', {}, true],
    ['size', { size: 6 }, false],
    ['mtime', { mtimeNs: 11n }, false],
    ['ctime', { ctimeNs: 21n }, false],
    ['inode', { inode: 31n }, false],
    ['another kind', { kind: 'symlink' }, false],
    ['stored when its times proved nothing', { trusted: false }, false],
  ])('%s', (_name, change, expected) => {
    expect(isUnchanged(stat, { ...cached, ...change })).toBe(expected);
  });

  test('an inode above 2^63 is itself again', () => {
    expect(isUnchanged({ ...stat, inode: 2n ** 64n - 1n }, { ...cached, inode: -1n })).toBe(true);
  });

  const readAtMs = 1_700_000_000_000;
  const ns = (ms: number): bigint => BigInt(ms) * 1_000_000n;
  test.each([
    ['long ago', ns(readAtMs - 60_000) + 1n, true],
    ['within the tick', ns(readAtMs - 20) + 1n, false],
    ['just outside it', ns(readAtMs - 51) + 1n, true],
    ['after the reading, by another clock', ns(readAtMs + 500) + 1n, false],
    ['a second ago, on a file system of whole seconds', ns(readAtMs - 1_000), false],
    ['three seconds ago, there', ns(readAtMs - 3_000), true],
  ])('times may be trusted: %s', (_name, changedNs, expected) => {
    expect(isStatTrustworthy({ size: 1, inode: 1n, mtimeNs: changedNs, ctimeNs: changedNs }, readAtMs)).toBe(expected);
  });
});

describe('a root', () => {
  const last: RootIdentity = { device: 1n, inode: 2n, birthtimeNs: 3n };
  const now = { ...last, empty: false, mountPoint: false };
  test.each<[string, RootIdentity | null, Partial<typeof now>, boolean, RegExp | null]>([
    ['as it was', last, {}, true, null],
    ['seen for the first time', null, {}, false, null],
    ['empty at first', null, { empty: true }, false, null],
    ['empty after having been full', last, { empty: true }, true, /empty/],
    ['still empty', last, { empty: true }, false, null],
    ['disks numbered anew at boot', last, { device: 9n }, true, null],
    ['another disk', last, { device: 9n, inode: 5n, birthtimeNs: 6n }, true, /another file system/],
    ['another disk whose root has the same inode', last, { device: 9n, birthtimeNs: 6n }, true, /another file system/],
    ['another disk under the same number', last, { birthtimeNs: 6n, mountPoint: true }, true, /mounted/],
    ['a folder made anew in its place', last, { inode: 5n, birthtimeNs: 6n }, true, null],
    ['no times of birth, same disk', { ...last, birthtimeNs: 0n }, { birthtimeNs: 0n }, true, null],
    [
      'no times of birth, another disk',
      { ...last, birthtimeNs: 0n },
      { birthtimeNs: 0n, device: 9n },
      true,
      /another file system/,
    ],
  ])('%s', (_name, before, change, hadFiles, expected) => {
    const why = rootSuspicion(before, { ...now, ...change }, hadFiles);
    if (expected === null) expect(why).toBeNull();
    else expect(why).toMatch(expected);
  });
});

test('recent hashes forget the oldest, never the latest', () => {
  const recent = new RecentHashes(10);
  for (let i = 0; i < 100; i++) {
    recent.add(`k${i}`);
    for (let back = 0; back < 10 && i - back >= 0; back++) expect(recent.has(`k${i - back}`)).toBe(true);
  }
  expect(recent.has('k70')).toBe(false);
  recent.delete('k99');
  expect(recent.has('k99')).toBe(false);
});

test.each([
  [100, 100, 0.5, 100],
  [100, 200, 0.5, 0],
  [100, 50, 2, 0],
  [10_000, 100, 0.1, 1_000],
])('%d ms of processor in %d ms at a share of %d: sleep %d ms', (used, elapsed, share, expected) => {
  expect(pauseMs(used, elapsed, share)).toBe(expected);
});

test('missing hashes are read from a problem, and nothing else is', () => {
  expect(missingHashes({ missing: ['ab'.repeat(32), 'xy', 5, 'AB'.repeat(32)] })).toEqual([
    Buffer.from('ab'.repeat(32), 'hex'),
  ]);
  expect(missingHashes({})).toEqual([]);
});

test('a job pool keeps to its weight, runs the overweight alone, and tells the first failure', async () => {
  const pool = new JobPool(4);
  let weight = 0;
  let most = 0;
  const job = (own: number) => async (): Promise<void> => {
    weight += own;
    most = Math.max(most, weight);
    await new Promise((resolve) => setTimeout(resolve, 2));
    weight -= own;
  };
  for (const own of [1, 1, 2, 3, 1, 4, 2, 2, 1]) await pool.add(own, job(own));
  await pool.drain();
  expect(most).toBe(4);
  await pool.add(9, job(9));
  await pool.drain();
  await pool.add(1, () => Promise.reject(new Error('broken')));
  await expect(pool.drain()).rejects.toThrow('broken');
  await expect(pool.add(1, job(1))).rejects.toThrow('broken');
});

describe('the block sender', () => {
  /** A server that is slow and counts what it holds at once; what it has is known to it. */
  class SlowServer {
    readonly has = new Set<string>();
    readonly uploads: number[] = [];
    uploading = 0;
    mostUploading = 0;
    failAt = Number.POSITIVE_INFINITY;

    async claim(blocks: Uint8Array): Promise<ClaimAnswer> {
      await tick();
      const bits = Buffer.alloc(Math.ceil(hashCount(blocks) / 8));
      for (let i = 0; i < hashCount(blocks); i++)
        if (!this.has.has(hashKey(hashAt(blocks, i)))) bits[i >> 3]! |= 1 << (i & 7);
      return { blocks: bits, lists: Buffer.of(1), claimedUntil: 0, claimedForMs: 60_000 };
    }

    async upload(blocks: readonly SealedBlock[]): Promise<UploadAnswer> {
      this.mostUploading = Math.max(this.mostUploading, ++this.uploading);
      await tick();
      this.uploading--;
      if (this.uploads.length >= this.failAt) throw new Error('disk full');
      this.uploads.push(blocks.reduce((sum, block) => sum + block.bytes.byteLength, 0));
      for (const block of blocks) this.has.add(hashKey(block.hash));
      return { stored: blocks.length, known: 0, listsStored: 0, claimedUntil: 0, claimedForMs: 60_000 };
    }
  }
  const tick = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 3));
  const options = { parallelUploads: 2, heldBytesMax: 100_000, uploadBytes: 20_000 };
  const block = (bytes: number): { hash: Buffer; bytes: Buffer } => {
    const content = randomBytes(bytes);
    return { hash: sha256(content), bytes: content };
  };

  test('holds a bounded number of bytes and uploads a bounded number at a time; the barrier means stored', async () => {
    const server = new SlowServer();
    const sender = new BlockSender(server, options);
    let added = 0;
    let acknowledged = 0;
    for (let i = 0; i < 300; i++) {
      const { hash, bytes } = block(1_000 + (i % 7) * 1_000);
      await sender.add(hash, bytes, bytes.byteLength);
      added += bytes.byteLength;
      acknowledged = sender.counts.bytesSent;
      expect(added - acknowledged).toBeLessThanOrEqual(options.heldBytesMax);
    }
    await sender.barrier();
    expect(sender.counts).toMatchObject({ blocksSent: 300, bytesSent: added });
    expect(server.mostUploading).toBeLessThanOrEqual(2);
    expect(Math.max(...server.uploads)).toBeLessThanOrEqual(options.uploadBytes);
    expect(server.uploads.length).toBeLessThan(120);
  });

  test('sends nothing twice, not what the server has, and again what it says it misses', async () => {
    const server = new SlowServer();
    const sender = new BlockSender(server, options);
    const [known, twice] = [block(500), block(600)];
    server.has.add(hashKey(known.hash));
    for (const { hash, bytes } of [known, twice, twice]) await sender.add(hash, bytes, 1_000);
    await sender.barrier();
    expect(sender.counts).toMatchObject({ blocksSent: 1, bytesSent: 600, blocksKnown: 2, plainBytesKnown: 2_000 });
    server.has.delete(hashKey(twice.hash));
    await sender.add(twice.hash, twice.bytes, 1_000);
    await sender.barrier();
    expect(sender.counts.blocksSent).toBe(1);
    sender.forget([twice.hash]);
    await sender.add(twice.hash, twice.bytes, 1_000);
    await sender.barrier();
    expect(sender.counts.blocksSent).toBe(2);
  });

  test('one block larger than the bound still goes', async () => {
    const server = new SlowServer();
    const sender = new BlockSender(server, options);
    for (const size of [150_000, 10, 150_000, 150_000]) {
      const { hash, bytes } = block(size);
      await sender.add(hash, bytes, size);
    }
    await sender.barrier();
    expect(sender.counts.blocksSent).toBe(4);
  });

  test('a failed upload reaches every adder and every barrier, and none hangs', async () => {
    const server = new SlowServer();
    server.failAt = 2;
    const sender = new BlockSender(server, options);
    const adding = Array.from({ length: 200 }, () => block(2_000)).map(({ hash, bytes }) =>
      sender.add(hash, bytes, 2_000),
    );
    const results = await Promise.allSettled(adding);
    expect(results.some((result) => result.status === 'rejected')).toBe(true);
    await expect(sender.barrier()).rejects.toThrow('disk full');
    const { hash, bytes } = block(1);
    await expect(sender.add(hash, bytes, 1)).rejects.toThrow('disk full');
  });
});
