import { expect, test } from '@jest/globals';
import { inDigits, median, medianRatio, renderTable, summarize } from './statistics.ts';

test.each([
  [[3], 3],
  [[10, 2], 6],
  [[9, 1, 10], 9],
  [[4, 100, 1, 2], 3],
])('the median of %j is %d', (values, expected) => {
  const before = [...values];
  expect(median(values)).toBe(expected);
  expect(values).toEqual(before);
});

test('no values have no median', () => {
  expect(() => median([])).toThrow(RangeError);
});

test('a summary holds the median and the extremes', () => {
  expect(summarize([5, 1, 2])).toEqual({ median: 2, min: 1, max: 5 });
});

test('a ratio is taken round by round: a slow spell that hits both sides does not move it', () => {
  expect(medianRatio([100, 10, 100], [200, 20, 200])).toBe(0.5);
  expect(medianRatio([100, 10, 60], [200, 20, 60])).toBe(0.5);
  expect(() => medianRatio([1], [1, 2])).toThrow(/1 rounds beside 2/);
});

test.each([
  [1234.5, '1235'],
  [99.96, '100'],
  [12.34, '12.3'],
  [9.996, '10.0'],
  [1.234, '1.23'],
  [0, '0.00'],
  [-12.34, '-12.3'],
  [Number.POSITIVE_INFINITY, '-'],
  [Number.NaN, '-'],
])('%d is written %s', (value, text) => {
  expect(inDigits(value)).toBe(text);
});

test('a table is aligned: words left, figures right', () => {
  expect(
    renderTable(
      ['', 'MB/s'],
      [
        ['upload', '7'],
        ['read', '1234567'],
      ],
    ),
  ).toBe(['           MB/s', '------  -------', 'upload        7', 'read    1234567'].join('\n'));
});
