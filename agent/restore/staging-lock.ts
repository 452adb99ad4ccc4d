/**
 * Who works in a staging folder: one at a time, for two would write into each other's unfinished files. The lock is a file that
 * says who has it, and has all of its text when it gets its name. Whoever is killed leaves it behind, and the next one, finding
 * that nobody has it, takes it away. A holder that cannot be looked for from here (of another container or machine, or one that
 * had no room to say who it is) has it as long as it sets the file's time anew, which each does all the while.
 */
import { randomUUID } from 'node:crypto';
import { constants, link, lstat, lutimes, open, readFile, readlink, rename, unlink } from 'node:fs/promises';
import { type Folder, nameOf } from './folders.ts';
import { RestoreError } from './types.ts';

export const stagingName = '.holdfast-restore';
/** Of names in it that are taken away with what was left unfinished: a file on its way to be a lock, too. */
export const partSuffix = '.part';
const lockName = 'lock';
/** A lock: the number of its process, with room behind it, and then which of those that had that number it is (`lifeOf`). */
const pidBytes = 16;
const lockBytesMax = 128;
const renewEveryMs = 10_000;
/** A holder that cannot be looked for, and was silent for longer, is gone. */
const silentMsMax = 60_000;

/**
 * Folders this process holds, or is about to, by device and inode, with what keeps their locks young: its own number in a lock
 * says nothing (containers reuse it), and a lock may be empty.
 */
const held = new Map<string, NodeJS.Timeout | null>();

/** Another works in the target, as far as can be told: it says no more than that it was there a moment ago. */
export class HolderUnknown extends RestoreError {}

/**
 * @param options.toTidy whoever only takes unfinished files away does so where there is no room to write who holds the lock,
 *   too: they are what there is no room for
 * @throws RestoreError target_busy; the system's errors
 */
export async function lockStaging(folder: Folder, { toTidy }: { toTidy: boolean }): Promise<void> {
  const key = heldKey(folder);
  if (held.has(key)) throw busy(`process ${process.pid}`);
  held.set(key, null);
  try {
    await take(folder, toTidy);
    held.set(key, renewing(folder));
  } catch (error) {
    held.delete(key);
    throw error;
  }
}

/** Takes the lock away. @param lastly what is done before anyone else of this process may have it. Neither fails */
export async function unlockStaging(folder: Folder, lastly?: () => Promise<void>): Promise<void> {
  const key = heldKey(folder);
  clearInterval(held.get(key) ?? undefined);
  await unlink(lockAt(folder)).catch(() => undefined);
  await lastly?.().catch(() => undefined);
  held.delete(key);
}

async function take(folder: Folder, toTidy: boolean): Promise<void> {
  const text = String(process.pid).padEnd(pidBytes) + ((await lifeOf(process.pid)) ?? '');
  for (let attempt = 0; attempt < 2; attempt++) {
    const there = await readLock(lockAt(folder));
    if (there) {
      if (await isHeld(there)) throw holderOf(there);
      await takeAway(folder);
    }
    if (await put(folder, text, toTidy)) return;
  }
  throw busy('which was quicker');
}

/** @returns false: there is one */
async function put(folder: Folder, text: string, toTidy: boolean): Promise<boolean> {
  const own = aside(folder);
  try {
    await writeNew(own, text, toTidy);
    try {
      await link(own, lockAt(folder));
      return true;
    } catch (error) {
      // ENOENT: the holder, which has ended since, took it for something unfinished.
      if (['EEXIST', 'ENOENT'].includes(codeOf(error))) return false;
    }
    // A file system without links, or without room for one: for a moment the lock is empty, as one that has no room for its text.
    await unlink(own);
    await writeNew(lockAt(folder), text, toTidy);
    return true;
  } catch (error) {
    if (codeOf(error) === 'EEXIST') return false;
    throw error;
  } finally {
    await unlink(own).catch(() => undefined);
  }
}

async function writeNew(path: Buffer | string, text: string, toTidy: boolean): Promise<void> {
  const handle = await open(path, 'wx', 0o600);
  try {
    await handle.writeFile(text).finally(() => handle.close());
  } catch (error) {
    if (toTidy && ['ENOSPC', 'EDQUOT'].includes(codeOf(error))) return;
    await unlink(path).catch(() => undefined);
    throw error;
  }
}

