/**
 * What is encrypted: how the bytes are compressed, their lengths, the bytes, padding.
 * Whoever holds the vault key may be hostile to whoever restores, so an authentic payload is still not trusted:
 * nothing is inflated before its lengths are within bounds, and never beyond the plain length.
 */

import { promisify } from 'node:util';
import {
  constants,
  type ZstdOptions,
  zstdCompress,
  zstdCompressSync,
  zstdDecompress,
  zstdDecompressSync,
} from 'node:zlib';
import { limits } from '../limits.ts';
import type { SealedType } from './header.ts';
import { padmeLength } from './padme.ts';
import { SealError } from './seal-error.ts';

const MiB = 1024 * 1024;
const compressAsync = promisify(zstdCompress) as (bytes: Uint8Array, options: ZstdOptions) => Promise<Buffer>;
const inflateAsync = promisify(zstdDecompress) as (bytes: Uint8Array, options: ZstdOptions) => Promise<Buffer>;

const compression = { none: 0, zstd: 1 } as const;
/** Compression (1), plain length (4), data length (4). */
export const prefixBytes = 9;

/**
 * Largest plain and sealed bytes per type. The chunker's largest chunk is 16 MiB; one more is for what is not cut by
 * it. Attributes are few: a small plain bound keeps 16 KiB of them from inflating to 17 MiB for every file.
 */
export const sealedBounds = {
  block: { plainBytesMax: 17 * MiB, sealedBytesMax: limits.blockBytesMax },
  attributes: { plainBytesMax: MiB / 4, sealedBytesMax: limits.attributesBytesMax },
  manifest: { plainBytesMax: 17 * MiB, sealedBytesMax: limits.blockBytesMax },
} as const satisfies Record<SealedType, { plainBytesMax: number; sealedBytesMax: number }>;

/**
 * Below this no compression is tried: it costs about 17 us for any small input (Node 24, measured) and a zstd frame
 * is 9 bytes longer than what it cannot shorten.
 */
const compressBytesMin = 128;

/** Part of the format: equal bytes must give equal blocks, and another level gives other bytes. */
const zstdLevel = 3;

/** Plain bytes and their form in a payload. */
export interface Packed {
  plainBytes: number;
  compressed: boolean;
  data: Uint8Array;
}

/** Compresses where that helps. zstd tells incompressible bytes by itself at 1 GB/s, so there is no test before it. */
export function pack(plain: Uint8Array): Packed {
  if (plain.byteLength < compressBytesMin) return chooseData(plain, null);
  return chooseData(plain, zstdCompressSync(plain, compressOptions(plain)));
}

/** Like `pack`, with zstd on the thread pool. `plain` must not change until it resolves. */
export async function packAsync(plain: Uint8Array): Promise<Packed> {
  if (plain.byteLength < compressBytesMin) return chooseData(plain, null);
  return chooseData(plain, await compressAsync(plain, compressOptions(plain)));
}

function chooseData(plain: Uint8Array, compressed: Buffer | null): Packed {
  const helps = compressed !== null && compressed.byteLength < plain.byteLength;
  return { plainBytes: plain.byteLength, compressed: helps, data: helps ? compressed : plain };
}

function compressOptions(plain: Uint8Array): ZstdOptions {
  return {
    // One output buffer for all of it: otherwise each 16 KiB is a round trip to the thread pool.
    chunkSize: plain.byteLength + 1024,
    pledgedSrcSize: plain.byteLength,
    params: {
      [constants.ZSTD_c_compressionLevel]: zstdLevel,
      [constants.ZSTD_c_contentSizeFlag]: 1,
      [constants.ZSTD_c_checksumFlag]: 0,
      [constants.ZSTD_c_dictIDFlag]: 0,
    },
  };
}

/** The parts of a payload in order; together they are what is authenticated and encrypted. */
export function payloadParts(packed: Packed, padding: boolean): Uint8Array[] {
  const prefix = Buffer.allocUnsafe(prefixBytes);
  prefix.writeUInt8(packed.compressed ? compression.zstd : compression.none, 0);
  prefix.writeUInt32BE(packed.plainBytes, 1);
  prefix.writeUInt32BE(packed.data.byteLength, 5);
  const length = prefixBytes + packed.data.byteLength;
  return padding ? [prefix, packed.data, Buffer.alloc(padmeLength(length) - length)] : [prefix, packed.data];
}

/**
 * Reads an authentic payload: lengths within bounds, data where they say, zeros after it, and for zstd a frame that
 * itself promises the plain length. The payload is at least `prefixBytes` long.
 * @throws SealError bad_payload, too_large
 */
