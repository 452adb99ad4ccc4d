/**
 * Decides which versions of one file stay: pure, so that the deleter, a dry run and the tests see the same answer.
 * It must stay true that
 * - the latest version of a file that exists is kept, and so is everything that is pinned;
 * - a moment at which the file did not exist is never turned into one at which it did: what is kept of a deletion is
 *   its record, for as long as anything older of the file is kept;
 * - it does not matter how often a prune runs. What one prune at the end would keep, none on the way has expired.
 *
 * Why the last holds. Call a version that is not the record of a deletion a *state*. A state stays while it is the
 * newest state of its interval, by the spacing of the window that it is in *or of any older window*. Intervals are
 * anchored at the epoch and not cut where a window ends, so whether a state is the newest of an interval depends only
 * on the states after it: it can stop being so when a file is backed up, never because time passes, and never because
 * other states were expired. As a state grows older, the windows that are left for it become fewer, and nothing is ever
 * added. So the moment at which a state is expired is fixed by the states that follow it, and if a prune at the end
 * keeps it, every earlier prune found as much reason to keep it, or more. Nor does an earlier prune leave anything that
 * the last one would not: whatever it expires it expires for a newer state of the same interval, which is kept longer.
 *
 * Looking only at a state's own window would not do. Weeks do not fit into spans of 30 days: in the week that belongs
 * to two spans, the newest state of the week, in the second span, would stand for one that is all that the first span
 * has, and once both are more than a year old the first span would have nothing. And where a window ends within an
 * interval, the interval still counts as one: its newest state stands for all of it from the younger side, where it is
 * kept because an older window will want it. Cut in two, the older part would keep a state or not depending on whether
 * a prune happened to run before the border had passed it.
 *
 * Records do not compete with states: if they did, a file that was changed and deleted on one day would, a week later,
 * have lost what it held last, and "deleted files stay for ever" would not be true. A record stays if it is the first
 * after a state that stays, which is what keeps the file from coming back, or if it is the file's latest version and
 * some state stays: it says since when the file is gone. Both follow from which states stay. What the records of a file
 * cost is thus bounded by its states, however often it came and went.
 *
 * The one thing that does depend on when a prune runs: `deletedAfterDays` ends a file that is gone, so a file that was
 * gone for longer and came back has its older history only if no prune ran in between.
 *
 * What is dated later than now stays until its date has come, unless its file has ended. While a clock is wrong by years,
 * and ever after it is set right, an archive's commits are dated a microsecond apart (time never goes back in it), and all
 * of them would be of one interval.
 */
import assert from 'node:assert/strict';

export interface RetentionWindow {
  /** Days of age at which the window ends; a version of exactly that age is in the next. Null only for the last. */
  untilDays: number | null;
  /** Minutes; one version per interval stays; 0: every version stays. */
  everyMinutes: number;
}

export interface RetentionPolicy {
  /** Newest version per interval in four disjoint windows, by age. Newest first; the last window has no end. */
  windows: readonly [RetentionWindow, RetentionWindow, RetentionWindow, RetentionWindow];
  /**
   * Days after which everything of a deleted file goes, unless it is pinned or `keepWithinDays` keeps it; null: never.
   * 0: at the next prune.
   */
  deletedAfterDays: number | null;
  /** The newest N versions but for records stay whatever the windows say, until `deletedAfterDays` ends the file. */
  keepNewest: number;
  /** Versions younger than this stay whatever the windows and `deletedAfterDays` say. 0: no floor. */
  keepWithinDays: number;
}

/** One version of a file, or the record that it was deleted. */
export interface FileVersion {
  seq: number;
  /** ms since the epoch, of the database's clock. Never goes back as `seq` grows. */
  committedAt: number;
  deleted: boolean;
  /** A hold covers it, or a restore under way needs it. */
  pinned?: 'hold' | 'restore';
}

/** Why a version stays or goes; explainReason() puts it into words. */
export type Reason =
  // Stays:
  | { rule: 'latest' }
  /** The newest of its interval by the spacing of this window, which is the one it is in, or an older one. */
  | { rule: 'window' | 'laterWindow'; window: number }
  | { rule: 'keepNewest' }
  | { rule: 'keepWithin' }
  /** Dated later than now: a clock was wrong, so its date says nothing of its age. */
  | { rule: 'future' }
  /** The record of a deletion: the state `of` stays, and would look as if it had never been deleted. */
  | { rule: 'deletionRecord'; of: number }
  /** Nothing but the pin keeps it: it goes when that is gone. */
  | { rule: 'hold' | 'restore' }
  // Goes:
  /** `by` is the newest of its interval in its window, and stays. */
  | { rule: 'superseded'; window: number; by: number }
  | { rule: 'deletedFile' }
  /** The record of a deletion of which nothing is left, or which an earlier record already tells. */
  | { rule: 'recordNotNeeded' };

