import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmodSync, linkSync, mkdirSync, rmSync, symlinkSync, truncateSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { hashKeyAt, splitHashes } from '../../protocol/hashes.ts';
import { deriveKeys, open, verifyVersionMac } from '../../protocol/sealing/index.ts';
import { createExcludes } from '../files/excludes.ts';
import { forgetBlock, type MemoryServer } from '../testing/memory-server.ts';
import type { BackupOptions, BackupResult } from './run.ts';
import { TestBackup } from './test-backup.ts';

let world: TestBackup;
let root: string;
let server: MemoryServer;
beforeEach(async () => {
  world = await TestBackup.start();
  ({ root, server } = world);
});
afterEach(() => world.close());

const run = (options?: Partial<BackupOptions>): Promise<BackupResult> => world.run(options);

/** What the server holds below the root, as plain content by relative path; every MAC and block checked. */
function stored(): Record<string, string> {
  const keys = deriveKeys(world.registration.vaultKey);
  const found: Record<string, string> = {};
  for (const version of server.state().values()) {
    expect(verifyVersionMac(keys, world.registration.archive, version)).toBe(true);
    const path = version.path.toString();
    if (!path.startsWith(`${root}/`)) continue;
    const content = splitHashes(version.blocks).map((hash) =>
      open(keys, { type: 'block', vault: 7 }, server.blocks.get(hashKeyAt(hash, 0))!),
    );
    found[path.slice(root.length + 1)] =
      version.kind === 'file' ? Buffer.concat(content).toString('latin1') : version.kind;
  }
  return found;
}

/** Files written long enough ago that their times are trusted. */
function write(name: string, content: string | Buffer): void {
  mkdirSync(join(root, name, '..'), { recursive: true });
  writeFileSync(join(root, name), content);
}

const settle = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 80));

