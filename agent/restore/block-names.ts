/**
 * The names of a version's blocks, in order: those it names itself, or those of its lists, fetched a few at a time as
 * they are needed. The version's MAC covers its lists' names, and each list is checked against its name.
 */
import { hashAt, hashCount, sha256 } from '../../protocol/hashes.ts';
import { limits } from '../../protocol/limits.ts';
import type { StoredVersion } from '../../protocol/messages.ts';
import { LeftOut, type RestoreSource } from './types.ts';

/** Lists held at a time: 1 MiB at most, and a request to the server for some eight thousand blocks. */
const listsHeld = 8;

export class BlockNames {
  readonly #version: Pick<StoredVersion, 'blocks' | 'lists'>;
  readonly #source: Pick<RestoreSource, 'fetchLists'>;
  readonly #signal: AbortSignal;
  /** Blocks of the lists held, and where the first of each is in the file; the next list to fetch. */
  #held: { first: number; blocks: Buffer }[] = [];
  #nextList = 0;
  #known = 0;

  constructor(
    version: Pick<StoredVersion, 'blocks' | 'lists'>,
    source: Pick<RestoreSource, 'fetchLists'>,
    signal: AbortSignal,
  ) {
    this.#version = version;
    this.#source = source;
    this.#signal = signal;
  }

  /**
   * The name of the file's i-th block; null behind its last. Asked for in order, each list is fetched once.
   * @throws LeftOut block_missing when the server does not have a list as it was; the client's errors
   */
  async at(index: number): Promise<Buffer | null> {
    const { blocks, lists } = this.#version;
    if (lists.byteLength === 0) return index < hashCount(blocks) ? hashAt(blocks, index) : null;
    if (this.#held[0] && index < this.#held[0].first) this.#begin();
    while (index >= this.#known && this.#nextList < hashCount(lists)) await this.#fetchMore();
    const list = this.#held.find(({ first, blocks: names }) => index < first + hashCount(names));
    return list ? hashAt(list.blocks, index - list.first) : null;
  }

  #begin(): void {
    this.#held = [];
    this.#nextList = 0;
    this.#known = 0;
  }

  async #fetchMore(): Promise<void> {
    const { lists } = this.#version;
    const end = Math.min(hashCount(lists), this.#nextList + listsHeld);
    const names = lists.subarray(this.#nextList * limits.hashBytes, end * limits.hashBytes);
    const came = new Map<number, Buffer>();
    for await (const { index, bytes } of this.#source.fetchLists(names, this.#signal))
      if (bytes) came.set(index, bytes);
    this.#held = Array.from({ length: hashCount(names) }, (_, i) => {
      const blocks = came.get(i);
      const name = hashAt(names, i);
      if (!blocks) throw missing(name, 'it is not there');
      if (!sha256(blocks).equals(name)) throw missing(name, 'its bytes are not the ones it is named by');
      const first = this.#known;
      this.#known += hashCount(blocks);
      return { first, blocks };
    });
    this.#nextList = end;
  }
}

function missing(name: Buffer, why: string): LeftOut {
  return new LeftOut('block_missing', `list ${name.toString('hex')}: ${why}`);
}
