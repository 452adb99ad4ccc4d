/**
 * Writes a zip (APPNOTE 6.3): headers here, content by the caller, in order. Everything is stored, not deflated, and
 * nothing depends on a clock or on how content was cut, so the same entries are the same bytes in every process.
 *
 * An entry whose CRC is known before it begins has everything in its local header; of another one the CRC follows
 * its content (a data descriptor), and readers take it from the directory at the end.
 */
import { Spool } from './spool.ts';

export interface ZipEntry {
  /** UTF-8, names joined by '/'; ends in '/' for a directory. At most `zipNameBytesMax` bytes. */
  name: Buffer;
  kind: 'file' | 'directory' | 'symlink';
  /** Permission bits; no more than those are written. */
  mode: number;
  /** Milliseconds since the epoch. */
  mtimeMs: number;
  /** Bytes of content; of a symlink, of its target. */
  size: number;
  /** CRC-32 of the content; null: told at the end. */
  crc: number | null;
}

export const zipNameBytesMax = 0xffff;
/** Each takes some 30 bytes of memory until the end, where a zip has its directory; `heldBytes` has what it is. */
export const zipEntriesMax = 1_000_000;

const max16 = 0xffff;
const max32 = 0xffff_ffff;
/** Unix, and version 6.3 of the description. */
const madeBy = (3 << 8) | 63;
const utf8Names = 1 << 11;
const crcFollows = 1 << 3;
const typeBits = { file: 0o100000, directory: 0o040000, symlink: 0o120000 } as const;

export class ZipWriter {
  readonly #directory = new Spool();
  #entries = 0;
  #offset = 0;
  #open: { entry: ZipEntry; offset: number } | null = null;

  get entries(): number {
    return this.#entries;
  }

  /** Bytes of memory that the directory takes. */
  get heldBytes(): number {
    return this.#directory.heldBytes;
  }

