/**
 * Lets others have their turn: work of many short steps asks after each, and waits for the loop's next turn when this
 * one has lasted some milliseconds. One clock for all restores of the process: each by itself would stop in time, and
 * all of them together would not.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';

const turnMs = 4;
let turnBegan = performance.now();
let next: Promise<void> | null = null;

export function breathe(): Promise<void> | undefined {
  if (performance.now() - turnBegan < turnMs) return undefined;
  next ??= nextTurn().then(() => {
    turnBegan = performance.now();
    next = null;
  });
  return next;
}
