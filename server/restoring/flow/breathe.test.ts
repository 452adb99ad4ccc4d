/** Whose turn it is: restores one at a time, in the order in which they ask, and everybody else in between. */
import { expect, test } from '@jest/globals';
import { breathe } from './breathe.ts';

/** Works for so long, without a pause. @returns how long it took: more, when the machine is busy */
function spin(ms: number): number {
  const from = performance.now();
  while (performance.now() < from + ms);
  return performance.now() - from;
}

test('restores take turns, and what others have to do is done between two steps', async () => {
  const seen: string[] = [];
  const tookMs = { others: 0, restores: 0 };
  let isOver = false;
  const other = (): void => {
    seen.push('other');
    tookMs.others += spin(0.5);
    if (!isOver) setImmediate(other);
  };
  const restore = async (name: string): Promise<void> => {
    for (let step = 0; step < 5; step++) {
      tookMs.restores += Math.min(spin(2), 5); // what a busy machine adds to it is owed to nobody
      await breathe();
      seen.push(name);
    }
  };
  setImmediate(other);
  await Promise.all(['a', 'b', 'c'].map(restore));
  isOver = true;
  expect(seen.filter((name) => name !== 'other').join('')).toBe('abc'.repeat(5));
  // Between any two steps, more than once.
  expect(tookMs.others / tookMs.restores).toBeGreaterThan(2.5);
  const between = seen.join(' ').split(/[abc]/).slice(1, -1);
  for (const others of between) expect(others.match(/other/g)?.length).toBeGreaterThan(1);
});

test('work that has just begun goes on at once; what has lasted waits for a turn', async () => {
  spin(2);
  expect(breathe()).toBeInstanceOf(Promise);
  await breathe();
  expect(breathe()).toBeUndefined();
  spin(2);
  const waits = breathe();
  expect(waits).toBeInstanceOf(Promise);
  expect(breathe()).toBeInstanceOf(Promise); // behind the one that waits, however short its own work
  await waits;
});
