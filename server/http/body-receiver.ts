/**
 * One request's body as an iterable of chunks, charged to the byte budget as it arrives.
 *
 * Bytes are copied out of the network's buffers into segments of the body's own, and the segments are what is charged.
 * A chunk as Node hands it over is a view of a whole read from the socket: kept as it is, a sender of 10-byte frames
 * would pin 64 KiB with each, and none of it would be charged. Segments grow with what has arrived, from 4 KiB to
 * 256 KiB, so that a body never holds much more than twice its bytes, and never more than its declared end.
 */
import type { Readable } from 'node:stream';
import { Problem } from '../../protocol/problems.ts';
import type { BudgetAccount } from './budget-account.ts';

const segmentBytesMin = 4 * 1024;
const segmentBytesMax = 256 * 1024;

export class BodyReceiver implements AsyncIterable<Uint8Array> {
  readonly #source: Readable;
  readonly #account: BudgetAccount;
  readonly #bytesMax: number;
  /** Bytes that have arrived. */
  receivedBytes = 0;
  #segment: Buffer = Buffer.alloc(0);
  #filled = 0;
  #allocated = 0;
  /** Full segments the reader has not taken yet: charged, so bounded by the budget. */
  readonly #ready: Buffer[] = [];
  #started = false;
  #stopped = false;
  #ended = false;
  #failure: Error | null = null;
  #wake: (() => void) | null = null;

  /**
   * @param source the request as Node gives it, not read from so far
   * @param account its account; closed by whoever opened it, after the last use of the chunks
   */
  constructor(source: Readable, account: BudgetAccount) {
    this.#source = source;
    this.#account = account;
    this.#bytesMax = account.expectedBytes;
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

  readonly #onEnd = (): void => {
    if (this.#failure) return;
    if (this.#filled > 0) this.#ready.push(this.#segment.subarray(0, this.#filled));
    this.#filled = 0;
    this.#ended = true;
    this.#account.budget.received(this.#account);
    this.#wakeReader();
  };

  readonly #onGone = (): void => {
    if (!this.#ended) this.fail(new ClientGone());
  };

  readonly #onError = (error: Error): void => this.fail(error);

  /** Copies what fits; when the budget has no room for the next segment, the sender is held until it has. */
  #append(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.byteLength) {
      if (this.#filled === this.#segment.byteLength) {
        const bytes = this.#nextSegmentBytes();
        if (!this.#account.budget.tryCharge(this.#account, bytes)) {
          const rest = Buffer.from(chunk.subarray(at)); // a copy: waiting must not pin the network's buffer either
          this.#source.pause();
          this.#appendLater(rest, bytes);
          return;
        }
        this.#openSegment(bytes);
      }
      const copied = chunk.copy(this.#segment, this.#filled, at);
      this.#filled += copied;
      at += copied;
      if (this.#filled === this.#segment.byteLength) this.#deliver();
    }
  }

  #appendLater(rest: Buffer, bytes: number): void {
    this.#account.budget.charge(this.#account, bytes).then(
      () => {
        if (this.#failure) return;
        this.#openSegment(bytes);
        this.#append(rest);
        if (this.#account.state === 'receiving') this.#source.resume();
      },
      (error: Error) => this.fail(error),
    );
  }

  #nextSegmentBytes(): number {
    const grown = Math.min(segmentBytesMax, Math.max(segmentBytesMin, this.#allocated));
    return Math.min(grown, this.#bytesMax - this.#allocated);
  }

  #openSegment(bytes: number): void {
    this.#segment = Buffer.allocUnsafeSlow(bytes);
    this.#filled = 0;
    this.#allocated += bytes;
  }

  #deliver(): void {
    this.#ready.push(this.#segment);
    this.#segment = Buffer.alloc(0);
    this.#filled = 0;
    this.#wakeReader();
  }

  #wakeReader(): void {
    const wake = this.#wake;
    this.#wake = null;
    wake?.();
  }
}

export function bodyTooLarge(bytesMax: number): Problem {
  return new Problem('body_too_large', `the body may hold at most ${bytesMax} bytes`, { bytesMax });
}

/** The client closed the connection or the stream before its request was whole. Nobody is there to read an answer. */
export class ClientGone extends Error {
  constructor() {
    super('the client went away in the middle of its request');
    this.name = 'ClientGone';
  }
}
