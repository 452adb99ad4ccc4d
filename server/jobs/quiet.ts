/** Keeps a fault that repeats many times a second, like a queue that is away, from filling the log. */

/**
 * Passes an error on when its message is a new one, or was last passed on `everyMs` ago.
 * @param now milliseconds of a monotonic clock
 */
export function quietly(
  report: (error: Error, repeated: number) => void,
  everyMs: number,
  now: () => number = () => performance.now(),
): (error: Error) => void {
  let last = { message: '', at: Number.NEGATIVE_INFINITY, repeated: 0 };
  return (error) => {
    const at = now();
    if (error.message === last.message && at - last.at < everyMs) {
      last.repeated++;
      return;
    }
    report(error, last.message === error.message ? last.repeated : 0);
    last = { message: error.message, at, repeated: 0 };
  };
}
