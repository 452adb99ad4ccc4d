/** Restores that are interrupted, and go on. */
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { hashAt, hashCount, hashKey } from '../../protocol/hashes.ts';
import { sealOverheadBytes } from '../../protocol/sealing/seal.ts';
import { heldOpenBelow, scratchFolder, seededBytes, seededNumbers, snapshot } from '../files/test-tree.ts';
import { TestArchive } from './test-archive.ts';

let scratch: ReturnType<typeof scratchFolder>;
let root: string;
let to: string;
let archive: TestArchive;
const staging = '.holdfast-restore';

beforeAll(async () => {
  scratch = scratchFolder();
  root = `${scratch.path}/root`;
  mkdirSync(`${root}/sub`, { recursive: true });
  writeFileSync(`${root}/large`, seededBytes(11, 12_000_000));
  for (let i = 0; i < 60; i++) writeFileSync(`${root}/sub/${i}`, seededBytes(100 + i, 1 + i * 997));
  writeFileSync(`${root}/zz`, seededBytes(12, 2_000_000));
  archive = new TestArchive();
  await archive.backup(root);
});
beforeEach(() => {
  to = `${scratch.path}/to`;
  archive.asked = 0;
  archive.onBlock = () => undefined;
});
afterEach(() => {
  expect(heldOpenBelow(scratch.path)).toEqual([]);
  rmSync(to, { recursive: true, force: true });
});
afterAll(() => scratch.remove());

const blockCount = () => archive.blocks.size;

/** Restores until the source has given so many blocks; what the restore failed with. */
async function interruptAfter(blocks: number, how: 'abort' | 'fail'): Promise<unknown> {
  const abort = new AbortController();
  const last = archive.asked + blocks;
  archive.onBlock = (count) => {
    if (count < last) return;
    if (how === 'abort') abort.abort(new Error('enough'));
    else throw new Error('the connection is gone');
  };
  try {
    await archive.restore(to, { path: root, signal: abort.signal });
  } catch (error) {
    return error;
  } finally {
    archive.onBlock = () => undefined;
  }
  throw new Error('was not interrupted');
}

describe('a restore interrupted', () => {
  const random = seededNumbers(20_261);
  const moments = Array.from(
    { length: 10 },
    (_, index) => [1 + (random() % 70), index % 2 === 0 ? 'abort' : 'fail'] as const,
  );
  test.each(moments)('after %d blocks (%s) goes on where it was, and ends the same', async (blocks, how) => {
    expect(await interruptAfter(blocks, how)).toMatchObject({
      message: how === 'abort' ? 'enough' : 'the connection is gone',
    });
    for (const name of readdirSync(to)) expect(['root', staging]).toContain(name);
    for (const [name, line] of Object.entries(snapshot(to, { modes: false }))) {
      // What has its name already is whole.
      if (line.startsWith('file') && !name.includes(staging))
        expect(readFileSync(to + name).equals(readFileSync(scratch.path + name))).toBe(true);
    }
    const report = await archive.restore(to, { path: root });
    expect(report.complete).toBe(true);
    expect(report.counts.notices).toBe(0);
    expect(snapshot(`${to}/root`)).toEqual(snapshot(root));
    expect(existsSync(`${to}/${staging}`)).toBe(false);
  });

  test('fetches only what is missing', async () => {
    await interruptAfter(Math.floor(blockCount() / 2), 'fail');
    const kept = Object.entries(snapshot(to)).filter(([, line]) => line.startsWith('file'));
    expect(kept.length).toBeGreaterThan(0);
    const before = archive.asked;
    const report = await archive.restore(to, { path: root });
    expect(archive.asked - before).toBe(report.counts.blocksFetched);
    expect(report.counts.blocksFetched).toBeLessThan(blockCount());
    expect(report.counts.filesIdentical + report.counts.filesRestored).toBe(62);
    expect(report.counts.bytesResumed + report.counts.filesIdentical).toBeGreaterThan(0);
  });

  test('in the middle of a large file keeps its beginning, as far as it is right', async () => {
    // The server gives this file's blocks in order, so that there is a beginning to keep.
    const large = new TestArchive();
    large.fetchBlocks = async function* (hashes) {
      for (let i = 0; i < hashes.byteLength / 32; i++) {
        large.asked++;
        await large.onBlock(large.asked);
        await new Promise((resolve) => setTimeout(resolve, 20));
        yield {
          index: i,
          bytes: archive.blocks.get(Buffer.from(hashes.subarray(i * 32, i * 32 + 32)).toString('latin1'))!,
        };
      }
    };
    large.versionsByPath.push(...archive.versionsByPath);
    large.onBlock = (count) => {
      if (count > 6) throw new Error('the connection is gone');
    };
    await expect(large.restore(to, { path: `${root}/large` })).rejects.toThrow('the connection is gone');
    const [part] = readdirSync(`${to}/${staging}`).filter((name) => name.endsWith('.part'));
    const begun = readFileSync(`${to}/${staging}/${part}`);
    expect(begun.byteLength).toBeGreaterThan(1_000_000);
    // A byte turned over near its end: the last part is fetched again.
    begun[begun.byteLength - 10]! ^= 1;
    writeFileSync(`${to}/${staging}/${part}`, begun);
    large.onBlock = () => undefined;
    const report = await large.restore(to, { path: `${root}/large` });
    expect(report.counts.bytesResumed).toBeGreaterThan(0);
    expect(report.counts.bytesResumed).toBeLessThan(begun.byteLength);
    expect(readFileSync(`${to}/large`).equals(readFileSync(`${root}/large`))).toBe(true);
  });

  test('at 60 % of a large file fetches the rest of it, and no more', async () => {
    const bytes = 100_000_000;
    const onTheWay = 4 * 8 * 1024 * 1024 + 4 * 1024 * 1024;
    const many = `${scratch.path}/many blocks`;
    writeFileSync(many, seededBytes(13, bytes));
    const source = new TestArchive();
    await source.backup(many);
    const inOrder: TestArchive['fetchBlocks'] = async function* (hashes) {
      for (let index = 0; index < hashCount(hashes); index++) {
        await source.onBlock(++source.asked);
        await nextTurn();
        yield { index, bytes: source.blocks.get(hashKey(hashAt(hashes, index)))! };
      }
    };
    source.fetchBlocks = inOrder;
    const cutAt = Math.floor(source.blocks.size * 0.6);
    source.onBlock = (count) => {
      if (count > cutAt) throw new Error('the connection is gone');
    };
    await expect(source.restore(to, { path: many })).rejects.toThrow('the connection is gone');
    source.onBlock = () => undefined;
    const { complete, counts } = await source.restore(to, { path: many });
    expect(complete).toBe(true);
    expect(counts.bytesResumed).toBeGreaterThan(0.6 * bytes - onTheWay);
    // Each sealed block is some 80 bytes more than what is in it.
    expect(counts.bytesResumed + counts.bytesFetched).toBe(bytes + counts.blocksFetched * sealOverheadBytes);
    expect(readFileSync(`${to}/many blocks`).equals(readFileSync(many))).toBe(true);
    rmSync(many);
  });

  test.each([[3], [20], [61]])('by kill -9 after %d blocks goes on all the same', async (blocks) => {
    const script = `
      import { TestArchive } from ${JSON.stringify(new URL('./test-archive.ts', import.meta.url).href)};
      const archive = new TestArchive();
      await archive.backup(process.argv[1]);
      archive.onBlock = (count) => { if (count === ${blocks}) process.kill(process.pid, 'SIGKILL'); };
      await archive.restore(process.argv[2], { path: process.argv[1] });`;
    const run = spawnSync(
      process.execPath,
      ['--disable-warning=ExperimentalWarning', '--input-type=module', '-e', script, root, to],
      { encoding: 'utf8' },
    );
    expect([run.signal, run.stderr]).toEqual(['SIGKILL', '']);
    expect(existsSync(`${to}/${staging}/lock`)).toBe(true);
    const report = await archive.restore(to, { path: root });
    expect(report.complete).toBe(true);
    expect(snapshot(`${to}/root`)).toEqual(snapshot(root));
    expect(readdirSync(to)).toEqual(['root']);
  });
});