export interface Decision {
  seq: number;
  keep: boolean;
  reason: Reason;
  /** Index of the policy that gives the reason: of those that keep the version the one that does so longest, else the last to let go. */
  by: number;
}

export interface RetentionPlan {
  /** One per version, in the order given. */
  decisions: Decision[];
  /**
   * ms since the epoch: before this moment no decision turns from keep to expire while the file gets no new version and
   * policy and pins stay what they are; null: never. When a pin ends or the policy changes, the file has to be planned
   * anew: a version that only a pin keeps does not count here.
   */
  nextChangeAt: number | null;
}

const minuteMs = 60_000;
const dayMs = 24 * 60 * minuteMs;

/** What CrashPlan starts with: every 15 minutes, daily, weekly, every 30 days; deleted files for ever. */
export const defaultRetention: RetentionPolicy = {
  windows: [
    { untilDays: 7, everyMinutes: 15 },
    { untilDays: 90, everyMinutes: 24 * 60 },
    { untilDays: 365, everyMinutes: 7 * 24 * 60 },
    { untilDays: null, everyMinutes: 30 * 24 * 60 },
  ],
  deletedAfterDays: null,
  keepNewest: 0,
  keepWithinDays: 0,
};

/** The largest values a policy may have: a century, intervals of ten years, and what one plan can still hold. */
export const retentionBounds = { daysMax: 36_500, everyMinutesMax: 5_256_000, keepNewestMax: 10_000 };

/**
 * What is wrong with a policy, all of it; empty: nothing. `field` is a path such as `windows.1.untilDays`, and the
 * message names it. An older window must not be denser than a newer one.
 */
export function retentionFaults(policy: RetentionPolicy): { field: string; message: string }[] {
  const { daysMax, everyMinutesMax, keepNewestMax } = retentionBounds;
  const faults: { field: string; message: string }[] = [];
  const fault = (field: string, says: string): void => void faults.push({ field, message: `${field} ${says}` });
  const whole = (field: string, value: unknown, min: number, max: number): boolean => {
    const fits = Number.isInteger(value) && (value as number) >= min && (value as number) <= max;
    if (!fits) fault(field, `must be a whole number from ${min} to ${max}`);
    return fits;
  };

  const { windows } = policy;
  if (windows.length !== 4) fault('windows', 'must be four, newest first');
  const last = windows.length - 1;
  let newer: { untilDays: number; everyMinutes: number } = { untilDays: 0, everyMinutes: 0 };
  for (const [i, { untilDays, everyMinutes }] of windows.entries()) {
    const until = `windows.${i}.untilDays`;
    if (i === last) {
      if (untilDays !== null) fault(until, 'must be null: the last window has no end');
    } else if (whole(until, untilDays, 1, daysMax)) {
      if (untilDays! <= newer.untilDays) fault(until, `must be more than the ${newer.untilDays} of the window before`);
      else newer = { ...newer, untilDays: untilDays! };
    }
    const every = `windows.${i}.everyMinutes`;
    if (whole(every, everyMinutes, 0, everyMinutesMax)) {
      if (everyMinutes < newer.everyMinutes)
        fault(every, `must be at least the ${newer.everyMinutes} of the window before: older is never denser`);
      else newer = { ...newer, everyMinutes };
    }
  }
  if (policy.deletedAfterDays !== null) whole('deletedAfterDays', policy.deletedAfterDays, 0, daysMax);
  whole('keepNewest', policy.keepNewest, 0, keepNewestMax);
  whole('keepWithinDays', policy.keepWithinDays, 0, daysMax);
  return faults;
}

/**
 * What stays of one file. `versions`: all that the catalog has of the file, those hidden from its user included,
 * ascending by `seq`: what is missing here could come back, or lose its record. `now`: ms since the epoch, of the
 * database, read in the transaction that deletes. Throws if the policy is faulty or the versions are out of order,
 * because everything that followed from that would be deleted for good.
 */
export function planRetention(versions: readonly FileVersion[], policy: RetentionPolicy, now: number): RetentionPlan {
  return planByAny(versions, [policy], now);
}

/**
 * What stays of one file that several policies are for: what any of them keeps, and nothing else. That a file does not come
 * back from the dead holds for each policy alone, and so for all together: the record that one keeps behind a state is
 * there whoever else keeps what lies between. Likewise how often a prune runs does not matter: what none keeps, none will.
 * @param policies at least one
 */
