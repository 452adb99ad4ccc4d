/**
 * msgpack on the wire. A message is checked byte by byte before it is decoded: every length against the bytes that
 * are there, no extensions, bounded nesting. So a decoder never allocates more than a message's own size allows.
 */
import { Packr, Unpackr } from 'msgpackr';
import type { z } from 'zod';
import { limits } from './limits.ts';
import { Problem } from './problems.ts';

export const msgpackType = 'application/vnd.msgpack';
/** A streamed answer: frames of a 4-byte big-endian length and that many bytes of msgpack. */
export const frameStreamType = 'application/vnd.holdfast.frames';
/** Blocks as they are, each behind an 8-byte frame header (see block-frames.ts). */
export const blockStreamType = 'application/vnd.holdfast.blocks';

const packer = new Packr({ useRecords: false, variableMapSize: true, encodeUndefinedAsNil: false });
// 64-bit integers as numbers: other languages send them for any large number. Schemas refuse what is past 2^53.
const unpacker = new Unpackr({ useRecords: false, mapsAsObjects: true, int64AsType: 'number' });

export function encodeMessage(message: object): Buffer {
  return packer.pack(message);
}

/**
 * Decodes and validates a message.
 * @throws Problem malformed_request or out_of_bounds, with the field
 */
export function decodeMessage<T extends z.ZodType>(schema: T, bytes: Uint8Array): z.infer<T> {
  checkMsgpack(bytes);
  return validate(schema, unpacker.unpack(bytes));
}

/** Validates a decoded value; the first fault becomes a problem that names its field. */
export function validate<T extends z.ZodType>(schema: T, value: unknown): z.infer<T> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  const field = issue.path.join('.') || '(whole message)';
  const code = issue.code === 'too_big' || issue.code === 'too_small' ? 'out_of_bounds' : 'malformed_request';
  throw new Problem(code, `${field}: ${issue.message}`, { field });
}

/**
 * Walks a msgpack message without decoding it.
 * @throws Problem malformed_request when it is cut short, has bytes left over, nests too deep or uses an extension
 */
export function checkMsgpack(bytes: Uint8Array): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const open: number[] = []; // items still to come, per level
  const maps: boolean[] = []; // whether a level is a map: then every other item is a key
  let at = 0;
  const refuse = (why: string): never => {
    throw new Problem('malformed_request', `the msgpack message ${why}`, { field: '(whole message)', offset: at });
  };
  const need = (count: number): void => {
    if (count > bytes.byteLength - at) refuse('is cut short');
  };
  const length = (size: 1 | 2 | 4): number => {
    need(size);
    const value = size === 1 ? view.getUint8(at) : size === 2 ? view.getUint16(at) : view.getUint32(at);
    at += size;
    return value;
  };
  const skip = (count: number): void => {
    need(count);
    at += count;
  };
  const enter = (items: number, map = false): void => {
    need(items); // every item takes at least a byte, so a huge count fails here
    if (items === 0) return;
    if (open.length >= limits.messageDepthMax) refuse('nests too deep');
    open.push(items);
    maps.push(map);
  };

  open.push(1);
  maps.push(false);
  while (open.length > 0) {
    if (open[open.length - 1] === 0) {
      open.pop();
      maps.pop();
      continue;
    }
    const isKey = maps[maps.length - 1]! && open[open.length - 1]! % 2 === 0;
    open[open.length - 1]!--;
    const type = length(1);
    if (isKey && !(type >= 0xa0 && type <= 0xbf) && !(type >= 0xd9 && type <= 0xdb))
      refuse('has a key that is no text');
    if (type <= 0x7f || type >= 0xe0)
      continue; // fixint
    else if (type <= 0x8f)
      enter((type & 0x0f) * 2, true); // fixmap
    else if (type <= 0x9f)
      enter(type & 0x0f); // fixarray
    else if (type <= 0xbf)
      skip(type & 0x1f); // fixstr
    else if (type === 0xc0 || type === 0xc2 || type === 0xc3)
      continue; // nil, false, true
    else if (type === 0xc4 || type === 0xd9)
      skip(length(1)); // bin8, str8
    else if (type === 0xc5 || type === 0xda)
      skip(length(2)); // bin16, str16
    else if (type === 0xc6 || type === 0xdb)
      skip(length(4)); // bin32, str32
    else if (type === 0xca || type === 0xce || type === 0xd2)
      skip(4); // float32, uint32, int32
    else if (type === 0xcb || type === 0xcf || type === 0xd3)
      skip(8); // float64, uint64, int64
    else if (type === 0xcc || type === 0xd0)
      skip(1); // uint8, int8
    else if (type === 0xcd || type === 0xd1)
      skip(2); // uint16, int16
    else if (type === 0xdc)
      enter(length(2)); // array16
    else if (type === 0xdd)
      enter(length(4)); // array32
    else if (type === 0xde)
      enter(length(2) * 2, true); // map16
    else if (type === 0xdf)
      enter(length(4) * 2, true); // map32
    else refuse(`uses the type 0x${type.toString(16)}, which this protocol does not`); // extensions and 0xc1
  }
  if (at !== bytes.byteLength) refuse('has bytes left over');
}

