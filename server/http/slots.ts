/** How many of one costly thing go on at a time, for everybody and for one device. Waiting is bounded and in order. */
import { Problem } from '../../protocol/problems.ts';

interface Waiter {
  device: number;
  admit: () => void;
}

export class Slots {
  readonly #max: number;
  readonly #perDeviceMax: number;
  readonly #waitMs: number;
  #taken = 0;
  readonly #byDevice = new Map<number, number>();
  readonly #waiters = new Set<Waiter>();

  constructor(settings: { max: number; perDeviceMax: number; waitMs: number }) {
    this.#max = settings.max;
    this.#perDeviceMax = settings.perDeviceMax;
    this.#waitMs = settings.waitMs;
  }

  /**
   * @returns gives the slot back; to be called once
   * @throws Problem overloaded when none came free within the wait
   */
  async take(device: number): Promise<() => void> {
    if (!this.#isFree(device)) await this.#wait(device);
    else this.#count(device, 1);
    return () => {
      this.#count(device, -1);
      this.#admitNext();
    };
  }

  #isFree(device: number): boolean {
    return this.#taken < this.#max && (this.#byDevice.get(device) ?? 0) < this.#perDeviceMax;
  }

  #count(device: number, change: 1 | -1): void {
    this.#taken += change;
    const held = (this.#byDevice.get(device) ?? 0) + change;
    if (held === 0) this.#byDevice.delete(device);
    else this.#byDevice.set(device, held);
  }

  #wait(device: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const waiter: Waiter = {
        device,
        admit: () => {
          clearTimeout(timer);
          this.#waiters.delete(waiter);
          this.#count(device, 1);
          resolve();
        },
      };
      const timer = setTimeout(() => {
        this.#waiters.delete(waiter);
        reject(new Problem('overloaded', 'too many fetches are under way', { retryAfterSeconds: 1 }));
      }, this.#waitMs);
      this.#waiters.add(waiter);
    });
  }

  #admitNext(): void {
    for (const waiter of this.#waiters) {
      if (this.#taken >= this.#max) return;
      if (this.#isFree(waiter.device)) waiter.admit();
    }
  }
}
