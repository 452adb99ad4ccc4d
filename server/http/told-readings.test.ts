/** Which readings go on without another act. */
import { expect, test } from '@jest/globals';
import { type Reading, ToldReadings, toldForMs } from './told-readings.ts';

const reading: Reading = {
  device: 1,
  address: '127.0.0.1',
  vault: 2,
  archive: 3,
  path: Buffer.from('/a'),
  moment: { seq: 4, deleted: false },
};

test('for an hour, and not a moment longer, however often it goes on', () => {
  let now = 0;
  const told = new ToldReadings(() => now);
  expect(told.has(reading)).toBe(false);
  told.add(reading);
  for (; now < toldForMs; now += toldForMs / 4) expect(told.has(reading)).toBe(true);
  expect(told.has(reading)).toBe(false);
  told.add(reading);
  expect(told.has(reading)).toBe(true);
});

test.each<[what: string, other: Partial<Reading>]>([
  ['another device', { device: 5 }],
  ['another address', { address: '127.0.0.2' }],
  ['another vault', { vault: 5 }],
  ['another archive', { archive: 5 }],
  ['another path', { path: Buffer.from('/ab') }],
  ['another moment', { moment: { seq: 5, deleted: false } }],
  ['deleted files too', { moment: { seq: 4, deleted: true } }],
  ['a history', { moment: null }],
])('not of %s', (_, other) => {
  const told = new ToldReadings();
  told.add(reading);
  expect([told.has(reading), told.has({ ...reading, ...other })]).toEqual([true, false]);
});

test('ten thousand are known; of more the oldest is forgotten, and one that was written again is not the oldest', () => {
  const told = new ToldReadings();
  const nth = (device: number): Reading => ({ ...reading, device });
  for (let i = 0; i < 10_000; i++) told.add(nth(i));
  told.add(nth(0));
  expect([told.has(nth(0)), told.has(nth(1))]).toEqual([true, true]);
  told.add(nth(10_000));
  expect([told.has(nth(0)), told.has(nth(1)), told.has(nth(2))]).toEqual([true, false, true]);
});
