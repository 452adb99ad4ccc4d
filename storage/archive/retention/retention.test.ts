import { describe, expect, test } from '@jest/globals';
import {
  defaultRetention,
  explainReason,
  type FileVersion,
  planRetention,
  type Reason,
  type RetentionPolicy,
  type RetentionWindow,
  retentionBounds,
  retentionFaults,
} from './retention.ts';

const minute = 60_000;
const hour = 60 * minute;
const day = 24 * hour;

/** Begins a day, a week and a span of 30 days, counted from the epoch, as intervals are. */
const origin = 210 * 90 * day;

/** `10` is a version backed up 10 ms after the origin, `'x20'` the record of a deletion. Numbered from 1. */
type Moment = number | `x${number}`;
const history = (...moments: Moment[]): FileVersion[] =>
  moments.map((moment, i) => {
    const deleted = typeof moment === 'string';
    return { seq: i + 1, committedAt: origin + Number(deleted ? moment.slice(1) : moment), deleted };
  });
const gone = (ms: number): Moment => `x${ms}`;
const pin = (versions: FileVersion[], seq: number, pinned: 'hold' | 'restore'): FileVersion[] =>
  versions.map((version) => (version.seq === seq ? { ...version, pinned } : version));

const plan = (versions: FileVersion[], atMs: number, policy: Partial<RetentionPolicy> = {}) =>
  planRetention(versions, { ...defaultRetention, ...policy }, origin + atMs);
const kept = (...args: Parameters<typeof plan>): number[] =>
  plan(...args)
    .decisions.filter(({ keep }) => keep)
    .map(({ seq }) => seq);
const reasons = (...args: Parameters<typeof plan>): Reason[] => plan(...args).decisions.map(({ reason }) => reason);
/** Relative to the origin, as what the tests pass in. */
const nextChangeAt = (...args: Parameters<typeof plan>): number | null => {
  const at = plan(...args).nextChangeAt;
  return at === null ? null : at - origin;
};
const spaced = (...everyMinutes: [number, number, number, number]): Pick<RetentionPolicy, 'windows'> => ({
  windows: defaultRetention.windows.map(({ untilDays }, i) => ({
    untilDays,
    everyMinutes: everyMinutes[i]!,
  })) as unknown as RetentionPolicy['windows'],
});

test('the origin of these tests begins an interval of every default spacing', () => {
  for (const { everyMinutes } of defaultRetention.windows) expect(origin % (everyMinutes * minute)).toBe(0);
});

