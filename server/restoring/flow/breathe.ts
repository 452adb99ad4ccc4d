/**
 * Lets others have their turn: work of many short steps asks after each, and waits when this turn of the loop has lasted
 * long enough, or when others wait already. One clock and one queue for all restores of the process, whether they open
 * blocks or write answers: each by itself would stop in time, and all of them together would not. Those that wait go on one
 * at a time, in the order in which they came; in between everybody else (backups) has a share of the processor's time, if
 * there is something to do.
 */

/** A step is up to a block of 1 MiB opened, about as long. */
const turnMs = 1;
/**
 * What others have for each millisecond of ours. Of theirs a part is ours as well (what our readers acknowledge, what comes
 * from the store), and a backup takes many turns of the loop where a restore takes one: with 1 backups beside a hundred
 * restores kept 0.4 of their rate, with 3 half and more.
 */
const othersShare = 3;
/** No step is longer: a process that was stopped for a while owes nobody all of that. */
const ownMsMax = 5;
/** A turn as short as this is one in which nobody had anything to do. */
const emptyTurnMs = 0.05;

/** When the last of us had its turn, until when it took, and what others had to have after it. */
const last = { began: performance.now(), ended: performance.now(), owedMs: 0 };
const waiting: (() => void)[] = [];
let isTicking = false;

export function breathe(): Promise<void> | undefined {
  if (waiting.length === 0 && performance.now() - last.began < turnMs) return undefined;
  const { promise, resolve } = Promise.withResolvers<void>();
  waiting.push(resolve);
  if (!isTicking) {
    isTicking = true;
    // Time has passed since, and was others' to use.
    const now = performance.now();
    afterOthers(now, last.owedMs - (now - last.ended));
  }
  return promise;
}

function afterOthers(before: number, owedMs: number): void {
  setImmediate(() => {
    const now = performance.now();
    const tookMs = now - before;
    if (tookMs < owedMs && tookMs > emptyTurnMs) return afterOthers(now, owedMs - tookMs);
    last.began = now;
    waiting.shift()!();
    endOurs();
  });
}

/** The rest of that turn of the loop is ours still: what was written is encrypted in it. */
function endOurs(): void {
  setImmediate(() => {
    last.ended = performance.now();
    last.owedMs = Math.min(last.ended - last.began, ownMsMax) * othersShare;
    if (waiting.length > 0) afterOthers(last.ended, last.owedMs);
    else isTicking = false;
  });
}
