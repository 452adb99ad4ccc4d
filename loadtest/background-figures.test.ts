import { expect, test } from '@jest/globals';
import { type BackgroundProgress, compareRounds, progressBetween, type Round } from './background-figures.ts';

const round = (before: number, beside: number, after: number, verify = 5): Round => ({
  before: { megabytesPerSecond: before, background: null },
  beside: { megabytesPerSecond: beside, background: { prune: 1, reclaim: 2, compact: 3, verify } },
  after: { megabytesPerSecond: after, background: null },
});

const progress = (prune: number, idle: BackgroundProgress['idle'] = []): BackgroundProgress => ({
  done: { prune, reclaim: prune * 2, compact: prune * 3, verify: prune * 4 },
  idle,
  peakMemoryMiB: 100,
});

test('each round is compared with its own neighbours, and the median of the rounds counts', () => {
  const compared = compareRounds([round(100, 80, 100), round(40, 30, 80), round(100, 10, 100, 7)]);
  expect(compared.ratios).toEqual([0.8, 0.5, 0.1]);
  expect(compared.ratio).toBe(0.5);
  expect(compared.alone).toEqual({ median: 100, min: 40, max: 100 });
  expect(compared.beside).toEqual({ median: 30, min: 10, max: 80 });
  expect(compared.background).toEqual({ prune: 1, reclaim: 2, compact: 3, verify: 5 });
});

test('no rounds are nothing to compare', () => {
  expect(() => compareRounds([])).toThrow(RangeError);
});

test('progress is counted per second', () => {
  expect(progressBetween(progress(10), progress(30), 4)).toEqual({ prune: 5, reclaim: 10, compact: 15, verify: 20 });
});

test('a measurement beside work that ran out, or that did not happen, is refused', () => {
  expect(() => progressBetween(progress(10), progress(30, ['compact']), 4)).toThrow('compact ran out of work');
  expect(() => progressBetween(progress(10), progress(10), 4)).toThrow('prune did nothing');
});
