import { expect, test } from '@jest/globals';
import { quietly } from './quiet.ts';

test('the same error is told once in a while, with how often it came meanwhile; another at once', () => {
  let now = 0;
  const told: string[] = [];
  const report = quietly(
    (error, repeated) => told.push(`${error.message} ${repeated}`),
    1_000,
    () => now,
  );
  for (const [at, message] of [
    [0, 'a'],
    [10, 'a'],
    [20, 'a'],
    [999, 'a'],
    [1_000, 'a'],
    [1_001, 'b'],
    [1_002, 'b'],
    [1_003, 'a'],
  ] as const) {
    now = at;
    report(new Error(message));
  }
  expect(told).toEqual(['a 0', 'a 3', 'b 0', 'a 0']);
});
