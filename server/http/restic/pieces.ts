/**
 * A body that is larger than the byte budget holds, as bodies that it does: one piece after the other, each with an account of
 * its own, which is closed before the next is opened. So a sender of a large file waits for room with nothing in its hands.
 */
import { Readable } from 'node:stream';
import { openCharged, rawBody } from '../bodies.ts';
import type { Context } from '../deps.ts';

/** What lies between the request and the piece that is being received, beside the budget. */
const betweenBytes = 64 * 1024;

/** @param length of the body; @yields its pieces of `pieceBytes`, the last one shorter: each is over when the next is asked for */
export async function* piecesOf(
  ctx: Context,
  length: number,
  pieceBytes: number,
): AsyncGenerator<AsyncIterable<Uint8Array>> {
  using source = new Cutter(rawBody(ctx));
  for (let at = 0; at < length; at += pieceBytes) {
    const bytes = Math.min(pieceBytes, length - at);
    const piece = Readable.from(source.take(bytes), { objectMode: false, highWaterMark: betweenBytes });
    const { body, end } = await openCharged(ctx, piece, bytes);
    try {
      yield body;
    } finally {
      end();
      piece.destroy();
    }
  }
}

/** Takes a stream apart at any byte. What is not taken stays in it. */
class Cutter {
  readonly #chunks: AsyncIterator<Buffer>;
  #rest: Buffer = Buffer.alloc(0);

  constructor(source: Readable) {
    // Its end is the request's affair: an answer is still to be sent.
    this.#chunks = source.iterator({ destroyOnReturn: false }) as AsyncIterator<Buffer>;
  }

  /** Lets go of the stream, at once or with its next bytes, so that others may read on. */
  [Symbol.dispose](): void {
    this.#chunks.return?.().catch(() => {});
  }

  /** Exactly so many bytes, or fewer when the stream ends before. */
  async *take(bytes: number): AsyncGenerator<Buffer> {
    for (let left = bytes; left > 0; ) {
      if (this.#rest.byteLength === 0) {
        const next = await this.#chunks.next();
        if (next.done) return;
        this.#rest = next.value;
      }
      const chunk = this.#rest.subarray(0, left);
      this.#rest = this.#rest.subarray(chunk.byteLength);
      left -= chunk.byteLength;
      yield chunk;
    }
  }
}
