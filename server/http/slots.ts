/**
 * How many of one costly thing go on at a time, for everybody and for one holder. Waiting is bounded, in time and in
 * number. What comes free goes to whoever has least of it, and of those to the one that waited longest: so many who ask
 * for several each get as much as each other.
 */
import { Problem } from '../../protocol/problems.ts';

/** Who is counted: a device's id, or the address of somebody who is no device yet. */
type Holder = number | string;

interface Waiter {
  holder: Holder;
  admit: () => void;
}

export interface SlotSettings {
  /** For everybody, and for one holder. */
  max: number;
  perHolderMax: number;
  /** How many may wait, of everybody and of one holder, and how long each. */
  waitersMax: number;
  waitersPerHolderMax: number;
  waitMs: number;
  /** What is counted, in the plural, for the problem's detail. */
  what: string;
}

export class Slots {
  readonly #settings: SlotSettings;
  #taken = 0;
  readonly #byHolder = new Map<Holder, number>();
  readonly #waiters = new Set<Waiter>();

  constructor(settings: SlotSettings) {
    this.#settings = settings;
  }

  /**
   * @param signal ends the wait: who has gone keeps nobody else from waiting
   * @returns gives the slot back; to be called once
   * @throws Problem overloaded when none came free within the wait, or too many wait already; the signal's reason
   */
  async take(holder: Holder, signal?: AbortSignal): Promise<() => void> {
    if (!this.#isFree(holder)) await this.#wait(holder, signal);
    else this.#count(holder, 1);
    return () => {
      this.#count(holder, -1);
      this.#admitNext();
    };
  }

  #isFree(holder: Holder): boolean {
    const { max, perHolderMax } = this.#settings;
    return this.#taken < max && (this.#byHolder.get(holder) ?? 0) < perHolderMax;
  }

  #count(holder: Holder, change: 1 | -1): void {
    this.#taken += change;
    const held = (this.#byHolder.get(holder) ?? 0) + change;
    if (held === 0) this.#byHolder.delete(holder);
    else this.#byHolder.set(holder, held);
  }

  #wait(holder: Holder, signal?: AbortSignal): Promise<void> {
    const { waitersMax, waitersPerHolderMax, waitMs, what } = this.#settings;
    const overloaded = () => new Problem('overloaded', `too many ${what} are under way`, { retryAfterSeconds: 1 });
    let waiting = 0;
    for (const waiter of this.#waiters) if (waiter.holder === holder) waiting++;
    if (this.#waiters.size >= waitersMax || waiting >= waitersPerHolderMax) return Promise.reject(overloaded());
    if (signal?.aborted) return Promise.reject(signal.reason);
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', onGone);
        this.#waiters.delete(waiter);
      };
      const waiter: Waiter = {
        holder,
        admit: () => {
          leave();
          this.#count(holder, 1);
          resolve();
        },
      };
      const onGone = (): void => {
        leave();
        reject(signal?.reason);
      };
      const timer = setTimeout(() => {
        leave();
        reject(overloaded());
      }, waitMs);
      signal?.addEventListener('abort', onGone);
      this.#waiters.add(waiter);
    });
  }

  #admitNext(): void {
    while (this.#taken < this.#settings.max) {
      let next: Waiter | null = null;
      let least = this.#settings.perHolderMax;
      for (const waiter of this.#waiters) {
        const held = this.#byHolder.get(waiter.holder) ?? 0;
        if (held >= least) continue;
        next = waiter;
        least = held;
        if (held === 0) break;
      }
      if (!next) return;
      next.admit();
    }
  }
}