describe('a backup', () => {
  test('stores files, folders, symlinks and empty files, and a second one sends nothing', async () => {
    const large = randomBytes(3_000_000);
    write('a.txt', 'hello');
    write('deep/er/b.bin', large);
    write('empty', '');
    symlinkSync('a.txt', join(root, 'link'));
    await settle();
    const first = await run();
    expect(first).toMatchObject({ outcome: 'completed', reconciled: null });
    expect(first.counts).toMatchObject({
      filesSeen: 4,
      filesChanged: 4,
      filesSkipped: 0,
      bytesSeen: 3_000_005,
      bytesRead: 3_000_005,
    });
    expect(stored()).toEqual({
      'a.txt': 'hello',
      deep: 'directory',
      'deep/er': 'directory',
      'deep/er/b.bin': large.toString('latin1'),
      empty: '',
      link: 'symlink',
    });

    // Only what lies below the root: the folders above it are others' too, and change when others use them.
    const below = (): number => server.versions.filter(({ path }) => path.toString().startsWith(`${root}/`)).length;
    const versions = below();
    const second = await run();
    expect(second.counts).toMatchObject({
      filesSeen: 4,
      filesChanged: 0,
      filesUnchanged: 4,
      bytesRead: 0,
      bytesSent: 0,
    });
    expect(below()).toBe(versions);
    expect(server.runs[1]!.finish).toMatchObject({ outcome: 'completed' });
  });

  test('sends only the blocks that changed, and only once where files share them', async () => {
    const shared = randomBytes(5_000_000);
    write('one', shared);
    write('two', shared);
    await settle();
    const first = await run();
    expect(first.counts.bytesSent).toBeLessThan(5_100_000);
    expect(first.counts.bytesKnown).toBe(5_000_000);
    write('one', Buffer.concat([shared.subarray(0, 4_900_000), randomBytes(1000)]));
    const second = await run();
    expect(second.counts.filesChanged).toBe(1);
    expect(second.counts.bytesSent).toBeLessThan(4_300_000);
    expect(second.counts.bytesSent).toBeGreaterThan(0);
  });

  test('a file whose mode alone changed gets a new version and no new block; one only touched back does not', async () => {
    write('a', 'content');
    await settle();
    await run();
    chmodSync(join(root, 'a'), 0o640);
    const changed = await run();
    expect(changed.counts).toMatchObject({ filesChanged: 1, blocksSent: 0 });
    utimesSync(join(root, 'a'), 1_600_000_000, 1_600_000_000);
    expect((await run()).counts).toMatchObject({ filesChanged: 1, blocksSent: 0 });
    await settle();
    utimesSync(join(root, 'a'), 1_600_000_000, 1_600_000_000); // ctime moves, nothing else
    expect((await run()).counts).toMatchObject({ filesChanged: 0, filesUnchanged: 1, bytesRead: 7, blocksSent: 0 });
    expect((await run()).counts).toMatchObject({ filesUnchanged: 1 });
  });

  test('a file written again within the tick of its reading is read again', async () => {
    write('racy', 'one');
    // As fresh as can be, however slow the machine: a time that has not come yet.
    utimesSync(join(root, 'racy'), Date.now() / 1000 + 60, Date.now() / 1000 + 60);
    await run(); // its times are too fresh to prove anything
    const again = await run();
    expect(again.counts).toMatchObject({ filesChanged: 0, bytesRead: 3 });
  });

  test('a file of more lists than one version may name is refused by name, and the others are stored', async () => {
    write('small', 'small');
    write('huge', '');
    truncateSync(join(root, 'huge'), 300 * 1024 ** 3); // holes only
    await settle();
    // Lists of two: 300 GiB in blocks of 8 MiB would make some 19,000 of them.
    const result = await run({ naming: { directBlocksMax: 1, minBlocks: 1, averageBlocks: 2, maxBlocks: 4 } });
    expect(result).toMatchObject({ outcome: 'completed', counts: { filesChanged: 1, filesSkipped: 1 } });
    const [left] = [...world.cache.skipped({ excludedToo: false })];
    expect(left).toMatchObject({ reason: 'too_large' });
    expect(String(left!.path)).toContain('huge');
    expect(Object.keys(stored())).toEqual(['small']);
  });

  test('hard links are read once', async () => {
    write('a', randomBytes(100_000));
    linkSync(join(root, 'a'), join(root, 'b'));
    linkSync(join(root, 'a'), join(root, 'c'));
    const result = await run();
    expect(result.counts).toMatchObject({ filesChanged: 3, bytesRead: 100_000 });
    const content = stored();
    expect(content.b).toBe(content.a);
    expect(content.c).toBe(content.a);
  });

  test('records deletions, of folders too, and what takes a path over', async () => {
    write('gone/x', 'x');
    write('gone/y', 'y');
    write('becomes-folder', 'file');
    write('stays', 's');
    await run();
    rmSync(join(root, 'gone'), { recursive: true });
    rmSync(join(root, 'becomes-folder'));
    write('becomes-folder/inside', 'i');
    const result = await run();
    expect(result.counts.filesDeleted).toBe(3);
    expect(stored()).toEqual({ 'becomes-folder': 'directory', 'becomes-folder/inside': 'i', stays: 's' });
    expect((await run()).counts.filesDeleted).toBe(0);
  });

  test('an exclusion deletes nothing that was stored before', async () => {
    write('keep/a', 'a');
    write('b', 'b');
    await run();
    const excludes = createExcludes({ platform: 'linux', home: null, patterns: ['keep/'], defaults: false });
    const result = await run({ excludes });
    expect(result.counts).toMatchObject({ filesDeleted: 0, filesExcluded: 1, filesSkipped: 0 });
    expect(stored()['keep/a']).toBe('a');
    rmSync(join(root, 'keep'), { recursive: true });
    expect((await run()).counts.filesDeleted).toBe(2);
  });
});

describe('a root that is not what it was', () => {
  test.each([
    ['missing', () => rmSync(root, { recursive: true })],
    [
      'empty after having been full',
      () => {
        rmSync(root, { recursive: true });
        mkdirSync(root);
      },
    ],
  ])('%s: the run fails and nothing is deleted', async (_name, change) => {
    write('a', 'a');
    write('b/c', 'c');
    await run();
    const before = stored();
    change();
    const result = await run();
    expect(result.outcome).toBe('failed');
    expect(result.reason).not.toBe('');
    expect(result.counts.filesDeleted).toBe(0);
    expect(stored()).toEqual(before);
    expect(server.runs.at(-1)!.finish).toMatchObject({ outcome: 'failed' });
  });

  test('another file system in its place: the run fails until the user accepts it', async () => {
    write('a', 'a');
    write('b', 'b');
    await run();
    const path = Buffer.from(root);
    world.cache.setRootIdentity(path, { device: 1n, inode: 2n, birthtimeNs: 3n });
    rmSync(join(root, 'a'));
    const result = await run();
    expect(result).toMatchObject({ outcome: 'failed', counts: { filesDeleted: 0 } });
    expect(result.reason).toContain('another file system');
    const accepted = await run({ acceptRoots: true });
    expect(accepted).toMatchObject({ outcome: 'completed', counts: { filesDeleted: 1 } });
    expect((await run()).outcome).toBe('completed');
  });

  test('the other roots are backed up all the same', async () => {
    write('a', 'a');
    const result = await run({ roots: [join(world.folder, 'nowhere'), root] });
    expect(result.outcome).toBe('failed');
    expect(stored().a).toBe('a');
  });
});

