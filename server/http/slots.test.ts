import { expect, test } from '@jest/globals';
import type { Problem } from '../../protocol/problems.ts';
import { Slots } from './slots.ts';

const bounds = { max: 3, perHolderMax: 2, waitersMax: 2, waitersPerHolderMax: 1, waitMs: 60_000, what: 'readings' };

const outcome = (taking: Promise<unknown>): Promise<string> =>
  taking.then(
    () => 'taken',
    (problem: Problem) => `${problem.code}: ${problem.message}`,
  );
const refused = 'overloaded: too many readings are under way';

test('one holder may have its share, and everybody all there are', async () => {
  const slots = new Slots({ ...bounds, waitMs: 20 });
  expect(await outcome(slots.take(1))).toBe('taken');
  expect(await outcome(slots.take(1))).toBe('taken');
  expect(await outcome(slots.take(1))).toBe(refused);
  expect(await outcome(slots.take('an address'))).toBe('taken');
  expect(await outcome(slots.take(2))).toBe(refused);
});

test('a slot that comes back goes to who waited longest and may have it', async () => {
  const slots = new Slots(bounds);
  const [first, , other] = [await slots.take(1), await slots.take(1), await slots.take(2)];
  const taken: string[] = [];
  const mine = slots.take(1).then(() => taken.push('mine'));
  const theirs = slots.take(2).then(() => taken.push('theirs'));
  other(); // the first waiter has its share already
  await theirs;
  first();
  await mine;
  expect(taken).toEqual(['theirs', 'mine']);
});

test('who goes while waiting leaves its place in the queue at once', async () => {
  const slots = new Slots({ ...bounds, max: 1 });
  const release = await slots.take(1);
  const [gone, going] = [AbortSignal.abort(new Error('gone')), new AbortController()];
  expect(await outcome(slots.take(2, gone))).toContain('gone');
  const leaving = outcome(slots.take(2, going.signal));
  const waiting = slots.take(3);
  expect(await outcome(slots.take(4))).toBe(refused);
  going.abort(new Error('gone'));
  expect(await leaving).toContain('gone');
  const last = slots.take(4); // the place that was left
  release();
  (await waiting)();
  const release4 = await last;
  going.abort();
  expect(await outcome(slots.take(2, AbortSignal.abort()))).not.toBe('taken'); // nothing was given back twice
  release4();
});

test('no more may wait than the bounds say, of one holder and of all', async () => {
  const slots = new Slots({ ...bounds, max: 1 });
  const release = await slots.take(1);
  const waiting = [slots.take(1), slots.take(2)];
  expect(await outcome(slots.take(1))).toBe(refused);
  expect(await outcome(slots.take(3))).toBe(refused);
  release();
  (await waiting[0]!)();
  (await waiting[1]!)();
  expect(await outcome(slots.take(3))).toBe('taken');
});

test('a slot that comes back goes to whoever has least, and of those to the one that waited longest', async () => {
  const slots = new Slots({ ...bounds, max: 3, perHolderMax: 3, waitersMax: 8, waitersPerHolderMax: 3 });
  const held = [await slots.take(1), await slots.take(1), await slots.take(2)];
  const order: (number | string)[] = [];
  const waiting = [1, 1, 2, 'new', 'other'].map((holder) =>
    slots.take(holder).then((release) => {
      order.push(holder);
      return release;
    }),
  );
  held[0]!(); // 1 and 2 have one each: somebody who has none comes first, though later
  held[1]!(); // now 1 has none, and waits for longest
  held[2]!();
  for (const each of [3, 0, 2, 4, 1]) (await waiting[each]!)();
  expect(order).toEqual(['new', 1, 2, 'other', 1]);
});
