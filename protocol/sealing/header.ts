/**
 * The 16 bytes that open everything sealed. They are public, authenticated as GCM's additional data and part of the
 * MAC: nothing sealed as one type, for one vault, under one generation opens as another.
 */
import { SealError } from './seal-error.ts';

export const headerBytes = 16;
export const formatNumber = 1;

const typeNumbers = { block: 1, attributes: 2, manifest: 3 } as const;
export type SealedType = keyof typeof typeNumbers;
const typeNames = new Map<number, SealedType>();
for (const [name, number] of Object.entries(typeNumbers)) typeNames.set(number, name as SealedType);

export interface SealedHeader {
  type: SealedType;
  vault: number;
  /** Counts the vault's keys: raising a vault's security makes a new one. */
  generation: number;
}

/** @throws RangeError for a vault or generation that is not a whole number within its field */
export function encodeHeader(header: SealedHeader): Buffer {
  if (!Number.isSafeInteger(header.vault) || header.vault < 0) throw new RangeError(`${header.vault} is not a vault`);
  if (!Number.isInteger(header.generation) || header.generation < 0 || header.generation >= 2 ** 32) {
    throw new RangeError(`${header.generation} is not a key generation`);
  }
  const bytes = Buffer.alloc(headerBytes);
  bytes.writeUInt8(formatNumber, 0);
  bytes.writeUInt8(typeNumbers[header.type], 1);
  bytes.writeUInt32BE(header.generation, 4);
  bytes.writeBigUInt64BE(BigInt(header.vault), 8);
  return bytes;
}

/**
 * What sealed bytes say they are, before anything is authenticated: for choosing the keys of their generation.
 * @throws SealError malformed, unsupported_format
 */
export function readSealedHeader(sealed: Uint8Array): SealedHeader {
  if (sealed.byteLength < headerBytes)
    throw new SealError('malformed', `${sealed.byteLength} bytes are too few to be sealed bytes`);
  const bytes = Buffer.from(sealed.buffer, sealed.byteOffset, headerBytes);
  if (bytes[0] !== formatNumber)
    throw new SealError('unsupported_format', `sealed in format ${bytes[0]}; this program knows ${formatNumber}`);
  const type = typeNames.get(bytes[1]!);
  if (!type) throw new SealError('malformed', `sealed as type ${bytes[1]}, which does not exist`);
  if (bytes.readUInt16BE(2) !== 0) throw new SealError('malformed', 'the reserved bytes of the header are not zero');
  const vault = Number(bytes.readBigUInt64BE(8));
  if (!Number.isSafeInteger(vault)) throw new SealError('malformed', 'the vault in the header is beyond 2^53');
  return { type, vault, generation: bytes.readUInt32BE(4) };
}
