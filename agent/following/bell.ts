/** Waiting for something to do: until it rings, or time is up, or the signal says so. For one who waits. */
export class Bell {
  #wake: (() => void) | null = null;
  #rung = false;

  ring(): void {
    this.#rung = true;
    this.#wake?.();
  }

  /** Resolves at once when it rang since it was last waited for. */
  async wait(ms: number, signal: AbortSignal): Promise<void> {
    if (!this.#rung && !signal.aborted && ms > 0) {
      const { promise, resolve } = Promise.withResolvers<void>();
      const stop = (): void => resolve();
      const timer = setTimeout(resolve, Math.min(ms, 2 ** 31 - 1)); // setTimeout takes no more
      signal.addEventListener('abort', stop, { once: true });
      this.#wake = resolve;
      await promise;
      this.#wake = null;
      clearTimeout(timer);
      signal.removeEventListener('abort', stop);
    }
    this.#rung = false;
  }
}
