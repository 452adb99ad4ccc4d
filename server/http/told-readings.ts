/**
 * Readings of archives that are in the log already, so that whoever was cut off, or turns a page, goes on without another act. What
 * must stay true: what goes on without one is the reading that was written down, by the same device, from the same address and not
 * long ago, from whatever place of it: how much of it has arrived only the reader knows. A place in what was never begun is none.
 * What is forgotten, or was told to another process, is written once more.
 */
import { createHash } from 'node:crypto';

export const toldForMs = 60 * 60_000;
const toldMax = 10_000;

export interface Reading {
  device: number;
  address: string;
  vault: number;
  archive: number;
  path: Buffer;
  /** Null: all versions of this one file, of every moment. */
  moment: { seq: number; deleted: boolean } | null;
}

export class ToldReadings {
  /** When it was written down; the oldest first. */
  readonly #told = new Map<string, number>();
  readonly #now: () => number;

  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  has(reading: Reading): boolean {
    const at = this.#told.get(keyOf(reading));
    return at !== undefined && this.#now() - at < toldForMs;
  }

  add(reading: Reading): void {
    const key = keyOf(reading);
    this.#told.delete(key);
    this.#told.set(key, this.#now());
    for (const oldest of this.#told.keys()) {
      if (this.#told.size <= toldMax) break;
      this.#told.delete(oldest);
    }
  }
}

/** As short as any, however long its path is. */
function keyOf({ device, address, vault, archive, path, moment }: Reading): string {
  const about = JSON.stringify([device, address, vault, archive, moment && [moment.seq, moment.deleted]]);
  return createHash('sha256').update(about).update(path).digest('base64url');
}
