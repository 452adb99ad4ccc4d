/**
 * Bodies on their way to S3: as one buffer, or as a stream of pieces large enough that neither system calls nor
 * stream overhead show.
 */
import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import { setImmediate } from 'node:timers/promises';
import { bodyPieces, chunksLength } from './object-body.ts';
import { type ObjectBody, ObjectLengthMismatch } from './object-store.ts';

/** Small pieces are joined up to this size. Larger ones are passed on without a copy. */
const joinedBytes = 256 * 1024;

/** Bytes hashed before other work gets its turn: about 2 ms. */
const hashTurnBytes = 2 * 1024 * 1024;

/** SHA-256 of chunks in memory, in hex, as S3 wants it in `x-amz-content-sha256`. */
export async function chunksHash(chunks: readonly Uint8Array[]): Promise<string> {
  const hash = createHash('sha256');
  let turn = 0;
  for (const chunk of chunks) {
    for (let at = 0; at < chunk.byteLength; at += hashTurnBytes) {
      const piece = chunk.subarray(at, at + hashTurnBytes);
      hash.update(piece);
      turn += piece.byteLength;
      if (turn < hashTurnBytes) continue;
      turn = 0;
      await setImmediate();
    }
  }
  return hash.digest('hex');
}

/** The body as the SDK takes it, with its error if it fails on the way: the SDK itself would only wait for more. */
export interface WireBody {
  data: Buffer | Readable;
  /** Rejects when the stream fails; never resolves. */
  failed: Promise<never>;
  /** What `failed` was rejected with. */
  failure(): Error | null;
  end(): void;
}

/** Throws `ObjectLengthMismatch` for chunks of another length; a stream of another length fails while it is sent. */
export function wireBody(key: string, body: ObjectBody, signal?: AbortSignal): WireBody {
  const { promise: failed, reject } = Promise.withResolvers<never>();
  failed.catch(() => {});
  if ('chunks' in body && chunksLength(body.chunks) !== body.length) throw new ObjectLengthMismatch(key, body.length);
  if ('chunks' in body && (body.chunks.length <= 1 || body.length <= joinedBytes)) {
    return { data: oneBuffer(body.chunks, body.length), failed, failure: () => null, end: () => {} };
  }
  const stream = Readable.from(joinSmall(bodyPieces(key, body, signal)), {
    objectMode: false,
    highWaterMark: 1024 * 1024,
  });
  stream.on('error', reject);
  return { data: stream, failed, failure: () => stream.errored, end: () => stream.destroy() };
}

/** Joins pieces smaller than `joinedBytes` with their neighbours. */
export async function* joinSmall(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let small: Uint8Array[] = [];
  let length = 0;
  for await (const piece of pieces) {
    if (piece.byteLength >= joinedBytes) {
      if (length > 0) yield Buffer.concat(small, length);
      yield piece;
      small = [];
      length = 0;
      continue;
    }
    small.push(piece);
    length += piece.byteLength;
    if (length < joinedBytes) continue;
    yield Buffer.concat(small, length);
    small = [];
    length = 0;
  }
  if (length > 0) yield Buffer.concat(small, length);
}

function oneBuffer(chunks: readonly Uint8Array[], length: number): Buffer {
  const [only] = chunks;
  if (only && chunks.length === 1) return Buffer.from(only.buffer, only.byteOffset, only.byteLength);
  return Buffer.concat(chunks, length);
}
