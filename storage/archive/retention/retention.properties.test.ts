/**
 * What must hold for every history and every policy, tried on histories and policies made from a seed. The seed is in
 * the name of the test: `HOLDFAST_TEST_SEED=n npm run jest -- storage/archive/retention.properties` runs it alone.
 */
import { describe, expect, test } from '@jest/globals';
import { type Random, seededRandom } from '../../../tests/helpers/random.ts';
import {
  type Decision,
  defaultRetention,
  type FileVersion,
  planRetention,
  type RetentionPolicy,
  retentionFaults,
} from './retention.ts';

const minute = 60_000;
const hour = 60 * minute;
const day = 24 * hour;
const years = 365 * 3;
const origin = 20_000 * day + 12_345_678; // nothing's border
const seedsFrom = (count: number): number[] =>
  process.env.HOLDFAST_TEST_SEED
    ? [Number(process.env.HOLDFAST_TEST_SEED)]
    : Array.from({ length: count }, (_, i) => i + 1);

/** When a file was backed up: ms since the epoch, ascending, in three years. */
const patterns: Record<string, (random: Random) => number[]> = {
  daily: (random) => Array.from({ length: years }, (_, i) => origin + i * day + random.below(day)),
  'every few hours': (random) => spread(random, () => random.below(12 * hour)),
  'every few weeks': (random) => spread(random, () => random.below(50 * day)),
  bursts: (random) => spread(random, () => (random.chance(0.95) ? random.below(5 * minute) : random.below(60 * day))),
  // Lone pairs around a border of weeks or of spans of 30 days, less than a week apart: alone in their intervals.
  'around borders': (random) => {
    const moments: number[] = [];
    for (let at = origin; at < origin + years * day; at += (20 + random.below(60)) * day) {
      const span = random.pick([1, 7, 30, 36, 100]) * day;
      const border = Math.ceil(at / span) * span;
      moments.push(border - 1 - random.pick([0, hour, 2 * day]), border + random.pick([0, hour, 4 * day]));
    }
    return moments.sort((a, b) => a - b);
  },
};

function spread(random: Random, gapMs: () => number): number[] {
  const moments: number[] = [];
  for (let at = origin + random.below(day); at < origin + years * day && moments.length < 5000; at += gapMs())
    moments.push(at);
  return moments;
}

/** Some of the versions are records of deletions; rarely two in a row, as nothing forbids that. */
function historyOf(moments: readonly number[], random: Random): FileVersion[] {
  const deletions = random.pick([0, 0.1, 0.4]);
  return moments.map((committedAt, i) => ({ seq: i * 3 + 1, committedAt, deleted: random.chance(deletions) }));
}

const defaultSpacing = defaultRetention.windows;
const policies: Record<string, (random: Random) => RetentionPolicy> = {
  default: () => defaultRetention,
  'odd windows': (random) => {
    const untils = [1 + random.below(30), 31 + random.below(100), 131 + random.below(500), null];
    const everies = [0, 0, 0, 0].map(() => random.pick([0, 1, 15, 7 * 60, 1440, 5 * 1440, 10_080, 40_000, 144_000]));
    everies.sort((a, b) => a - b);
    const windows = untils.map((untilDays, i) => ({ untilDays, everyMinutes: everies[i]! }));
    return { ...defaultRetention, windows: windows as unknown as RetentionPolicy['windows'] };
  },
  floors: (random) => ({
    windows: defaultSpacing,
    deletedAfterDays: null,
    keepNewest: random.below(20),
    keepWithinDays: random.below(400),
  }),
};
const anyPolicy = (random: Random): RetentionPolicy => ({
  ...policies[random.pick(Object.keys(policies))]!(random),
  deletedAfterDays: random.pick([null, 0, 1, 30, 400]),
});

const pinnedAtRandom = (versions: FileVersion[], random: Random): FileVersion[] =>
  versions.map((version) => (random.chance(0.05) ? { ...version, pinned: random.pick(['hold', 'restore']) } : version));

const keptOf = (versions: readonly FileVersion[], decisions: readonly Decision[]): FileVersion[] =>
  versions.filter((_, i) => decisions[i]!.keep);
const prune = (versions: readonly FileVersion[], policy: RetentionPolicy, now: number): FileVersion[] =>
  keptOf(versions, planRetention(versions, policy, now).decisions);
const seqs = (versions: readonly FileVersion[]): number[] => versions.map(({ seq }) => seq);