describe('windows', () => {
  test('no versions, no decisions, and nothing to wait for', () => {
    expect(plan([], 0)).toEqual({ decisions: [], nextChangeAt: null });
  });

  test('a single version of a file that exists stays for ever', () => {
    expect(plan(history(0), 0)).toEqual({
      decisions: [{ seq: 1, keep: true, reason: { rule: 'latest' }, by: 0 }],
      nextChangeAt: null,
    });
    expect(kept(history(0), 36_500 * day)).toEqual([1]);
  });

  test('of many versions in one interval the newest stays, also when it was the last millisecond of it', () => {
    const quarter = history(0, 1, 14 * minute, 15 * minute - 1, 15 * minute, 16 * minute);
    expect(kept(quarter, hour)).toEqual([4, 6]);
    expect(reasons(quarter, hour)).toEqual([
      { rule: 'superseded', window: 0, by: 4 },
      { rule: 'superseded', window: 0, by: 4 },
      { rule: 'superseded', window: 0, by: 4 },
      { rule: 'window', window: 0 },
      { rule: 'superseded', window: 0, by: 6 },
      { rule: 'latest' },
    ]);
  });

  test('two versions of one millisecond: the later seq is the newer', () => {
    expect(kept(history(5, 5, 5), hour)).toEqual([3]);
  });

  // Each pair is two versions in one interval of the older window, in different ones of the newer. The first is dropped
  // in the millisecond in which it reaches the border.
  test.each<[from: string, borderMs: number, apartMs: number, window: number]>([
    ['last week to last 90 days', 7 * day, hour, 1],
    ['last 90 days to last year', 90 * day, day, 2],
    ['last year to before', 365 * day, 7 * day, 3],
  ])('%s: a version of exactly the border age is in the older window', (_, borderMs, apartMs, window) => {
    const versions = history(0, apartMs, 400 * day);
    expect(reasons(versions, borderMs - 1)[0]).toEqual({ rule: 'window', window: window - 1 });
    expect(reasons(versions, borderMs)[0]).toEqual({ rule: 'superseded', window, by: 2 });
    expect(nextChangeAt(versions, borderMs - 1)).toBe(borderMs);
    expect(kept(versions, borderMs)).toEqual([2, 3]);
  });

  test('intervals are anchored at the epoch: asking later moves no border between them', () => {
    const versions = history(14 * minute, 16 * minute, 29 * minute, 2 * hour);
    for (const later of [0, 1, 7 * minute, 15 * minute, day])
      expect(kept(versions, 2 * hour + later)).toEqual([1, 3, 4]);
  });

  test('an interval across a window border is one interval: its newest stands for the part that is past the border', () => {
    const versions = history(day + hour, day + 2 * hour, day + 20 * hour, 9 * day);
    const between = 8 * day + 3 * hour; // 1 and 2 are more than 7 days old, 3 is not
    expect(reasons(versions, between).slice(0, 3)).toEqual([
      { rule: 'superseded', window: 1, by: 3 },
      { rule: 'superseded', window: 1, by: 3 },
      { rule: 'window', window: 0 },
    ]);
    expect(kept(versions, 20 * day)).toEqual([3, 4]);
  });

  test('what only an older window will want is kept for it: a week that belongs to two spans of 30 days', () => {
    // Days 28 to 35 are one week, and day 30 begins a span.
    const versions = history(29 * day, 31 * day, 500 * day);
    expect(reasons(versions, 300 * day)[0]).toEqual({ rule: 'laterWindow', window: 3 });
    expect(kept(versions, 300 * day)).toEqual([1, 2, 3]);
    expect(kept(versions, 3000 * day)).toEqual([1, 2, 3]);
  });

  test('a window of 0 keeps every version', () => {
    const versions = history(0, 1, 2, 2 * day);
    expect(kept(versions, 3 * day, spaced(0, 1440, 1440, 1440))).toEqual([1, 2, 3, 4]);
    expect(kept(versions, 8 * day, spaced(0, 1440, 1440, 1440))).toEqual([3, 4]);
    expect(kept(versions, 10_000 * day, spaced(0, 0, 0, 0))).toEqual([1, 2, 3, 4]);
    expect(nextChangeAt(versions, 3 * day, spaced(0, 0, 0, 0))).toBe(null);
  });

  test('a version dated after now, because the clock was set back, stays until its date has come', () => {
    const versions = history(0, 10 * day, 10 * day + 1, 10 * day + hour);
    expect(kept(versions, -day)).toEqual([1, 2, 3, 4]);
    expect(reasons(versions, 10 * day)[0]).toEqual({ rule: 'window', window: 1 });
    expect(reasons(versions, -day)[1]).toEqual({ rule: 'future' });
    expect(nextChangeAt(versions, -day)).toBe(10 * day);
    expect(kept(versions, 10 * day)).toEqual([1, 3, 4]);
  });

  test('versions from before 1970 have intervals too', () => {
    const versions = [-hour, -1, 0].map((committedAt, i) => ({ seq: i + 1, committedAt, deleted: false }));
    const { decisions } = planRetention(versions, defaultRetention, 8 * day);
    expect(decisions.map(({ keep }) => keep)).toEqual([false, true, true]);
  });
});

