/** Who holds a staging folder: never two, and never one that is gone. Real folders, processes' numbers and full disks. */
import { spawn, spawnSync } from 'node:child_process';
import {
  closeSync,
  constants,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { heldOpenBelow, scratchFolder } from '../files/test-tree.ts';
import { type Folder, openTarget } from './folders.ts';
import { closeStaging, openLeftStaging, openStaging } from './staging.ts';
import { RestoreError } from './types.ts';

let scratch: ReturnType<typeof scratchFolder>;
let to: string;
let target: Folder;
let mounted: boolean;
const folder = (): string => `${to}/.holdfast-restore`;
const lock = (): string => `${folder()}/lock`;

beforeEach(async () => {
  scratch = scratchFolder();
  to = `${scratch.path}/to`;
  mkdirSync(to);
  mounted = false;
  target = await openTarget({ to });
});
afterEach(async () => {
  jest.useRealTimers();
  await target.close();
  if (mounted) spawnSync('umount', [to]);
  expect(heldOpenBelow(scratch.path)).toEqual([]);
  scratch.remove();
});

/** The target on a file system of its own. @returns false: only root may do that */
async function mount(options: string): Promise<boolean> {
  await target.close();
  mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', options, 'none', to]).status === 0;
  target = await openTarget({ to });
  return mounted;
}

/** A lock that somebody left. @param age of its time, in seconds */
function locked(text: string, age = 0): void {
  mkdirSync(folder(), { recursive: true, mode: 0o700 });
  writeFileSync(lock(), text);
  const at = Date.now() / 1000 - age;
  utimesSync(lock(), at, at);
}

const boot = (): string => readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
const here = (): string => readlinkSync('/proc/self/ns/pid');
const text = (pid: number, ...life: string[]): string => String(pid).padEnd(16) + life.join(' ');
/** Of a process that nobody has. */
const stale = (): string => text(process.pid, 'a-start-before', '1');

async function opens(open: typeof openStaging | typeof openLeftStaging = openStaging): Promise<boolean> {
  try {
    const staging = await open(target);
    await closeStaging(target, staging!, { keep: true });
    return true;
  } catch (error) {
    expect(error).toBeInstanceOf(RestoreError);
    expect(error).toMatchObject({ code: 'target_busy' });
    return false;
  }
}

test('from the moment that it is there, a lock says who has it', async () => {
  const seen = new Set<string>();
  let isOpen = false;
  const opening = openStaging(target).finally(() => {
    isOpen = true;
  });
  opening.catch(() => undefined); // told below
  while (!isOpen) {
    try {
      seen.add(readFileSync(lock(), 'latin1'));
    } catch {
      // It is not there yet.
    }
    await new Promise(setImmediate);
  }
  const staging = await opening;
  seen.add(readFileSync(lock(), 'latin1'));
  expect([...seen]).toEqual([expect.stringMatching(new RegExp(`^${process.pid} *${boot()} \\d+ pid:\\[\\d+\\]$`))]);
  // An older agent reads the number.
  expect(Number([...seen][0]!.slice(0, 16))).toBe(process.pid);
  expect(readdirSync(folder())).toEqual(['lock']);
  await closeStaging(target, staging, { keep: false });
  expect(readdirSync(to)).toEqual([]);
});

test.each([
  ['that is free', () => undefined],
  ['with a lock of one that is gone', () => locked(stale())],
])('of several that want a folder %s, one gets it', async (_, given) => {
  given();
  const all = await Promise.allSettled(Array.from({ length: 6 }, () => openStaging(target)));
  const got = all.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []));
  for (const staging of got) await closeStaging(target, staging, { keep: false });
  expect(got).toHaveLength(1);
  expect(await opens()).toBe(true);
});

test('a lock that was exchanged while it was looked at, for one that is held, is not taken away', async () => {
  mkdirSync(folder(), { mode: 0o700 });
  expect(spawnSync('mkfifo', [lock()]).status).toBe(0); // whoever looks waits for what it says
  const other = spawn('sleep', ['60']);
  try {
    const opening = opens();
    let writer: number | null = null;
    while (writer === null) {
      await new Promise((resolve) => setTimeout(resolve, 5));
      try {
        writer = openSync(lock(), constants.O_WRONLY | constants.O_NONBLOCK);
      } catch {
        // Nobody looks yet.
      }
    }
    writeFileSync(`${folder()}/other`, String(other.pid));
    renameSync(`${folder()}/other`, lock());
    writeSync(writer, stale());
    closeSync(writer);
    expect(await opening).toBe(false);
    expect(readFileSync(lock(), 'latin1')).toBe(String(other.pid));
    expect(readdirSync(folder())).toEqual(['lock']);
  } finally {
    other.kill();
  }
});

