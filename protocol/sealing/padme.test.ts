import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { padme } from '../vectors/second-implementation.ts';
import { padmeLength } from './padme.ts';

test('padding never shortens, costs at most 12 %, is idempotent and agrees with the binary definition', () => {
  fc.assert(
    fc.property(fc.nat({ max: 2 ** 31 - 1 }), (length) => {
      const padded = padmeLength(length);
      expect(padded).toBeGreaterThanOrEqual(length);
      expect(padded).toBeLessThanOrEqual(length * 1.12 + 1);
      expect(padded).toBe(padme(length));
      if (padded < 2 ** 31) expect(padmeLength(padded)).toBe(padded);
    }),
    { numRuns: 2000 },
  );
});

test('few lengths remain: all of 1 to 100,000 become fewer than 300', () => {
  const padded = new Set<number>();
  for (let length = 1; length <= 100_000; length++) padded.add(padmeLength(length));
  expect(padded.size).toBeLessThan(300);
});

test('what is no length is refused', () => {
  for (const length of [-1, 0.5, 2 ** 31, Number.NaN]) expect(() => padmeLength(length)).toThrow(RangeError);
});
