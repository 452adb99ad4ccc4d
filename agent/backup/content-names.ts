/**
 * What a version names of one file's content, gathered while the file is read: its blocks, or, when there are more than
 * a version names directly, the lists they are cut into. Of a file of any size it holds the lists' names and the blocks
 * of one list, not the hashes of all blocks.
 */
import { splitHashes } from '../../protocol/hashes.ts';
import { limits, listing } from '../../protocol/limits.ts';
import { type List, ListCutter, type ListSizes } from '../../protocol/lists.ts';

/** Sizes in hashes, and up to how many blocks a version names without lists. */
export interface ContentNaming extends ListSizes {
  directBlocksMax: number;
}

export class ContentNames {
  readonly #naming: ContentNaming;
  /** The blocks of a file that names no lists yet. */
  #direct = new HashString();
  #cutter: ListCutter | null = null;
  readonly #lists = new HashString();

  constructor(naming: ContentNaming = listing) {
    this.#naming = naming;
  }

  /** Takes the file's next block. @returns lists that are complete now, to be stored after their blocks */
  add(hash: Uint8Array): List[] {
    if (this.#cutter) return this.#cut([hash]);
    this.#direct.push(hash);
    if (this.#direct.count <= this.#naming.directBlocksMax) return [];
    this.#cutter = new ListCutter(this.#naming);
    const blocks = splitHashes(this.#direct.bytes);
    this.#direct = new HashString();
    return this.#cut(blocks);
  }

  /** Ends the file. @returns its last list, if it names lists */
  finish(): List[] {
    const last = this.#cutter?.finish() ?? null;
    if (!last) return [];
    this.#lists.push(last.hash);
    return [last];
  }

  /** What nothing anchors yet: the blocks of no complete list, n x 32 bytes. A view, until the next `add`. */
  get blocks(): Buffer {
    return this.#cutter ? this.#cutter.open : this.#direct.bytes;
  }

  /** The complete lists' names, n x 32 bytes. */
  get lists(): Buffer {
    return this.#lists.bytes;
  }

  get listCount(): number {
    return this.#lists.count;
  }

  #cut(hashes: Iterable<Uint8Array>): List[] {
    const lists: List[] = [];
    for (const hash of hashes) {
      const list = this.#cutter!.add(hash);
      if (!list) continue;
      this.#lists.push(list.hash);
      lists.push(list);
    }
    return lists;
  }
}

/** Hashes one after the other in memory that grows with them. */
class HashString {
  #memory = Buffer.alloc(0);
  count = 0;

  get bytes(): Buffer {
    return this.#memory.subarray(0, this.count * limits.hashBytes);
  }

  push(hash: Uint8Array): void {
    const end = this.count * limits.hashBytes;
    if (end === this.#memory.byteLength) {
      const grown = Buffer.alloc(Math.max(4 * limits.hashBytes, 2 * end));
      this.#memory.copy(grown);
      this.#memory = grown;
    }
    this.#memory.set(hash, end);
    this.count++;
  }
}