/** Prunes every day at a moment of its own, with what was backed up by then. */
function pruneDaily(
  history: readonly FileVersion[],
  policy: RetentionPolicy,
  end: number,
  seen?: (before: FileVersion[], now: number) => void,
): FileVersion[] {
  let versions: FileVersion[] = [];
  let added = 0;
  for (let now = origin + day; ; now = Math.min(now + day, end)) {
    while (added < history.length && history[added]!.committedAt <= now) versions.push(history[added++]!);
    seen?.(versions, now);
    versions = prune(versions, policy, now);
    if (now === end) return versions;
  }
}

/** Windows and intervals as the issue tells them, without the code under test. */
function windowOf(state: FileVersion, policy: RetentionPolicy, now: number): number {
  const ageDays = (now - state.committedAt) / day;
  return [0, 1, 2].find((window) => ageDays < policy.windows[window]!.untilDays!) ?? 3;
}
function intervalIn(window: number, state: FileVersion, policy: RetentionPolicy): number {
  const { everyMinutes } = policy.windows[window]!;
  return everyMinutes === 0 ? state.seq : Math.floor(state.committedAt / minute / everyMinutes);
}

describe.each(Object.keys(policies))('policy: %s', (policyName) => {
  describe.each(Object.keys(patterns))('backed up: %s', (pattern) => {
    test.each(seedsFrom(2))('seed %i: pruned daily for three years, or once at the end', (seed) => {
      const random = seededRandom(seed);
      const policy = policies[policyName]!(random);
      expect(retentionFaults(policy)).toEqual([]);
      const end = origin + (years + random.below(900)) * day + random.below(day);
      const moments = patterns[pattern]!(random).filter((at) => at <= end);
      const history = historyOf(moments, random);
      const once = prune(history, policy, end);
      const daily = pruneDaily(history, policy, end);

      const intervals = (versions: FileVersion[]): string[] => [
        ...new Set(
          versions
            .filter(({ deleted }) => !deleted)
            .map((state) => ({ state, window: windowOf(state, policy, end) }))
            .map(({ state, window }) => `${window} ${intervalIn(window, state, policy)}`),
        ),
      ];
      const there = new Set(intervals(daily));
      expect(intervals(once).filter((interval) => !there.has(interval))).toEqual([]);
      // More than was asked for: the very same versions stay.
      expect(seqs(daily)).toEqual(seqs(once));
    });
  });
});

test.each(seedsFrom(10))(
  'seed %i: pruned daily, a file that was gone for too long loses what it had, nothing else',
  (seed) => {
    const random = seededRandom(seed);
    const end = origin + years * day;
    const policy = { ...policies['odd windows']!(random), deletedAfterDays: random.pick([0, 1, 5, 20]) };
    const moments = patterns[random.pick(['every few weeks', 'around borders'])]!(random).filter((at) => at <= end);
    const history = moments.map((committedAt, i) => ({ seq: i, committedAt, deleted: random.chance(0.2) }));
    let endedAt = -1;
    const daily = pruneDaily(history, policy, end, (before, now) => {
      const latest = before.at(-1);
      if (latest?.deleted && now - latest.committedAt >= policy.deletedAfterDays * day) endedAt = latest.seq;
    });
    expect(endedAt).toBeGreaterThan(0);
    expect(seqs(daily)).toEqual(seqs(prune(history.slice(endedAt + 1), policy, end)));
  },
);

