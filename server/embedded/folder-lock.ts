/**
 * One server per data folder. The lock is the operating system's (SQLite takes it on a file), so it ends with the
 * process however that ends, and no pid that was reused can keep it. Who holds it stands in `server.json` beside it.
 */
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as sleep } from 'node:timers/promises';

export interface FolderLock {
  /** Says where the server listens, or that it is stopping, for whoever finds the folder locked. */
  describe(holder: { url: string } | { stopping: true }): void;
  release(): void;
}

interface Holder {
  pid: number;
  url?: string;
  stopping?: true;
}

/** A server that is told to stop drains its requests and writes a checkpoint first. */
const stoppingTimeoutMs = 90_000;
const writingTimeoutMs = 5_000;
const sqliteBusy = 5;

/**
 * Takes the lock; waits for a server that is on its way out.
 * @throws Error naming the server that holds the folder, or why the folder cannot be locked
 */
export async function lockFolder(folder: string, log: (line: string) => void): Promise<FolderLock> {
  const holderFile = join(folder, 'server.json');
  const until = performance.now() + stoppingTimeoutMs;
  const writingUntil = performance.now() + writingTimeoutMs;
  let lock = tryLock(folder);
  for (let told = false; lock === null; lock = tryLock(folder)) {
    const holder = readHolder(holderFile);
    // No file: whoever has the lock writes it just now, or gives the lock up just now. Either is over in a moment.
    const patience = holder === null ? writingUntil : holder.stopping ? until : 0;
    if (performance.now() > patience) {
      throw new Error(
        `${describe(holder)} already runs on the data folder ${folder}: stop it first, or set HOLDFAST_DATA to another folder`,
      );
    }
    if (holder && !told) log(`waiting for the server that is stopping (process ${holder.pid})`);
    told ||= holder !== null;
    await sleep(100);
  }

  const held = lock;
  const write = (holder: Omit<Holder, 'pid'>): void =>
    writeFileSync(holderFile, `${JSON.stringify({ pid: process.pid, ...holder })}\n`, { mode: 0o600 });
  write({});
  return {
    describe: write,
    release() {
      rmSync(holderFile, { force: true });
      held.close();
    },
  };
}

/** null when another process has it. */
function tryLock(folder: string): DatabaseSync | null {
  // Only ever opened here: closing any other descriptor of the file would give the lock up (POSIX fcntl).
  const lock = new DatabaseSync(join(folder, 'server.lock'));
  try {
    lock.exec('PRAGMA busy_timeout = 0; PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = OFF; BEGIN EXCLUSIVE');
    return lock;
  } catch (error) {
    lock.close();
    if ((error as { errcode?: number }).errcode === sqliteBusy) return null;
    throw new Error(`the data folder ${folder} cannot be locked: ${(error as Error).message}`, { cause: error });
  }
}

function readHolder(file: string): Holder | null {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as Holder;
  } catch {
    return null; // it is being written
  }
}

function describe(holder: Holder | null): string {
  if (!holder) return 'a server';
  return `a server (process ${holder.pid}, ${holder.url ? `listening on ${holder.url}` : holder.stopping ? 'stopping' : 'still starting'})`;
}
