/**
 * Cuts a file into plain chunks where its content says so (FastCDC with normalised chunking), so that an insertion
 * moves the cuts around it and no others. A chunk becomes a block when it is sealed.
 * Cuts depend on the content, the sizes and the vault's gear table alone: never on how the bytes arrive.
 */
import { chunking } from '../limits.ts';

/** In plain bytes. The average is a power of two; chunks come out about a seventh larger than it on random bytes. */
export interface ChunkSizes {
  minBytes: number;
  averageBytes: number;
  maxBytes: number;
}

/** Bytes that the rolling hash remembers: each shifts the older ones by a bit, and it has 32. */
const windowBytes = 32;
/**
 * Normalised chunking, level 2: before the average two more bits must be zero, after it two fewer, which gathers
 * chunk sizes around the average.
 */
const normalBits = 2;

/** The sizes for a file of so many plain bytes. A file that crosses a bound as it grows is cut anew, once. */
export function chunkSizesFor(fileBytes: number): ChunkSizes {
  const { minBytes, averageBytes, maxBytes } =
    chunking.find((row) => fileBytes <= row.fileBytesUpTo) ?? chunking[chunking.length - 1]!;
  return { minBytes, averageBytes, maxBytes };
}

/**
 * A chunker for one file after the other. It holds at most one largest chunk besides the input it was fed.
 * @throws RangeError for a gear table that is not 256 numbers, or sizes it cannot work with
 */
export function createChunker(gear: Int32Array, sizes: ChunkSizes): Chunker {
  return new Chunker(gear, sizes);
}

/**
 * The chunks of a source. Each owns its memory: it may be kept, and sealed while the next is cut. The source may
 * reuse its buffer once it is asked for the next one.
 */
export async function* chunksOf(
  source: AsyncIterable<Uint8Array>,
  gear: Int32Array,
  sizes: ChunkSizes,
): AsyncGenerator<Buffer> {
  const chunker = createChunker(gear, sizes);
  for await (const bytes of source) {
    chunker.feed(bytes);
    for (let chunk = chunker.next(); chunk; chunk = chunker.next()) yield chunk;
  }
  const last = chunker.finish();
  if (last) yield last;
}

/** `feed` bytes, take chunks with `next` until it answers null, feed again; `finish` ends the file. */
export class Chunker {
  readonly #gear: Int32Array;
  readonly #sizes: ChunkSizes;
  readonly #strictMask: number;
  readonly #looseMask: number;
  #input: Buffer = Buffer.alloc(0);
  #inputAt = 0;
  /** The beginning of the next chunk, from earlier input; only its first `#pendingBytes` count. */
  #pending: Buffer = Buffer.alloc(0);
  #pendingBytes = 0;
  /** The hash at the end of `#pending`. */
  #hash = 0;

  constructor(gear: Int32Array, sizes: ChunkSizes) {
    const { minBytes, averageBytes, maxBytes } = sizes;
    const averageBits = Math.log2(averageBytes);
    if (gear.length !== 256) throw new RangeError(`a gear table has 256 numbers, not ${gear.length}`);
    if (!Number.isInteger(averageBits) || averageBits + normalBits > windowBytes || averageBits <= normalBits) {
      throw new RangeError(`an average of ${averageBytes} bytes is not a power of two the hash can find`);
    }
    if (
      !Number.isInteger(minBytes) ||
      !Number.isInteger(maxBytes) ||
      minBytes < windowBytes ||
      minBytes >= averageBytes ||
      averageBytes >= maxBytes
    ) {
      throw new RangeError(
        `chunk sizes ${minBytes} / ${averageBytes} / ${maxBytes} are not ${windowBytes} <= least < average < largest`,
      );
    }
    this.#gear = gear;
    this.#sizes = { minBytes, averageBytes, maxBytes };
    this.#strictMask = topBits(averageBits + normalBits);
    this.#looseMask = topBits(averageBits - normalBits);
  }

