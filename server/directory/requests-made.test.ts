import { createHash } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { type TestStorage, testStorage } from '../../tests/helpers/storage.ts';
import { forgetRequestsMade, madeOnce } from './requests-made.ts';

let storage: TestStorage;
beforeAll(async () => {
  storage = await testStorage();
});
afterAll(() => storage?.close());

const sha256 = (text: string): Buffer => createHash('sha256').update(text).digest();
const request = (key: string, asked = 'this') => ({ requester: 'user 1', key, sha256: sha256(asked) });

let made = 0;
const once = (key: string, asked?: string) =>
  storage.database.transaction((tx) =>
    madeOnce(tx, request(key, asked), async () => {
      made++;
      return { status: 201, answer: { made } };
    }),
  );

test('is made once, however often it is asked for', async () => {
  const first = await once('a');
  expect(first).toEqual({ status: 201, answer: { made: 1 }, repeated: false });
  expect(await once('a')).toEqual({ ...first, repeated: true });
  expect(made).toBe(1);
  await expect(once('a', 'something else')).rejects.toMatchObject({ code: 'idempotency_key_reused' });
});

test('what was rolled back was not made', async () => {
  const failing = storage.database.transaction((tx) =>
    madeOnce(tx, request('b'), async () => {
      throw new Error('not today');
    }),
  );
  await expect(failing).rejects.toThrow('not today');
  expect(await once('b')).toMatchObject({ repeated: false });
});

test('the second of two at once waits, and is answered as the first', async () => {
  const before = made;
  let finish = (): void => {};
  const held = new Promise<void>((resolve) => {
    finish = resolve;
  });
  let begun = (): void => {};
  const started = new Promise<void>((resolve) => {
    begun = resolve;
  });
  const first = storage.database.transaction((tx) =>
    madeOnce(tx, request('c'), async () => {
      begun();
      await held;
      made++;
      return { status: 200, answer: 'the first' };
    }),
  );
  await started;
  const second = once('c');
  await new Promise((resolve) => setTimeout(resolve, 100));
  expect(made).toBe(before);
  finish();
  expect([(await first).repeated, await second]).toEqual([false, { status: 200, answer: 'the first', repeated: true }]);
  expect(made).toBe(before + 1);
});

test('is forgotten after its time, and not before', async () => {
  await storage.rows(`UPDATE requests_made SET made_at = now() - interval '1 hour' WHERE key IN ('a', 'b')`);
  expect(await forgetRequestsMade(storage.database, 2 * 3_600_000)).toBe(0);
  expect(await forgetRequestsMade(storage.database, 1_800_000)).toBe(2);
  expect(await once('c')).toMatchObject({ repeated: true });
  expect(await once('a')).toMatchObject({ repeated: false });
});
