/**
 * Holds the channel on which the server tells this device what to do, for as long as the signal lets it. Connects again after
 * whatever ended it, later each time that leads to nothing, and never at the moment at which all others do. A server that
 * sends no commands is asked again after hours.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { ChannelFrame } from '../../protocol/commands.ts';
import { Problem } from '../../protocol/problems.ts';
import type { CommandCalls } from '../client/command-calls.ts';
import { ConnectionLost } from '../client/errors.ts';

/** From connecting to the first frame. */
const helloMsMax = 60_000;
/** A channel that lived so long was a good one: the next is not made to wait for those before it. */
const goodMs = 60_000;
const firstDelayMs = 2_000;
const delayMsMax = 5 * 60_000;
/** Of a server that has no commands to give: an older one, until somebody replaces it. */
export const unknownDelayMs = 4 * 3_600_000;

export interface ChannelOptions {
  commands: Pick<CommandCalls, 'listen'>;
  signal: AbortSignal;
  onFrame: (frame: ChannelFrame) => void;
  /** Why it ended or did not begin, and when it is tried again. */
  onEnd?: (error: Error, delayMs: number) => void;
  /** For tests: resolves after so long, or when the signal says so. */
  wait?: (ms: number, signal: AbortSignal) => Promise<void>;
  /** What a heartbeat may be late by; default 5 s. */
  lateMs?: number;
}

/** Resolves when the signal aborts. */
export async function holdChannel(options: ChannelOptions): Promise<void> {
  const { signal, onEnd } = options;
  const wait = options.wait ?? ((ms) => sleep(ms, undefined, { signal }).then(nothing, nothing));
  let failures = 0;
  while (!signal.aborted) {
    const since = performance.now();
    const error = (await holdOnce(options)) ?? new ConnectionLost('the server ended the channel');
    if (signal.aborted) return;
    failures = performance.now() - since >= goodMs ? 1 : failures + 1;
    const delayMs = delayAfter(error, failures, Math.random());
    onEnd?.(error, delayMs);
    await wait(delayMs, signal);
  }
}

/**
 * One connection, to its end.
 * @param options.once the server is to say what waits for this device, and end it
 * @returns what broke it; null: the server ended it
 */
export async function holdOnce(options: ChannelOptions & { once?: boolean }): Promise<Error | null> {
  const { commands, signal, onFrame, lateMs = 5_000, once = false } = options;
  const silence = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  const expectWithin = (ms: number): void => {
    clearTimeout(timer);
    timer = setTimeout(() => silence.abort(new ConnectionLost(`the server said nothing for ${ms / 1000} s`)), ms);
    timer.unref();
  };
  const either = AbortSignal.any([signal, silence.signal]);
  let heartbeatMs = 0;
  try {
    expectWithin(helloMsMax);
    const frames = await unlessAborted(commands.listen({ once, signal: either }), either);
    for await (const frame of frames) {
      if (frame.type === 'hello') heartbeatMs = frame.heartbeatSeconds * 1000;
      else if (heartbeatMs === 0) return new Error('the server did not begin with a hello');
      expectWithin(2 * heartbeatMs + lateMs);
      onFrame(frame);
    }
    return silence.signal.aborted ? (silence.signal.reason as Error) : null;
  } catch (error) {
    return (silence.signal.aborted ? silence.signal.reason : error) as Error;
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Milliseconds until the next try.
 * @param failures in a row, at least 1
 * @param random 0 <= random < 1
 */
export function delayAfter(error: Error, failures: number, random: number): number {
  const spread = (ms: number): number => ms / 2 + ms * random;
  if (error instanceof Problem && error.code === 'not_found') return spread(unknownDelayMs);
  const asked = error instanceof Problem ? (error.extras.retryAfterSeconds ?? 0) * 1000 : 0;
  // Refused: somebody has to do something first. The backups tell of it.
  if (error instanceof Problem && (error.status === 401 || error.status === 403)) return spread(delayMsMax);
  const delayMs = Math.min(delayMsMax, firstDelayMs * 2 ** Math.min(failures - 1, 16));
  return Math.max(spread(delayMs), Math.min(asked, delayMsMax));
}

/** A connection that is being made does not hear of signals. */
function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const stop = (): void => reject(signal.reason);
    if (signal.aborted) stop();
    signal.addEventListener('abort', stop, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', stop));
  });
}

const nothing = (): void => undefined;
