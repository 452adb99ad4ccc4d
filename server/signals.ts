/**
 * SIGTERM and Ctrl-C: the first asks the server to stop in order, a second one, at least a second later, ends the
 * process at once. npm passes a Ctrl-C on that the terminal has sent already, so one that follows at once is the same.
 */
const sameWithinMs = 1_000;
const exitCodes = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;

export interface StopSignal {
  /** Resolves with the signal's name. */
  readonly received: Promise<string>;
  readonly aborted: AbortSignal;
}

export interface StopOptions {
  /** Called before the process ends at once. */
  onImpatience: () => void;
  /**
   * Whether to stop when the process that started us is gone. npm passes signals on to a shell between us and it, and
   * that shell ends without telling us.
   */
  withParent: boolean;
}

const parentCheckMs = 250;

export function listenForStop({ onImpatience, withParent }: StopOptions): StopSignal {
  const { promise: received, resolve } = Promise.withResolvers<string>();
  const abort = new AbortController();
  let firstAt: number | null = null;
  for (const [signal, code] of Object.entries(exitCodes)) {
    process.on(signal, () => {
      const now = performance.now();
      if (firstAt === null) {
        firstAt = now;
        abort.abort(new Error(`stopped by ${signal}`));
        resolve(signal);
      } else if (now - firstAt >= sameWithinMs) {
        onImpatience();
        process.exit(code);
      }
    });
  }
  const parent = process.ppid;
  if (withParent) {
    const timer = setInterval(() => {
      if (process.ppid === parent) return;
      clearInterval(timer);
      if (firstAt === null) process.emit('SIGTERM');
    }, parentCheckMs).unref();
  }
  return { received, aborted: abort.signal };
}
