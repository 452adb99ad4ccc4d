/**
 * Lets transactions linger where they hold rows of which others want some too, and are about to want more: so that those
 * pile up behind them, and a lock that is taken in another order than everybody's meets its counterpart.
 */
import type { Random } from '../helpers/random.ts';
import type { Scheduler } from './scheduler.ts';

/** Statements, and how often a transaction lingers just before one. */
const placesToLinger: Record<string, number> = {
  // Block rows are locked, or some of the objects are.
  'objects.takeLiveBytes': 0.7,
  'objects.buryEmpty': 0.3,
  'blocks.addRefs': 0.12,
  'blocks.takeRefs': 0.12,
};

export function linger(scheduler: Scheduler, random: Random, name: string): void {
  const share = placesToLinger[name];
  if (share && random.chance(share)) scheduler.task().asleepUntil = scheduler.steps + 30 + random.below(170);
}