/** One that nobody has. Another may have done so, and have its own there by now: that is found when it is ours, and put back. */
async function takeAway(folder: Folder): Promise<void> {
  const taken = aside(folder);
  try {
    await rename(lockAt(folder), taken);
  } catch {
    return; // it is gone, or stays: then it is found again
  }
  const there = await readLock(taken);
  if (there && (await isHeld(there)))
    await link(taken, lockAt(folder)).catch(async (error) => {
      if (codeOf(error) !== 'EEXIST') await rename(taken, lockAt(folder));
    });
  await unlink(taken).catch(() => undefined);
}

interface Lock {
  /** Zero or less: none that is known. */
  pid: number;
  /** As `lifeOf` has it; empty: not known. Of older agents without its last word. */
  life: string;
  /** By the clock, which may have been set: since, or until, the time that it bears. */
  silentMs: number;
}

async function readLock(path: Buffer | string): Promise<Lock | null> {
  const found = await lstat(path).catch(() => null);
  if (!found) return null;
  const text = await readText(path).catch(() => '');
  const pid = Number(text.slice(0, pidBytes));
  return {
    pid: Number.isSafeInteger(pid) ? pid : 0,
    life: text.slice(pidBytes),
    silentMs: Math.abs(Date.now() - found.mtimeMs),
  };
}

async function readText(path: Buffer | string): Promise<string> {
  const handle = await open(path, constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0));
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(lockBytesMax), 0, lockBytesMax, null);
    return buffer.toString('latin1', 0, bytesRead);
  } finally {
    await handle.close();
  }
}

/** This process does not have it: that was asked before. */
async function isHeld(lock: Lock): Promise<boolean> {
  const { pid, life, silentMs } = lock;
  if (pid <= 0 || (await isElsewhere(life))) return silentMs < silentMsMax;
  if (pid === process.pid) return false;
  try {
    process.kill(pid, 0);
  } catch (error) {
    if (codeOf(error) !== 'EPERM') return false;
  }
  // Since the machine was started anew, or long enough after, its number may be that of anything.
  const now = life === '' ? null : await lifeOf(pid);
  return now === null || startOf(now) === startOf(life);
}

/** Whether numbers of processes mean others there: in another container, or on another machine (or this, before it was started). */
async function isElsewhere(life: string): Promise<boolean> {
  const mine = (await lifeOf(process.pid))?.split(' ');
  const [boot, , space] = life.split(' ');
  return mine?.[2] !== undefined && space !== undefined && (boot !== mine[0] || space !== mine[2]);
}

/**
 * What tells a process from others that have, or had, its number: since which start of the machine, when it was started, and where
 * that is its number (as of us; others may be in a space below). Null where the system does not say: elsewhere than on Linux, or
 * of what others may not see.
 */
async function lifeOf(pid: number): Promise<string | null> {
  try {
    const [boot, stat, space] = await Promise.all([
      readFile('/proc/sys/kernel/random/boot_id', 'latin1'),
      readFile(`/proc/${pid}/stat`, 'latin1'),
      readlink('/proc/self/ns/pid').catch(() => null),
    ]);
    // proc_pid_stat(5): the 22nd field; the second is a name in parentheses, which may hold anything.
    const started = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
    if (started === undefined) return null;
    return [boot.trim(), started, ...(space === null ? [] : [space])].join(' ');
  } catch {
    return null;
  }
}

const startOf = (life: string): string => life.split(' ', 2).join(' ');

/** One at a time: on a disk that does not answer they keep no more than one of Node's threads. */
function renewing(folder: Folder): NodeJS.Timeout {
  let underWay = false;
  const renew = async (): Promise<void> => {
    if (underWay) return;
    underWay = true;
    const now = new Date();
    await lutimes(lockAt(folder), now, now).catch(() => undefined);
    underWay = false;
  };
  return setInterval(renew, renewEveryMs).unref();
}

function holderOf({ pid, silentMs }: Lock): RestoreError {
  if (pid > 0) return busy(`process ${pid}`);
  const words = `whose lock does not say who has it, and was renewed ${Math.round(silentMs / 1000)} s ago`;
  return new HolderUnknown('target_busy', inWords(words));
}

const busy = (who: string): RestoreError => new RestoreError('target_busy', inWords(who));
const inWords = (who: string): string =>
  `another restore (${who}) works in this target; if it does not, remove ${stagingName}/${lockName} there`;

const lockAt = (folder: Folder): Buffer | string => folder.at(nameOf(folder, lockName));
const aside = (folder: Folder): Buffer | string =>
  folder.at(nameOf(folder, `${lockName}-${randomUUID()}${partSuffix}`));
const heldKey = ({ found }: Folder): string => `${found.dev}:${found.ino}`;
const codeOf = (error: unknown): string => (error as NodeJS.ErrnoException).code ?? '';
