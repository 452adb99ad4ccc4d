/**
 * Keeps deleting and rewriting from taking what backups need: whoever works on a storage like this one rests after each
 * batch, in proportion to how long the batch took. So a batch that was slow because the machine is busy is followed by
 * a longer rest, and a worker with much to do takes a set share of one connection, and not all there is. It rests
 * between transactions, never in one: no lock is held meanwhile.
 */

import type { Storage } from '../../storage.ts';
import { type PaceClock, systemPaceClock } from '../checking/byte-pace.ts';

export interface BackgroundOptions {
  /** Of its time, what the work has at most: above 0, and 1 for no rests. */
  share: number;
  /** Work that must be done by a time rests no more once it has been at it for so long. Left out: it always rests. */
  restsForMs?: number;
  /** Ends a rest. What was done is returned all the same. */
  signal?: AbortSignal;
  clock?: PaceClock;
}

/** A batch that took very long (a database that did not answer) is not made up for in full. */
const restMsMax = 5_000;
/** Shorter rests cost more than they are worth; they are saved up. */
const busyMsMin = 20;

/** How long to rest after so long at work. */
export function restMs(busyMs: number, share: number): number {
  return Math.min(restMsMax, (busyMs * (1 - share)) / share);
}

/** The same storage, for one job that works on it step by step. */
export function inBackground(
  storage: Storage,
  { share, restsForMs = Number.POSITIVE_INFINITY, signal, clock = systemPaceClock }: BackgroundOptions,
): Storage {
  const { database } = storage;
  const begunAtMs = clock.nowMs();
  let restedAtMs = begunAtMs;
  const rest = async (): Promise<void> => {
    const nowMs = clock.nowMs();
    const busyMs = nowMs - restedAtMs;
    if (share >= 1 || busyMs < busyMsMin || nowMs - begunAtMs >= restsForMs || signal?.aborted) return;
    await clock.sleep(restMs(busyMs, share), signal).catch((error: unknown) => {
      if (!signal?.aborted) throw error;
    });
    restedAtMs = clock.nowMs();
  };
  return {
    ...storage,
    database: {
      get pool() {
        return database.pool;
      },
      query: (statement, values) => database.query(statement, values),
      async transaction(work) {
        const result = await database.transaction(work);
        await rest();
        return result;
      },
      close: () => database.close(),
    },
  };
}
