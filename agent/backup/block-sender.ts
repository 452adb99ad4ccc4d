/**
 * Brings sealed blocks to the server: asks which are wanted (claim), gathers those into uploads, and sends a few
 * uploads at a time; and lists, each after the blocks it names. It holds a bounded number of bytes: whoever adds more
 * waits. What a barrier has passed, the server has promised to keep, so that a commit may name it.
 */
import { bitAt, hashKey, joinHashes } from '../../protocol/hashes.ts';
import { limits } from '../../protocol/limits.ts';
import type { List } from '../../protocol/lists.ts';
import { Problem } from '../../protocol/problems.ts';
import type { SealedBlock } from '../../protocol/upload.ts';
import type { Client } from '../client/client.ts';
import { RecentHashes } from './recent-hashes.ts';
import { type SlabBlock, Slabs } from './slabs.ts';

const MiB = 1024 * 1024;

export interface SenderOptions {
  parallelUploads: number;
  /** Sealed bytes held at once, those in flight included. */
  heldBytesMax: number;
  /** Sealed bytes that make an upload worth sending. */
  uploadBytes: number;
}

// 3 x 6 MiB in flight, the rest being filled and asked about. 100 ms x 1 Gbit/s = 12.5 MB: that fills such a link.
export const defaultSenderOptions: SenderOptions = {
  parallelUploads: 3,
  heldBytesMax: 24 * MiB,
  uploadBytes: 6 * MiB,
};

/** A claim is worth its round trip at so many bytes or hashes; small enough that the first upload starts soon. */
const claimBytes = 3 * MiB;
const claimBlocks = 4_096;
/** About 100 bytes each: 7 MiB at most. A hash that was forgotten is asked about again, nothing worse. */
const recentLeast = 32_768;
/** The same for lists, which a file of one block over and over repeats. */
const recentListsLeast = 1_024;
/** Lists that wait for their blocks, or are under way: 128 KiB each at most. */
const listsWaitingMax = 8;
const none = Buffer.alloc(0);

interface HeldBlock extends SealedBlock, SlabBlock {
  bytes: Buffer;
  plainBytes: number;
}

export class BlockSender {
  readonly #client: Pick<Client, 'claim' | 'upload'>;
  readonly #options: SenderOptions;
  readonly #slabs: Slabs;
  readonly #recent = new RecentHashes(recentLeast);
  readonly #recentLists = new RecentHashes(recentListsLeast);
  readonly #onPromise: (claimedForMs: number) => void;
  readonly #claims = new Set<Promise<void>>();
  readonly #uploads = new Set<Promise<void>>();
  readonly #lists = new Set<Promise<void>>();
  readonly #waiting: (() => void)[] = [];
  #asking: HeldBlock[] = [];
  #askingBytes = 0;
  #wanted: HeldBlock[] = [];
  #wantedBytes = 0;
  #failure: Error | null = null;

  /** Sealed bytes acknowledged, and plain bytes that needed no sending because this run or the server had them. */
  readonly counts = { blocksSent: 0, bytesSent: 0, blocksKnown: 0, plainBytesKnown: 0, listsSent: 0, listsKnown: 0 };

  /** @param onPromise told with every answer how long the server keeps what it was asked about or sent */
  constructor(
    client: Pick<Client, 'claim' | 'upload'>,
    options: SenderOptions = defaultSenderOptions,
    onPromise: (claimedForMs: number) => void = () => undefined,
  ) {
    this.#client = client;
    this.#options = options;
    this.#onPromise = onPromise;
    this.#slabs = new Slabs(options.heldBytesMax);
  }