export function planByAny(
  versions: readonly FileVersion[],
  policies: readonly RetentionPolicy[],
  now: number,
): RetentionPlan {
  assert(policies.length > 0, 'there is no policy to plan by');
  for (const policy of policies) {
    const faults = retentionFaults(policy);
    assert(faults.length === 0, `retention policy: ${faults.map(({ message }) => message).join('; ')}`);
  }
  assert(Number.isFinite(now), 'now must be a moment');
  assertInOrder(versions);

  const lives = longestLives(policies.map((policy) => livesOfStates(versions, policy, now)));
  const decisions: Decision[] = [];
  let nextChangeAt = Number.POSITIVE_INFINITY;
  let lastStateKept: Decision | null = null;
  let lastKept: FileVersion | null = null;
  for (const version of versions) {
    const life = lives.get(version.seq);
    let by = life?.by ?? 0;
    let reason: Reason | null = null;
    if (life) {
      reason = life.keptBy;
      if (reason) nextChangeAt = Math.min(nextChangeAt, life.endsAt);
    } else {
      const needed = lastKept?.deleted === false || version === versions.at(-1);
      if (needed && lastStateKept) {
        reason = { rule: 'deletionRecord', of: lastStateKept.seq };
        by = lastStateKept.by;
      }
    }
    if (!reason && version.pinned) reason = { rule: version.pinned };
    const keep = reason !== null;
    const decision: Decision = {
      seq: version.seq,
      keep,
      reason: reason ?? life?.expiredBy ?? { rule: 'recordNotNeeded' },
      by,
    };
    decisions.push(decision);
    if (!keep) continue;
    lastKept = version;
    if (!version.deleted) lastStateKept = decision;
  }
  return { decisions, nextChangeAt: nextChangeAt === Number.POSITIVE_INFINITY ? null : nextChangeAt };
}

/** Of each state the life that ends last, among those by which it lives if there are any; of equal ones the first. */
function longestLives(byPolicy: readonly ReadonlyMap<number, Life>[]): Map<number, Life & { by: number }> {
  const longest = new Map<number, Life & { by: number }>();
  for (const [by, lives] of byPolicy.entries())
    for (const [seq, life] of lives) {
      const known = longest.get(seq);
      const kept = Number(life.keptBy !== null) - Number(known?.keptBy != null);
      if (!known || kept > 0 || (kept === 0 && life.endsAt > known.endsAt)) longest.set(seq, { ...life, by });
    }
  return longest;
}

/** What the policy says of a state, its pin left out. */
interface Life {
  /** ms since the epoch; infinite: for as long as the file gets no new version. */
  endsAt: number;
  /** Null: nothing, its life has ended. */
  keptBy: Reason | null;
  expiredBy: Reason;
}

/** The lives of the versions that are not records of deletions, by seq. */
function livesOfStates(versions: readonly FileVersion[], policy: RetentionPolicy, now: number): Map<number, Life> {
  const { windows, deletedAfterDays, keepNewest, keepWithinDays } = policy;
  const states = versions.filter(({ deleted }) => !deleted);
  const standIns = windows.map(({ everyMinutes }) => newestOfIntervals(states, everyMinutes));
  const latest = versions.at(-1);
  const fileEndsAt =
    latest?.deleted && deletedAfterDays !== null
      ? momentAfter(latest.committedAt, deletedAfterDays)
      : Number.POSITIVE_INFINITY;

  const lives = new Map<number, Life>();
  for (const [i, state] of states.entries()) {
    const { seq, committedAt } = state;
    const window = windowAt(policy, now - committedAt);
    const isNewestBy = (k: number): boolean => standIns[k]![i] === seq;
    const keeper = [0, 1, 2, 3].find((k) => k >= window && isNewestBy(k));
    const lastKeeper = [3, 2, 1, 0].find(isNewestBy);
    const windowsEndAt =
      lastKeeper === undefined ? Number.NEGATIVE_INFINITY : windowEndsAt(policy, committedAt, lastKeeper);
    const isAmongNewest = i >= states.length - keepNewest;
    const withinEndsAt = momentAfter(committedAt, keepWithinDays);

    let keptBy: Reason | null = null;
    if (state === latest) keptBy = { rule: 'latest' };
    else if (now < fileEndsAt && keeper !== undefined)
      keptBy = { rule: keeper === window ? 'window' : 'laterWindow', window: keeper };
    else if (now < fileEndsAt && isAmongNewest) keptBy = { rule: 'keepNewest' };
    else if (now < fileEndsAt && committedAt > now) keptBy = { rule: 'future' };
    else if (now < withinEndsAt) keptBy = { rule: 'keepWithin' };
    lives.set(seq, {
      endsAt: Math.max(
        withinEndsAt,
        Math.min(fileEndsAt, isAmongNewest ? Number.POSITIVE_INFINITY : Math.max(windowsEndAt, committedAt)),
      ),
      keptBy,
      expiredBy: now < fileEndsAt ? { rule: 'superseded', window, by: standIns[window]![i]! } : { rule: 'deletedFile' },
    });
  }
  return lives;
}