describe('when the network or the server fails', () => {
  test('lost connections, lost answers and 503s on every kind of request change nothing in the result', async () => {
    const large = randomBytes(2_000_000);
    for (let i = 0; i < 40; i++) write(`f${i}`, `content ${i}`);
    write('large', large);
    const seen = new Map<string, number>();
    const kinds = ['drop', 'lose_answer', 'problem'] as const;
    server.faults = (request) => {
      const count = (seen.get(request) ?? 0) + 1;
      seen.set(request, count);
      const kind = kinds[count - 1];
      if (!kind) return null;
      return kind === 'problem' ? { kind, code: 'unavailable' } : { kind };
    };
    const result = await run({
      committer: { versionsMax: 10 },
      sender: { uploadBytes: 300_000, heldBytesMax: 1_000_000 },
    });
    expect(result.outcome).toBe('completed');
    const content = stored();
    expect(Object.keys(content).length).toBe(41);
    expect(content.large).toBe(large.toString('latin1'));
    // Each path once: a repeated commit was answered as before, not taken twice.
    expect(server.versions.filter((version) => version.path.toString().startsWith(`${root}/`)).length).toBe(41);
  });

  test('a quota that is used up ends the run at once, with its reason, and the next one goes on', async () => {
    for (let i = 0; i < 8; i++) write(`f${i}`, randomBytes(100_000));
    const uploads = (): number => server.requests.filter((request) => request === 'POST /v1/blocks').length;
    server.faults = (request) =>
      request === 'POST /v1/blocks' && uploads() > 1 ? { kind: 'problem', code: 'quota_exceeded' } : null;
    const sender = { uploadBytes: 150_000, parallelUploads: 1 };
    await expect(run({ sender })).rejects.toMatchObject({ code: 'quota_exceeded' });
    expect(uploads()).toBe(2);
    expect(server.runs.at(-1)!.finish).toMatchObject({ outcome: 'failed', reason: 'on command' });

    const before = server.blocks.size;
    expect(before).toBeGreaterThan(0);
    server.faults = () => null;
    const result = await run({ sender });
    expect(result).toMatchObject({ outcome: 'completed', counts: { blocksSent: 8 - before } });
    expect(Object.keys(stored()).length).toBe(8);
  });

  test('a commit whose answer never came is finished by the next run, without reading or comparing anything', async () => {
    write('a', 'a');
    await settle();
    world.client.destroy();
    world.client = world.connect(0);
    server.faults = (request) => (request === 'POST /v1/archive/commits' ? { kind: 'lose_answer' } : null);
    await expect(run()).rejects.toThrow();
    world.cache.close();
    world.cache = world.openCache();
    world.client = world.connect();
    server.faults = () => null;
    const result = await run();
    expect(result).toMatchObject({ reconciled: null, counts: { filesChanged: 0, bytesRead: 0, bytesSent: 0 } });
    expect(stored()).toEqual({ a: 'a' });
  });

  test('blocks the server misses are read and sent again', async () => {
    const content = randomBytes(3_000_000);
    write('a', content);
    write('b', 'other');
    let commits = 0;
    server.faults = (request) => {
      if (request === 'POST /v1/archive/commits' && commits++ === 0)
        for (const key of [...server.blocks.keys()].slice(0, 2)) forgetBlock(server, Buffer.from(key, 'latin1'));
      return null;
    };
    const result = await run();
    expect(commits).toBe(2);
    expect(result.outcome).toBe('completed');
    expect(stored()).toEqual({ a: content.toString('latin1'), b: 'other' });
  });

  test('an interrupted run goes on without sending again what is stored', async () => {
    for (let i = 0; i < 30; i++) write(`f${i}`, randomBytes(200_000));
    const controller = new AbortController();
    let uploads = 0;
    server.faults = (request) => {
      if (request === 'POST /v1/blocks' && ++uploads === 3) controller.abort(new Error('interrupted'));
      return null;
    };
    const result = await run({ signal: controller.signal, sender: { uploadBytes: 500_000, heldBytesMax: 1_500_000 } });
    expect(result.outcome).toBe('interrupted');
    expect(server.runs[0]!.finish).toMatchObject({ outcome: 'interrupted' });
    const second = await run();
    expect(second.outcome).toBe('completed');
    const sent = result.counts.blocksSent + second.counts.blocksSent;
    expect(result.counts.blocksSent).toBeGreaterThan(0);
    expect(sent).toBe(30);
    expect(Object.keys(stored()).length).toBe(30);
  });
});

