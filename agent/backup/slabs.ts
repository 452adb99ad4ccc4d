/**
 * Memory for sealed blocks on their way to the server: a fixed number of slabs that are used again and again. Blocks
 * wait longer than the collector's youth lasts, so as buffers of their own they would pile up as old garbage, and the
 * process would keep the holes they leave. A slab is free again when all of its blocks are.
 */

const MiB = 1024 * 1024;
/** Holds the largest chunk of files up to 4 GiB, sealed; a larger block gets memory of its own, for once. */
export const slabBytes = 4 * MiB + 64 * 1024;

export interface Slab {
  memory: Buffer;
  usedBytes: number;
  /** Blocks in it, and one while it is being filled. */
  holds: number;
}

/** A block's place in a slab. */
export interface SlabBlock {
  bytes: Buffer;
  slab: Slab;
}

export class Slabs {
  readonly #bytesMax: number;
  readonly #slabsMax: number;
  readonly #free: Slab[] = [];
  #filling: Slab | null = null;
  /** Slabs in use, large ones counted as several, and the bytes of the blocks in them. */
  #inUse = 0;
  #heldBytes = 0;

  /** @param bytesMax of blocks held at once; one block is taken however large it is */
  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
    this.#slabsMax = Math.max(1, Math.round(bytesMax / slabBytes));
  }

  /** Copies a block; null when there is no room until others are released. */
  take(block: Uint8Array): SlabBlock | null {
    if (this.#heldBytes > 0 && this.#heldBytes + block.byteLength > this.#bytesMax) return null;
    const slab = this.#slabFor(block.byteLength);
    if (slab === null) return null;
    const bytes = slab.memory.subarray(slab.usedBytes, slab.usedBytes + block.byteLength);
    bytes.set(block);
    slab.usedBytes += block.byteLength;
    slab.holds++;
    this.#heldBytes += block.byteLength;
    return { bytes, slab };
  }

  /** The block's bytes are no longer needed, by anyone: they may be written over. */
  release({ bytes, slab }: SlabBlock): void {
    this.#heldBytes -= bytes.byteLength;
    this.#letGo(slab);
  }

  #letGo(slab: Slab): void {
    slab.holds--;
    if (slab === this.#filling && slab.holds === 1) slab.usedBytes = 0; // empty again: filled from its start
    if (slab.holds > 0) return;
    this.#inUse -= slabsOf(slab.memory.byteLength);
    if (slab.memory.byteLength === slabBytes) this.#free.push(slab);
  }

  #slabFor(bytes: number): Slab | null {
    const filling = this.#filling;
    if (filling && filling.usedBytes + bytes <= filling.memory.byteLength) return filling;
    const size = Math.max(bytes, slabBytes);
    // Not given up before there is another: what comes next may be smaller and still fit.
    const own = filling?.holds === 1 ? slabsOf(filling.memory.byteLength) : 0;
    if (this.#inUse - own > 0 && this.#inUse - own + slabsOf(size) > this.#slabsMax) return null;
    this.#filling = null;
    if (filling) this.#letGo(filling);
    const slab = (size === slabBytes && this.#free.pop()) || {
      memory: Buffer.allocUnsafeSlow(size),
      usedBytes: 0,
      holds: 0,
    };
    slab.usedBytes = 0;
    slab.holds = 1;
    this.#inUse += slabsOf(size);
    this.#filling = slab;
    return slab;
  }
}

function slabsOf(bytes: number): number {
  return Math.ceil(bytes / slabBytes);
}
