/**
 * The agent's MAC over a version. Blocks are authentic by themselves, but which blocks make up which file is a row in
 * the server's database: without this MAC the server could exchange two files, reorder one's blocks or serve an old
 * list, and every block would still open. It also finds our own mistakes, end to end.
 */
import { createHmac, timingSafeEqual } from 'node:crypto';
import type { VaultKeys } from './keys.ts';

const domain = Buffer.from('holdfast v1 version\0', 'latin1');
const kindNumbers = { file: 0, directory: 1, symlink: 2 } as const;

/** What the MAC covers, as VersionMessage has it. `attributes` are the sealed bytes. */
export interface MacVersion {
  path: Uint8Array;
  kind: keyof typeof kindNumbers;
  size: number;
  mtime: number;
  attributes: Uint8Array;
  blocks: Uint8Array;
  lists: Uint8Array;
  deleted: boolean;
}

/**
 * 32 bytes: HMAC-SHA-256 over fixed-width numbers first, then every byte string behind its length, so that no two
 * different versions have one encoding.
 * @throws RangeError for a number that is not a whole one within its field
 */
export function versionMac(keys: VaultKeys, archive: number, version: MacVersion): Buffer {
  const numbers = Buffer.alloc(26);
  numbers.writeBigUInt64BE(wholeNumber(archive, 0), 0);
  numbers.writeUInt8(kindNumbers[version.kind], 8);
  numbers.writeUInt8(version.deleted ? 1 : 0, 9);
  numbers.writeBigUInt64BE(wholeNumber(version.size, 0), 10);
  numbers.writeBigInt64BE(wholeNumber(version.mtime, Number.MIN_SAFE_INTEGER), 18);

  const mac = createHmac('sha256', keys.versionMac).update(domain).update(numbers);
  for (const field of [version.path, version.attributes, version.blocks, version.lists]) {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(field.byteLength);
    mac.update(length).update(field);
  }
  return mac.digest();
}

/** Whether the version is the one an agent with these keys committed to this archive. Takes the same time either way. */
export function verifyVersionMac(keys: VaultKeys, archive: number, version: MacVersion & { mac: Uint8Array }): boolean {
  const expected = versionMac(keys, archive, version);
  return version.mac.byteLength === expected.byteLength && timingSafeEqual(expected, version.mac);
}

function wholeNumber(value: number, least: number): bigint {
  if (!Number.isSafeInteger(value) || value < least)
    throw new RangeError(`${value} is not a whole number of at least ${least}`);
  return BigInt(value);
}
