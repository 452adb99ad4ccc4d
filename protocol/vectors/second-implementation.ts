/**
 * The sealing format a second time, written from docs/sealing.md with nothing but node:crypto and node:zlib, plainly
 * rather than fast. Tests and the vectors hold the real one against it; nothing else may import it, and it imports
 * nothing of ours, or a mistake could be made once and agreed upon twice.
 */
import { argon2Sync, createCipheriv, createDecipheriv, createHash, createHmac } from 'node:crypto';
import { zstdDecompressSync } from 'node:zlib';

const hmac = (key: Uint8Array, ...parts: Uint8Array[]) =>
  createHmac('sha256', key).update(Buffer.concat(parts)).digest();
const u32 = (value: number) => Buffer.from(value.toString(16).padStart(8, '0'), 'hex');
const u64 = (value: number | bigint) =>
  Buffer.from(BigInt.asUintN(64, BigInt(value)).toString(16).padStart(16, '0'), 'hex');

/** HKDF-SHA-256 without salt, step by step (RFC 5869). */
export function hkdf(secret: Uint8Array, info: string, bytes: number): Buffer {
  return hkdfExpand(hmac(Buffer.alloc(32), secret), Buffer.from(info), bytes);
}

function hkdfExpand(key: Uint8Array, info: Uint8Array, bytes: number): Buffer {
  let last = Buffer.alloc(0);
  let all = Buffer.alloc(0);
  for (let i = 1; all.length < bytes; i++) {
    last = hmac(key, last, info, Buffer.of(i));
    all = Buffer.concat([all, last]);
  }
  return all.subarray(0, bytes);
}

export interface Sealing {
  /** 1 block, 2 attributes, 3 manifest. */
  type: number;
  vault: number;
  generation: number;
}

export function header(as: Sealing): Buffer {
  return Buffer.concat([Buffer.of(1, as.type, 0, 0), u32(as.generation), u64(as.vault)]);
}

export function payload(parts: {
  compression: number;
  plainBytes: number;
  data: Uint8Array;
  paddingBytes?: number;
}): Buffer {
  return Buffer.concat([
    Buffer.of(parts.compression),
    u32(parts.plainBytes),
    u32(parts.data.length),
    parts.data,
    Buffer.alloc(parts.paddingBytes ?? 0),
  ]);
}

/** Seals any payload, also one against the rules, under any header, and under a false siv when one is given. */
export function sealPayload(
  vaultKey: Uint8Array,
  head: Uint8Array,
  content: Uint8Array,
  falseSiv?: Uint8Array,
): Buffer {
  const siv = falseSiv ?? hmac(hkdf(vaultKey, 'holdfast v1 block mac', 32), head, content);
  const { key, nonce } = keyAndNonce(vaultKey, siv);
  const cipher = createCipheriv('aes-256-gcm', key, nonce);
  cipher.setAAD(head);
  return Buffer.concat([head, siv, cipher.update(content), cipher.final(), cipher.getAuthTag()]);
}

export function keyAndNonce(vaultKey: Uint8Array, siv: Uint8Array): { key: Buffer; nonce: Buffer } {
  const bytes = hkdfExpand(hkdf(vaultKey, 'holdfast v1 block enc', 32), siv, 44);
  return { key: bytes.subarray(0, 32), nonce: bytes.subarray(32) };
}

/** The plain bytes of sealed bytes that are in order; throws on others without saying why. */
export function openSealed(vaultKey: Uint8Array, as: Sealing, sealed: Buffer): Buffer {
  const head = sealed.subarray(0, 16);
  if (!head.equals(header(as))) throw new Error('header');
  const siv = sealed.subarray(16, 48);
  const { key, nonce } = keyAndNonce(vaultKey, siv);
  const decipher = createDecipheriv('aes-256-gcm', key, nonce);
  decipher.setAAD(head);
  decipher.setAuthTag(sealed.subarray(-16));
  const content = Buffer.concat([decipher.update(sealed.subarray(48, -16)), decipher.final()]);
  if (!hmac(hkdf(vaultKey, 'holdfast v1 block mac', 32), head, content).equals(siv)) throw new Error('siv');
  const data = content.subarray(9, 9 + content.readUInt32BE(5));
  const plain = content[0] === 1 ? zstdDecompressSync(data) : data;
  if (plain.length !== content.readUInt32BE(1)) throw new Error('plain length');
  return plain;
}

/** Padme by its binary digits: those after the kept ones become zero, rounding up. */
export function padme(length: number): number {
  const digits = length.toString(2);
  const kept = Math.min(digits.length, (digits.length - 1).toString(2).length + 1);
  if (length < 2) return length;
  const head = Number.parseInt(digits.slice(0, kept), 2);
  const tail = digits.slice(kept);
  return (tail.includes('1') ? head + 1 : head) * 2 ** tail.length;
}

