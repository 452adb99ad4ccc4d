/** Several policies for one file: what any of them keeps stays, whatever the history and whichever the policies. */
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { defaultRetention, type FileVersion, planByAny, planRetention, type RetentionPolicy } from './retention.ts';

const minute = 60_000;
const day = 24 * 60 * minute;
const origin = 20_000 * day;

const policies: fc.Arbitrary<RetentionPolicy> = fc
  .record({
    everies: fc.tuple(...[0, 0, 0, 0].map(() => fc.constantFrom(0, 15, 1440, 10_080, 43_200))),
    untils: fc.tuple(
      fc.integer({ min: 1, max: 10 }),
      fc.integer({ min: 1, max: 60 }),
      fc.integer({ min: 1, max: 300 }),
    ),
    deletedAfterDays: fc.constantFrom(null, 0, 1, 30, 200),
    keepNewest: fc.constantFrom(0, 0, 1, 3),
    keepWithinDays: fc.constantFrom(0, 0, 5, 100),
  })
  .map(({ everies, untils: [a, b, c], ...floors }) => {
    const spaced = everies.toSorted((x, y) => x - y);
    const windows = [a, a + b, a + b + c, null].map((untilDays, i) => ({ untilDays, everyMinutes: spaced[i]! }));
    return { ...floors, windows: windows as unknown as RetentionPolicy['windows'] };
  });

const step = fc.record({
  gapMinutes: fc.oneof(fc.integer({ min: 0, max: 120 }), fc.integer({ min: 0, max: 40 * 1440 })),
  deleted: fc.constantFrom(false, false, false, true),
  pinned: fc.constantFrom(undefined, undefined, undefined, undefined, 'hold' as const, 'restore' as const),
});
const histories: fc.Arbitrary<FileVersion[]> = fc.array(step, { minLength: 1, maxLength: 40 }).map((steps) => {
  let committedAt = origin;
  return steps.map(({ gapMinutes, deleted, pinned }, i) => {
    committedAt += gapMinutes * minute;
    return { seq: i * 2 + 1, committedAt, deleted, ...(pinned && { pinned }) };
  });
});
const several = fc.array(policies, { minLength: 1, maxLength: 4 });
/** After the last version, by up to two years. */
const ages = fc.integer({ min: 0, max: 730 * 1440 });

const endOf = (history: readonly FileVersion[]): number => history.at(-1)!.committedAt;
const keptBy = (history: readonly FileVersion[], of: readonly RetentionPolicy[], now: number): FileVersion[] => {
  const { decisions } = planByAny(history, of, now);
  return history.filter((_, i) => decisions[i]!.keep);
};
const seqs = (versions: readonly FileVersion[]): number[] => versions.map(({ seq }) => seq);
const check = (property: Parameters<typeof fc.assert>[0]): void => void fc.assert(property, { numRuns: 400 });

test('one policy is what it is alone', () => {
  check(
    fc.property(histories, policies, ages, (history, policy, age) => {
      const now = endOf(history) + age * minute;
      expect(planByAny(history, [policy], now)).toEqual(planRetention(history, policy, now));
    }),
  );
});

test('what stays is what stays by each of them, together; its reason is of one that keeps it', () => {
  check(
    fc.property(histories, several, ages, (history, of, age) => {
      const now = endOf(history) + age * minute;
      const each = of.map((policy) => new Set(seqs(keptBy(history, [policy], now))));
      const together = seqs(history).filter((seq) => each.some((kept) => kept.has(seq)));
      expect(seqs(keptBy(history, of, now))).toEqual(together);
      for (const { seq, keep, by } of planByAny(history, of, now).decisions)
        if (keep) expect(each[by]!.has(seq)).toBe(true);
    }),
  );
});

test('one policy more never deletes more', () => {
  check(
    fc.property(histories, several, policies, ages, (history, of, more, age) => {
      const now = endOf(history) + age * minute;
      const before = seqs(keptBy(history, of, now));
      expect(seqs(keptBy(history, [...of, more], now))).toEqual(expect.arrayContaining(before));
    }),
  );
});

test('the order of policies decides nothing but whose reason is told', () => {
  check(
    fc.property(histories, several, ages, (history, of, age) => {
      const now = endOf(history) + age * minute;
      expect(seqs(keptBy(history, of.toReversed(), now))).toEqual(seqs(keptBy(history, of, now)));
      expect(planByAny(history, of.toReversed(), now).nextChangeAt).toBe(planByAny(history, of, now).nextChangeAt);
    }),
  );
});

test('planning what stays again takes nothing, and pruning on the way leaves what pruning at the end would', () => {
  check(
    fc.property(histories, several, ages, ages, (history, of, age, later) => {
      const now = endOf(history) + age * minute;
      const kept = keptBy(history, of, now);
      expect(keptBy(kept, of, now)).toEqual(kept);
      const end = now + later * minute;
      expect(seqs(keptBy(kept, of, end))).toEqual(seqs(keptBy(history, of, end)));
    }),
  );
});

test('nothing goes before the moment that is told for planning again', () => {
  check(
    fc.property(histories, several, ages, fc.nat(), (history, of, age, some) => {
      const now = endOf(history) + age * minute;
      const { nextChangeAt } = planByAny(history, of, now);
      expect(nextChangeAt ?? Number.POSITIVE_INFINITY).toBeGreaterThan(now);
      const before = (nextChangeAt ?? now + 5_000 * day) - 1;
      const at = now + (some % Math.max(1, before - now + 1));
      for (const moment of [at, before]) expect(keptBy(history, of, moment)).toEqual(keptBy(history, of, now));
    }),
  );
});

test('a moment at which the file did not exist never becomes one at which it did', () => {
  check(
    fc.property(histories, several, ages, (history, of, age) => {
      const kept = keptBy(history, of, endOf(history) + age * minute);
      const stateAt = (versions: readonly FileVersion[], seq: number) => versions.findLast((each) => each.seq <= seq);
      for (const { seq, deleted } of history) if (deleted) expect(stateAt(kept, seq)?.deleted ?? true).toBe(true);
    }),
  );
});

describe('the reason', () => {
  const spaced = (everyMinutes: number): RetentionPolicy => ({
    ...defaultRetention,
    windows: defaultRetention.windows.map((window) => ({ ...window, everyMinutes })) as never,
  });
  const [all, daily, monthly] = [spaced(0), spaced(1440), spaced(43_200)];
  // Two days of a span of 30, two versions each.
  const begin = Math.ceil(origin / (30 * day)) * 30 * day;
  const history = [0, 1, 1440, 1441].map((at, i) => ({ seq: i + 1, committedAt: begin + at * minute, deleted: false }));
  const told = (of: RetentionPolicy[]) =>
    planByAny(history, of, begin + 3 * day).decisions.map(({ keep, reason, by }) => [keep, reason.rule, by]);

  test('is that of the policy that keeps a version, or of the first of those that let it go', () => {
    expect(told([monthly, daily])).toEqual([
      [false, 'superseded', 0],
      [true, 'window', 1],
      [false, 'superseded', 0],
      [true, 'latest', 0],
    ]);
    expect(told([daily, all]).map(([keep, , by]) => [keep, by])).toEqual([
      [true, 1],
      [true, 0],
      [true, 1],
      [true, 0],
    ]);
  });

  test('of no policy at all is a fault of the caller', () => {
    expect(() => planByAny(history, [], begin)).toThrow('no policy');
    expect(() => planByAny(history, [daily, { ...daily, keepNewest: -1 }], begin)).toThrow('keepNewest');
  });
});