describe('deleted files', () => {
  test('by default they stay: what they held last, and the record', () => {
    const versions = history(0, hour, gone(2 * hour));
    expect(kept(versions, 10_000 * day)).toEqual([2, 3]);
    expect(reasons(versions, 10_000 * day).slice(1)).toEqual([
      { rule: 'window', window: 3 },
      { rule: 'deletionRecord', of: 2 },
    ]);
    expect(nextChangeAt(versions, 10_000 * day)).toBe(null);
  });

  test('a file that was made and deleted within one interval still has what it held', () => {
    expect(kept(history(0, gone(1)), day)).toEqual([1, 2]);
  });

  test('after deletedAfterDays everything goes, to the millisecond', () => {
    const versions = history(0, day, gone(2 * day));
    const policy = { deletedAfterDays: 30 };
    expect(kept(versions, 32 * day - 1, policy)).toEqual([1, 2, 3]);
    expect(kept(versions, 32 * day, policy)).toEqual([]);
    expect(reasons(versions, 32 * day, policy)).toEqual([
      { rule: 'deletedFile' },
      { rule: 'deletedFile' },
      { rule: 'recordNotNeeded' },
    ]);
    expect(nextChangeAt(versions, 3 * day, policy)).toBe(32 * day);
    expect(nextChangeAt(versions, 32 * day, policy)).toBe(null);
  });

  test('deletedAfterDays 0 is the next prune, also when the clock was set back', () => {
    expect(kept(history(0, gone(day)), day, { deletedAfterDays: 0 })).toEqual([]);
    expect(kept(history(0, gone(day)), 0, { deletedAfterDays: 0 })).toEqual([]);
    expect(kept(history(0), day, { deletedAfterDays: 0 })).toEqual([1]);
  });

  test('a file that is back has its history, and the record in between', () => {
    const versions = history(0, gone(day), 10 * day);
    expect(kept(versions, 100 * day, { deletedAfterDays: 0 })).toEqual([1, 2, 3]);
    // Deleted again: what counts is the latest record.
    const again = history(0, gone(day), 2 * day, gone(40 * day));
    expect(kept(again, 50 * day, { deletedAfterDays: 30 })).toEqual([1, 2, 3, 4]);
    expect(kept(again, 70 * day, { deletedAfterDays: 30 })).toEqual([]);
  });

  test('a record in mid-history stays as long as anything older does, and goes with it', () => {
    const versions = history(0, gone(hour), 3 * hour, 40 * day);
    expect(kept(versions, 7 * day - 1)).toEqual([1, 2, 3, 4]);
    // The first version goes at 7 days: the third is the newest of that day. Its record then ends nothing.
    expect(kept(versions, 7 * day)).toEqual([3, 4]);
    expect(reasons(versions, 7 * day)[1]).toEqual({ rule: 'recordNotNeeded' });
  });

  test('the record that ends a version stays when the versions and records after it go', () => {
    const versions = history(-hour, gone(hour), 2 * hour, gone(3 * hour), 4 * hour, 40 * day);
    expect(kept(versions, 8 * day)).toEqual([1, 2, 5, 6]);
    expect(reasons(versions, 8 * day)[1]).toEqual({ rule: 'deletionRecord', of: 1 });
  });

  test('the latest record stays although an earlier one tells the same: it says since when the file is gone', () => {
    const versions = pin(history(0, gone(hour), 2 * hour, gone(3 * hour)), 1, 'hold');
    expect(kept(versions, 400 * day, { deletedAfterDays: 30 })).toEqual([1, 2, 4]);
  });

  test('a record with nothing before it goes: there is nothing it would bring back', () => {
    expect(kept(history(gone(0)), 0)).toEqual([]);
    expect(kept(history(gone(0), gone(1), hour), day)).toEqual([3]);
    expect(nextChangeAt(history(gone(0)), 0)).toBe(null);
  });

  test('a file that comes and goes costs no more than its windows', () => {
    const moments: Moment[] = [];
    for (let i = 0; i < 2000; i++) moments.push(i * 5 * minute, gone(i * 5 * minute + minute));
    // 5 minutes, 2,000 times: 6.9 days. 400 days later 30-day spans are left: one state, its record and the latest.
    expect(kept(history(...moments), 407 * day)).toHaveLength(2);
    expect(kept(history(...moments), 15 * day)).toHaveLength(14);
  });
});

