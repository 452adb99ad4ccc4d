/**
 * Sealing: plain bytes to the bytes the server keeps, and back. Equal bytes in one vault give equal sealed bytes (that
 * is dedup); different bytes never share a key and nonce; nothing opens as what it was not sealed as.
 *
 *   sealed  = header (16) || siv (32) || ciphertext || tag (16)
 *   siv     = HMAC-SHA-256(mac key, header || payload)
 *   key (32) || nonce (12) = HKDF-Expand-SHA-256(encryption key, siv, 44);  AES-256-GCM, additional data = header
 *
 * Why: docs/sealing.md. The MAC covers the header because GCM breaks when one key and nonce meet two headers. Key and
 * nonce come from all 32 bytes of the MAC because 12 bytes alone would collide within reach of one large vault.
 */
import { createCipheriv, createDecipheriv, createHmac, timingSafeEqual } from 'node:crypto';
import { encodeHeader, headerBytes, readSealedHeader, type SealedType } from './header.ts';
import type { VaultKeys } from './keys.ts';
import {
  type Packed,
  pack,
  packAsync,
  payloadParts,
  prefixBytes,
  readPayload,
  sealedBounds,
  unpack,
  unpackAsync,
} from './payload.ts';
import { SealError } from './seal-error.ts';

const sivBytes = 32;
const keyBytes = 32;
const nonceBytes = 12;
const tagBytes = 16;
const frameBytes = headerBytes + sivBytes + tagBytes;

/** Bytes that sealing adds to data it neither compresses nor pads. */
export const sealOverheadBytes = frameBytes + prefixBytes;

export interface SealAs {
  type: SealedType;
  vault: number;
  generation: number;
  /** Padme, to blur lengths. Off unless set; switching it makes other blocks of the same bytes. */
  padding?: boolean;
}

export interface SealExpected {
  type: SealedType;
  vault: number;
  /** The generation `keys` belong to, where the caller keeps several. Another one fails in any case, less clearly. */
  generation?: number;
}

/**
 * Seals plain bytes. The answer owns its memory.
 * @throws SealError too_large when plain or sealed bytes are beyond the type's bound (`sealedBounds`)
 * @throws RangeError for a vault or generation outside its field
 */
export function seal(keys: VaultKeys, as: SealAs, plain: Uint8Array): Buffer {
  checkPlainBytes(as.type, plain);
  return sealPacked(keys, as, pack(plain));
}

/** Like `seal`, with zstd on the thread pool; the same bytes. `plain` must not change until it resolves. */
export async function sealAsync(keys: VaultKeys, as: SealAs, plain: Uint8Array): Promise<Buffer> {
  checkPlainBytes(as.type, plain);
  return sealPacked(keys, as, await packAsync(plain));
}

/**
 * Opens sealed bytes, or throws SealError: malformed, unsupported_format, wrong_type, wrong_vault, wrong_generation,
 * too_large, not_authentic, bad_payload. No bytes make it throw anything else or use memory beyond the type's bounds.
 */
export function open(keys: VaultKeys, expected: SealExpected, sealed: Uint8Array): Buffer {
  return unpack(openPacked(keys, expected, sealed));
}

/** Like `open`, with zstd on the thread pool. */
export async function openAsync(keys: VaultKeys, expected: SealExpected, sealed: Uint8Array): Promise<Buffer> {
  return unpackAsync(openPacked(keys, expected, sealed));
}

function checkPlainBytes(type: SealedType, plain: Uint8Array): void {
  const { plainBytesMax } = sealedBounds[type];
  if (plain.byteLength > plainBytesMax)
    throw new SealError('too_large', `${plain.byteLength} plain bytes are more than ${plainBytesMax}`);
}

