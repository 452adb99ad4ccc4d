import { expect, test } from '@jest/globals';
import type { Database, Transaction } from '../../catalog/database.ts';
import { MemoryStore } from '../../objects/memory-store.ts';
import { type Storage, storageDefaults } from '../../storage.ts';
import { inBackground, restMs } from './in-background.ts';

/** A database whose transactions take as long as they are told, by a clock that only they and rests move. */
function world({ stopping, restsForMs }: { stopping?: AbortController; restsForMs?: number } = {}): {
  storage: Storage;
  rests: number[];
  clock: object;
  take(ms: number): Promise<string>;
} {
  let now = 0;
  const rests: number[] = [];
  const clock = {
    nowMs: () => now,
    sleep: async (ms: number) => {
      rests.push(ms);
      now += ms;
      stopping?.abort(); // in the middle of the first rest
      stopping?.signal.throwIfAborted();
    },
  };
  const database = {
    pool: { total: 0, idle: 0, waiting: 0 },
    query: async () => [],
    transaction: async <T>(work: (tx: Transaction) => Promise<T>) => work({ query: async () => [] }),
    close: async () => {},
  } satisfies Database;
  const bare = { database, objects: new MemoryStore(), catalogId: 'c', settings: storageDefaults };
  const storage = inBackground(bare, {
    share: 0.25,
    clock,
    ...(stopping && { signal: stopping.signal }),
    ...(restsForMs !== undefined && { restsForMs }),
  });
  const take = (ms: number): Promise<string> =>
    storage.database.transaction(async () => {
      now += ms;
      return 'done';
    });
  return { storage, rests, clock, take };
}

test.each([
  [100, 0.25, 300],
  [100, 0.5, 100],
  [100, 1, 0],
  [60_000, 0.25, 5_000],
])('%d ms at work, at a share of %d, are followed by %d ms of rest', (busy, share, rest) => {
  expect(restMs(busy, share)).toBe(rest);
});

test('a batch is followed by a rest, and short ones together by one', async () => {
  const { take, rests } = world();
  expect(await take(100)).toBe('done');
  expect(rests).toEqual([300]);
  await take(8);
  await take(8);
  expect(rests).toEqual([300]);
  await take(8);
  expect(rests).toEqual([300, 72]);
});

test('what was done is returned although the rest was cut short, and nobody rests after that', async () => {
  const stopping = new AbortController();
  const { take, rests } = world({ stopping });
  expect(await take(100)).toBe('done');
  expect(await take(100)).toBe('done');
  expect(rests).toEqual([300]);
});

test('work that must be done by a time rests until then, and no more', async () => {
  const { take, rests } = world({ restsForMs: 800 });
  await take(100);
  await take(299); // 699 + 897 of rest
  expect(rests).toEqual([300, 897]);
  await take(100);
  expect(rests).toHaveLength(2);
});

test.each([
  ['a millisecond before it', 799, 1],
  ['at it', 800, 0],
])('the time until which it rests: %s', async (_, ms, expected) => {
  const { take, rests } = world({ restsForMs: 800 });
  await take(ms);
  expect(rests).toHaveLength(expected);
});

test('a transaction that fails is not followed by a rest: its error comes at once', async () => {
  const { storage, rests } = world();
  const failing = storage.database.transaction(async () => {
    throw new Error('no');
  });
  await expect(failing).rejects.toThrow('no');
  expect(rests).toEqual([]);
});
