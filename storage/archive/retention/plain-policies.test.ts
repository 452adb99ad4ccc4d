import { describe, expect, test } from '@jest/globals';
import { plainPolicies } from './plain-policies.ts';
import { policiesByPath } from './policies.ts';
import { type FileVersion, planByAny, retentionFaults } from './retention.ts';

const dayMs = 86_400_000;
const start = Date.UTC(2026, 0, 1);

/** `+` came, `-` was deleted, each with the days after the start. */
function history(text: string): FileVersion[] {
  return text.split(' ').map((word, i) => {
    const deleted = word.startsWith('-');
    return { seq: i + 1, committedAt: start + Number(word.slice(1)) * dayMs, deleted };
  });
}

function keptOf(path: string, versions: readonly FileVersion[], at: { undeleteDays: number; nowMs: number }) {
  const policies = policiesByPath(plainPolicies(at.undeleteDays, 'test'))(Buffer.from(path));
  const of = policies.map(({ policy }) => policy);
  const { decisions, nextChangeAt } = planByAny(versions, of, at.nowMs);
  return { kept: decisions.filter(({ keep }) => keep).map(({ seq }) => seq), nextChangeAt };
}

describe('of a repository', () => {
  test.each([
    ['a file that is there stays, however old', '+0', 4_000, [1]],
    ['a deleted one stays until its days are over', '+0 -1', 30.999, [1, 2]],
    ['and goes when they are, to the millisecond', '+0 -1', 31, []],
    ['also when it came just before it was deleted', '+0.999 -1', 31, []],
    ['one that came back stays with what it was before', '+0 -1 +2', 4_000, [1, 2, 3]],
    ['deleted once more it goes by the later deletion', '+0 -1 +2 -10', 39.9, [1, 2, 3, 4]],
    ['and then goes whole', '+0 -1 +2 -10', 40, []],
  ])('%s', (_, text, nowDays, kept) => {
    const at = { undeleteDays: 30, nowMs: start + nowDays * dayMs };
    expect(keptOf('/data/ab', history(text), at).kept).toEqual(kept);
  });

  test('a millisecond before the 30 days are over nothing goes, and then all of it', () => {
    const versions = history('+0 -1');
    const end = start + 31 * dayMs;
    expect(keptOf('/data/ab', versions, { undeleteDays: 30, nowMs: end - 1 })).toEqual({
      kept: [1, 2],
      nextChangeAt: end,
    });
    expect(keptOf('/data/ab', versions, { undeleteDays: 30, nowMs: end }).kept).toEqual([]);
  });

  test('with no days what is deleted goes at the next prune', () => {
    expect(keptOf('/snapshots/ab', history('+0 -1'), { undeleteDays: 0, nowMs: start + dayMs }).kept).toEqual([]);
  });

  test.each(['/config', '/keys/ab', '/data/locks', '/lock'])('%s is no lock', (path) => {
    const at = { undeleteDays: 30, nowMs: start + 2 * dayMs };
    expect(keptOf(path, history('+0 -1'), at).kept).toEqual([1, 2]);
  });

  test('a lock that was given up goes at once, one that is held stays', () => {
    const at = { undeleteDays: 30, nowMs: start + dayMs };
    expect(keptOf('/locks/ab', history('+0 -1'), at).kept).toEqual([]);
    expect(keptOf('/locks/ab', history('+0'), at).kept).toEqual([1]);
  });

  test('what is held stays whatever the days', () => {
    const versions = history('+0 -1').map((each): FileVersion => ({ ...each, pinned: 'hold' }));
    expect(keptOf('/data/ab', versions, { undeleteDays: 0, nowMs: start + 4_000 * dayMs }).kept).toEqual([1, 2]);
  });

  test.each([0, 30, 3_650])('the policies for %i days are sound', (days) => {
    const { policy, folders } = plainPolicies(days, 'test');
    for (const each of [policy, ...folders.map((folder) => folder.policy)]) expect(retentionFaults(each)).toEqual([]);
  });
});
