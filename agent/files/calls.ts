/**
 * File-system calls on small things: made while waiting for the answer, as long as the file system answers at once.
 * A call handed to the thread pool costs eight times the call itself (18 against 2 us of CPU for an lstat, 76 against
 * 8 for a small file opened, read and closed), and a million files make many calls. Where calls take long (a spinning
 * disk, a network, a virus scanner) they go to the pool after all, side by side, so that nothing else has to wait.
 * Each function behaves as its namesake in node:fs/promises, whichever way it goes.
 */
import {
  type BigIntStats,
  closeSync,
  fchmodSync,
  fchownSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  futimesSync,
  linkSync,
  lstatSync,
  openSync,
  readSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import * as promised from 'node:fs/promises';
import type { LocalPath } from './types.ts';

/** The part of a FileHandle that reading and restoring files needs. */
export interface Handle {
  readonly fd: number;
  stat(options: { bigint: true }): Promise<BigIntStats>;
  read(buffer: Buffer, offset: number, length: number, position: number): Promise<{ bytesRead: number }>;
  write(buffer: Buffer, offset: number, length: number, position: number): Promise<{ bytesWritten: number }>;
  truncate(length: number): Promise<void>;
  chmod(mode: number): Promise<void>;
  chown(uid: number, gid: number): Promise<void>;
  utimes(atime: number | Date, mtime: number | Date): Promise<void>;
  sync(): Promise<void>;
  close(): Promise<void>;
}

/** Decides, from how long calls took lately, whether the next one is waited for. */
export class Pace {
  /** Above this on average, the pool's cost is small beside the call's, and waiting would hold up all else. */
  static readonly slowMs = 0.3;
  /** One call counts for no more: a process that lost its turn on the processor looks like a slow disk. */
  static readonly countedMsMax = 4;
  /** So long calls go to the pool before one is timed again. */
  static readonly restMs = 1_000;
  /** Calls answered at once never let the event loop turn: after so long it is given a turn. */
  static readonly turnMsMax = 10;

  readonly #now: () => number;
  #averageMs = 0;
  #restUntil = Number.NEGATIVE_INFINITY;
  #turnedAt: number;

  /** @param now milliseconds of a monotonic clock */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
    this.#turnedAt = now();
  }

  /** Whether calls are waited for at the moment. */
  get isQuick(): boolean {
    return this.#now() >= this.#restUntil;
  }

  /** Counts one call that was waited for. */
  took(ms: number): void {
    this.#averageMs += (Math.min(ms, Pace.countedMsMax) - this.#averageMs) / 16;
    if (this.#averageMs <= Pace.slowMs) return;
    this.#averageMs = 0;
    this.#restUntil = this.#now() + Pace.restMs;
  }

  /** Makes one call the way that suits. */
  async call<T>(waiting: () => T, pooled: () => Promise<T>): Promise<T> {
    if (!this.isQuick) return pooled();
    if (this.#now() - this.#turnedAt > Pace.turnMsMax) {
      await new Promise(setImmediate);
      this.#turnedAt = this.#now();
    }
    const startedAt = this.#now();
    try {
      return waiting();
    } finally {
      this.took(this.#now() - startedAt);
    }
  }
}

/** All file systems share one: the agent works through one tree at a time. */
const pace = new Pace();

export function lstat(path: LocalPath): Promise<BigIntStats> {
  return pace.call(
    () => lstatSync(path, { bigint: true }),
    () => promised.lstat(path, { bigint: true }),
  );
}

export function link(from: LocalPath, to: LocalPath): Promise<void> {
  return pace.call(
    () => linkSync(from, to),
    () => promised.link(from, to),
  );
}

export function unlink(path: LocalPath): Promise<void> {
  return pace.call(
    () => unlinkSync(path),
    () => promised.unlink(path),
  );
}

/**
 * Opens a file.
 * @param small its content is read or written in one go; of a larger one every call goes to the pool
 */
export function open(path: LocalPath, flags: number, options: { mode?: number; small: boolean }): Promise<Handle> {
  const pooled = (): Promise<Handle> => promised.open(path, flags, options.mode);
  return options.small ? pace.call(() => new WaitingHandle(openSync(path, flags, options.mode)), pooled) : pooled();
}

/** An open file whose calls are waited for: it was opened while the file system answered at once, and is soon closed. */
class WaitingHandle implements Handle {
  #fd: number;

  constructor(fd: number) {
    this.#fd = fd;
  }

  get fd(): number {
    return this.#fd;
  }

  stat(): Promise<BigIntStats> {
    return this.#call(() => fstatSync(this.#fd, { bigint: true }));
  }

  read(buffer: Buffer, offset: number, length: number, position: number): Promise<{ bytesRead: number }> {
    return this.#call(() => ({ bytesRead: readSync(this.#fd, buffer, offset, length, position) }));
  }

  write(buffer: Buffer, offset: number, length: number, position: number): Promise<{ bytesWritten: number }> {
    return this.#call(() => ({ bytesWritten: writeSync(this.#fd, buffer, offset, length, position) }));
  }

  truncate(length: number): Promise<void> {
    return this.#call(() => ftruncateSync(this.#fd, length));
  }

  chmod(mode: number): Promise<void> {
    return this.#call(() => fchmodSync(this.#fd, mode));
  }

  chown(uid: number, gid: number): Promise<void> {
    return this.#call(() => fchownSync(this.#fd, uid, gid));
  }

  utimes(atime: number | Date, mtime: number | Date): Promise<void> {
    return this.#call(() => futimesSync(this.#fd, atime, mtime));
  }

  sync(): Promise<void> {
    return this.#call(() => fsyncSync(this.#fd));
  }

  /** Closing twice does nothing, as for a FileHandle: the number may belong to another file by then. */
  async close(): Promise<void> {
    const fd = this.#fd;
    this.#fd = -1;
    if (fd >= 0) closeSync(fd);
  }

  async #call<T>(step: () => T): Promise<T> {
    const startedAt = performance.now();
    try {
      return step();
    } finally {
      pace.took(performance.now() - startedAt);
    }
  }
}
