import { describe, expect, test } from '@jest/globals';
import { MemoryStore } from './memory-store.ts';
import { readAll, storeContract } from './store-contract.ts';

describe('the memory store keeps the contract:', () => {
  for (const check of storeContract) {
    test(check.name, () => check.run({ store: new MemoryStore(), prefix: 'here/', abandonedReads: 4 }));
  }
});

test('the bytes stored are not those the caller goes on using, nor those a reader was given', async () => {
  const store = new MemoryStore();
  const bytes = Buffer.from('as it was');
  await store.put('key', { length: bytes.length, chunks: [bytes] });
  bytes.fill(0);
  (await readAll(store, 'key')).fill(0);
  for await (const piece of (await store.get('key')).stream) piece.fill(0);
  expect((await readAll(store, 'key')).toString()).toBe('as it was');
});

test('a flipped bit changes one bit, and only a stored one can be flipped', async () => {
  const store = new MemoryStore();
  await store.put('key', { length: 2, chunks: [Buffer.from([4, 8])] });
  store.flipBit('key', 1);
  expect([...(await readAll(store, 'key'))]).toEqual([4, 9]);
  expect(() => store.flipBit('key', 2)).toThrow(RangeError);
  expect(() => store.flipBit('other', 0)).toThrow(RangeError);
});
