/**
 * Turns file states into versions of the archive, a batch at a time and one batch after the other. A batch is sent
 * when the server has every block it names; what the answer makes true is written down before it is sent, so that an
 * agent killed in between sends the very same bytes again.
 */
import { randomBytes } from 'node:crypto';
import { hashCount, hashKey, hashKeyAt } from '../../protocol/hashes.ts';
import { limits } from '../../protocol/limits.ts';
import type { VersionMessage } from '../../protocol/messages.ts';
import { Problem } from '../../protocol/problems.ts';
import { encodeMessage } from '../../protocol/wire.ts';
import type { Client } from '../client/client.ts';
import { letGoOfMany } from '../files/memory.ts';
import type { FileState } from '../files/types.ts';
import type { Cache, PendingFile } from '../state/cache.ts';
import { type BlockSender, missingHashes, missingLists } from './block-sender.ts';

/** As it travels: what is empty or false is left out. */
export type OutgoingVersion = Pick<VersionMessage, 'path' | 'kind' | 'size' | 'mtime' | 'attributes' | 'mac'> &
  Partial<Pick<VersionMessage, 'blocks' | 'lists' | 'deleted'>>;

export interface Entry {
  pending: PendingFile;
  version: OutgoingVersion;
  /** Where its content can be read again, should the server miss a block or list; null for what has none. */
  source: FileState | null;
}

export interface CommitterWorld {
  client: Pick<Client, 'commitEncoded'>;
  cache: Cache;
  sender: BlockSender;
  archive: number;
  run: number;
  generation: number;
  /** Makes an entry anew by reading its file again; null when that is not possible any more (it was reported). */
  restore: (entry: Entry) => Promise<Entry | null>;
  /** Paths were purged: brings the cache up to date and says the archive's epoch. */
  onArchiveChanged: (purgeEpoch: number) => Promise<number>;
  onCommitted: (entries: readonly Entry[]) => void;
}

export interface CommitterOptions {
  versionsMax: number;
  /** A batch is sent at the latest so long after its first entry, so that an interrupted run has lost little. */
  ageMsMax: number;
}

export const defaultCommitterOptions: CommitterOptions = { versionsMax: 1_000, ageMsMax: 60_000 };

/** Estimated bytes of a commit's body; far below limits.commitBodyBytesMax, because it is held in memory. */
const bodyBytesMax = 8 * 1024 * 1024;
/** Batches that wait for their blocks or their turn. */
const batchesWaitingMax = 2;
/** A server that misses blocks again and again, right after it took them, is not going to keep them. */
const roundsMax = 8;

export class Committer {
  readonly #world: CommitterWorld;
  readonly #options: CommitterOptions;
  #purgeEpoch: number;
  #batch = new Map<string, Entry>();
  #hashes = new Set<string>();
  #bytes = 0;
  #startedAt = 0;
  #waiting: Promise<void>[] = [];
  #last: Promise<void> = Promise.resolve();
  #failure: { error: unknown } | null = null;

  constructor(world: CommitterWorld, purgeEpoch: number, options: CommitterOptions = defaultCommitterOptions) {
    this.#world = world;
    this.#purgeEpoch = purgeEpoch;
    this.#options = options;
  }

