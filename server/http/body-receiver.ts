/**
 * One request's body as an iterable of chunks, charged to the byte budget as it arrives.
 *
 * What is charged is what is held. A chunk as Node hands it over is a view of a whole read from the socket; kept as it
 * is, a sender of 10-byte frames would pin 16 KiB or more with each. So a chunk is kept only if it is most of its
 * read, as those of a sender in a hurry are, and any other is copied into a segment of the body's own. Copying all of
 * them costs a third more CPU time per GiB, nearly all of it in collecting the garbage of twice the buffers.
 *
 * No memory of a chunk is ever used again for another: an object store may still be sending it in an attempt that
 * everybody else has given up.
 */
import type { Readable } from 'node:stream';
import { Problem } from '../../protocol/problems.ts';
import type { BudgetAccount } from './budget-account.ts';

const segmentBytesMin = 4 * 1024;
const segmentBytesMax = 256 * 1024;
const keptBytesMin = 8 * 1024;

/**
 * Room to ask of the budget for a body of so many bytes at most: the segment that is being filled is charged whole.
 */
export function roomFor(bodyBytes: number): number {
  return bodyBytes + Math.min(bodyBytes, segmentBytesMax);
}

export class BodyReceiver implements AsyncIterable<Uint8Array> {
  readonly #source: Readable;
  readonly #account: BudgetAccount;
  readonly #bytesMax: number;
  /** Bytes that have arrived. */
  receivedBytes = 0;
  /** The segment small chunks go to: its part up to `#delivered` has been handed on, that up to `#filled` not yet. */
  #segment: Buffer = Buffer.alloc(0);
  #filled = 0;
  #delivered = 0;
  /** Bytes appended, and charged; those charged and not yet spent on a chunk or a segment. */
  #appendedBytes = 0;
  #chargedBytes = 0;
  #creditBytes = 0;
  /** What the reader has not taken yet: charged, so bounded by the budget. */
  readonly #ready: Buffer[] = [];
  #started = false;
  #stopped = false;
  /** A chunk waits for its charge; until it is taken in, the body is not whole, even if its end has come. */
  #pending = false;
  #endCame = false;
  #ended = false;
  #failure: Error | null = null;
  #wake: (() => void) | null = null;

  /**
   * @param source the request as Node gives it, not read from so far
   * @param account opened with `roomFor(bytesMax)`; closed by whoever opened it, after the last use of the chunks
   * @param bytesMax its Content-Length, or its route's bound
   */
  constructor(source: Readable, account: BudgetAccount, bytesMax: number) {
    this.#source = source;
    this.#account = account;
    this.#bytesMax = bytesMax;
    account.onEnd = (reason) => this.fail(reason);
  }