describe('floors', () => {
  const within = history(0, 1, 2, 3, 4); // all in one quarter of an hour
  test.each<[keepNewest: number, stay: number[]]>([
    [0, [5]],
    [1, [5]],
    [2, [4, 5]],
    [4, [2, 3, 4, 5]],
    [5, [1, 2, 3, 4, 5]],
    [10_000, [1, 2, 3, 4, 5]],
  ])('keepNewest %i', (keepNewest, stay) => {
    expect(kept(within, hour, { keepNewest })).toEqual(stay);
    expect(nextChangeAt(within, hour, { keepNewest })).toBe(null);
  });

  test('keepNewest counts versions that hold something, not records', () => {
    const versions = history(0, 1, 2, gone(3), 4, gone(5));
    expect(kept(versions, hour, { keepNewest: 2 })).toEqual([3, 4, 5, 6]);
    expect(reasons(versions, hour, { keepNewest: 2 })[2]).toEqual({ rule: 'keepNewest' });
  });

  test('keepNewest does not outlive a deleted file', () => {
    expect(kept(history(0, gone(1)), 5 * day, { keepNewest: 3, deletedAfterDays: 5 })).toEqual([1, 2]);
    expect(kept(history(0, gone(1)), 5 * day + 1, { keepNewest: 3, deletedAfterDays: 5 })).toEqual([]);
  });

  test('keepWithinDays to the millisecond', () => {
    const policy = { keepWithinDays: 3 };
    expect(kept(within, 3 * day - 1, policy)).toEqual([1, 2, 3, 4, 5]);
    expect(nextChangeAt(within, 3 * day - 1, policy)).toBe(3 * day);
    expect(kept(within, 3 * day, policy)).toEqual([2, 3, 4, 5]);
    expect(reasons(within, 3 * day, policy)[1]).toEqual({ rule: 'keepWithin' });
    expect(kept(within, 3 * day + 3, policy)).toEqual([5]);
  });

  test('keepWithinDays also holds for a deleted file, and the record stays with what it keeps', () => {
    const versions = history(0, day, gone(2 * day));
    const policy = { keepWithinDays: 3, deletedAfterDays: 1 };
    expect(kept(versions, 3 * day - 1, policy)).toEqual([1, 2, 3]);
    expect(nextChangeAt(versions, 3 * day - 1, policy)).toBe(3 * day);
    expect(kept(versions, 3 * day, policy)).toEqual([2, 3]);
    expect(nextChangeAt(versions, 3 * day, policy)).toBe(4 * day);
    expect(kept(versions, 4 * day, policy)).toEqual([]);
  });
});

describe('pins', () => {
  test('a pin keeps what would go, and says that nothing else does', () => {
    const versions = pin(history(0, 1, 2), 1, 'restore');
    expect(kept(versions, hour)).toEqual([1, 3]);
    expect(reasons(versions, hour)[0]).toEqual({ rule: 'restore' });
    expect(nextChangeAt(versions, hour)).toBe(null);
  });

  test('a pin that is not needed yet is not the reason, and the moment it will be is one to plan for', () => {
    const versions = pin(history(0, hour, 20 * day), 1, 'hold');
    expect(reasons(versions, 7 * day - 1)[0]).toEqual({ rule: 'window', window: 0 });
    expect(nextChangeAt(versions, 7 * day - 1)).toBe(7 * day);
    expect(reasons(versions, 7 * day)[0]).toEqual({ rule: 'hold' });
  });

  test('a held version of a deleted file keeps the records that it needs, and no others', () => {
    const versions = pin(history(0, day, gone(2 * day)), 1, 'hold');
    const policy = { deletedAfterDays: 0 };
    expect(kept(versions, 3 * day, policy)).toEqual([1, 3]);
    expect(reasons(versions, 3 * day, policy)[2]).toEqual({ rule: 'deletionRecord', of: 1 });
    expect(kept(pin(versions, 3, 'hold'), 3 * day, policy)).toEqual([1, 3]);
  });

  test('a pinned record stays with nothing before it', () => {
    const versions = pin(history(0, gone(day)), 2, 'hold');
    expect(kept(versions, 3 * day, { deletedAfterDays: 0 })).toEqual([2]);
    expect(reasons(versions, 3 * day, { deletedAfterDays: 0 })[1]).toEqual({ rule: 'hold' });
  });
});

