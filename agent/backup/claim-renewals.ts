/**
 * Keeps alive what was promised for content that no commit names yet. A file may take longer to send than a claim
 * lasts: its lists anchor their blocks, so only the lists' names and the blocks of the last, incomplete one are claimed
 * again, a third of the claim's duration after the last time. What the server has lost all the same, the commit tells.
 */
import { hashCount } from '../../protocol/hashes.ts';
import { limits } from '../../protocol/limits.ts';
import type { Client } from '../client/client.ts';

/** Names that must stay: n x 32 bytes each. */
export interface HeldNames {
  readonly blocks: Buffer;
  readonly lists: Buffer;
}

/** Renewed when this share of a promise is over: two attempts may fail before it is. */
const renewAfterShare = 1 / 3;

export class ClaimRenewals {
  readonly #client: Pick<Client, 'claim'>;
  /** When each was last renewed, or began, in ms of this machine's clock. */
  readonly #held = new Map<HeldNames, number>();
  #claimedForMs = Number.POSITIVE_INFINITY;
  #renewing: Promise<void> | null = null;

  constructor(client: Pick<Client, 'claim'>) {
    this.#client = client;
  }

  /** Content is on its way from now on: what it names at any time is kept. @returns ends that */
  hold(names: HeldNames): () => void {
    this.#held.set(names, Date.now());
    return () => this.#held.delete(names);
  }

  /** An answer of the server said how long its promises last. */
  learn(claimedForMs: number): void {
    this.#claimedForMs = claimedForMs;
  }

  /** Claims again what is due, one renewal at a time. @throws as the client */
  async renewIfDue(now = Date.now()): Promise<void> {
    if (this.#renewing) return this.#renewing;
    this.#renewing = this.#renew(now).finally(() => {
      this.#renewing = null;
    });
    return this.#renewing;
  }

  async #renew(now: number): Promise<void> {
    for (const [names, since] of [...this.#held]) {
      // A clock that was set back would put it off for ever.
      if (now >= since && now - since < this.#claimedForMs * renewAfterShare) continue;
      const begunAt = Date.now();
      for (const { blocks, lists } of pagesOf(names)) await this.#client.claim(blocks, lists);
      if (this.#held.has(names)) this.#held.set(names, begunAt);
    }
  }
}

/** As many names at a time as one claim takes; copies, because the file goes on meanwhile. */
function* pagesOf({ blocks, lists }: HeldNames): Generator<HeldNames> {
  const none = Buffer.alloc(0);
  const page = limits.claimBlocksMax * limits.hashBytes;
  const [allBlocks, allLists] = [Buffer.from(blocks), Buffer.from(lists)];
  if (hashCount(allBlocks) + hashCount(allLists) <= limits.claimBlocksMax) {
    if (allBlocks.byteLength + allLists.byteLength > 0) yield { blocks: allBlocks, lists: allLists };
    return;
  }
  for (let at = 0; at < allBlocks.byteLength; at += page)
    yield { blocks: allBlocks.subarray(at, at + page), lists: none };
  for (let at = 0; at < allLists.byteLength; at += page)
    yield { blocks: none, lists: allLists.subarray(at, at + page) };
}