  /** Takes an entry whose blocks were all added to the sender. May wait for earlier batches. @throws what broke committing */
  async add(entry: Entry): Promise<void> {
    const { path, attributes } = entry.version;
    const named = namesOf(entry.pending);
    const namesBytes = entry.pending.blocks.byteLength + entry.pending.lists.byteLength;
    const bytes = 300 + path.byteLength + attributes.byteLength + namesBytes;
    const fresh = [...named].filter((key) => !this.#hashes.has(key)).length;
    if (
      this.#batch.size > 0 &&
      (this.#hashes.size + fresh > limits.commitHashesMax || this.#bytes + bytes > bodyBytesMax)
    )
      await this.close();
    if (this.#batch.size === 0) this.#startedAt = performance.now();
    this.#batch.set(entry.version.path.toString('latin1'), entry); // a commit names each path once; the newest state stands
    for (const key of named) this.#hashes.add(key);
    this.#bytes += bytes;
    await this.closeIfDue();
  }

  async closeIfDue(): Promise<void> {
    this.#throwFailure();
    if (this.#batch.size === 0) return;
    if (this.#batch.size >= this.#options.versionsMax || performance.now() - this.#startedAt >= this.#options.ageMsMax)
      await this.close();
  }

  /** Sends what was gathered, as soon as its blocks are there; waits only when too many batches do. */
  async close(): Promise<void> {
    const entries = [...this.#batch.values()];
    this.#batch = new Map();
    this.#hashes = new Set();
    this.#bytes = 0;
    if (entries.length > 0) this.#send(entries);
    while (this.#waiting.length > batchesWaitingMax) await this.#waiting[0];
    this.#throwFailure();
  }

  /** Sends everything and waits for the answers. @throws what broke committing */
  async finish(): Promise<void> {
    await this.close();
    await this.#last;
    this.#throwFailure();
  }

  #send(entries: Entry[]): void {
    const stored = this.#world.sender.barrier();
    stored.catch(() => undefined); // the chain below reports it, in its turn
    const before = this.#last;
    const sent: Promise<void> = (async () => {
      await before;
      if (this.#failure) return;
      try {
        await stored;
        await this.#commit(entries);
      } catch (error) {
        this.#failure ??= { error };
      }
    })().finally(() => {
      this.#waiting = this.#waiting.filter((waiting) => waiting !== sent);
    });
    this.#last = sent;
    this.#waiting.push(sent);
  }

  async #commit(batch: Entry[]): Promise<void> {
    const { client, cache, archive, run, generation } = this.#world;
    let entries = batch;
    for (let round = 1; entries.length > 0; round++) {
      // Another body, or the same after a refusal: a commitId stands for one attempt that the server may have taken.
      const commitId = randomBytes(16);
      const body = encodeMessage({
        commitId,
        run,
        purgeEpoch: this.#purgeEpoch,
        versions: entries.map((entry) => entry.version),
      });
      const pending = entries.map((entry) => entry.pending);
      cache.prepareCommit(commitId, body, pending, generation, Date.now());
      try {
        const answer = await client.commitEncoded(archive, body);
        cache.confirmCommit(answer.firstSeq, answer.count);
        this.#world.onCommitted(entries);
        letGoOfMany();
        return;
      } catch (error) {
        // Only a problem says that nothing was stored; a lost answer leaves the commit pending for the next run.
        if (!(error instanceof Problem) || error.status >= 500) throw error;
        cache.dropPendingCommit();
        if (round >= roundsMax) throw error;
        if (error.code === 'blocks_missing')
          entries = await this.#withMissingSent(entries, missingHashes(error.extras), missingLists(error.extras));
        else if (error.code === 'archive_changed')
          this.#purgeEpoch = await this.#world.onArchiveChanged(Number(error.extras.purgeEpoch));
        else throw error;
      }
    }
  }

  /** Reads again the files whose blocks or lists the server misses, and sends what it then asks for. */
  async #withMissingSent(entries: Entry[], blocks: Buffer[], lists: Buffer[]): Promise<Entry[]> {
    const keys = new Set([...blocks, ...lists].map((hash) => hashKey(hash)));
    // Which of a list's blocks are missing is not said: every block is asked about anew.
    if (lists.length > 0) this.#world.sender.forgetAll();
    else this.#world.sender.forget(blocks);
    const made: Entry[] = [];
    for (const entry of entries) {
      const touched = [...namesOf(entry.pending)].some((key) => keys.has(key));
      const again = touched && entry.source ? await this.#world.restore(entry) : entry;
      if (again) made.push(again);
    }
    await this.#world.sender.barrier();
    return made;
  }

  #throwFailure(): void {
    if (this.#failure) throw this.#failure.error;
  }
}

/** The distinct blocks or lists that a file's version names, as keys. */
function namesOf({ blocks, lists }: PendingFile): Set<string> {
  const keys = new Set<string>();
  for (const hashes of [blocks, lists])
    for (let index = 0; index < hashCount(hashes); index++) keys.add(hashKeyAt(hashes, index));
  return keys;
}
