/**
 * Runs jobs side by side up to a total weight. `add` waits for room; the first error stops the pool and is thrown by
 * the next `add` or by `drain`.
 */
export class JobPool {
  readonly #capacity: number;
  #weight = 0;
  #failure: { error: unknown } | null = null;
  /** Woken whenever a job ends. */
  #waiting: (() => void)[] = [];

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  async add(weight: number, job: () => Promise<void>): Promise<void> {
    while (this.#weight > 0 && this.#weight + weight > this.#capacity && !this.#failure) await this.#oneEnded();
    this.#throwFailure();
    this.#weight += weight;
    void this.#run(weight, job);
  }

  async drain(): Promise<void> {
    await this.settle();
    this.#throwFailure();
  }

  /** Waits for what runs, whatever becomes of it. */
  async settle(): Promise<void> {
    while (this.#weight > 0) await this.#oneEnded();
  }

  async #run(weight: number, job: () => Promise<void>): Promise<void> {
    try {
      await job();
    } catch (error) {
      this.#failure ??= { error };
    }
    this.#weight -= weight;
    for (const wake of this.#waiting.splice(0)) wake();
  }

  #oneEnded(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  #throwFailure(): void {
    if (this.#failure) throw this.#failure.error;
  }
}
