/**
 * The blocks of a large file's previous version, a few of its lists at a time, around the place that is being read. Of a
 * block that is among them nobody has to be asked: the version keeps it, and the list that names it again is claimed as
 * one, or refused when it is not all there. So a day's small change to a large file claims lists, not blocks.
 */
import { hashCount, hashKey, splitHashes } from '../../protocol/hashes.ts';
import { limits } from '../../protocol/limits.ts';
import type { Client } from '../client/client.ts';

/** Lists fetched at once, and held at most: some 100 bytes for each of their blocks. */
const listsAtOnce = 4;
const listsHeld = 2 * listsAtOnce;

export class PreviousLists {
  readonly #client: Pick<Client, 'fetchLists'>;
  readonly #names: Buffer;
  /** The blocks of the lists held, in the order of the file. */
  #held: ReadonlySet<string>[] = [];
  #nextList = 0;
  #fetching: Promise<void> | null = null;

  /** @param lists names of the previous version's lists, n x 32 bytes; none is fine */
  constructor(client: Pick<Client, 'fetchLists'>, lists: Buffer) {
    this.#client = client;
    this.#names = lists;
  }

  /** Whether the previous version has this block hereabouts. Blocks are asked about in the order of the file. */
  async has(hash: Uint8Array): Promise<boolean> {
    if (this.#names.byteLength === 0) return false;
    if (this.#nextList === 0) this.#fetching ??= this.#fetchMore();
    await this.#fetching;
    const key = hashKey(hash);
    const at = this.#held.findIndex((blocks) => blocks.has(key));
    const isLast = at >= 0 && at === this.#held.length - 1;
    if (isLast && this.#nextList < hashCount(this.#names)) this.#fetching ??= this.#fetchMore();
    return at >= 0;
  }

  async #fetchMore(): Promise<void> {
    const end = Math.min(hashCount(this.#names), this.#nextList + listsAtOnce);
    const asked = this.#names.subarray(this.#nextList * limits.hashBytes, end * limits.hashBytes);
    const fetched = Array.from({ length: hashCount(asked) }, () => new Set<string>());
    try {
      for await (const { index, bytes } of this.#client.fetchLists(asked))
        fetched[index] = new Set(splitHashes(bytes ?? Buffer.alloc(0)).map(hashKey));
    } catch {
      // Then the server is asked about each block, and tells by itself what is wrong with it.
    }
    this.#held = [...this.#held, ...fetched].slice(-listsHeld);
    this.#nextList = end;
    this.#fetching = null;
  }
}
