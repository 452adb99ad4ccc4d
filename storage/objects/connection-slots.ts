/**
 * A bound on requests in flight, kept outside the HTTP agent: waiting in the agent's own queue counts against the
 * connection's and the request's timeouts, so that a busy moment would look like a broken store.
 * A slot is held until the response's body is read or abandoned.
 */
import { ObjectStoreFault } from './object-store.ts';

export class ConnectionSlots {
  private free: number;
  private readonly waitMsMax: number;
  private readonly waiting = new Set<() => void>();

  constructor(options: { count: number; waitMsMax: number }) {
    this.free = options.count;
    this.waitMsMax = options.waitMsMax;
  }

  /**
   * Takes a slot, in the order of asking. Returns what gives it back, once however often it is called.
   * Throws a retryable fault after `waitMsMax`, or the signal's reason.
   */
  async take(signal?: AbortSignal): Promise<() => void> {
    signal?.throwIfAborted();
    if (this.free > 0) this.free--;
    else await this.wait(signal);
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      this.giveBack();
    };
  }

  private giveBack(): void {
    const [next] = this.waiting;
    if (!next) {
      this.free++;
      return;
    }
    this.waiting.delete(next);
    next();
  }

  private async wait(signal?: AbortSignal): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const giveUp = (reason: unknown) => {
      if (this.waiting.delete(resolve)) reject(reason);
    };
    this.waiting.add(resolve);
    const onAbort = () => giveUp(signal!.reason);
    signal?.addEventListener('abort', onAbort, { once: true });
    const timer = setTimeout(() => {
      const message = `no connection to the object store became free within ${this.waitMsMax} ms`;
      giveUp(new ObjectStoreFault(message, { retryable: true, code: 'ConnectionsBusy' }));
    }, this.waitMsMax);
    try {
      await promise;
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
    }
  }
}