describe('on a disk that is full', () => {
  test('whoever tidies up has the folder, though its lock is empty', async () => {
    if (!(await mount('size=1m'))) return;
    mkdirSync(folder(), { mode: 0o700 });
    const fill = openSync(`${folder()}/x.part`, 'w');
    expect(() => {
      for (;;) writeSync(fill, Buffer.alloc(4_096));
    }).toThrow('ENOSPC');
    closeSync(fill);
    const staging = (await openLeftStaging(target))!;
    expect(readFileSync(lock(), 'latin1')).toBe('');
    expect([...staging.leftovers]).toEqual(['x.part']);
    expect([await opens(openLeftStaging), await opens()]).toEqual([false, false]);
    expect(readFileSync(lock(), 'latin1')).toBe('');
    await closeStaging(target, staging, { keep: true });
    await expect(openStaging(target)).rejects.toThrow('ENOSPC');
    expect(readdirSync(folder())).toEqual(['x.part']);
    rmSync(`${folder()}/x.part`);
    expect(await opens()).toBe(true);
  });

  test('with room for a file and for no link to it, the lock is there all the same', async () => {
    if (!(await mount('nr_inodes=3'))) return; // with the root and the folder: a link counts as a file
    const staging = await openStaging(target);
    expect(readFileSync(lock(), 'latin1')).toContain(boot());
    expect(await opens()).toBe(false);
    await closeStaging(target, staging, { keep: false });
    expect(readdirSync(to)).toEqual([]);
  });
});

describe('a holder that cannot be looked for', () => {
  const elsewhere = 'pid:[1]';
  /** Some process of this machine has the number, another none, and the third is ours. */
  const numbers = (): number[] => [1, 2 ** 22 + 1, process.pid];

  test.each([
    ['has no number', () => ['']],
    ['is in another container', () => numbers().map((pid) => text(pid, boot(), '1', elsewhere))],
    ['is on another machine', () => numbers().map((pid) => text(pid, 'another-start', '1', here()))],
  ])('and %s has the folder as long as it says so', async (_, texts) => {
    for (const each of texts()) {
      locked(each);
      expect([each, await opens()]).toEqual([each, false]);
      expect([each, await opens(openLeftStaging)]).toEqual([each, false]);
      locked(each, 50);
      expect([each, await opens()]).toEqual([each, false]);
      for (const age of [61, -61]) {
        locked(each, age);
        expect([each, await opens()]).toEqual([each, true]);
      }
    }
  });

  test('is not asked to say so where its number can be looked for', async () => {
    locked(text(process.pid, boot(), '1', here()));
    expect(await opens()).toBe(true);
    const other = spawn('sleep', ['60']);
    const started = readFileSync(`/proc/${other.pid}/stat`, 'latin1').split(' ')[21]!;
    try {
      for (const life of [
        [boot(), started],
        [boot(), started, here()],
      ]) {
        locked(text(other.pid!, ...life), 1_000);
        expect(await opens()).toBe(false);
      }
      locked(text(other.pid!, boot(), '1', here()));
      expect(await opens()).toBe(true);
    } finally {
      other.kill();
    }
  });

  test('says so, until it has ended', async () => {
    jest.useFakeTimers({ doNotFake: ['setImmediate', 'performance', 'nextTick', 'queueMicrotask', 'Date'] });
    const staging = await openStaging(target);
    const old = Date.now() / 1000 - 1_000;
    const isOld = (): boolean => lstatSync(lock()).mtimeMs < Date.now() - 60_000;
    utimesSync(lock(), old, old);
    expect(isOld()).toBe(true);
    for (let times = 0; times < 2; times++) {
      for (let turns = 0; isOld() && turns < 10_000; turns++) {
        jest.advanceTimersByTime(10_000);
        await new Promise(setImmediate);
      }
      expect(isOld()).toBe(false);
      utimesSync(lock(), old, old);
    }
    await closeStaging(target, staging, { keep: true });
    expect(jest.getTimerCount()).toBe(0);
  });
});
