import { describe, expect, test } from '@jest/globals';
import { seededRandom } from '../../tests/helpers/random.ts';
import { FaultyStore } from './faulty-store.ts';
import { MemoryStore } from './memory-store.ts';
import { ObjectNotFound, ObjectStoreFault } from './object-store.ts';
import { RetryingStore } from './retrying-store.ts';
import { readAll, storeContract } from './store-contract.ts';

/** A store in memory whose calls first meet the given faults, one each; counts the calls. */
class FailingStore extends MemoryStore {
  readonly faults: Error[] = [];
  calls = 0;

  override async head(key: string) {
    this.calls++;
    const fault = this.faults.shift();
    if (fault) throw fault;
    return super.head(key);
  }

  override async check() {
    throw new ObjectStoreFault('not now', { retryable: true });
  }
}

const busy = (retryAfterMs?: number) =>
  new ObjectStoreFault('busy', { retryable: true, ...(retryAfterMs !== undefined && { retryAfterMs }) });

function retrying(inner: FailingStore, random = () => 0.5) {
  const waits: number[] = [];
  const store = new RetryingStore(inner, {
    attemptsMax: 5,
    delayBaseMs: 100,
    delayMaxMs: 1_000,
    random,
    sleep: async (ms) => {
      waits.push(ms);
    },
  });
  return { store, waits };
}

test('attempts are bounded, and waits double up to their bound, with full jitter', async () => {
  const inner = new FailingStore();
  inner.faults.push(...Array.from({ length: 5 }, () => busy()));
  const { store, waits } = retrying(inner, () => 1);
  await expect(store.head('key')).rejects.toThrow('busy');
  expect(inner.calls).toBe(5);
  expect(waits).toEqual([100, 200, 400, 800]);

  inner.faults.push(...Array.from({ length: 4 }, () => busy()));
  const halved = retrying(inner);
  expect(await halved.store.head('key')).toBe(null);
  expect(halved.waits).toEqual([50, 100, 200, 400]);
});

test('what the store asks for is waited at least, within the bound', async () => {
  const inner = new FailingStore();
  inner.faults.push(busy(700), busy(60_000));
  const { store, waits } = retrying(inner);
  expect(await store.head('key')).toBe(null);
  expect(waits).toEqual([750, 1_000]);
});

test('only faults that say so are repeated', async () => {
  const inner = new FailingStore();
  const { store, waits } = retrying(inner);
  for (const error of [
    new ObjectStoreFault('refused', { retryable: false }),
    new ObjectNotFound('key'),
    new Error('bug'),
  ]) {
    inner.faults.push(error);
    await expect(store.head('key')).rejects.toBe(error);
  }
  await expect(store.check()).rejects.toThrow('not now');
  expect(waits).toEqual([]);
});

test('an abort ends the waiting', async () => {
  const stop = new AbortController();
  const faulty = new FaultyStore(new MemoryStore(), { random: () => 0, rates: { errorBefore: 1 } });
  const store = new RetryingStore(faulty, { delayBaseMs: 60_000, delayMaxMs: 60_000, random: () => 0.99 });
  const putting = store.put('key', { length: 0, chunks: [] }, { signal: stop.signal });
  stop.abort(new Error('enough'));
  await expect(putting).rejects.toThrow('enough');
});

test('a stream that breaks again and again goes on where it stopped, and ends with the right bytes', async () => {
  const memory = new MemoryStore();
  const bytes = Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * 31) >>> 3));
  await memory.put('key', { length: bytes.length, chunks: [bytes] });
  const faulty = new FaultyStore(memory, { random: seededRandom(7).next, rates: { tornRead: 0.7, errorBefore: 0.2 } });
  const store = new RetryingStore(faulty, { attemptsMax: 20, sleep: async () => {} });
  for (let i = 0; i < 20; i++) {
    expect((await readAll(store, 'key')).equals(bytes)).toBe(true);
    expect((await readAll(store, 'key', { offset: 777, length: 200_000 })).equals(bytes.subarray(777, 200_777))).toBe(
      true,
    );
  }
  expect(faulty.struck.tornRead).toBeGreaterThan(10);
});

test('a stream without progress gives up', async () => {
  const memory = new MemoryStore();
  await memory.put('key', { length: 5, chunks: [Buffer.from('bytes')] });
  // random is 0: every read is torn, before its first byte.
  const faulty = new FaultyStore(memory, { random: () => 0, rates: { tornRead: 1 } });
  const store = new RetryingStore(faulty, { attemptsMax: 3, sleep: async () => {} });
  await expect(readAll(store, 'key')).rejects.toThrow(/broke after 0 bytes/);
  expect(faulty.struck.tornRead).toBe(3);
});

describe('with retries, a store that keeps failing keeps the contract:', () => {
  for (const check of storeContract) {
    test(check.name, async () => {
      const rates = { errorBefore: 0.1, errorAfter: 0.1, tornRead: 0.2 };
      const faulty = new FaultyStore(new MemoryStore(), { random: seededRandom(11).next, rates });
      const store = new RetryingStore(faulty, { attemptsMax: 30, sleep: async () => {} });
      await check.run({ store, prefix: 'here/', abandonedReads: 30 });
    });
  }
});
