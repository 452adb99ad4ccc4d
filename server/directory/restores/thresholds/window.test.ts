import { describe, expect, test } from '@jest/globals';
import { bytesOf, type ChargedHour, counting, windowHours, withBytes } from './window.ts';

const now = 500_000;

describe('what counts', () => {
  test.each([
    ['this hour', now, true],
    ['the last that does', now - windowHours, true],
    ['one before', now - windowHours - 1, false],
    // Another transaction began later, and was first.
    ['an hour that has just begun', now + 1, true],
  ])('%s', (_, hour, counts) => {
    expect(counting([{ hour, bytes: 5 }], now)).toEqual(counts ? [{ hour, bytes: 5 }] : []);
  });

  test('never more hours than a day has, and this one', () => {
    let hours: ChargedHour[] = [];
    for (let hour = now - 100; hour <= now; hour++) hours = counting(withBytes(hours, { hour, bytes: 1 }), hour);
    expect([hours.length, bytesOf(hours)]).toEqual([windowHours + 1, windowHours + 1]);
  });
});

describe('bytes are put into their hour', () => {
  test.each<[string, ChargedHour[], ChargedHour, ChargedHour[]]>([
    ['the first', [], { hour: 7, bytes: 3 }, [{ hour: 7, bytes: 3 }]],
    [
      'beside others, in order',
      [{ hour: 8, bytes: 1 }],
      { hour: 7, bytes: 3 },
      [
        { hour: 7, bytes: 3 },
        { hour: 8, bytes: 1 },
      ],
    ],
    ['more', [{ hour: 7, bytes: 1 }], { hour: 7, bytes: 3 }, [{ hour: 7, bytes: 4 }]],
    ['less', [{ hour: 7, bytes: 5 }], { hour: 7, bytes: -3 }, [{ hour: 7, bytes: 2 }]],
    ['all of it', [{ hour: 7, bytes: 5 }], { hour: 7, bytes: -5 }, []],
    ['never below nothing', [{ hour: 7, bytes: 5 }], { hour: 7, bytes: -6 }, []],
    [
      'never more than can be counted',
      [{ hour: 7, bytes: Number.MAX_SAFE_INTEGER }],
      { hour: 7, bytes: 2 },
      [{ hour: 7, bytes: Number.MAX_SAFE_INTEGER }],
    ],
  ])('%s', (_, hours, more, after) => expect(withBytes(hours, more)).toEqual(after));
});
