/**
 * The end of every object that holds blocks: which blocks, in which order, of which length. With it an object
 * explains itself without the catalog; and because it is known before the first block's byte, its digest names the
 * object while the blocks are still on their way.
 *
 * blocks' bytes | n x 32 hashes | n x 4 lengths (big-endian) | n (4 bytes, big-endian) | "HFB1"
 */
import { hashCount } from '../../../protocol/hashes.ts';

const magic = Buffer.from('HFB1');
const tailBytes = 4 + magic.byteLength;

/** Bytes of the footer of so many blocks. */
export function footerBytes(blocks: number): number {
  return blocks * 36 + tailBytes;
}

export function encodeFooter(hashes: Buffer, lengths: readonly number[]): Buffer {
  const numbers = Buffer.allocUnsafe(4 * lengths.length + 4);
  lengths.forEach((length, i) => {
    numbers.writeUInt32BE(length, 4 * i);
  });
  numbers.writeUInt32BE(lengths.length, 4 * lengths.length);
  return Buffer.concat([hashes, numbers, magic]);
}

/** Bytes of the footer of an object that ends in `tail` (its last 8 bytes, or more). Throws when it is none of ours. */
export function footerLength(tail: Buffer): number {
  if (!tail.subarray(-magic.byteLength).equals(magic)) throw new Error('the object does not end in a footer of blocks');
  const count = tail.readUInt32BE(tail.byteLength - tailBytes);
  return footerBytes(count);
}

/** Takes a whole footer apart. */
export function decodeFooter(footer: Buffer): { hashes: Buffer; lengths: number[] } {
  if (footerLength(footer) !== footer.byteLength) throw new Error('the footer is not whole');
  const count = footer.readUInt32BE(footer.byteLength - tailBytes);
  const hashes = footer.subarray(0, count * 32);
  const lengths = Array.from({ length: hashCount(hashes) }, (_, i) => footer.readUInt32BE(count * 32 + 4 * i));
  return { hashes, lengths };
}
