/** Brings a hold and a deleter of versions together, at the moments at which they must not miss one another. */
import type { Random } from '../helpers/random.ts';
import type { Scheduler } from './scheduler.ts';

/** Where an operator waits for a reason to do something. */
export const operatorWaits = 'operator';

/** Statements of a deleter of versions, and how often a hold is placed just when one stands before it. */
const placesToMeet: Record<string, number> = {
  'vaults.lock': 0.08,
  'archives.lockForDeleting': 0.02,
  'versions.delete': 0.15,
};

/** Sees deleters of versions come to the places where a hold matters most, and now and then wakes an operator there. */
export class DeleterWatch {
  readonly #scheduler: Scheduler;
  readonly #random: Random;
  #met: { vault: number } | null = null;

  constructor(scheduler: Scheduler, random: Random) {
    this.#scheduler = scheduler;
    this.#random = random;
  }

  /** Told of every statement before it waits for its turn. */
  onStatement(name: string, values: readonly unknown[]): void {
    const share = placesToMeet[name];
    const task = this.#scheduler.task();
    if (!share || task.operation !== 'prune' || !this.#random.chance(share)) return;
    this.#met = { vault: values[0] as number };
    this.#scheduler.wake(operatorWaits);
    // Half of the time the deleter is slow, so that all of it falls between two of its looks.
    if (this.#random.chance(0.5)) task.asleepUntil = this.#scheduler.steps + 20 + this.#random.below(150);
  }

  /** A deleter that was met and that no operator has come for. */
  take(): { vault: number } | null {
    const met = this.#met;
    this.#met = null;
    return met;
  }
}
