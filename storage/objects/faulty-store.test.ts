import { expect, test } from '@jest/globals';
import { seededRandom } from '../../tests/helpers/random.ts';
import { FaultyStore } from './faulty-store.ts';
import { MemoryStore } from './memory-store.ts';

const body = { length: 5, chunks: [Buffer.from('bytes')] };
const faulty = (rates: FaultyStore['struck'] | Record<string, number>, memory = new MemoryStore()) =>
  new FaultyStore(memory, { random: seededRandom(3).next, rates, delayMsMax: 5 });

test('an error before leaves nothing, an error after leaves it done', async () => {
  const before = faulty({ errorBefore: 1 });
  await expect(before.put('key', body)).rejects.toMatchObject({ retryable: true });
  before.setRates({});
  expect(await before.head('key')).toBe(null);

  const after = faulty({ errorAfter: 1 });
  await expect(after.put('key', body)).rejects.toMatchObject({ retryable: true });
  expect((await after.head('key'))?.length).toBe(5);
  await expect(after.delete('key')).rejects.toMatchObject({ retryable: true });
  expect(await after.head('key')).toBe(null);
});

test('a late put lands after the delete that followed it', async () => {
  const store = faulty({ late: 1 });
  await expect(store.put('key', body)).rejects.toThrow(/later/);
  store.setRates({});
  await store.delete('key');
  expect(await store.head('key')).toBe(null);
  await store.settle();
  expect((await store.head('key'))?.length).toBe(5);
});

test('a torn read gives some right bytes and then fails', async () => {
  const memory = new MemoryStore();
  await memory.put('key', body);
  const store = faulty({ tornRead: 1 }, memory);
  for (let i = 0; i < 20; i++) {
    const got: Uint8Array[] = [];
    const reading = async () => {
      for await (const piece of (await store.get('key')).stream) got.push(piece);
    };
    await expect(reading()).rejects.toMatchObject({ retryable: true });
    const text = Buffer.concat(got).toString();
    expect('bytes'.startsWith(text) && text.length < 5).toBe(true);
  }
});

test('the same seed meets the same faults', async () => {
  const outcomes = async () => {
    const store = faulty({ errorBefore: 0.3, errorAfter: 0.2, tornRead: 0.5 });
    const results = [];
    for (let i = 0; i < 50; i++) results.push(await store.put(`key-${i}`, body).then(() => 'ok', String));
    return results;
  };
  const first = await outcomes();
  expect(await outcomes()).toEqual(first);
  expect(new Set(first).size).toBeGreaterThan(2);
});
