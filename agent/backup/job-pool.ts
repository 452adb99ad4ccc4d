/**
 * Runs jobs side by side up to a total weight. `add` waits for room; the first error stops the pool and is thrown by
 * the next `add` or by `drain`.
 */
export class JobPool {
  readonly #capacity: number;
  readonly #jobs = new Set<Promise<void>>();
  #weight = 0;
  #failure: { error: unknown } | null = null;

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  async add(weight: number, job: () => Promise<void>): Promise<void> {
    while (this.#weight > 0 && this.#weight + weight > this.#capacity && !this.#failure) await Promise.race(this.#jobs);
    this.#throwFailure();
    this.#weight += weight;
    const running: Promise<void> = job()
      .catch((error: unknown) => {
        this.#failure ??= { error };
      })
      .finally(() => {
        this.#weight -= weight;
        this.#jobs.delete(running);
      });
    this.#jobs.add(running);
  }

  async drain(): Promise<void> {
    await this.settle();
    this.#throwFailure();
  }

  /** Waits for what runs, whatever becomes of it. */
  async settle(): Promise<void> {
    while (this.#jobs.size > 0) await Promise.all(this.#jobs);
  }

  #throwFailure(): void {
    if (this.#failure) throw this.#failure.error;
  }
}
