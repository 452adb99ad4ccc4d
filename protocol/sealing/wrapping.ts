/** What the two ways to wrap a key have in common (key-wrap.ts by a password, key-in-key.ts by another key). */
import { createHmac } from 'node:crypto';

/** HMAC-SHA-256 over the parts, one after the other. */
export function hmac(key: Buffer, ...parts: Uint8Array[]): Buffer {
  const mac = createHmac('sha256', key);
  for (const part of parts) mac.update(part);
  return mac.digest();
}

/** Of two arrays of one length. */
export function xor(a: Uint8Array, b: Uint8Array): Buffer {
  return Buffer.from(a.map((byte, index) => byte ^ b[index]!));
}