  /**
   * Takes the next bytes of the file. They must not change until `next` has answered null.
   * @throws Error when `next` has not answered null since the last ones: they would be lost
   */
  feed(bytes: Uint8Array): void {
    this.#refuseUnread();
    this.#input = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#inputAt = 0;
  }

  /** The next whole chunk, in memory of its own; null when more input is needed to know where it ends. */
  next(): Buffer | null {
    const end = this.#findCut();
    const part = this.#input.subarray(this.#inputAt, end ?? this.#input.byteLength);
    this.#inputAt += part.byteLength;
    if (end !== null) return this.#takeChunk(part);
    this.#keep(part);
    this.#input = Buffer.alloc(0); // the caller's memory: not to be held on to
    this.#inputAt = 0;
    return null;
  }

  /**
   * What is left as the file's last chunk; null when nothing is. The chunker can then begin another file.
   * @throws Error when `next` has not answered null
   */
  finish(): Buffer | null {
    this.#refuseUnread();
    return this.#pendingBytes === 0 ? null : this.#takeChunk(Buffer.alloc(0));
  }

  /** Where in the input the current chunk ends; null when not within it. */
  #findCut(): number | null {
    const bytes = this.#input;
    const gear = this.#gear;
    const chunkStart = this.#inputAt - this.#pendingBytes; // below 0 when the chunk began in earlier input
    const largest = chunkStart + this.#sizes.maxBytes;
    const end = Math.min(bytes.byteLength, largest);
    let hash = this.#hash;

    // No cut below the least size: those bytes are skipped but for the window that decides on the first place allowed.
    let at = Math.max(this.#inputAt, chunkStart + this.#sizes.minBytes - windowBytes);
    const firstPlace = Math.min(end, chunkStart + this.#sizes.minBytes - 1);
    for (; at < firstPlace; at++) hash = ((hash << 1) + gear[bytes[at]!]!) | 0;

    const average = Math.min(end, chunkStart + this.#sizes.averageBytes - 1);
    const strictMask = this.#strictMask;
    for (; at < average; at++) {
      hash = ((hash << 1) + gear[bytes[at]!]!) | 0;
      if ((hash & strictMask) === 0) return at + 1;
    }
    const looseMask = this.#looseMask;
    for (; at < end; at++) {
      hash = ((hash << 1) + gear[bytes[at]!]!) | 0;
      if ((hash & looseMask) === 0) return at + 1;
    }
    if (end === largest) return end;
    this.#hash = hash;
    return null;
  }

  /** Copies bytes to the end of the current chunk. The memory doubles up to a largest chunk and is used again. */
  #keep(part: Buffer): void {
    const bytes = this.#pendingBytes + part.byteLength;
    if (bytes > this.#pending.byteLength) {
      const grown = Buffer.allocUnsafeSlow(
        Math.min(this.#sizes.maxBytes, Math.max(bytes, this.#pending.byteLength * 2)),
      );
      this.#pending.copy(grown, 0, 0, this.#pendingBytes);
      this.#pending = grown;
    }
    part.copy(this.#pending, this.#pendingBytes);
    this.#pendingBytes = bytes;
  }

  #takeChunk(rest: Buffer): Buffer {
    const chunk = Buffer.allocUnsafe(this.#pendingBytes + rest.byteLength);
    this.#pending.copy(chunk, 0, 0, this.#pendingBytes);
    rest.copy(chunk, this.#pendingBytes);
    this.#pendingBytes = 0;
    this.#hash = 0;
    return chunk;
  }

  #refuseUnread(): void {
    if (this.#inputAt < this.#input.byteLength) throw new Error('a chunker was fed before its last input was cut');
  }
}

/** A mask of the highest `bits` of 32: they depend on the most bytes. */
function topBits(bits: number): number {
  return (0xffff_ffff << (windowBytes - bits)) | 0;
}
