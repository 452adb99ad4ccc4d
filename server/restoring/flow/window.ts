/**
 * Bytes of content that one restore holds, counted. Half of the window is for sealed bytes that are on their way or
 * wait: they are asked for only when there is room, in order. The other half is for plain bytes of the file that is
 * being written, which are there because the reader has not taken them yet: those are only counted.
 */
export class Window {
  readonly #sealedMax: number;
  #sealed = 0;
  #plain = 0;
  #peak = 0;
  #waiting: { bytes: number; go: () => void } | null = null;

  constructor(windowBytes: number) {
    this.#sealedMax = Math.floor(windowBytes / 2);
  }

  /** Waits for room; what is larger than all of it waits until nothing else is held. One waits at a time. */
  async reserve(bytes: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (!this.#fits(bytes)) {
      const { promise, resolve } = Promise.withResolvers<void>();
      const go = (): void => resolve();
      this.#waiting = { bytes, go };
      signal.addEventListener('abort', go, { once: true });
      await promise;
      signal.removeEventListener('abort', go);
      this.#waiting = null;
      signal.throwIfAborted();
    }
    this.#sealed += bytes;
    this.#count();
  }

  free(bytes: number): void {
    this.#sealed -= bytes;
    if (this.#waiting && this.#fits(this.#waiting.bytes)) this.#waiting.go();
  }

  holdPlain(bytes: number): void {
    this.#plain += bytes;
    this.#count();
  }

  freePlain(bytes: number): void {
    this.#plain -= bytes;
  }

  get held(): number {
    return this.#sealed + this.#plain;
  }

  /** Most bytes that were held at a time. */
  get peak(): number {
    return this.#peak;
  }

  #fits(bytes: number): boolean {
    return this.#sealed === 0 || this.#sealed + bytes <= this.#sealedMax;
  }

  #count(): void {
    this.#peak = Math.max(this.#peak, this.held);
  }
}
