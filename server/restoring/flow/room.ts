/**
 * The memory that all restores of a process share, so that any number of them can be under way, each with less of it. What
 * must stay true:
 * - what is taken is never more than there is, but for one that is alone with more than all of it;
 * - whoever holds nothing gets what it needs next before others read ahead, in the order in which they asked: so everybody
 *   gets on, and none waits for another's reader for longer than what that one holds takes;
 * - a quarter stays for those who need little, however much others hold for readers that are slow.
 */

const MiB = 1024 * 1024;
/** Less would be a request to the store for each block. */
const shareBytesMin = MiB;

/** What one restore has of it. */
export interface Holding {
  held: number;
}

interface Waiter {
  bytes: number;
  holding: Holding;
  admit: () => void;
}

export class Room {
  readonly #totalBytes: number;
  #free: number;
  #users = 0;
  /** Those that hold nothing, in the order in which they asked. */
  readonly #first = new Set<Waiter>();
  /** Those that would read ahead. */
  readonly #ahead = new Set<Waiter>();

  constructor(totalBytes: number) {
    this.#totalBytes = totalBytes;
    this.#free = totalBytes;
  }

  /** @returns ends it: to be called once, when it holds nothing any more */
  enter(): { holding: Holding; leave: () => void } {
    this.#users++;
    return {
      holding: { held: 0 },
      leave: () => {
        this.#users--;
        this.#admitNext();
      },
    };
  }

  /** What a restore holds by reading ahead, at most, while so many are under way: one share more is always left. */
  get shareBytes(): number {
    return Math.max(shareBytesMin, Math.floor(this.#totalBytes / (this.#users + 1)));
  }

  get freeBytes(): number {
    return this.#free;
  }

  /**
   * Waits until there is room for what is asked for next; of a holder one waits at a time.
   * @throws the signal's reason: then nothing was taken
   */
  async take(holding: Holding, bytes: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const queue = holding.held === 0 ? this.#first : this.#ahead;
    const isTurn = queue === this.#first ? this.#isFirstsTurn(bytes) : this.#isAheadsTurn(holding, bytes);
    if (isTurn) return this.#hold(holding, bytes);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const waiter: Waiter = { bytes, holding, admit: resolve };
    // In this very turn: whoever stops it gives back what it holds right after, and nobody would take what it were given then.
    const onAbort = (): void => {
      if (!this.#first.delete(waiter) && !this.#ahead.delete(waiter)) return;
      reject(signal.reason);
      this.#admitNext(); // those behind it may have their turn now
    };
    queue.add(waiter);
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      await promise;
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  giveBack(holding: Holding, bytes: number): void {
    holding.held -= bytes;
    this.#free += bytes;
    this.#admitNext();
  }

  #hold(holding: Holding, bytes: number): void {
    holding.held += bytes;
    this.#free -= bytes;
  }

  /** Those that need much take turns, and leave a quarter; those that need little pass them. */
  #isFirstsTurn(bytes: number): boolean {
    if (this.#free === this.#totalBytes) return true;
    if (this.#isLittle(bytes)) return bytes <= this.#free;
    const isBlocked = this.#first.values().some((waiter) => !this.#isLittle(waiter.bytes));
    return !isBlocked && this.#fitsMuch(bytes);
  }

  #isLittle(bytes: number): boolean {
    return bytes <= this.shareBytes;
  }

  #fitsMuch(bytes: number): boolean {
    return bytes <= this.#free - this.#totalBytes / 4;
  }

  #isAheadsTurn({ held }: Holding, bytes: number): boolean {
    return this.#first.size === 0 && held + bytes <= this.shareBytes && bytes <= this.#free;
  }

  #admitNext(): void {
    let isBlocked = false;
    for (const waiter of this.#first) {
      const { bytes } = waiter;
      const fits = this.#isLittle(bytes) ? bytes <= this.#free : !isBlocked && this.#fitsMuch(bytes);
      if (fits || this.#free === this.#totalBytes) this.#admit(waiter);
      else if (!this.#isLittle(bytes)) isBlocked = true;
    }
    // What it held while it waited may be given back by now: it then goes before those that read ahead.
    for (const waiter of this.#ahead) {
      const { bytes, holding } = waiter;
      if (holding.held === 0 ? this.#isFirstsTurn(bytes) : this.#isAheadsTurn(holding, bytes)) this.#admit(waiter);
      else if (holding.held === 0) {
        this.#ahead.delete(waiter);
        this.#first.add(waiter);
      }
    }
  }

  #admit(waiter: Waiter): void {
    this.#first.delete(waiter);
    this.#ahead.delete(waiter);
    this.#hold(waiter.holding, waiter.bytes);
    waiter.admit();
  }
}