/** For each state the seq of the newest state of its interval, often itself. Intervals begin at the epoch, UTC. */
function newestOfIntervals(states: readonly FileVersion[], everyMinutes: number): number[] {
  const newest = states.map(({ seq }) => seq);
  if (everyMinutes === 0) return newest;
  const intervalOf = (state: FileVersion): number => Math.floor(state.committedAt / (everyMinutes * minuteMs));
  for (let i = states.length - 2; i >= 0; i--)
    if (intervalOf(states[i]!) === intervalOf(states[i + 1]!)) newest[i] = newest[i + 1]!;
  return newest;
}

/** Which window a version of this age (ms) is in. A negative age, from a clock that was set back, is in the first. */
function windowAt({ windows }: RetentionPolicy, ageMs: number): number {
  return windows.findIndex(({ untilDays }) => untilDays === null || ageMs < untilDays * dayMs);
}

function windowEndsAt({ windows }: RetentionPolicy, committedAt: number, window: number): number {
  const { untilDays } = windows[window]!;
  return untilDays === null ? Number.POSITIVE_INFINITY : committedAt + untilDays * dayMs;
}

/** 0 days is "at once" also when the clock was set back and `from` is yet to come. */
function momentAfter(from: number, days: number): number {
  return days === 0 ? Number.NEGATIVE_INFINITY : from + days * dayMs;
}

function assertInOrder(versions: readonly FileVersion[]): void {
  for (const [i, version] of versions.entries()) {
    assert(Number.isFinite(version.committedAt), `version ${version.seq} has no moment`);
    const before = versions[i - 1];
    if (!before) continue;
    assert(before.seq < version.seq, `version ${version.seq} comes after ${before.seq}`);
    assert(before.committedAt <= version.committedAt, `version ${version.seq} is dated before ${before.seq}`);
  }
}

/** The reason in words, for a dry run: `newest of its day (7 to 90 days old)`. The policy is that of the plan. */
export function explainReason(reason: Reason, policy: RetentionPolicy): string {
  switch (reason.rule) {
    case 'latest':
      return 'latest version of a file that exists';
    case 'window':
    case 'laterWindow': {
      const { everyMinutes } = policy.windows[reason.window]!;
      const says = everyMinutes === 0 ? 'every version stays' : `newest of its ${spanInWords(everyMinutes)}`;
      return `${says} (${reason.rule === 'window' ? '' : 'wanted when '}${windowInWords(policy, reason.window)})`;
    }
    case 'keepNewest':
      return `one of the newest ${policy.keepNewest}`;
    case 'future':
      return 'dated later than now, by a clock that was wrong';
    case 'keepWithin':
      return `younger than ${policy.keepWithinDays} days`;
    case 'deletionRecord':
      return `records that the file was deleted after version ${reason.of}, which stays`;
    case 'hold':
      return 'only a legal hold keeps it';
    case 'restore':
      return 'only a restore under way keeps it';
    case 'superseded': {
      const span = spanInWords(policy.windows[reason.window]!.everyMinutes);
      return `version ${reason.by} is newer in the same ${span} (${windowInWords(policy, reason.window)})`;
    }
    case 'deletedFile':
      return `the file was deleted ${policy.deletedAfterDays} days ago or longer`;
    case 'recordNotNeeded':
      return 'records a deletion of which nothing is left to tell';
  }
}

function windowInWords({ windows }: RetentionPolicy, window: number): string {
  const from = windows[window - 1]?.untilDays;
  const until = windows[window]!.untilDays;
  if (from === undefined) return `up to ${until} days old`;
  return until === null ? `${from} days old or older` : `${from} to ${until} days old`;
}

function spanInWords(minutes: number): string {
  const units: [word: string, minutes: number][] = [
    ['week', 7 * 24 * 60],
    ['day', 24 * 60],
    ['hour', 60],
    ['minute', 1],
  ];
  const [word, size] =
    units.find(([, each]) => minutes === each) ?? units.slice(1).find(([, each]) => minutes % each === 0)!;
  return minutes === size ? word : `${minutes / size} ${word}s`;
}
