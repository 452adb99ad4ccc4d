import { expect, test } from '@jest/globals';
import { RateMeter } from './rate-meter.ts';

const make = () => new RateMeter({ overMs: 1_000, bytesPerSecondMin: 1_000 });

test('nobody is slow before a second of turns, however little came', () => {
  const meter = make();
  meter.resume(0);
  expect(meter.isSlow(999)).toBe(false);
  expect(meter.isSlow(1_000)).toBe(true);
});

test('time between turns does not count', () => {
  const meter = make();
  meter.resume(0);
  meter.pause(500);
  expect(meter.isSlow(60_000)).toBe(false);
  meter.resume(60_000);
  expect(meter.isSlow(60_499)).toBe(false);
  expect(meter.isSlow(60_500)).toBe(true);
  expect(meter.activeMs(60_500)).toBe(1_000);
});

test('a burst counts for about a second and no longer', () => {
  const meter = make();
  meter.resume(0);
  meter.add(1_000_000, 50);
  expect(meter.isSlow(1_000)).toBe(false);
  expect(meter.isSlow(1_200)).toBe(true);
});

test.each([
  [990, true],
  [1_010, false],
])('a steady %i bytes per second: slow is %s', (rate, slow) => {
  const meter = make();
  meter.resume(0);
  for (let at = 0; at < 10_000; at += 100) meter.add(rate / 10, at);
  expect(meter.isSlow(9_999)).toBe(slow);
});

test('silence is counted in turns from the last byte', () => {
  const meter = make();
  meter.resume(0);
  meter.add(1, 400);
  expect(meter.silentMs(1_000)).toBe(600);
  meter.pause(1_000);
  expect(meter.silentMs(9_000)).toBe(600);
  meter.resume(9_000);
  meter.forgive(500, 9_500);
  expect(meter.silentMs(9_500)).toBe(600);
});
