/**
 * Turns the blocks of one file, arriving in any order, into its bytes in order. Each block was checked against its
 * name before it comes here; opening it checks that it was sealed with our key. At the end the sizes must agree.
 */
import type { StoredVersion } from '../../protocol/messages.ts';
import { type Keyring, open, openAsync, SealError } from '../../protocol/sealing/index.ts';
import type { Handle } from '../files/calls.ts';
import { letGo } from '../files/memory.ts';
import { LeftOut } from './types.ts';

/** Zeros are left out of a sparse file in pieces of this size: file systems do not keep smaller holes worth having. */
const holeBytes = 64 * 1024;
const zeros = Buffer.alloc(holeBytes);
/** Blocks of files up to this size inflate in less time than the way to the thread pool and back takes. */
const openWaitingBytesMax = 64 * 1024;

export interface WriterOptions {
  keys: Keyring;
  vault: number;
  version: StoredVersion;
  sparse: boolean;
  /** Opens the file to write to, when the first block is at hand. */
  openFile: () => Promise<Handle>;
  /** Blocks and bytes that the file holds already. */
  resumed: { blocks: number; bytes: number };
  /** Told of plain bytes as they are written. */
  onWritten: (bytes: number) => void;
}

export class FileWriter {
  readonly #options: WriterOptions;
  /** Known when all of the file's blocks have been asked for. */
  #blockCount: number | null = null;
  handle: Handle | null = null;
  /** Blocks that wait for earlier ones, sealed. */
  readonly #waiting = new Map<number, { sealed: Buffer; taken: () => void }>();
  #next: number;
  #offset: number;
  #failure: unknown = null;
  #pumping = false;

  constructor(options: WriterOptions) {
    this.#options = options;
    this.#next = options.resumed.blocks;
    this.#offset = options.resumed.bytes;
  }

  /** Index of the first block not yet written. */
  get next(): number {
    return this.#next;
  }

  /**
   * So many blocks make up the file: none behind them will come.
   * @returns whether it has all of them now: the caller ends it then
   */
  end(blockCount: number): boolean {
    this.#blockCount = blockCount;
    return this.#failure === null && !this.#pumping && this.#next === blockCount;
  }

  /** Gives up on the file; blocks that wait or come later are dropped. */
  fail(failure: unknown): void {
    this.#failure ??= failure;
    for (const block of this.#waiting.values()) block.taken();
    this.#waiting.clear();
  }

  get failure(): unknown {
    return this.#failure;
  }

  /**
   * Takes a block and writes what can be written.
   * @param taken called once the block's memory is no longer needed
   * @returns whether the file has all its blocks now, or failed: true exactly once
   */
  async take(index: number, sealed: Buffer, taken: () => void): Promise<boolean> {
    if (this.#failure !== null) {
      taken();
      return false;
    }
    this.#waiting.set(index, { sealed, taken });
    if (this.#pumping) return false; // whoever is writing comes to it
    this.#pumping = true;
    try {
      for (let block = this.#openAt(this.#next); block; ) {
        const plain = await block.plain;
        // While one is written the next is opened: it inflates on the thread pool.
        const ahead = this.#openAt(this.#next + 1);
        await this.#write(plain);
        this.#waiting.delete(this.#next++);
        block.taken();
        if (this.#failure !== null) return true;
        block = ahead ?? this.#openAt(this.#next);
      }
    } catch (error) {
      this.fail(error);
      return true;
    } finally {
      this.#pumping = false;
    }
    return this.#next === this.#blockCount;
  }

  /** True when a failure comes from outside while no block is being written: then the caller ends the file. */
  get idle(): boolean {
    return !this.#pumping;
  }

  /**
   * Gives a sparse file its length.
   * @throws LeftOut content_mismatch when the blocks do not add up to the version's size
   */
  async finish(): Promise<Handle> {
    const { version, sparse } = this.#options;
    if (this.#offset !== version.size) {
      throw new LeftOut('content_mismatch', `its blocks hold ${this.#offset} bytes, it should have ${version.size}`);
    }
    this.handle ??= await this.#options.openFile();
    if (sparse) await this.handle.truncate(version.size);
    return this.handle;
  }

  /** Begins to open a block; null while it has not come. */
  #openAt(index: number): { plain: Promise<Buffer>; taken: () => void } | null {
    const block = this.#waiting.get(index);
    if (!block) return null;
    const plain = this.#open(index, block.sealed);
    plain.catch(() => undefined); // whoever comes to it sees it, unless the file has failed by then
    return { plain, taken: block.taken };
  }

  /** @throws LeftOut block_damaged */
  async #open(index: number, sealed: Buffer): Promise<Buffer> {
    const { keys, vault, version } = this.#options;
    try {
      const as = { type: 'block', vault } as const;
      const small = version.size <= openWaitingBytesMax && sealed.byteLength <= 2 * openWaitingBytesMax;
      return small ? open(keys.for(sealed), as, sealed) : await openAsync(keys.for(sealed), as, sealed);
    } catch (error) {
      if (!(error instanceof SealError)) throw error;
      throw new LeftOut('block_damaged', `block ${index} cannot be opened: ${error.message}`, { cause: error });
    }
  }

  async #write(plain: Buffer): Promise<void> {
    const { version, sparse } = this.#options;
    if (this.#offset + plain.byteLength > version.size) {
      throw new LeftOut('content_mismatch', `its blocks hold more than its ${version.size} bytes`);
    }
    this.handle ??= await this.#options.openFile();
    if (sparse) await writeAroundHoles(this.handle, plain, this.#offset);
    else await writeFully(this.handle, plain, this.#offset);
    this.#offset += plain.byteLength;
    this.#options.onWritten(plain.byteLength);
    letGo(plain.byteLength);
  }
}

async function writeFully(handle: Handle, bytes: Buffer, offset: number): Promise<void> {
  for (let at = 0; at < bytes.byteLength; ) {
    const { bytesWritten } = await handle.write(bytes, at, bytes.byteLength - at, offset + at);
    at += bytesWritten;
  }
}

/** Writes all but the zeros: the file is cut to `offset` beforehand, so what is not written reads as zeros. */
async function writeAroundHoles(handle: Handle, bytes: Buffer, offset: number): Promise<void> {
  let start = 0;
  for (let at = 0; at < bytes.byteLength; ) {
    const end = Math.min(bytes.byteLength, at + holeBytes - ((offset + at) % holeBytes));
    if (bytes.subarray(at, end).equals(zeros.subarray(0, end - at))) {
      await writeFully(handle, bytes.subarray(start, at), offset + start);
      start = end;
    }
    at = end;
  }
  await writeFully(handle, bytes.subarray(start), offset + start);
}
