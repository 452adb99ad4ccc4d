import { expect, test } from '@jest/globals';
import { ConnectionSlots } from './connection-slots.ts';

test('slots are given in the order of asking, and giving one back twice gives one', async () => {
  const slots = new ConnectionSlots({ count: 1, waitMsMax: 10_000 });
  const order: number[] = [];
  const first = await slots.take();
  const waiting = [1, 2].map((n) =>
    slots.take().then((release) => {
      order.push(n);
      return release;
    }),
  );
  first();
  first();
  const second = await waiting[0]!;
  expect(order).toEqual([1]);
  second();
  (await waiting[1]!)();
  expect(order).toEqual([1, 2]);
  (await slots.take())();
});

test('whoever waits too long, or is aborted, leaves the queue', async () => {
  const slots = new ConnectionSlots({ count: 1, waitMsMax: 20 });
  const release = await slots.take();
  await expect(slots.take()).rejects.toMatchObject({ retryable: true, code: 'ConnectionsBusy' });
  const stop = new AbortController();
  const aborted = slots.take(stop.signal);
  stop.abort(new Error('enough'));
  await expect(aborted).rejects.toThrow('enough');
  await expect(slots.take(stop.signal)).rejects.toThrow('enough');
  release();
  (await slots.take())();
});