function sealPacked(keys: VaultKeys, as: SealAs, packed: Packed): Buffer {
  const header = encodeHeader(as);
  const parts = payloadParts(packed, as.padding ?? false);
  const sealedBytes = parts.reduce((sum, part) => sum + part.byteLength, frameBytes);
  const { sealedBytesMax } = sealedBounds[as.type];
  if (sealedBytes > sealedBytesMax)
    throw new SealError('too_large', `${sealedBytes} sealed bytes are more than ${sealedBytesMax}`);

  const siv = syntheticIv(keys, header, parts);
  const { key, nonce } = blockKey(keys, siv);
  const cipher = createCipheriv('aes-256-gcm', key, nonce, { authTagLength: tagBytes }).setAAD(header);
  const encrypted = parts.map((part) => cipher.update(part));
  cipher.final(); // GCM is a stream cipher: nothing is left to come
  return Buffer.concat([header, siv, ...encrypted, cipher.getAuthTag()], sealedBytes);
}

function openPacked(keys: VaultKeys, expected: SealExpected, sealed: Uint8Array): Packed {
  checkHeader(expected, sealed);
  const { sealedBytesMax } = sealedBounds[expected.type];
  if (sealed.byteLength > sealedBytesMax)
    throw new SealError('too_large', `${sealed.byteLength} sealed bytes are more than ${sealedBytesMax}`);
  if (sealed.byteLength < sealOverheadBytes)
    throw new SealError('malformed', `${sealed.byteLength} bytes are too few to be sealed bytes`);

  const bytes = Buffer.from(sealed.buffer, sealed.byteOffset, sealed.byteLength);
  const header = bytes.subarray(0, headerBytes);
  const siv = bytes.subarray(headerBytes, headerBytes + sivBytes);
  const payload = decrypt(keys, { header, siv, encrypted: bytes.subarray(headerBytes + sivBytes) });
  // GCM alone commits to no key: two keys can be made to open one ciphertext. The MAC over the payload can not.
  if (!timingSafeEqual(syntheticIv(keys, header, [payload]), siv)) throw notAuthentic();
  return readPayload(payload, expected.type);
}

function checkHeader(expected: SealExpected, sealed: Uint8Array): void {
  const header = readSealedHeader(sealed);
  if (header.type !== expected.type)
    throw new SealError('wrong_type', `sealed as ${header.type}, expected ${expected.type}`);
  if (header.vault !== expected.vault)
    throw new SealError('wrong_vault', `sealed for vault ${header.vault}, expected ${expected.vault}`);
  if (expected.generation !== undefined && header.generation !== expected.generation) {
    throw new SealError(
      'wrong_generation',
      `sealed under key generation ${header.generation}, expected ${expected.generation}`,
    );
  }
}

function decrypt(keys: VaultKeys, sealed: { header: Buffer; siv: Buffer; encrypted: Buffer }): Buffer {
  const { key, nonce } = blockKey(keys, sealed.siv);
  const end = sealed.encrypted.byteLength - tagBytes;
  const decipher = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: tagBytes })
    .setAAD(sealed.header)
    .setAuthTag(sealed.encrypted.subarray(end));
  const payload = decipher.update(sealed.encrypted.subarray(0, end));
  try {
    decipher.final();
  } catch (error) {
    throw notAuthentic(error);
  }
  return payload;
}

function notAuthentic(cause?: unknown): SealError {
  return new SealError('not_authentic', 'the bytes were changed since they were sealed, or sealed with another key', {
    cause,
  });
}

function syntheticIv(keys: VaultKeys, header: Uint8Array, parts: readonly Uint8Array[]): Buffer {
  const mac = createHmac('sha256', keys.mac).update(header);
  for (const part of parts) mac.update(part);
  return mac.digest();
}

/** HKDF-Expand (RFC 5869, 2.3) with the synthetic IV as info: its first 44 bytes are the first block and 12 of the second. */
function blockKey(keys: VaultKeys, siv: Buffer): { key: Buffer; nonce: Buffer } {
  const first = createHmac('sha256', keys.encryption).update(siv).update(Buffer.of(1)).digest();
  const second = createHmac('sha256', keys.encryption).update(first).update(siv).update(Buffer.of(2)).digest();
  return { key: first.subarray(0, keyBytes), nonce: second.subarray(0, nonceBytes) };
}