describe('what would delete the wrong thing is refused', () => {
  test('versions out of order', () => {
    const versions = history(0, hour);
    expect(() => plan(versions.toReversed(), day)).toThrow('version 1 comes after 2');
    expect(() => plan([versions[0]!, versions[0]!], day)).toThrow('version 1 comes after 1');
    expect(() => plan(history(1, 0), day)).toThrow('version 2 is dated before 1');
    expect(() => plan(history(Number.NaN), day)).toThrow('version 1 has no moment');
  });

  test('a policy with a fault, and a now that is no moment', () => {
    expect(() => plan(history(0), 0, { keepNewest: -1 })).toThrow('keepNewest must be a whole number');
    expect(() => plan(history(0), Number.NaN)).toThrow('now must be a moment');
  });
});

describe('faults of a policy', () => {
  const { daysMax, everyMinutesMax, keepNewestMax } = retentionBounds;
  const withWindow = (i: number, change: Partial<RetentionWindow>): RetentionPolicy => ({
    ...defaultRetention,
    windows: defaultRetention.windows.map((window, k) =>
      k === i ? { ...window, ...change } : window,
    ) as unknown as RetentionPolicy['windows'],
  });
  const withFields = (change: Partial<RetentionPolicy>): RetentionPolicy => ({ ...defaultRetention, ...change });
  const endless = (days: [number, number, number]): RetentionPolicy => ({
    ...defaultRetention,
    windows: defaultRetention.windows.map((window, i) => ({
      ...window,
      untilDays: days[i] ?? null,
    })) as unknown as RetentionPolicy['windows'],
  });

  test.each<[what: string, policy: RetentionPolicy]>([
    ['the default', defaultRetention],
    ['every version for ever', withFields(spaced(0, 0, 0, 0))],
    ['one spacing throughout', withFields(spaced(15, 15, 15, 15))],
    ['the widest spacing', withFields(spaced(15, 15, 15, everyMinutesMax))],
    ['the first days', endless([1, 2, 3])],
    ['the last days', endless([daysMax - 2, daysMax - 1, daysMax])],
    ['deleted files at once', withFields({ deletedAfterDays: 0 })],
    ['deleted files after a century', withFields({ deletedAfterDays: daysMax })],
    ['the largest floors', withFields({ keepNewest: keepNewestMax, keepWithinDays: daysMax })],
  ])('%s has none', (_, policy) => {
    expect(retentionFaults(policy)).toEqual([]);
  });

  test.each<[field: string, policy: RetentionPolicy, says: string]>([
    ['windows.0.everyMinutes', withWindow(0, { everyMinutes: -1 }), 'whole number from 0 to 5256000'],
    ['windows.3.everyMinutes', withWindow(3, { everyMinutes: everyMinutesMax + 1 }), 'whole number from 0 to 5256000'],
    ['windows.0.everyMinutes', withWindow(0, { everyMinutes: 0.5 }), 'whole number'],
    ['windows.0.everyMinutes', withWindow(0, { everyMinutes: Number.NaN }), 'whole number'],
    ['windows.1.everyMinutes', withWindow(1, { everyMinutes: 14 }), 'at least the 15 of the window before'],
    ['windows.2.everyMinutes', withWindow(2, { everyMinutes: 1439 }), 'at least the 1440 of the window before'],
    ['windows.3.everyMinutes', withWindow(3, { everyMinutes: 0 }), 'at least the 10080 of the window before'],
    ['windows.0.untilDays', withWindow(0, { untilDays: 0 }), 'whole number from 1 to 36500'],
    ['windows.0.untilDays', withWindow(0, { untilDays: null }), 'whole number'],
    ['windows.1.untilDays', withWindow(1, { untilDays: 7 }), 'more than the 7 of the window before'],
    ['windows.2.untilDays', withWindow(2, { untilDays: 90 }), 'more than the 90 of the window before'],
    ['windows.2.untilDays', withWindow(2, { untilDays: daysMax + 1 }), 'whole number from 1 to 36500'],
    ['windows.3.untilDays', withWindow(3, { untilDays: 1000 }), 'must be null'],
    ['deletedAfterDays', withFields({ deletedAfterDays: -1 }), 'whole number from 0 to 36500'],
    ['deletedAfterDays', withFields({ deletedAfterDays: daysMax + 1 }), 'whole number from 0 to 36500'],
    ['keepNewest', withFields({ keepNewest: -1 }), 'whole number from 0 to 10000'],
    ['keepNewest', withFields({ keepNewest: keepNewestMax + 1 }), 'whole number from 0 to 10000'],
    ['keepWithinDays', withFields({ keepWithinDays: -1 }), 'whole number from 0 to 36500'],
    ['keepWithinDays', withFields({ keepWithinDays: daysMax + 1 }), 'whole number from 0 to 36500'],
  ])('%s: %#', (field, policy, says) => {
    const faults = retentionFaults(policy);
    expect(faults.map((fault) => fault.field)).toEqual([field]);
    expect(faults[0]!.message).toContain(`${field} must be`);
    expect(faults[0]!.message).toContain(says);
  });

  test('all of them are reported at once', () => {
    const policy = { ...withWindow(1, { untilDays: 0, everyMinutes: 1 }), keepNewest: -1, deletedAfterDays: 0.5 };
    expect(retentionFaults(policy).map(({ field }) => field)).toEqual([
      'windows.1.untilDays',
      'windows.1.everyMinutes',
      'deletedAfterDays',
      'keepNewest',
    ]);
    const three = { ...defaultRetention, windows: defaultRetention.windows.slice(0, 3) };
    expect(retentionFaults(three as unknown as RetentionPolicy)[0]).toEqual({
      field: 'windows',
      message: 'windows must be four, newest first',
    });
  });
});