describe.each(seedsFrom(50))('seed %i', (seed) => {
  const random = seededRandom(seed);
  const pattern = random.pick(Object.keys(patterns));
  const moments = patterns[pattern]!(random);
  const history = pinnedAtRandom(historyOf(moments.slice(0, 1 + random.below(400)), random), random);
  if (random.chance(0.4)) history.at(-1)!.deleted = true;
  const policy = anyPolicy(random);
  const now =
    history.at(-1)!.committedAt +
    (random.chance(0.1) ? -random.below(day) : random.below(random.pick([20, 800]) * day));
  const { decisions, nextChangeAt } = planRetention(history, policy, now);
  const kept = keptOf(history, decisions);

  test('the decisions are about the versions given, in their order', () => {
    expect(decisions.map((decision) => decision.seq)).toEqual(seqs(history));
    expect(JSON.parse(JSON.stringify(decisions))).toEqual(decisions);
  });

  test('running twice at one moment changes nothing', () => {
    const again = planRetention(kept, policy, now);
    expect(again.decisions.filter(({ keep }) => !keep)).toEqual([]);
    expect(again.nextChangeAt).toBe(nextChangeAt);
  });

  test('the newest version of a file that exists stays, and so does what is pinned or within a floor', () => {
    const states = history.filter(({ deleted }) => !deleted);
    const latest = history.at(-1)!;
    const fileStays = !latest.deleted || policy.deletedAfterDays === null;
    const mustStay = [
      ...(latest.deleted ? [] : [latest]),
      ...history.filter(({ pinned }) => pinned),
      ...states.filter(({ committedAt }) => Math.max(0, now - committedAt) / day < policy.keepWithinDays),
      ...(fileStays ? states.slice(states.length - Math.min(states.length, Math.max(1, policy.keepNewest))) : []),
    ];
    const stays = new Set(seqs(kept));
    expect(seqs(mustStay).filter((seq) => !stays.has(seq))).toEqual([]);
  });

  test('in every interval the newest state stays, and one that goes without its file has a newer one there that stays', () => {
    const latest = history.at(-1)!;
    const ended = latest.deleted && policy.deletedAfterDays !== null;
    const states = history.filter(({ deleted }) => !deleted);
    const bySeq = new Map(decisions.map((decision) => [decision.seq, decision]));
    // By the spacing of each window, the newest of all the states in the interval, whatever window they are in.
    if (!ended || Math.max(0, now - latest.committedAt) < policy.deletedAfterDays! * day)
      for (const window of [0, 1, 2, 3]) {
        const newest = new Map(states.map((state) => [intervalIn(window, state, policy), state.seq]));
        for (const state of states)
          if (windowOf(state, policy, now) === window)
            expect(bySeq.get(newest.get(intervalIn(window, state, policy))!)).toMatchObject({ keep: true });
      }
    for (const { seq, keep, reason } of decisions)
      if (reason.rule === 'superseded') {
        expect(keep).toBe(false);
        expect(reason.by).toBeGreaterThan(seq);
        expect(bySeq.get(reason.by)).toMatchObject({ keep: true });
      }
  });

  test('a moment at which the file did not exist stays one', () => {
    let i = -1;
    for (const version of history) {
      if (kept[i + 1]?.seq === version.seq) i++;
      if (version.deleted) expect([version.seq, kept[i]?.deleted ?? true]).toEqual([version.seq, true]);
    }
  });

  test('the latest record stays with anything older, and a record with nothing before it goes', () => {
    const latest = history.at(-1)!;
    if (latest.deleted && kept.some(({ deleted }) => !deleted)) expect(kept.at(-1)!.seq).toBe(latest.seq);
    if (kept[0]?.deleted) expect(kept[0].pinned).toBeDefined();
  });

  test('what records cost is bounded by the states that stay', () => {
    const states = kept.filter(({ deleted }) => !deleted).length;
    const records = kept.filter(({ deleted, pinned }) => deleted && !pinned).length;
    expect(records).toBeLessThanOrEqual(states + (states > 0 ? 1 : 0));
  });

  test('pins change nothing but what is pinned, and the records that it needs', () => {
    const unpinned = planRetention(
      history.map(({ seq, committedAt, deleted }) => ({ seq, committedAt, deleted })),
      policy,
      now,
    );
    expect(unpinned.nextChangeAt).toBe(nextChangeAt);
    for (const [i, { keep, reason }] of unpinned.decisions.entries()) {
      const version = history[i]!;
      if (version.deleted) continue;
      if (keep || !version.pinned) expect(decisions[i]).toEqual({ seq: version.seq, keep, reason, by: 0 });
      else expect(decisions[i]).toMatchObject({ seq: version.seq, keep: true, reason: { rule: version.pinned } });
    }
  });

  test('no decision turns to expire before nextChangeAt, and one does then', () => {
    const expired = (at: number): number =>
      planRetention(history, policy, at).decisions.filter(({ keep }) => !keep).length;
    const before = expired(now);
    const horizon = now + 2000 * day;
    const until = Math.min(nextChangeAt ?? horizon, horizon);
    expect(until).toBeGreaterThan(now);
    // Every moment at which any border could be crossed, whatever it decides, and the millisecond before.
    const borders = [
      ...policy.windows.map(({ untilDays }) => untilDays),
      policy.deletedAfterDays,
      policy.keepWithinDays,
    ];
    const moments = history
      .flatMap(({ committedAt }) => borders.map((days) => committedAt + (days ?? 0) * day))
      .flatMap((at) => [at - 1, at])
      .filter((at) => at > now && at < until);
    const tried = [until - 1, ...Array.from({ length: 60 }, () => random.pick([...moments, until - 1]))];
    for (const at of tried) expect([at, expired(at)]).toEqual([at, before]);
    if (nextChangeAt !== null) {
      const pinless = (at: number): number =>
        planRetention(
          history.map(({ seq, committedAt, deleted }) => ({ seq, committedAt, deleted })),
          policy,
          at,
        ).decisions.filter(({ keep }) => !keep).length;
      expect(pinless(nextChangeAt)).toBeGreaterThan(pinless(nextChangeAt - 1));
    }
  });
});
