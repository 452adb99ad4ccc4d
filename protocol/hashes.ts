/**
 * Block names: SHA-256 of the sealed bytes. Many hashes travel as one byte string of n x 32 bytes, in memory,
 * on the wire and to the database alike; these functions are the only ones that index into such a string.
 */
import { hash } from 'node:crypto';
import { limits } from './limits.ts';

const size = limits.hashBytes;

/** SHA-256 of bytes held whole. For bytes that arrive in pieces use createHash('sha256'). */
export function sha256(bytes: Uint8Array): Buffer {
  return hash('sha256', bytes, 'buffer');
}

export function hashCount(hashes: Uint8Array): number {
  return hashes.byteLength / size;
}

/** The i-th hash, as a view: no copy. */
export function hashAt(hashes: Uint8Array, index: number): Buffer {
  return Buffer.from(hashes.buffer, hashes.byteOffset + index * size, size);
}

/** The i-th hash as a string usable as a key of Map and Set; latin1 is the cheapest one-to-one form. */
export function hashKeyAt(hashes: Uint8Array, index: number): string {
  return hashAt(hashes, index).toString('latin1');
}

export function hashKey(hash: Uint8Array): string {
  return Buffer.from(hash.buffer, hash.byteOffset, hash.byteLength).toString('latin1');
}

export function hashFromKey(key: string): Buffer {
  return Buffer.from(key, 'latin1');
}

export function splitHashes(hashes: Uint8Array): Buffer[] {
  return Array.from({ length: hashCount(hashes) }, (_, index) => hashAt(hashes, index));
}

export function joinHashes(hashes: readonly Uint8Array[]): Buffer {
  return Buffer.concat(hashes, hashes.length * size);
}

/** The i-th bit of a bitmap whose first bit is the lowest of its first byte. */
export function bitAt(bitmap: Uint8Array, index: number): boolean {
  return ((bitmap[index >> 3]! >> (index & 7)) & 1) === 1;
}

export function bitmapOf(count: number, isSet: (index: number) => boolean): Buffer {
  const bitmap = Buffer.alloc(Math.ceil(count / 8));
  for (let i = 0; i < count; i++) if (isSet(i)) bitmap[i >> 3]! |= 1 << (i & 7);
  return bitmap;
}
