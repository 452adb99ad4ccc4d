import { describe, expect, test } from '@jest/globals';
import { holdCovers, looksAtPaths } from './hold-policy.ts';

const at = (hour: number): number => Date.UTC(2026, 0, 1, hour);
const iso = (hour: number): string => new Date(at(hour)).toISOString();

describe('a hold with dates covers what was current at some moment between them', () => {
  // The version was committed at 10:00 and replaced at 12:00.
  test.each([
    { from: 9, until: 13, covered: true },
    { from: 11, until: 11, covered: true },
    { from: 12, until: 13, covered: true }, // in the millisecond in which it was replaced it may have been current
    { from: 13, until: 14, covered: false },
    { from: 8, until: 9, covered: false },
    { from: 8, until: 10, covered: true },
    { from: 8, until: undefined, covered: true },
    { from: undefined, until: 10, covered: true },
    { from: undefined, until: 9, covered: false },
    { from: 13, until: undefined, covered: false },
  ])('$from to $until: $covered', ({ from, until, covered }) => {
    const policy = {
      ...(from !== undefined && { from: iso(from) }),
      ...(until !== undefined && { until: iso(until) }),
    };
    expect(holdCovers(policy, { committedAt: at(10), replacedAt: at(12) }, null)).toBe(covered);
  });

  test('a millisecond decides at both ends', () => {
    const version = { committedAt: at(10), replacedAt: at(12) };
    expect(holdCovers({ from: new Date(at(12)).toISOString() }, version, null)).toBe(true);
    expect(holdCovers({ from: new Date(at(12) + 1).toISOString() }, version, null)).toBe(false);
    expect(holdCovers({ until: new Date(at(10)).toISOString() }, version, null)).toBe(true);
    expect(holdCovers({ until: new Date(at(10) - 1).toISOString() }, version, null)).toBe(false);
  });

  test('the latest version is current for ever', () => {
    expect(holdCovers({ from: iso(20) }, { committedAt: at(10), replacedAt: null }, null)).toBe(true);
  });
});

describe('a hold with paths', () => {
  const covers = (paths: string[], path: string): boolean =>
    holdCovers({ paths }, { committedAt: 0, replacedAt: null }, Buffer.from(path));

  test.each([
    [['/home/ann'], '/home/ann', true],
    [['/home/ann'], '/home/ann/mail/inbox', true],
    [['/home/ann'], '/home/anna', false],
    [['/home/ann'], '/home', false],
    [['/'], '/anything', true],
    [['/m\u00fcller'], '/mu\u0308ller/x', true],
    [['/mu\u0308ller'], '/m\u00fcller', true],
    [['/a', '/b'], '/b/c', true],
  ])('%j and %s: %s', (paths, path, covered) => {
    expect(covers(paths, path)).toBe(covered);
  });

  test('covers what lies below however the letters are composed, also where a name is no UTF-8', () => {
    const path = Buffer.concat([Buffer.from('/mu\u0308ller/'), Buffer.of(0xff), Buffer.from('/x')]);
    const covers = (folder: string) => holdCovers({ paths: [folder] }, { committedAt: 0, replacedAt: null }, path);
    expect([covers('/m\u00fcller'), covers('/mu\u0308ller'), covers('/muller')]).toEqual([true, true, false]);
  });

  test('covers a file whose path is not known', () => {
    expect(holdCovers({ paths: ['/a'] }, { committedAt: 0, replacedAt: null }, null)).toBe(true);
  });

  test('says that it looks at paths, and others that they do not', () => {
    expect(looksAtPaths({ paths: ['/a'] })).toBe(true);
    expect(looksAtPaths({ from: iso(1) })).toBe(false);
  });
});

test.each([
  [null],
  ['all'],
  [[]],
  [{ mailboxes: [] }],
  [{ from: 'yesterday' }],
  [{ until: 5 }],
  [{ paths: '/a' }],
  [{ paths: [1] }],
  [{ paths: [] }],
  [{ paths: ['held'] }],
  [{ paths: ['/held/'] }],
  [{ paths: ['/held//x'] }],
  [{ from: '2026-01-01T00:00:00' }],
  [{ from: '2026-01-01' }],
])('what is not understood covers everything: %j', (policy) => {
  expect(holdCovers(policy, { committedAt: 0, replacedAt: 1 }, Buffer.from('/x'))).toBe(true);
});
