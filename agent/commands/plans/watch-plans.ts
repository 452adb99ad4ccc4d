/**
 * `watch` without paths: follows the plans for ever. Rounds never overlap, because there is one loop and it waits for each;
 * what fell due meanwhile, or while the machine slept, has its turn once. The plans are asked for again every quarter of an
 * hour, before a round and after one that failed; while the server is away those it told last are followed.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from '../../client/client.ts';
import { askPlans } from '../../plans/ask-plans.ts';
import { type KeptPlans, readKeptPlans, writeKeptPlans } from '../../plans/kept-plans.ts';
import { type Here, planKey } from '../../plans/read-plan.ts';
import { nextDue, type Zone } from '../../plans/schedule.ts';
import type { BackupRules, BackupWorld } from '../backup-run.ts';
import { momentInWords } from '../words.ts';
import { runRound } from './round.ts';

/** Asking costs the server one look-up where nothing changed: 10,000 devices ask eleven times a second. */
export const askEveryMs = 15 * 60_000;
/** Not asked again before a round when it was just now. */
const freshMs = 60_000;
/** Short, because a machine that wakes up and a clock that was set are noticed by looking at the clock. */
const lookEveryMs = 20_000;

export interface Clock {
  now(): number;
  zone: Zone;
  /** Resolves after so long, or when the signal says so. */
  sleep(ms: number, signal: AbortSignal): Promise<void>;
}

export const machineClock = (zone: Zone): Clock => ({
  now: Date.now,
  zone,
  sleep: (ms, signal) => sleep(ms, undefined, { signal }).catch(() => undefined),
});

export interface WatchPlansOptions {
  signal: AbortSignal;
  clock: Clock;
  here: () => Here;
  /** Of asking for the plans. Throws what a person must act on; anything else is told, and tried again. */
  onAskError: (error: Error) => void;
  /** The same of a run. */
  onRunError: (error: Error) => void;
}

/** The plans that are due, and the moment at which the next of the others is; null: never. */
export function plansDue(kept: KeptPlans, now: number, zone: Zone): { due: Set<string>; next: number | null } {
  const due = new Set<string>();
  let next: number | null = null;
  for (const plan of kept.plans) {
    const at = nextDue(plan, kept.runs.get(planKey(plan)) ?? null, now, zone);
    if (at === null) continue;
    if (at <= now) due.add(planKey(plan));
    else if (next === null || at < next) next = at;
  }
  return { due, next };
}

export async function watchPlans(
  world: BackupWorld & { client: Pick<Client, 'plans'> },
  rules: BackupRules,
  { signal, clock, here, onAskError, onRunError }: WatchPlansOptions,
): Promise<void> {
  const { home, registration, output } = world;
  let kept = readKeptPlans(home, registration);
  /** When the server is to be asked again; a clock that was set back is noticed by `askedAt`. */
  let askAt = Number.NEGATIVE_INFINITY;
  let askedAt = Number.NEGATIVE_INFINITY;
  let said = '';

  while (!signal.aborted) {
    if (clock.now() >= askAt || clock.now() < askedAt) await ask();
    if (signal.aborted) return;
    if (kept !== null && plansDue(kept, clock.now(), clock.zone).due.size > 0) {
      if (clock.now() - askedAt > freshMs) await ask();
      if (signal.aborted) return;
      const { due } = plansDue(kept, clock.now(), clock.zone);
      const results = await runRound(world, kept, due, rules, {
        signal,
        here: here(),
        now: clock.now,
        onError: onRunError,
      });
      if (results.some(({ outcome }) => outcome === 'failed')) askAt = Number.NEGATIVE_INFINITY;
      if (results.length > 0) said = '';
      continue;
    }
    const next = kept === null ? null : plansDue(kept, clock.now(), clock.zone).next;
    sayWaiting(next);
    const until = Math.min(next ?? Number.POSITIVE_INFINITY, askAt);
    await clock.sleep(Math.max(1, Math.min(lookEveryMs, until - clock.now())), signal);
  }

  async function ask(): Promise<void> {
    try {
      const { kept: now, away } = await askPlans(world.client, kept, clock.now());
      if (away) output.note(`The server was not asked for the plans: ${away.message}. Following those it told last.`);
      kept = now;
      writeKeptPlans(home, registration, kept);
    } catch (error) {
      if (signal.aborted) return;
      onAskError(error as Error);
    }
    askedAt = clock.now();
    askAt = askedAt + (kept === null ? freshMs : askEveryMs);
  }

  function sayWaiting(next: number | null): void {
    const words =
      kept === null || kept.plans.length === 0
        ? 'Waiting for the server to give this device a plan.'
        : next === null
          ? 'Waiting: the windows of no plan ever open.'
          : `Waiting; the next plan is due ${momentInWords(next)}.`;
    if (words !== said) output.note(words);
    said = words;
  }
}