/** Where chunks end, each place judged by its last 32 bytes from scratch rather than by a rolling hash. */
export function cutPoints(
  vaultKey: Uint8Array,
  sizes: { minBytes: number; averageBytes: number; maxBytes: number },
  bytes: Uint8Array,
): number[] {
  const table = hkdf(vaultKey, 'holdfast v1 gear table', 1024);
  const gear = Array.from({ length: 256 }, (_, i) => table.readUInt32BE(4 * i));
  const bits = Math.log2(sizes.averageBytes);
  const cuts: number[] = [];
  let start = 0;
  while (start < bytes.length) {
    let length = Math.min(sizes.minBytes, bytes.length - start);
    while (length < sizes.maxBytes && start + length < bytes.length) {
      let sum = 0;
      for (let age = 0; age < 32; age++) sum += (gear[bytes[start + length - 1 - age]!]! << age) >>> 0;
      const zeroBits = length < sizes.averageBytes ? bits + 2 : bits - 2;
      if (sum % 2 ** 32 < 2 ** (32 - zeroBits)) break;
      length++;
    }
    start += length;
    cuts.push(start);
  }
  return cuts;
}

/** Where lists of hashes end, in hashes. */
export function listEnds(
  sizes: { minBlocks: number; averageBlocks: number; maxBlocks: number },
  hashes: readonly Buffer[],
): number[] {
  const ends: number[] = [];
  let length = 0;
  hashes.forEach((hash, at) => {
    length++;
    const first = Number.parseInt(hash.toString('hex').slice(0, 8), 16);
    const chosen = length >= sizes.minBlocks && first < Math.floor(2 ** 32 / (sizes.averageBlocks - sizes.minBlocks));
    if (!chosen && length < sizes.maxBlocks && at < hashes.length - 1) return;
    ends.push(at + 1);
    length = 0;
  });
  return ends;
}

/** The hashes the vector files describe: of the texts `name 0`, `name 1`, ...; `repeated`: `name 0` each time. */
export function hashesOf(source: { name: string; count: number; repeated?: boolean }): Buffer[] {
  return Array.from({ length: source.count }, (_, i) =>
    createHash('sha256').update(`${source.name} ${source.repeated ? 0 : i}`).digest(),
  );
}

export interface Version {
  path: Uint8Array;
  kind: 'file' | 'directory' | 'symlink';
  size: number;
  mtime: number;
  attributes: Uint8Array;
  blocks: Uint8Array;
  lists: Uint8Array;
  deleted: boolean;
}

export function versionEncoding(archive: number, version: Version): Buffer {
  const bytes = [version.path, version.attributes, version.blocks, version.lists];
  return Buffer.concat([
    Buffer.from('686f6c64666173742076312076657273696f6e00', 'hex'), // "holdfast v1 version" and a zero byte
    u64(archive),
    Buffer.of({ file: 0, directory: 1, symlink: 2 }[version.kind], version.deleted ? 1 : 0),
    u64(version.size),
    u64(version.mtime),
    ...bytes.flatMap((field) => [u32(field.length), field]),
  ]);
}

export function versionMac(vaultKey: Uint8Array, archive: number, version: Version): Buffer {
  return hmac(hkdf(vaultKey, 'holdfast v1 version mac', 32), versionEncoding(archive, version));
}

/** The 64 bytes Argon2id makes for a record, and the vault key in it; throws when the password is not the record's. */
export function unwrapKey(record: Buffer, password: string): { derived: Buffer; vaultKey: Buffer } {
  const head = record.subarray(0, 32);
  const siv = record.subarray(32, 64);
  const derived = argon2Sync('argon2id', {
    message: Buffer.from(password.normalize('NFC')),
    nonce: head.subarray(16),
    parallelism: head[2]!,
    memory: head.readUInt32BE(4),
    passes: head.readUInt32BE(8),
    tagLength: 64,
  });
  const stream = hmac(derived.subarray(0, 32), siv);
  const vaultKey = Buffer.from(record.subarray(64).map((byte, i) => byte ^ stream[i]!));
  if (!hmac(derived.subarray(32), head, vaultKey).equals(siv)) throw new Error('password');
  return { derived, vaultKey };
}

/** A vault key that a later generation's key wraps, both as docs/sealing.md says. */
export function wrapKeyInKey(key: Buffer, wrapping: Buffer, of: { generation: number; by: number }): Buffer {
  const head = Buffer.concat([Buffer.of(1, 2, 0, 0), u32(of.by), u32(0), u32(of.generation)]);
  const derived = hkdf(wrapping, 'holdfast v1 key in key', 64);
  const siv = hmac(derived.subarray(32), head, key);
  const stream = hmac(derived.subarray(0, 32), siv);
  return Buffer.concat([head, siv, Buffer.from(key.map((byte, i) => byte ^ stream[i]!))]);
}

/** Plain bytes as the vector files describe them. */
export type PlainSource =
  | { hex: string }
  | { text: string; times: number }
  | { zeros: number }
  | { stream: string; bytes: number };

export function plainOf(source: PlainSource): Buffer {
  if ('hex' in source) return Buffer.from(source.hex, 'hex');
  if ('text' in source) return Buffer.from(source.text.repeat(source.times));
  if ('zeros' in source) return Buffer.alloc(source.zeros);
  const key = createHash('sha256').update(source.stream).digest();
  return createCipheriv('aes-256-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(source.bytes));
}
