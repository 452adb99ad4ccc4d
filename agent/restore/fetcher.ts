/**
 * Fetches blocks for many files at once: small files share a request, large ones spread over several, and a few
 * requests are under way together. A request's place is free again only when all of its blocks are written, so that
 * memory is bounded by the requests under way; the oldest one waits for nobody, so that they always get on.
 */
import { hashKey, joinHashes, sha256 } from '../../protocol/hashes.ts';
import { limits } from '../../protocol/limits.ts';
import type { BlockNames } from './block-names.ts';
import type { FileWriter } from './file-writer.ts';
import { LeftOut, type RestoreSource } from './types.ts';

/**
 * 4 x 8 MiB: 100 ms x 1 Gbit/s = 12.5 MB are on the way at once, so two requests fill such a link while the others
 * are being read and written. Of files of blocks below the average, a request holds `batchFilesMax`: each is a file
 * (and on Linux its folder) that may be open.
 */
const fetchesMax = 4;
/**
 * It begins with one, and one more for each that was answered: of many that begin together none has four before others
 * have one, and alone it has all four after a tenth of a second.
 */
const fetchesAtFirst = 1;
const batchBytes = 8 * 1024 * 1024;
const batchFilesMax = 192;
/** What sealing adds to a small block, about. */
const blockOverheadBytes = 80;

/** A file on its way. `blockBytes`: of one block, about. `done` is called once: it has all its blocks, or failed. */
export interface FetchJob {
  writer: FileWriter;
  names: BlockNames;
  blockBytes: number;
  done: () => Promise<void>;
}

interface Wanted {
  hash: Buffer;
  takers: { job: FetchJob; index: number }[];
}

export class Fetcher {
  readonly #source: RestoreSource;
  readonly #signal: AbortSignal;
  readonly #onFetched: (bytes: number) => void;
  readonly #onFatal: (error: unknown) => void;
  #wanted = new Map<string, Wanted>();
  #wantedBytes = 0;
  #wantedFiles = 0;
  readonly #underWay = new Set<Promise<void>>();
  #atOnce = fetchesAtFirst;
  /** The file whose blocks are being asked for: one after the other, so that a request never exceeds its bounds. */
  #adding: Promise<void> = Promise.resolve();

  constructor(options: {
    source: RestoreSource;
    /** Aborted when the restore is, by the user or by a failure. */
    signal: AbortSignal;
    onFetched: (bytes: number) => void;
    /** The restore cannot go on: no connection, or the target is full. */
    onFatal: (error: unknown) => void;
  }) {
    this.#source = options.source;
    this.#signal = options.signal;
    this.#onFetched = options.onFetched;
    this.#onFatal = options.onFatal;
  }

  /** Asks for the blocks a file still needs. Waits while as much as allowed is under way. */
  add(job: FetchJob): Promise<void> {
    const added = this.#adding
      .then(() => this.#add(job))
      .catch((error) => {
        if (!(error instanceof LeftOut)) throw error;
        return failJob(job, error); // a list of it cannot be had: this file alone is left out
      });
    this.#adding = added.catch(() => undefined);
    return added;
  }

  async #add(job: FetchJob): Promise<void> {
    const { writer, names } = job;
    const averageBytes = job.blockBytes + blockOverheadBytes;
    this.#wantedFiles++;
    let index = writer.next;
    for (; ; index++) {
      const hash = await names.at(index);
      if (hash === null) break;
      const wanted = this.#wanted.get(hashKey(hash));
      if (wanted) {
        wanted.takers.push({ job, index });
        continue;
      }
      this.#wanted.set(hashKey(hash), { hash, takers: [{ job, index }] });
      this.#wantedBytes += averageBytes;
      if (this.#wantedBytes >= batchBytes || this.#wanted.size >= limits.fetchBlocksMax) {
        await this.flush();
        if (writer.failure !== null) return;
      }
    }
    if (writer.end(index)) await job.done();
    if (this.#wantedFiles >= batchFilesMax) await this.flush();
  }

  /** Sends what was asked for, without waiting for the answer. */
  async flush(): Promise<void> {
    if (this.#wanted.size === 0) return;
    while (this.#underWay.size >= this.#atOnce) await Promise.race(this.#underWay);
    if (this.#wanted.size === 0) return; // another flush took it while this one waited
    const wanted = [...this.#wanted.values()];
    this.#wanted = new Map();
    this.#wantedBytes = 0;
    this.#wantedFiles = 0;
    const fetch = this.#fetch(wanted).finally(() => this.#underWay.delete(fetch));
    this.#underWay.add(fetch);
  }

  /** Sends the rest and waits until every file is done. */
  async drain(): Promise<void> {
    await this.flush();
    while (this.#underWay.size > 0) await Promise.race(this.#underWay);
  }

  async #fetch(wanted: Wanted[]): Promise<void> {
    const deliveries: Promise<void>[] = [];
    let stopped = false;
    const stop = (error: unknown): void => {
      stopped = true;
      this.#onFatal(error); // ends every file, so that no delivery waits for a block that will not come
    };
    const give = (one: Wanted, bytes: Buffer | null, why: string): void => {
      for (const delivery of deliver(one, bytes, why)) deliveries.push(delivery.catch(stop));
    };
    try {
      this.#signal.throwIfAborted();
      const came = new Set<number>();
      const hashes = joinHashes(wanted.map((one) => one.hash));
      for await (const frame of this.#source.fetchBlocks(hashes, this.#signal)) {
        if (stopped) break;
        const one = wanted[frame.index];
        if (!one || came.has(frame.index)) continue;
        came.add(frame.index);
        if (frame.bytes) this.#onFetched(frame.bytes.byteLength);
        if (!frame.bytes) give(one, null, 'it is not there, or damaged');
        else if (sha256(frame.bytes).equals(one.hash)) give(one, frame.bytes, '');
        else give(one, null, 'its bytes are not the ones it is named by');
      }
      for (const [index, one] of wanted.entries()) {
        if (!came.has(index) && !stopped) give(one, null, 'it was left out of the answer');
      }
      this.#atOnce = Math.min(fetchesMax, this.#atOnce + 1);
    } catch (error) {
      stop(error);
    }
    // Also after a failure: a file being written is closed only when its write has ended.
    await Promise.all(deliveries);
  }
}

/** Hands a block to each file that waits for it; each promise resolves when its memory is free again. */
function deliver(one: Wanted, bytes: Buffer | null, why: string): Promise<void>[] {
  return one.takers.map(async ({ job, index }) => {
    if (bytes === null) return failJob(job, new LeftOut('block_missing', `block ${one.hash.toString('hex')}: ${why}`));
    // Later blocks of a file wait for its earlier ones, which are in this request or an older one.
    const { promise, resolve } = Promise.withResolvers<void>();
    if (await job.writer.take(index, bytes, resolve)) await job.done();
    await promise;
  });
}

async function failJob(job: FetchJob, failure: LeftOut): Promise<void> {
  const first = job.writer.failure === null;
  job.writer.fail(failure);
  // While a block is being written, its writer notices and ends the file.
  if (first && job.writer.idle) await job.done();
}
