/**
 * Hearing what transactions tell each other (NOTIFY), on one connection of its own that is made again when it is lost. What
 * was told meanwhile is lost with it: so whoever listens looks at the rows whenever it is connected, and now and then besides.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';

export interface Ears {
  heard(payload: string): void;
  /** Listening, for the first time or again: anything may have been told before. */
  connected(): void;
}

export interface Listening {
  readonly isConnected: boolean;
  close(): Promise<void>;
}

/** A connection that swallows everything is found out after at most this and `answerMs`. */
const askEveryMs = 30_000;
const answerMs = 10_000;
const retryMsMax = 5_000;
const closeMs = 1_000;

/** @param channel a plain name */
export function listen(config: pg.ClientConfig, channel: string, ears: Ears): Listening {
  const closing = new AbortController();
  let isConnected = false;

  const once = async (): Promise<void> => {
    const mine = new pg.Client({ ...config, keepAlive: true, query_timeout: answerMs });
    const { promise: lost, resolve: onLost } = Promise.withResolvers<void>();
    // Without a listener a lost connection ends the process.
    mine.on('error', () => onLost());
    mine.on('end', () => onLost());
    mine.on('notification', ({ payload }) => ears.heard(payload ?? ''));
    try {
      await mine.connect();
      await mine.query(`LISTEN ${pg.escapeIdentifier(channel)}`);
      isConnected = true;
      ears.connected();
      let isLost = false;
      const over = lost.then(() => {
        isLost = true;
      });
      while (!isLost && !closing.signal.aborted) {
        const timer = new AbortController();
        const waiting = AbortSignal.any([timer.signal, closing.signal]);
        await Promise.race([over, sleep(askEveryMs, undefined, { signal: waiting, ref: false }).catch(() => {})]);
        timer.abort();
        if (!isLost && !closing.signal.aborted) await mine.query('SELECT');
      }
    } finally {
      isConnected = false;
      // One that does not answer is not waited for.
      void mine.end().catch(() => {});
    }
  };

  const ended = (async () => {
    for (let tries = 0; !closing.signal.aborted; tries++) {
      const begun = performance.now();
      await once().catch(() => {});
      if (performance.now() - begun > askEveryMs) tries = 0;
      const waitMs = Math.random() * Math.min(retryMsMax, 100 * 2 ** Math.min(tries, 10));
      if (!closing.signal.aborted)
        await sleep(waitMs, undefined, { signal: closing.signal, ref: false }).catch(() => {});
    }
  })();

  return {
    get isConnected() {
      return isConnected;
    },
    async close() {
      closing.abort();
      // One that is being made, or does not answer, ends by its own time limit.
      await Promise.race([ended, sleep(closeMs, undefined, { ref: false })]);
    },
  };
}