  /** Ends the body for its reader, and stops listening to its sender. */
  fail(reason: Error): void {
    if (this.#failure || this.#ended) return;
    this.#failure = reason;
    this.#stop();
    this.#ready.length = 0;
    this.#wakeReader();
  }

  /**
   * The chunks, once.
   * @throws Problem body_too_large, request_timeout or overloaded; or the connection's error
   */
  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void, undefined> {
    this.#start();
    try {
      for (;;) {
        if (this.#failure) throw this.#failure;
        const segment = this.#ready.shift();
        if (segment) yield segment;
        else if (this.#ended) return;
        else await new Promise<void>((resolve) => (this.#wake = resolve));
      }
    } finally {
      this.#stop();
    }
  }

  #start(): void {
    if (this.#started) throw new Error('a body can be read once');
    this.#started = true;
    const source = this.#source;
    if (source.readableEnded) {
      this.#onEnd(); // an empty body ends while nobody listens
      return;
    }
    if (source.destroyed) {
      this.fail(new ClientGone());
      return;
    }
    this.#account.budget.receiving(this.#account);
    source
      .on('data', this.#onData)
      .on('end', this.#onEnd)
      .on('aborted', this.#onGone)
      .on('close', this.#onGone)
      .on('error', this.#onError);
  }

  #stop(): void {
    if (!this.#started || this.#stopped) return;
    this.#stopped = true;
    const source = this.#source;
    source.off('data', this.#onData).off('end', this.#onEnd).off('aborted', this.#onGone).off('close', this.#onGone);
    source.off('error', this.#onError).on('error', () => {}); // a late error of the connection is nobody's news any more
    if (!this.#ended) source.pause();
  }

  readonly #onData = (chunk: Buffer): void => {
    this.receivedBytes += chunk.byteLength;
    this.#account.budget.arrived(this.#account, chunk.byteLength);
    if (this.receivedBytes <= this.#bytesMax) this.#append(chunk);
    else this.fail(bodyTooLarge(this.#bytesMax));
  };

  /** Comes while a chunk waits too: Node tells the end of a paused stream as soon as its last chunk was handed over. */
  readonly #onEnd = (): void => {
    this.#endCame = true;
    if (!this.#pending) this.#finish();
  };

  #finish(): void {
    if (this.#failure) return;
    this.#deliverSegment();
    this.#ended = true;
    this.#account.budget.received(this.#account);
    this.#wakeReader();
  }

  readonly #onGone = (): void => {
    if (!this.#endCame) this.fail(new ClientGone());
  };

  /** The stream's own errors are the sender's doing: it went away, or broke HTTP (a body that is not as long as it said). */
  readonly #onError = (error: Error): void => {
    if (!this.#endCame) this.fail(new ClientGone({ cause: error }));
  };

  /** Takes a chunk in; when the budget has no room for it, the sender is held until it has. */
  #append(chunk: Buffer): void {
    if (isMostOfItsRead(chunk)) {
      if (!this.#spend(chunk.byteLength)) this.#appendLater(chunk, chunk.byteLength);
      else {
        this.#deliverSegment();
        this.#appendedBytes += chunk.byteLength;
        this.#deliver(chunk);
      }
    } else this.#copy(chunk);
  }

  #copy(chunk: Buffer): void {
    for (let at = 0; at < chunk.byteLength; ) {
      if (this.#filled === this.#segment.byteLength) {
        const bytes = this.#nextSegmentBytes();
        if (!this.#spend(bytes)) {
          this.#appendLater(chunk.subarray(at), bytes);
          return;
        }
        this.#segment = Buffer.allocUnsafeSlow(bytes);
        this.#filled = 0;
        this.#delivered = 0;
      }
      const copied = chunk.copy(this.#segment, this.#filled, at);
      this.#filled += copied;
      this.#appendedBytes += copied;
      at += copied;
      if (this.#filled === this.#segment.byteLength) this.#deliverSegment();
    }
  }

  #appendLater(rest: Buffer, bytes: number): void {
    this.#source.pause();
    this.#pending = true;
    const copy = Buffer.from(rest); // waiting must not pin the network's buffer either
    const charge = this.#nextCharge(bytes);
    this.#account.budget.charge(this.#account, charge).then(
      () => {
        this.#credit(charge);
        this.#pending = false;
        if (this.#failure || this.#stopped) return;
        this.#append(copy); // may have to wait again
        if (this.#pending) return;
        if (this.#endCame) this.#finish();
        else if (this.#account.state === 'receiving') this.#source.resume();
      },
      (error: Error) => this.fail(error),
    );
  }

  /** Segments grow with what has arrived, so that a trickle holds little more than its bytes. */
  #nextSegmentBytes(): number {
    const grown = Math.min(segmentBytesMax, Math.max(segmentBytesMin, this.#appendedBytes));
    return Math.min(grown, this.#bytesMax - this.#appendedBytes);
  }

  /** Takes bytes from the credit, charging more when it is too small; false when there is no room for that. */
  #spend(bytes: number): boolean {
    if (bytes > this.#creditBytes) {
      const charge = this.#nextCharge(bytes);
      if (!this.#account.budget.tryCharge(this.#account, charge)) return false;
      this.#credit(charge);
    }
    this.#creditBytes -= bytes;
    return true;
  }

  /** Charges come in steps like the segments', not one per chunk. */
  #nextCharge(bytes: number): number {
    const step = Math.min(segmentBytesMax, Math.max(segmentBytesMin, this.#chargedBytes));
    const left = this.#account.expectedBytes - this.#chargedBytes;
    return Math.min(left, Math.max(step, bytes - this.#creditBytes));
  }

  #credit(bytes: number): void {
    this.#chargedBytes += bytes;
    this.#creditBytes += bytes;
  }

  #deliverSegment(): void {
    if (this.#filled === this.#delivered) return;
    const bytes = this.#segment.subarray(this.#delivered, this.#filled);
    this.#delivered = this.#filled;
    this.#deliver(bytes);
  }

  #deliver(bytes: Buffer): void {
    this.#ready.push(bytes);
    this.#wakeReader();
  }

  #wakeReader(): void {
    const wake = this.#wake;
    this.#wake = null;
    wake?.();
  }
}

/** `buffer` is the whole read that a chunk is a view of. */
function isMostOfItsRead(chunk: Buffer): boolean {
  return chunk.byteLength >= keptBytesMin && chunk.byteLength * 2 >= chunk.buffer.byteLength;
}

export function bodyTooLarge(bytesMax: number): Problem {
  return new Problem('body_too_large', `the body may hold at most ${bytesMax} bytes`, { bytesMax });
}

/** The client closed the connection or the stream before its request was whole. Nobody is there to read an answer. */
export class ClientGone extends Error {
  constructor(options?: ErrorOptions) {
    super('the client went away in the middle of its request', options);
    this.name = 'ClientGone';
  }
}