  /** What precedes the entry's content. `end` has to follow the content. */
  begin(entry: ZipEntry): Buffer {
    if (this.#open) throw new Error('an entry of the zip was begun before the last one ended');
    this.#open = { entry, offset: this.#offset };
    const zip64 = entry.size >= max32;
    const known = entry.crc !== null;
    const extra = Buffer.concat([
      timestamp(entry.mtimeMs),
      zip64 ? wide(known ? [entry.size, entry.size] : [0, 0]) : none,
    ]);
    const header = Buffer.alloc(30);
    header.writeUInt32LE(0x04034b50, 0);
    header.writeUInt16LE(zip64 ? 45 : 20, 4);
    header.writeUInt16LE(utf8Names | (known ? 0 : crcFollows), 6);
    header.writeUInt16LE(0, 8); // stored
    header.writeUInt32LE(dosTime(entry.mtimeMs), 10);
    header.writeUInt32LE(entry.crc ?? 0, 14);
    const size = zip64 ? max32 : known ? entry.size : 0;
    header.writeUInt32LE(size, 18);
    header.writeUInt32LE(size, 22);
    header.writeUInt16LE(entry.name.byteLength, 26);
    header.writeUInt16LE(extra.byteLength, 28);
    return this.#out(Buffer.concat([header, entry.name, extra]));
  }

  /** What follows the entry's content; often nothing. @param crc that of the content */
  async end(crc: number): Promise<Buffer> {
    const { entry, offset } = this.#open!;
    this.#open = null;
    this.#offset += entry.size;
    this.#entries++;
    await this.#directory.add(directoryRecord(entry, crc, offset));
    if (entry.crc !== null) return none;
    const zip64 = entry.size >= max32;
    const descriptor = Buffer.alloc(zip64 ? 24 : 16);
    descriptor.writeUInt32LE(0x08074b50, 0);
    descriptor.writeUInt32LE(crc, 4);
    if (zip64) {
      descriptor.writeBigUInt64LE(BigInt(entry.size), 8);
      descriptor.writeBigUInt64LE(BigInt(entry.size), 16);
    } else {
      descriptor.writeUInt32LE(entry.size, 8);
      descriptor.writeUInt32LE(entry.size, 12);
    }
    return this.#out(descriptor);
  }

  /** The directory, in pieces. */
  async *finish(): AsyncGenerator<Buffer> {
    yield* this.#directory.read();
    yield endOfDirectory(this.#entries, this.#directory.bytes, this.#offset);
  }

  #out(bytes: Buffer): Buffer {
    this.#offset += bytes.byteLength;
    return bytes;
  }
}

const none = Buffer.alloc(0);

function directoryRecord(entry: ZipEntry, crc: number, offset: number): Buffer {
  const wideSizes = entry.size >= max32 ? [entry.size, entry.size] : [];
  const wideOffset = offset >= max32 ? [offset] : [];
  const wides = [...wideSizes, ...wideOffset];
  const extra = Buffer.concat([timestamp(entry.mtimeMs), wides.length > 0 ? wide(wides) : none]);
  const record = Buffer.alloc(46);
  record.writeUInt32LE(0x02014b50, 0);
  record.writeUInt16LE(madeBy, 4);
  record.writeUInt16LE(wides.length > 0 ? 45 : 20, 6);
  record.writeUInt16LE(utf8Names | (entry.crc === null ? crcFollows : 0), 8);
  record.writeUInt16LE(0, 10);
  record.writeUInt32LE(dosTime(entry.mtimeMs), 12);
  record.writeUInt32LE(crc, 16);
  record.writeUInt32LE(Math.min(entry.size, max32), 20);
  record.writeUInt32LE(Math.min(entry.size, max32), 24);
  record.writeUInt16LE(entry.name.byteLength, 28);
  record.writeUInt16LE(extra.byteLength, 30);
  // Setuid and the like do not travel by zip: whoever unpacks it is rarely who meant them.
  const mode = typeBits[entry.kind] | (entry.mode & 0o777);
  record.writeUInt32LE(((mode << 16) | (entry.kind === 'directory' ? 0x10 : 0)) >>> 0, 38);
  record.writeUInt32LE(Math.min(offset, max32), 42);
  return Buffer.concat([record, entry.name, extra]);
}

function endOfDirectory(entries: number, bytes: number, offset: number): Buffer {
  const parts: Buffer[] = [];
  if (entries >= max16 || bytes >= max32 || offset >= max32) {
    const zip64 = Buffer.alloc(56 + 20);
    zip64.writeUInt32LE(0x06064b50, 0);
    zip64.writeBigUInt64LE(44n, 4);
    zip64.writeUInt16LE(madeBy, 12);
    zip64.writeUInt16LE(45, 14);
    zip64.writeBigUInt64LE(BigInt(entries), 24);
    zip64.writeBigUInt64LE(BigInt(entries), 32);
    zip64.writeBigUInt64LE(BigInt(bytes), 40);
    zip64.writeBigUInt64LE(BigInt(offset), 48);
    zip64.writeUInt32LE(0x07064b50, 56);
    zip64.writeBigUInt64LE(BigInt(offset + bytes), 64);
    zip64.writeUInt32LE(1, 72);
    parts.push(zip64);
  }
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50, 0);
  end.writeUInt16LE(Math.min(entries, max16), 8);
  end.writeUInt16LE(Math.min(entries, max16), 10);
  end.writeUInt32LE(Math.min(bytes, max32), 12);
  end.writeUInt32LE(Math.min(offset, max32), 16);
  return Buffer.concat([...parts, end]);
}

/** The zip64 field: numbers of 8 bytes for those that do not fit in their places. */
function wide(numbers: readonly number[]): Buffer {
  const field = Buffer.alloc(4 + numbers.length * 8);
  field.writeUInt16LE(0x0001, 0);
  field.writeUInt16LE(numbers.length * 8, 2);
  for (const [i, number] of numbers.entries()) field.writeBigUInt64LE(BigInt(number), 4 + i * 8);
  return field;
}

/** Info-ZIP's field: the modification time in whole seconds, UTC; left out where 32 bits do not hold it. */
function timestamp(ms: number): Buffer {
  const seconds = Math.floor(ms / 1000);
  if (seconds < -(2 ** 31) || seconds >= 2 ** 31) return none;
  const field = Buffer.alloc(9);
  field.writeUInt16LE(0x5455, 0);
  field.writeUInt16LE(5, 2);
  field.writeUInt8(1, 4);
  field.writeInt32LE(seconds, 5);
  return field;
}

/** Two seconds' steps from 1980 to 2107, as UTC: whose zone it would be otherwise, nobody knows. */
function dosTime(ms: number): number {
  const at = new Date(Math.min(Math.max(ms, Date.UTC(1980, 0, 1)), Date.UTC(2107, 11, 31, 23, 59, 58)));
  const date = ((at.getUTCFullYear() - 1980) << 9) | ((at.getUTCMonth() + 1) << 5) | at.getUTCDate();
  const time = (at.getUTCHours() << 11) | (at.getUTCMinutes() << 5) | (at.getUTCSeconds() >> 1);
  return ((date << 16) | time) >>> 0;
}
