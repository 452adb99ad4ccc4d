/** Remembers the hashes seen last, in bounded memory: at least `least` of them, at most twice as many. */
export class RecentHashes {
  readonly #least: number;
  #young = new Set<string>();
  #old = new Set<string>();

  constructor(least: number) {
    this.#least = least;
  }

  has(key: string): boolean {
    return this.#young.has(key) || this.#old.has(key);
  }

  add(key: string): void {
    this.#young.add(key);
    if (this.#young.size < this.#least) return;
    this.#old = this.#young;
    this.#young = new Set();
  }

  clear(): void {
    this.#young = new Set();
    this.#old = new Set();
  }

  delete(key: string): void {
    this.#young.delete(key);
    this.#old.delete(key);
  }
}