describe('a lock of a process that runs', () => {
  /** Nothing to do with restores. */
  let other: ReturnType<typeof spawn>;
  beforeEach(() => {
    other = spawn('sleep', ['60']);
  });
  afterEach(() => void other.kill());

  const locked = (content: string): void => {
    mkdirSync(`${to}/${staging}`, { recursive: true, mode: 0o700 });
    writeFileSync(`${to}/${staging}/lock`, content);
  };
  const restored = () => archive.restore(to, { path: root }).catch((error) => error);

  test('keeps others out, as far as can be told by its number, and when it is the one that took it', async () => {
    locked(String(other.pid));
    expect(await restored()).toMatchObject({ code: 'target_busy' });
    const stat = readFileSync(`/proc/${other.pid}/stat`, 'latin1');
    const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
    locked(`${String(other.pid).padEnd(16)}${boot} ${stat.split(' ')[21]}`);
    expect(await restored()).toMatchObject({ code: 'target_busy', message: expect.stringContaining(`${other.pid})`) });
  });

  test.each([
    ['before the machine was started', () => `a-start-before 1`],
    [
      'and has ended since',
      () => `${readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()} 1`, // the start of the machine
    ],
  ])('keeps nobody out when another had its number %s', async (_, life) => {
    locked(`${String(other.pid).padEnd(16)}${life()}`);
    expect(await restored()).toMatchObject({ complete: true });
    expect(readdirSync(to)).toEqual(['root']);
  });
});

test('two restores do not work in one target at a time', async () => {
  let second: unknown;
  archive.onBlock = async (count) => {
    if (count === 5) second = await archive.restore(to, { path: root }).catch((error) => error);
  };
  const report = await archive.restore(to, { path: root });
  expect(second).toMatchObject({ code: 'target_busy' });
  expect(report.complete).toBe(true);
  expect(snapshot(`${to}/root`)).toEqual(snapshot(root));
});

test('a restore never started because it was aborted leaves nothing', async () => {
  await expect(archive.restore(to, { path: root, signal: AbortSignal.abort(new Error('no')) })).rejects.toThrow('no');
  expect(existsSync(to)).toBe(false);
});