test.each<[reason: Reason, says: string, policy: Partial<RetentionPolicy>]>([
  [{ rule: 'latest' }, 'latest version of a file that exists', {}],
  [{ rule: 'window', window: 0 }, 'newest of its 15 minutes (up to 7 days old)', {}],
  [{ rule: 'window', window: 1 }, 'newest of its day (7 to 90 days old)', {}],
  [{ rule: 'window', window: 2 }, 'newest of its week (90 to 365 days old)', {}],
  [{ rule: 'laterWindow', window: 3 }, 'newest of its 30 days (wanted when 365 days old or older)', {}],
  [{ rule: 'window', window: 0 }, 'newest of its hour (up to 7 days old)', spaced(60, 60, 60, 60)],
  [{ rule: 'window', window: 0 }, 'newest of its 36 hours (up to 7 days old)', spaced(2160, 2160, 2160, 2160)],
  [{ rule: 'window', window: 0 }, 'every version stays (up to 7 days old)', spaced(0, 0, 0, 0)],
  [{ rule: 'superseded', window: 1, by: 12 }, 'version 12 is newer in the same day (7 to 90 days old)', {}],
  [{ rule: 'keepNewest' }, 'one of the newest 3', { keepNewest: 3 }],
  [{ rule: 'keepWithin' }, 'younger than 3 days', { keepWithinDays: 3 }],
  [{ rule: 'deletionRecord', of: 4 }, 'records that the file was deleted after version 4, which stays', {}],
  [{ rule: 'hold' }, 'only a legal hold keeps it', {}],
  [{ rule: 'restore' }, 'only a restore under way keeps it', {}],
  [{ rule: 'deletedFile' }, 'the file was deleted 30 days ago or longer', { deletedAfterDays: 30 }],
  [{ rule: 'recordNotNeeded' }, 'records a deletion of which nothing is left to tell', {}],
])('%j is told as: %s', (reason, says, policy) => {
  expect(explainReason(reason, { ...defaultRetention, ...policy })).toBe(says);
});