export function readPayload(payload: Buffer, type: SealedType): Packed {
  const { plainBytesMax } = sealedBounds[type];
  const plainBytes = payload.readUInt32BE(1);
  const dataBytes = payload.readUInt32BE(5);
  if (plainBytes > plainBytesMax)
    throw new SealError(
      'too_large',
      `the payload claims ${plainBytes} plain bytes; at most ${plainBytesMax} are allowed`,
    );
  if (dataBytes > payload.byteLength - prefixBytes)
    throw new SealError('bad_payload', `the payload is shorter than its ${dataBytes} bytes of data`);
  const data = payload.subarray(prefixBytes, prefixBytes + dataBytes);
  const padding = payload.subarray(prefixBytes + dataBytes);
  if (!padding.equals(Buffer.alloc(padding.byteLength))) throw new SealError('bad_payload', 'the padding is not zero');

  if (payload[0] === compression.none) {
    if (dataBytes !== plainBytes)
      throw new SealError('bad_payload', `${dataBytes} bytes of data are not the ${plainBytes} plain bytes claimed`);
    return { plainBytes, compressed: false, data };
  }
  if (payload[0] !== compression.zstd) throw new SealError('bad_payload', `there is no compression ${payload[0]}`);
  if (dataBytes >= plainBytes)
    throw new SealError('bad_payload', 'compressed data that is not shorter than the plain bytes');
  const promised = zstdContentBytes(data);
  if (promised !== plainBytes)
    throw new SealError(
      'bad_payload',
      `the zstd frame promises ${promised ?? 'no number of'} bytes, the payload ${plainBytes}`,
    );
  return { plainBytes, compressed: true, data };
}

/**
 * The plain bytes of what `readPayload` accepted.
 * @throws SealError bad_payload
 */
export function unpack(packed: Packed): Buffer {
  if (!packed.compressed) return asBuffer(packed.data);
  try {
    return wholePlain(packed, zstdDecompressSync(packed.data, inflateOptions(packed)));
  } catch (error) {
    throw inflateFault(error);
  }
}

/** Like `unpack`, with zstd on the thread pool. */
export async function unpackAsync(packed: Packed): Promise<Buffer> {
  if (!packed.compressed) return asBuffer(packed.data);
  try {
    return wholePlain(packed, await inflateAsync(packed.data, inflateOptions(packed)));
  } catch (error) {
    throw inflateFault(error);
  }
}

function inflateOptions(packed: Packed): ZstdOptions {
  return {
    // One byte more than needed, so that the output fills no buffer and no second one is allocated; 64 is zlib's least.
    chunkSize: Math.max(64, packed.plainBytes + 1),
    // zstd itself refuses a frame that outgrows its header; this holds whatever zstd does.
    maxOutputLength: packed.plainBytes,
    // 2^25 is the first power past the largest plain length: the decoder never sets aside more for its window.
    params: { [constants.ZSTD_d_windowLogMax]: 25 },
  };
}

function wholePlain(packed: Packed, plain: Buffer): Buffer {
  if (plain.byteLength !== packed.plainBytes)
    throw new SealError('bad_payload', `the data inflates to ${plain.byteLength} bytes, not ${packed.plainBytes}`);
  return plain;
}

/** Whatever zlib says of the bytes is a fault of the bytes. Anything without a zlib code is ours and rises as it is. */
function inflateFault(error: unknown): unknown {
  const code = (error as NodeJS.ErrnoException).code ?? '';
  if (!/^(ZSTD_|Z_|ERR_BUFFER_TOO_LARGE|ERR_ZLIB)/.test(code)) return error;
  return new SealError('bad_payload', `the data does not inflate (${code})`, { cause: error });
}

/**
 * The content size in a zstd frame's header (RFC 8878, 3.1.1.1), or null when it names none or is no such header.
 * Read before inflating, so that a lie costs nothing.
 */
function zstdContentBytes(data: Buffer): number | null {
  if (data.byteLength < 5 || data.readUInt32LE(0) !== 0xfd2fb528) return null;
  const descriptor = data[4]!;
  const singleSegment = (descriptor & 0x20) !== 0;
  const dictionaryBytes = [0, 1, 2, 4][descriptor & 3]!;
  const sizeBytes = [singleSegment ? 1 : 0, 2, 4, 8][descriptor >> 6]!;
  const at = 5 + (singleSegment ? 0 : 1) + dictionaryBytes;
  if (sizeBytes === 0 || data.byteLength < at + sizeBytes) return null;
  if (sizeBytes === 1) return data[at]!;
  if (sizeBytes === 2) return data.readUInt16LE(at) + 256;
  if (sizeBytes === 4) return data.readUInt32LE(at);
  return Number(data.readBigUInt64LE(at));
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
