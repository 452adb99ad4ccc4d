/**
 * Bytes of content that one restore holds, counted. Half of the window is for sealed bytes that are on their way or
 * wait: they are asked for only when there is room, in order. The other half is for plain bytes of the file that is
 * being written, which are there because the reader has not taken them yet: those are only counted.
 * Where restores share a room, each unit is paid for there, from before it is asked for until it is written.
 */
import type { Holding, Room } from './room.ts';

export class Window {
  readonly #windowBytes: number;
  readonly #sealedMax: number;
  readonly #room: Room | null;
  readonly #entered: { holding: Holding; leave: () => void } | null;
  #sealed = 0;
  #plain = 0;
  #peak = 0;
  #waiting: { bytes: number; go: () => void } | null = null;

  /** @param room shared with other restores; `close` is to be called then */
  constructor(windowBytes: number, room: Room | null = null) {
    this.#windowBytes = windowBytes;
    this.#sealedMax = Math.floor(windowBytes / 2);
    this.#room = room;
    this.#entered = room?.enter() ?? null;
  }

  /** What is to be fetched together. An eighth: while one is written, one waits and two are on their way, in half of it. */
  get unitBytes(): number {
    return Math.ceil(Math.min(this.#windowBytes, this.#room?.shareBytes ?? Number.POSITIVE_INFINITY) / 8);
  }

  /**
   * Waits for room; what is larger than all of it waits until nothing else is held. One waits at a time.
   * @param bytes sealed ones. @param roomBytes what it may take at any time until it is written
   */
  async reserve(bytes: number, signal: AbortSignal, roomBytes = bytes): Promise<void> {
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
    if (this.#entered) await this.#room!.take(this.#entered.holding, roomBytes, signal);
    this.#sealed += bytes;
    this.#count();
  }

  /** A unit is written: others may have its room. */
  done(roomBytes: number): void {
    if (this.#entered) this.#room!.giveBack(this.#entered.holding, roomBytes);
  }

  /** Gives back all that is held of a shared room. To be called once, when nothing is reserved any more. */
  close(): void {
    if (!this.#entered) return;
    this.#room!.giveBack(this.#entered.holding, this.#entered.holding.held);
    this.#entered.leave();
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