/** One frame of a streamed answer. */
export function encodeFrame(message: object): Buffer {
  const body = encodeMessage(message);
  const frame = Buffer.allocUnsafe(4 + body.byteLength);
  frame.writeUInt32BE(body.byteLength, 0);
  body.copy(frame, 4);
  return frame;
}

/**
 * Reads the frames of a streamed answer, each validated.
 * @throws Problem malformed_request when the stream ends inside a frame or a frame is too large
 */
export async function* decodeFrames<T extends z.ZodType>(
  schema: T,
  source: AsyncIterable<Uint8Array>,
): AsyncGenerator<z.infer<T>> {
  const reader = new ByteReader(source);
  for (;;) {
    const head = await reader.read(4, { orEnd: true });
    if (!head) return;
    const length = head.readUInt32BE(0);
    if (length > limits.frameBytesMax)
      throw new Problem('malformed_request', `a frame of ${length} bytes is too large`, { field: 'frame' });
    yield decodeMessage(schema, (await reader.read(length))!);
  }
}

/** Reads exact counts of bytes from a source of chunks of any size. */
export class ByteReader {
  readonly #source: AsyncIterator<Uint8Array>;
  #rest: Buffer = Buffer.alloc(0);

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#source = source[Symbol.asyncIterator]();
  }

  /**
   * The next `count` bytes; null at a clean end when `orEnd` is set.
   * @throws Problem malformed_request when the source ends first
   */
  async read(count: number, options: { orEnd?: boolean } = {}): Promise<Buffer | null> {
    if (this.#rest.byteLength >= count) {
      const bytes = this.#rest.subarray(0, count);
      this.#rest = this.#rest.subarray(count);
      return bytes;
    }
    const parts: Buffer[] = this.#rest.byteLength > 0 ? [this.#rest] : [];
    let have = this.#rest.byteLength;
    while (have < count) {
      const next = await this.#source.next();
      if (next.done) {
        if (have === 0 && options.orEnd) return null;
        throw new Problem('malformed_request', `the body ends ${count - have} bytes early`, { field: 'body' });
      }
      const chunk = Buffer.from(next.value.buffer, next.value.byteOffset, next.value.byteLength);
      parts.push(chunk);
      have += chunk.byteLength;
    }
    const joined = parts.length === 1 ? parts[0]! : Buffer.concat(parts, have);
    this.#rest = joined.subarray(count);
    return joined.subarray(0, count);
  }

  /**
   * The next `count` bytes as the source gives them, without joining them. What is not taken of them is lost.
   * @throws Problem malformed_request when the source ends first
   */
  async *pieces(count: number): AsyncGenerator<Uint8Array> {
    for (let left = count; left > 0; ) {
      if (this.#rest.byteLength === 0) {
        const next = await this.#source.next();
        if (next.done) throw new Problem('malformed_request', `the body ends ${left} bytes early`, { field: 'body' });
        this.#rest = Buffer.from(next.value.buffer, next.value.byteOffset, next.value.byteLength);
      }
      const piece = this.#rest.subarray(0, left);
      this.#rest = this.#rest.subarray(piece.byteLength);
      left -= piece.byteLength;
      if (piece.byteLength > 0) yield piece;
    }
  }

  /** Waits for the source's end. @throws Problem malformed_request when more bytes come */
  async end(): Promise<void> {
    for await (const bytes of this.remaining())
      if (bytes.byteLength > 0)
        throw new Problem('malformed_request', 'the body is longer than it says', { field: 'body' });
  }

  /** The bytes already taken from the source, then the rest of it. */
  async *remaining(): AsyncGenerator<Uint8Array> {
    if (this.#rest.byteLength > 0) yield this.#rest;
    this.#rest = Buffer.alloc(0);
    for (;;) {
      const next = await this.#source.next();
      if (next.done) return;
      yield next.value;
    }
  }
}
