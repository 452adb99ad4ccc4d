/**
 * Lists: the hashes of a large file's blocks, cut where the hashes themselves say so, so that a change of the file
 * moves the cuts around it and no others. A list is named by the SHA-256 of its hashes. Cuts depend on the hashes and
 * the sizes alone: nothing is secret here that the server does not see anyway.
 */
import { sha256 } from './hashes.ts';
import { limits, listing } from './limits.ts';

/** In hashes. A list has at least `minBlocks`, unless it is a file's last one. */
export interface ListSizes {
  minBlocks: number;
  averageBlocks: number;
  maxBlocks: number;
}

export interface List {
  hash: Buffer;
  /** The hashes of its blocks, n x 32 bytes. */
  blocks: Buffer;
}

/**
 * Takes the hashes of one file's blocks in order, and gives its lists. A list ends behind the first hash, from its
 * `minBlocks`-th on, whose first four bytes (big-endian) are below 2^32 / (average - min), or behind its
 * `maxBlocks`-th. No hash before it has a say but through these sizes, so two versions of a file soon agree on their
 * cuts again behind a change. The least size keeps a hash that a file repeats from being a list each time.
 */
export class ListCutter {
  readonly #sizes: ListSizes;
  readonly #endsBelow: number;
  #hashes: Buffer;
  #bytes = 0;

  /** @throws RangeError for sizes it cannot work with */
  constructor(sizes: ListSizes = listing) {
    const { minBlocks, averageBlocks, maxBlocks } = sizes;
    const whole = [minBlocks, averageBlocks, maxBlocks].every(Number.isInteger);
    if (
      !whole ||
      minBlocks < 1 ||
      minBlocks >= averageBlocks ||
      averageBlocks >= maxBlocks ||
      maxBlocks > limits.listBlocksMax
    ) {
      throw new RangeError(
        `list sizes ${minBlocks} / ${averageBlocks} / ${maxBlocks} are not 1 <= least < average < largest`,
      );
    }
    this.#sizes = sizes;
    this.#endsBelow = Math.floor(2 ** 32 / (averageBlocks - minBlocks));
    this.#hashes = Buffer.alloc(limits.hashBytes * minBlocks);
  }

  /** Takes the next hash. @returns the list that it ends, or null */
  add(hash: Uint8Array): List | null {
    if (this.#bytes === this.#hashes.byteLength) this.#grow();
    this.#hashes.set(hash, this.#bytes);
    this.#bytes += limits.hashBytes;
    const count = this.#bytes / limits.hashBytes;
    const ends =
      count === this.#sizes.maxBlocks ||
      (count >= this.#sizes.minBlocks && this.#hashes.readUInt32BE(this.#bytes - limits.hashBytes) < this.#endsBelow);
    return ends ? this.#take() : null;
  }

  /** The hashes of the list that is not ended yet, n x 32 bytes: a view, until the next `add`. */
  get open(): Buffer {
    return this.#hashes.subarray(0, this.#bytes);
  }

  /** What is left as the file's last list; null when nothing is. The cutter can then begin another file. */
  finish(): List | null {
    return this.#bytes === 0 ? null : this.#take();
  }

  #take(): List {
    const blocks = Buffer.from(this.open);
    this.#bytes = 0;
    return { hash: sha256(blocks), blocks };
  }

  #grow(): void {
    const largest = this.#sizes.maxBlocks * limits.hashBytes;
    const grown = Buffer.alloc(Math.min(largest, this.#hashes.byteLength * 2));
    this.#hashes.copy(grown);
    this.#hashes = grown;
  }
}