  /**
   * Takes a copy of a block. Resolves when there is room for it, long before it is stored.
   * @throws the error that broke sending, of this block or an earlier one
   */
  async add(hash: Uint8Array, bytes: Uint8Array, plainBytes: number): Promise<void> {
    const key = hashKey(hash);
    for (;;) {
      this.#throwFailure();
      if (this.#recent.has(key)) {
        this.addKnown(plainBytes);
        return;
      }
      const held = this.#slabs.take(bytes);
      if (held) {
        this.#asking.push({ hash, plainBytes, ...held });
        break;
      }
      if (this.#claims.size + this.#uploads.size === 0) this.#pushOut();
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    this.#recent.add(key);
    this.#askingBytes += bytes.byteLength;
    if (this.#askingBytes >= claimBytes || this.#asking.length >= claimBlocks) this.#startClaim();
  }

  /** Counts a block that the server is known to have without asking. */
  addKnown(plainBytes: number): void {
    this.counts.blocksKnown++;
    this.counts.plainBytesKnown += plainBytes;
  }

  /**
   * Takes a list all of whose blocks were added before, or are known. Resolves when there is room for it; it is stored in the
   * background, once its blocks are.
   * @throws the error that broke sending
   */
  async addList(list: List): Promise<void> {
    while (this.#lists.size >= listsWaitingMax && !this.#failure) await Promise.race(this.#lists);
    this.#throwFailure();
    const key = hashKey(list.hash);
    if (this.#recentLists.has(key)) {
      this.counts.listsKnown++;
      return;
    }
    this.#recentLists.add(key);
    const stored = this.#blocksSettled();
    this.#track(this.#lists, async () => {
      await stored;
      if (!this.#failure) await this.#storeList(list);
    });
  }

  /**
   * Resolves when every block and list added before this call is stored or claimed; but for a list of which the server
   * lost a block meanwhile, which the commit then misses. @throws the error that broke sending
   */
  async barrier(): Promise<void> {
    const lists = [...this.#lists];
    await this.#blocksSettled();
    await Promise.all(lists);
    this.#throwFailure();
  }

  /** These blocks have to be asked about anew: the server said it misses them. */
  forget(hashes: readonly Uint8Array[]): void {
    for (const hash of hashes) this.#recent.delete(hashKey(hash));
  }

  /** Everything has to be asked about anew. */
  forgetAll(): void {
    this.#recent.clear();
    this.#recentLists.clear();
  }

  /** Resolves when nothing of what was added before is on its way any more. */
  async #blocksSettled(): Promise<void> {
    this.#startClaim();
    await Promise.all(this.#claims);
    this.#startUploads(1);
    await Promise.all(this.#uploads);
  }

  async #storeList(list: List): Promise<void> {
    const answer = await this.#client.claim(none, list.hash);
    this.#onPromise(answer.claimedForMs);
    if (!bitAt(answer.lists, 0)) {
      this.counts.listsKnown++;
      return;
    }
    try {
      this.#onPromise((await this.#client.upload([], [list])).claimedForMs);
      this.counts.listsSent++;
    } catch (error) {
      if (!(error instanceof Problem && error.code === 'blocks_missing')) throw error;
      // Promised or referenced, and lost all the same. Only the file has them still: its commit will miss the list, and reads it again.
      this.forget(missingHashes(error.extras));
      this.#recentLists.delete(hashKey(list.hash));
    }
  }

  #pushOut(): void {
    this.#startClaim();
    this.#startUploads(1);
  }

  #startClaim(): void {
    if (this.#asking.length === 0 || this.#failure) return;
    const asked = this.#asking;
    this.#asking = [];
    this.#askingBytes = 0;
    this.#track(this.#claims, async () => {
      const answer = await this.#client.claim(joinHashes(asked.map((block) => block.hash)));
      this.#onPromise(answer.claimedForMs);
      for (const [index, block] of asked.entries()) {
        if (bitAt(answer.blocks, index)) {
          this.#wanted.push(block);
          this.#wantedBytes += block.bytes.byteLength;
        } else {
          this.#slabs.release(block);
          this.addKnown(block.plainBytes);
        }
      }
      this.#startUploads(this.#options.uploadBytes);
    });
  }

  /** Starts uploads while the blocks wanted hold at least so many bytes, or fill one by their number. */
  #startUploads(leastBytes: number): void {
    while (
      !this.#failure &&
      this.#wanted.length > 0 &&
      (this.#wantedBytes >= leastBytes || this.#wanted.length >= limits.uploadBlocksMax)
    ) {
      const blocks = this.#takeUpload();
      // The blocks leave #wanted now, so that a barrier finds them here; they may wait for their turn.
      const turn =
        this.#uploads.size >= this.#options.parallelUploads
          ? [...this.#uploads][this.#uploads.size - this.#options.parallelUploads]
          : null;
      this.#track(this.#uploads, async () => {
        await turn;
        if (this.#failure) return;
        this.#onPromise((await this.#client.upload(blocks)).claimedForMs);
        const bytes = blocks.reduce((sum, block) => sum + block.bytes.byteLength, 0);
        // Answered, so the server has read them all; what an earlier try of this upload may still send is thrown away.
        for (const block of blocks) this.#slabs.release(block);
        this.counts.blocksSent += blocks.length;
        this.counts.bytesSent += bytes;
      });
    }
  }

  #takeUpload(): HeldBlock[] {
    let count = 0;
    let bytes = 0;
    while (count < this.#wanted.length && count < limits.uploadBlocksMax) {
      const next = this.#wanted[count]!.bytes.byteLength;
      if (count > 0 && bytes + next > this.#options.uploadBytes) break;
      bytes += next;
      count++;
    }
    this.#wantedBytes -= bytes;
    return this.#wanted.splice(0, count);
  }

  #track(tasks: Set<Promise<void>>, work: () => Promise<void>): void {
    const task: Promise<void> = work()
      .catch((error: unknown) => {
        this.#failure ??= error as Error;
      })
      .finally(() => {
        tasks.delete(task);
        for (const wake of this.#waiting.splice(0)) wake();
      });
    tasks.add(task);
  }

  #throwFailure(): void {
    if (this.#failure) throw this.#failure;
  }
}

/** The blocks a `blocks_missing` problem names. */
export function missingHashes(extras: Record<string, unknown>): Buffer[] {
  return hashesIn(extras.missing);
}

/** The lists it names. */
export function missingLists(extras: Record<string, unknown>): Buffer[] {
  return hashesIn(extras.missingLists);
}

function hashesIn(named: unknown): Buffer[] {
  return (Array.isArray(named) ? named : [])
    .filter((hex): hex is string => typeof hex === 'string' && /^[0-9a-f]{64}$/.test(hex))
    .map((hex) => Buffer.from(hex, 'hex'));
}
