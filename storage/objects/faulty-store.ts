/**
 * A store that fails as real ones do, by a seed: for tests that nothing acknowledged is lost. What it does to a call is
 * drawn from `random` in the order of the calls, so a sequence of calls meets the same faults each time.
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

/** How likely each fault is, 0 to 1, per call. */
export interface FaultRates {
  /** Fails, and did nothing. */
  errorBefore?: number;
  /** Fails, and did it all the same: a lost answer. Puts and deletes only. */
  errorAfter?: number;
  /** Fails, and does it later: a PUT that lands after its DELETE, or the other way round. Puts and deletes only. */
  late?: number;
  /** Waits first, up to `delayMsMax`. */
  delay?: number;
  /** A stream that breaks before its end. */
  tornRead?: number;
}

export interface FaultyStoreOptions {
  random: () => number;
  rates: FaultRates;
  /** The longest delay, also of what comes late. Default 20 ms. */
  delayMsMax?: number;
  sleep?: (ms: number) => Promise<void>;
}

export class FaultyStore implements ObjectStore {
  /** How often each fault struck. A test that expects survival should expect these to be above 0. */
  readonly struck = { errorBefore: 0, errorAfter: 0, late: 0, delay: 0, tornRead: 0 };
  private readonly inner: ObjectStore;
  private readonly random: () => number;
  private readonly delayMsMax: number;
  private readonly sleep: (ms: number) => Promise<void>;
  private rates: FaultRates;
  private readonly pending = new Set<Promise<void>>();

  constructor(inner: ObjectStore, options: FaultyStoreOptions) {
    this.inner = inner;
    this.random = options.random;
    this.rates = options.rates;
    this.delayMsMax = options.delayMsMax ?? 20;
    this.sleep = options.sleep ?? ((ms) => delay(ms));
  }

  /** From now on other faults, or none: `{}`. */
  setRates(rates: FaultRates): void {
    this.rates = rates;
  }

  /** Returns when everything that was late has happened. */
  async settle(): Promise<void> {
    while (this.pending.size > 0) await Promise.all(this.pending);
  }

  put(key: string, body: ObjectBody, options: Cancellable = {}): Promise<void> {
    return this.change(`put ${key}`, (late) => this.inner.put(key, body, late ? {} : options));
  }

  async get(key: string, range?: ObjectRange, options: Cancellable = {}): Promise<ObjectContent> {
    await this.before(`get ${key}`);
    const content = await this.inner.get(key, range, options);
    if (!this.strikes('tornRead')) return content;
    const iterator = content.stream[Symbol.asyncIterator]();
    const tornAt = Math.floor(this.random() * content.length);
    const stream = releasingStream(tornStream(key, iterator, tornAt), async () => {
      await iterator.return?.();
    });
    return { length: content.length, stream };
  }

  async head(key: string): Promise<ObjectInfo | null> {
    await this.before(`head ${key}`);
    return this.inner.head(key);
  }

  delete(key: string): Promise<void> {
    return this.change(`delete ${key}`, () => this.inner.delete(key));
  }

  async list(prefix: string, page: { after?: string; limit: number }): Promise<ObjectPage> {
    await this.before(`list ${prefix}`);
    return this.inner.list(prefix, page);
  }

  async check(): Promise<void> {
    await this.before('check');
    await this.inner.check();
  }

  inspect(): Promise<StoreInspection> {
    return this.inner.inspect();
  }

  async close(): Promise<void> {
    await this.settle();
    await this.inner.close();
  }

  private async change(what: string, run: (late: boolean) => Promise<void>): Promise<void> {
    await this.before(what);
    if (this.strikes('late')) {
      this.later(this.random() * this.delayMsMax, () => run(true));
      throw injected(`${what}: no answer, and it comes later`);
    }
    await run(false);
    if (this.strikes('errorAfter')) throw injected(`${what}: no answer, but it was done`);
  }

  private async before(what: string): Promise<void> {
    if (this.strikes('delay')) await this.sleep(this.random() * this.delayMsMax);
    if (this.strikes('errorBefore')) throw injected(`${what}: failed`);
  }

  private later(ms: number, run: () => Promise<void>): void {
    // What fails when it is late fails unheard, as it would at the end of a broken connection.
    const done: Promise<void> = this.sleep(ms)
      .then(run)
      .catch(() => {})
      .finally(() => this.pending.delete(done));
    this.pending.add(done);
  }

  private strikes(fault: keyof FaultRates): boolean {
    const rate = this.rates[fault] ?? 0;
    // Drawn even at 0, so that changing one rate does not move the others' draws.
    const struck = this.random() < rate;
    if (struck) this.struck[fault]++;
    return struck;
  }
}

async function* tornStream(key: string, source: AsyncIterator<Uint8Array>, tornAt: number): AsyncGenerator<Uint8Array> {
  let delivered = 0;
  for (;;) {
    const next = await source.next();
    const bytes = next.done ? new Uint8Array() : next.value.subarray(0, tornAt - delivered);
    delivered += bytes.byteLength;
    if (bytes.byteLength > 0) yield bytes;
    if (delivered >= tornAt) throw injected(`get ${key}: broke after ${tornAt} bytes`);
  }
}

function injected(message: string): ObjectStoreFault {
  return new ObjectStoreFault(message, { retryable: true, code: 'Injected' });
}
