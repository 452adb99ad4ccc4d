import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { isSafe, type OpenBody } from './safe-state.ts';

const body = (heldBytes: number, neededBytes: number): OpenBody => ({ heldBytes, neededBytes });

test.each<[string, number, OpenBody[], boolean]>([
  ['nothing open', 0, [], true],
  ['one that fits exactly', 5, [body(0, 5)], true],
  ['one that does not', 4, [body(0, 5)], false],
  ['two halves that wait for each other', 1, [body(5, 2), body(5, 2)], false],
  ['two halves of which one can end first', 2, [body(5, 3), body(5, 2)], true],
  ['one that ends with what a whole one gives back', 0, [body(0, 5), body(5, 0)], true],
  ['one whose turn comes third', 1, [body(1, 6), body(3, 1), body(2, 4)], true],
  ['the same, one byte short', 1, [body(1, 7), body(3, 1), body(2, 4)], false],
])('%s', (_, free, bodies, safe) => {
  expect(isSafe(free, bodies)).toBe(safe);
});

test('says what trying every order says', () => {
  const orders = (bodies: OpenBody[]): OpenBody[][] =>
    bodies.length === 0
      ? [[]]
      : bodies.flatMap((first, i) => orders(bodies.toSpliced(i, 1)).map((rest) => [first, ...rest]));
  const endsInOrder = (free: number, order: OpenBody[]): boolean => {
    for (const each of order) {
      if (each.neededBytes > free) return false;
      free += each.heldBytes;
    }
    return true;
  };
  const bodies = fc.array(fc.record({ heldBytes: fc.nat(6), neededBytes: fc.nat(9) }), { maxLength: 5 });
  fc.assert(
    fc.property(fc.nat(9), bodies, (free, open) => {
      expect(isSafe(free, open)).toBe(orders(open).some((order) => endsInOrder(free, order)));
    }),
    { numRuns: 500 },
  );
});
