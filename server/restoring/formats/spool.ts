/**
 * Bytes that are needed only at the end of an archive (a zip's directory, the list of what was left out), kept small
 * until then: compressed in pieces on the thread pool, and given back in pieces.
 */
import { promisify } from 'node:util';
import { zstdCompress, zstdDecompress } from 'node:zlib';

const compress = promisify(zstdCompress);
const decompress = promisify(zstdDecompress);
const pieceBytes = 256 * 1024;

export class Spool {
  /** Bytes added. */
  bytes = 0;
  /** Bytes of memory that they take, about. */
  heldBytes = 0;
  #packed: Buffer[] = [];
  #open: Buffer[] = [];
  #openBytes = 0;

  async add(bytes: Buffer): Promise<void> {
    this.#open.push(bytes);
    this.#openBytes += bytes.byteLength;
    this.bytes += bytes.byteLength;
    this.heldBytes += bytes.byteLength;
    if (this.#openBytes < pieceBytes) return;
    const piece = Buffer.concat(this.#open);
    this.#open = [];
    this.#openBytes = 0;
    const packed = Buffer.from(await compress(piece));
    this.#packed.push(packed);
    this.heldBytes += packed.byteLength - piece.byteLength;
  }

  /** All of it in order; may be read more than once. */
  async *read(): AsyncGenerator<Buffer> {
    for (const packed of this.#packed) yield Buffer.from(await decompress(packed));
    if (this.#openBytes > 0) yield Buffer.concat(this.#open);
  }
}
