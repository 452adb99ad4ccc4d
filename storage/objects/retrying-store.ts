/**
 * Repeats what a store says may be repeated: bounded attempts, exponential backoff with full jitter, and a stream that
 * broke goes on where it stopped. Every call of the contract can be repeated without harm, because a key is never used
 * for other bytes.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { releasingStream } from './object-body.ts';
import {
  type Cancellable,
  type ObjectBody,
  type ObjectContent,
  type ObjectInfo,
  type ObjectPage,
  type ObjectRange,
  type ObjectStore,
  ObjectStoreFault,
  type StoreInspection,
} from './object-store.ts';

export interface RetryOptions {
  /** Attempts at one call, or at one stream without a further byte. Default 5. */
  attemptsMax?: number;
  /** The longest first wait; it doubles with each attempt. Default 100 ms. */
  delayBaseMs?: number;
  /** The longest wait, also of those the store asks for. Default 10 s. */
  delayMaxMs?: number;
  /** 0 to 1, 1 excluded. Default Math.random. */
  random?: () => number;
  /** Rejects with the signal's reason when aborted. Default: a timer. */
  sleep?: (ms: number, signal?: AbortSignal) => Promise<void>;
  /** Told of each failed attempt that is repeated. */
  onRetry?: (event: { call: string; attempt: number; delayMs: number; error: ObjectStoreFault }) => void;
}

export class RetryingStore implements ObjectStore {
  private readonly inner: ObjectStore;
  private readonly attemptsMax: number;
  private readonly delayBaseMs: number;
  private readonly delayMaxMs: number;
  private readonly random: () => number;
  private readonly sleep: (ms: number, signal?: AbortSignal) => Promise<void>;
  private readonly onRetry: NonNullable<RetryOptions['onRetry']>;

  constructor(inner: ObjectStore, options: RetryOptions = {}) {
    this.inner = inner;
    this.attemptsMax = options.attemptsMax ?? 5;
    this.delayBaseMs = options.delayBaseMs ?? 100;
    this.delayMaxMs = options.delayMaxMs ?? 10_000;
    this.random = options.random ?? Math.random;
    this.sleep = options.sleep ?? sleepUnlessAborted;
    this.onRetry = options.onRetry ?? (() => {});
  }

  put(key: string, body: ObjectBody, options: Cancellable = {}): Promise<void> {
    return this.attempt('put', () => this.inner.put(key, body, options), options.signal);
  }

  async get(key: string, range?: ObjectRange, options: Cancellable = {}): Promise<ObjectContent> {
    const first = await this.attempt('get', () => this.inner.get(key, range, options), options.signal);
    const whole = { offset: range?.offset ?? 0, length: first.length };
    const open = { iterator: first.stream[Symbol.asyncIterator]() };
    const stream = releasingStream(this.resumed(key, whole, open, options), async () => {
      await open.iterator.return?.();
    });
    return { length: first.length, stream };
  }

  head(key: string): Promise<ObjectInfo | null> {
    return this.attempt('head', () => this.inner.head(key));
  }

  delete(key: string): Promise<void> {
    return this.attempt('delete', () => this.inner.delete(key));
  }

  list(prefix: string, page: { after?: string; limit: number }): Promise<ObjectPage> {
    return this.attempt('list', () => this.inner.list(prefix, page));
  }

  /** One attempt: a probe tells how things are now. */
  check(): Promise<void> {
    return this.inner.check();
  }

  inspect(): Promise<StoreInspection> {
    return this.attempt('inspect', () => this.inner.inspect());
  }

  close(): Promise<void> {
    return this.inner.close();
  }

  /** The bytes of `whole`; `open.iterator` is the one that is open now, so that whoever abandons the stream can end it. */
  private async *resumed(
    key: string,
    whole: ObjectRange,
    open: { iterator: AsyncIterator<Uint8Array> },
    options: Cancellable,
  ): AsyncGenerator<Uint8Array> {
    let delivered = 0;
    let attempts = 1;
    for (;;) {
      try {
        const next = await open.iterator.next();
        if (next.done) return;
        delivered += next.value.byteLength;
        attempts = 1;
        yield next.value;
      } catch (error) {
        await this.waitToRepeat('get', attempts++, error, options.signal);
        // A stream may break after its last byte: then nothing is missing, and an empty range cannot be asked for.
        if (delivered === whole.length) return;
        const rest = { offset: whole.offset + delivered, length: whole.length - delivered };
        const again = await this.attempt('get', () => this.inner.get(key, rest, options), options.signal);
        open.iterator = again.stream[Symbol.asyncIterator]();
      }
    }
  }

  private async attempt<T>(call: string, run: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      signal?.throwIfAborted();
      try {
        return await run();
      } catch (error) {
        await this.waitToRepeat(call, attempt, error, signal);
      }
    }
  }

  /** Returns when the next attempt may begin; throws the error when there is none. */
  private async waitToRepeat(call: string, attempt: number, error: unknown, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    if (!(error instanceof ObjectStoreFault) || !error.retryable || attempt >= this.attemptsMax) throw error;
    // Full jitter: callers that failed together do not come back together. What the store asks for is the least.
    const backoffMs = this.random() * Math.min(this.delayMaxMs, this.delayBaseMs * 2 ** (attempt - 1));
    const delayMs = Math.min(this.delayMaxMs, (error.retryAfterMs ?? 0) + backoffMs);
    this.onRetry({ call, attempt, delayMs, error });
    await this.sleep(delayMs, signal);
  }
}

async function sleepUnlessAborted(ms: number, signal?: AbortSignal): Promise<void> {
  try {
    await delay(ms, undefined, { signal });
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  }
}
