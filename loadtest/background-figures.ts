/** What background work has done, and what that makes of backups beside it. */
import { median, type Summary, summarize } from './statistics.ts';

export const backgroundVerbs = ['prune', 'reclaim', 'compact', 'verify'] as const;
export type BackgroundVerb = (typeof backgroundVerbs)[number];

/** What is counted of each: prune versions, reclaim blocks, compact bytes written, verify bytes read. */
export interface BackgroundProgress {
  done: Record<BackgroundVerb, number>;
  /** What has found nothing to do. */
  idle: BackgroundVerb[];
  peakMemoryMiB: number;
}

/** One stretch of backups, alone or beside background work. */
export interface Stretch {
  megabytesPerSecond: number;
  /** What background work did meanwhile, per second; null: there was none. */
  background: Record<BackgroundVerb, number> | null;
}

export interface Round {
  before: Stretch;
  beside: Stretch;
  after: Stretch;
}

export interface Comparison {
  alone: Summary;
  beside: Summary;
  /** Of each round: beside background work by the mean of before and after; the median of the rounds. */
  ratio: number;
  ratios: number[];
  /** Per second, the median of the rounds. */
  background: Record<BackgroundVerb, number>;
}

/** @throws RangeError for no rounds */
export function compareRounds(rounds: readonly Round[]): Comparison {
  const ratios = rounds.map(
    ({ before, beside, after }) =>
      beside.megabytesPerSecond / ((before.megabytesPerSecond + after.megabytesPerSecond) / 2),
  );
  const rate = (verb: BackgroundVerb): number => median(rounds.map(({ beside }) => beside.background?.[verb] ?? 0));
  return {
    alone: summarize(rounds.flatMap(({ before, after }) => [before.megabytesPerSecond, after.megabytesPerSecond])),
    beside: summarize(rounds.map((round) => round.beside.megabytesPerSecond)),
    ratio: median(ratios),
    ratios,
    background: { prune: rate('prune'), reclaim: rate('reclaim'), compact: rate('compact'), verify: rate('verify') },
  };
}

/**
 * What background work did between two looks at it, per second.
 * @throws Error when one of the verbs ran out of work, or did nothing: then it was not beside it that was measured
 */
export function progressBetween(
  before: BackgroundProgress,
  after: BackgroundProgress,
  seconds: number,
): Record<BackgroundVerb, number> {
  const did = { prune: 0, reclaim: 0, compact: 0, verify: 0 };
  for (const verb of backgroundVerbs) {
    did[verb] = (after.done[verb] - before.done[verb]) / seconds;
    if (after.idle.includes(verb)) throw new Error(`${verb} ran out of work: seed more, or measure for less long`);
    if (did[verb] <= 0) throw new Error(`${verb} did nothing in ${seconds.toFixed(1)} s`);
  }
  return did;
}