describe('when cache and archive differ', () => {
  test('a server restored to an earlier state gets again what it lost', async () => {
    write('a', 'a');
    await settle();
    await run();
    const rolledBackTo = server.nextSeq;
    write('b', 'b');
    rmSync(join(root, 'a'));
    await settle();
    await run();
    server.rollBackTo(rolledBackTo);
    expect(stored()).toEqual({ a: 'a' });
    const result = await run();
    expect(result.reconciled).toContain('earlier state');
    expect(stored()).toEqual({ b: 'b' }); // the deletion was lost with the rest, and is recorded again
    expect((await run()).reconciled).toBeNull();
  });

  test('a lost cache is learnt from the archive: nothing is sent, and what was never here is not deleted', async () => {
    write('a', 'a');
    write('b', 'b');
    await run();
    world.cache.close();
    world.cache = world.openCache('another.db');
    rmSync(join(root, 'b'));
    const result = await run();
    expect(result.reconciled).not.toBeNull();
    expect(result.counts).toMatchObject({ filesChanged: 0, filesDeleted: 0, blocksSent: 0 });
    expect(stored()).toEqual({ a: 'a', b: 'b' });
    expect((await run({ deleteUnseen: true })).counts.filesDeleted).toBe(1);
    expect(stored()).toEqual({ a: 'a' });
  });

  test('a purge in the middle of a run is learnt before the commit', async () => {
    write('a', 'a');
    write('b', 'b');
    await run();
    server.versions = server.versions.filter((version) => !version.path.toString().endsWith('/a'));
    write('c', 'c');
    let first = true;
    server.faults = (request) => {
      if (request === 'POST /v1/archive/commits' && first) {
        first = false;
        server.purgeEpoch = 1;
      }
      return null;
    };
    expect((await run()).outcome).toBe('completed');
    expect(stored()).toMatchObject({ b: 'b', c: 'c' });
    await run(); // the purged path's file is still there: it is new again
    expect(stored()).toEqual({ a: 'a', b: 'b', c: 'c' });
  });

  test('a version the agent never made does not count as stored', async () => {
    write('a', 'a');
    await run();
    world.cache.close();
    world.cache = world.openCache('another.db');
    for (const version of server.versions) version.mac = randomBytes(32);
    await run();
    expect(stored()).toEqual({ a: 'a' }); // with a MAC of its own: stored() checks it
  });
});

describe('what cannot be stored', () => {
  test('a file that changes under both readings is named, told to the server, and stays as it was stored', async () => {
    write('log', 'before');
    write('fine', 'fine');
    await settle();
    await run();
    write('log', randomBytes(20_000_000));
    // Claims are asked while the file is still being read: each finds the file written anew.
    server.faults = (request) => {
      if (request === 'POST /v1/blocks/claim') write('log', randomBytes(20_000_000));
      return null;
    };
    const result = await run();
    expect(result).toMatchObject({
      outcome: 'completed',
      counts: { filesSkipped: 1, filesChanged: 0, filesDeleted: 0 },
    });
    expect(server.runs.at(-1)!.skipped).toMatchObject([
      { path: Buffer.from(join(root, 'log')), reason: 'changed_while_read' },
    ]);
    expect([...world.cache.skipped({ excludedToo: false })]).toMatchObject([{ reason: 'changed_while_read' }]);
    expect(stored()).toEqual({ log: 'before', fine: 'fine' });

    server.faults = () => null;
    expect((await run()).counts).toMatchObject({ filesSkipped: 0, filesChanged: 1 });
    expect([...world.cache.skipped({ excludedToo: false })]).toEqual([]);
  });

  test('a pipe is named, and a file it took the place of is deleted', async () => {
    write('a', 'a');
    await run();
    rmSync(join(root, 'a'));
    execFileSync('mkfifo', [join(root, 'a')]);
    const result = await run();
    expect(result.counts).toMatchObject({ filesSkipped: 1, filesDeleted: 1 });
    expect(stored()).toEqual({});
  });
});

test('folders at and below the root are told, its ancestors are not', async () => {
  write('a/b/c', 'c');
  const folders: string[] = [];
  await run({ onFolder: (path) => folders.push(path.toString()) });
  expect(folders).toEqual([root, join(root, 'a'), join(root, 'a/b')]);
});

test('thousands of files go through in batches, each path once', async () => {
  for (let i = 0; i < 3000; i++) write(`d${i % 30}/f${i}`, `content ${i}`);
  const result = await run({ committer: { versionsMax: 500 } });
  expect(result.counts).toMatchObject({ filesChanged: 3000, filesSeen: 3000, foldersSeen: expect.any(Number) });
  expect(Object.keys(stored()).length).toBe(3030);
  expect(server.commits.size).toBeGreaterThan(5);
  expect(server.requests.filter((request) => request === 'POST /v1/blocks').length).toBeLessThan(20);
});
