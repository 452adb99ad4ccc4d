import { describe, expect, test } from '@jest/globals';
import { type LastRun, nextDue, retryMinutes, type Schedule, type Zone } from './schedule.ts';

/** A zone of the IANA database, by another way than the code's own. */
function zoneOf(timeZone: string): Zone {
  const format = new Intl.DateTimeFormat('en-US', { timeZone, timeZoneName: 'longOffset' });
  return (moment) => {
    const name = format.formatToParts(moment).find(({ type }) => type === 'timeZoneName')!.value;
    const [, sign, hours, minutes] = /GMT(?:([+-])(\d\d):(\d\d))?/.exec(name)!;
    return sign === undefined ? 0 : (sign === '-' ? -1 : 1) * (Number(hours) * 60 + Number(minutes));
  };
}

const utc: Zone = () => 0;
/** 23 hours on 2026-03-29 (02:00 is 03:00), 25 on 2026-10-25 (03:00 is 02:00). */
const berlin = zoneOf('Europe/Berlin');
/** No 00:00 to 01:00 on 2018-11-04: the day begins at one. */
const saoPaulo = zoneOf('America/Sao_Paulo');
/** Half an hour: no 02:00 to 02:30 on 2026-10-04. */
const lordHowe = zoneOf('Australia/Lord_Howe');

const at = (text: string): number => {
  const moment = Date.parse(text);
  if (Number.isNaN(moment)) throw new Error(text);
  return moment;
};
const every = (everyMinutes: number, ...windows: Schedule['windows']): Schedule => ({ everyMinutes, windows });
const allDays = [1, 2, 3, 4, 5, 6, 7];
const daily = (fromMinute: number, untilMinute: number, days = allDays) => ({ days, fromMinute, untilMinute });
const begun = (text: string, ended = true): LastRun => ({ startedAtMs: at(text), ended });
const text = (moment: number | null): string => (moment === null ? 'never' : new Date(moment).toISOString());

type Row = [says: string, schedule: Schedule, last: LastRun | null, now: string, due: string, zone: Zone];

function check(rows: Row[]): void {
  test.each(rows)('%s', (_, schedule, last, now, due, zone) => {
    const found = nextDue(schedule, last, at(now), zone);
    expect(text(found)).toBe(due === 'now' ? text(at(now)) : due === 'never' ? due : text(at(due)));
  });
}

const nights = daily(120, 240); // 02:00 to 04:00
const weekend = daily(0, 1_440, [6, 7]);

describe('without windows', () => {
  check([
    ['never begun: now', every(60), null, '2026-05-01T10:00:00Z', 'now', utc],
    ['a ms before its turn', every(60), begun('2026-05-01T10:00:00Z'), '2026-05-01T10:59:59.999Z', '2026-05-01T11:00:00Z', utc], // biome-ignore format: a table
    ['its turn', every(60), begun('2026-05-01T10:00:00Z'), '2026-05-01T11:00:00Z', 'now', utc],
    ['slept for days: once, now', every(60), begun('2026-05-01T10:00:00Z'), '2026-05-04T07:12:00Z', 'now', utc],
    ['a minute', every(1), begun('2026-05-01T10:00:00Z'), '2026-05-01T10:00:30Z', '2026-05-01T10:01:00Z', utc],
    ['a year', every(525_600), begun('2026-05-01T10:00:00Z'), '2026-05-02T10:00:00Z', '2027-05-01T10:00:00Z', utc],
    ['a day and an hour', every(1_500), begun('2026-05-01T10:00:00Z'), '2026-05-01T10:00:01Z', '2026-05-02T11:00:00Z', utc], // biome-ignore format: a table
    ['a day stays at its hour, of 23 hours', every(1_440), begun('2026-03-28T11:00:00Z'), '2026-03-28T12:00:00Z', '2026-03-29T10:00:00Z', berlin], // biome-ignore format: a table
    ['a day stays at its hour, of 25 hours', every(1_440), begun('2026-10-24T10:00:00Z'), '2026-10-24T12:00:00Z', '2026-10-25T11:00:00Z', berlin], // biome-ignore format: a table
    ['an hour is an hour when the clock goes back', every(60), begun('2026-10-25T00:30:00Z'), '2026-10-25T00:31:00Z', '2026-10-25T01:30:00Z', berlin], // biome-ignore format: a table
    ['an hour is an hour when the clock goes on', every(60), begun('2026-03-29T00:30:00Z'), '2026-03-29T00:31:00Z', '2026-03-29T01:30:00Z', berlin], // biome-ignore format: a table
    [
      'the clock was set back by a day: now',
      every(60),
      begun('2026-05-02T10:00:00Z'),
      '2026-05-01T10:00:00Z',
      'now',
      utc,
    ],
    ['set back by just over a minute: now', every(60), begun('2026-05-01T10:01:00.001Z'), '2026-05-01T10:00:00Z', 'now', utc], // biome-ignore format: a table
    ['corrected by a minute: no second run', every(60), begun('2026-05-01T10:01:00Z'), '2026-05-01T10:00:00Z', '2026-05-01T11:01:00Z', utc], // biome-ignore format: a table
  ]);
});

describe('a run that broke off', () => {
  const soon = new Date(at('2026-05-01T10:00:00Z') + retryMinutes * 60_000).toISOString();
  check([
    ['is tried again soon', every(1_440), begun('2026-05-01T10:00:00Z', false), '2026-05-01T10:01:00Z', soon, utc],
    ['or sooner, as the plan says', every(5), begun('2026-05-01T10:00:00Z', false), '2026-05-01T10:01:00Z', '2026-05-01T10:05:00Z', utc], // biome-ignore format: a table
    ['but within its windows', every(60, nights), begun('2026-05-01T03:50:00Z', false), '2026-05-01T03:51:00Z', '2026-05-02T02:00:00Z', utc], // biome-ignore format: a table
  ]);
});

describe('a window', () => {
  check([
    ['not open yet', every(60, nights), null, '2026-05-01T01:59:59.999Z', '2026-05-01T02:00:00Z', utc],
    ['opens', every(60, nights), null, '2026-05-01T02:00:00Z', 'now', utc],
    ['its last moment', every(60, nights), null, '2026-05-01T03:59:59.999Z', 'now', utc],
    ['closes', every(60, nights), null, '2026-05-01T04:00:00Z', '2026-05-02T02:00:00Z', utc],
    ['slept through it: the next one', every(60, nights), begun('2026-04-30T03:00:00Z'), '2026-05-01T09:00:00Z', '2026-05-02T02:00:00Z', utc], // biome-ignore format: a table
    [
      'woken within it: now, once',
      every(60, nights),
      begun('2026-04-28T03:00:00Z'),
      '2026-05-01T02:50:00Z',
      'now',
      utc,
    ],
    ['its last beat is over', every(60, nights), begun('2026-05-01T03:00:05Z'), '2026-05-01T03:01:00Z', '2026-05-02T02:00:00Z', utc], // biome-ignore format: a table
    ['keeps to the beat from its opening', every(30, nights), begun('2026-05-01T02:42:00Z'), '2026-05-01T02:45:00Z', '2026-05-01T03:00:00Z', utc], // biome-ignore format: a table
    ['of days', every(60, weekend), null, '2026-05-01T12:00:00Z', '2026-05-02T00:00:00Z', utc], // a Friday
    ['of days, over midnight', every(60, weekend), begun('2026-05-02T23:10:00Z'), '2026-05-02T23:20:00Z', '2026-05-03T00:00:00Z', utc], // biome-ignore format: a table
    ['of days, at their end', every(60, weekend), begun('2026-05-03T23:10:00Z'), '2026-05-03T23:20:00Z', '2026-05-09T00:00:00Z', utc], // biome-ignore format: a table
    ['a week ahead', every(60, daily(0, 60, [5])), null, '2026-05-01T01:00:00Z', '2026-05-08T00:00:00Z', utc],
    ['the nearest of several', every(60, daily(1_200, 1_260), nights), null, '2026-05-01T04:00:00Z', '2026-05-01T20:00:00Z', utc], // biome-ignore format: a table
    ['by the clock of the device', every(60, nights), null, '2026-07-01T00:00:00Z', 'now', berlin],
    ['that never opens', every(60, daily(60, 60)), null, '2026-05-01T00:00:00Z', 'never', utc],
    ['a late daily run does not push the next one out', every(1_440, nights), begun('2026-05-01T03:59:00Z'), '2026-05-01T04:30:00Z', '2026-05-02T02:00:00Z', utc], // biome-ignore format: a table
    ['one begun by hand outside of it does not either', every(1_440, nights), begun('2026-05-01T15:00:00Z'), '2026-05-01T16:00:00Z', '2026-05-02T02:00:00Z', utc], // biome-ignore format: a table
    ['a weekly run', every(10_080, nights), begun('2026-05-01T02:30:00Z'), '2026-05-01T03:00:00Z', '2026-05-08T02:00:00Z', utc], // biome-ignore format: a table
    ['a run all the hours of a window: the next is due at once', every(30, nights), begun('2026-05-01T02:00:00Z'), '2026-05-01T03:10:00Z', 'now', utc], // biome-ignore format: a table
  ]);
});

describe('a night of 23 hours', () => {
  const leftOut = daily(120, 180); // wholly in what the clock leaves out
  check([
    ['a window left out opens as the clock goes on', every(1_440, leftOut), begun('2026-03-28T01:00:00Z'), '2026-03-28T03:00:00Z', '2026-03-29T01:00:00Z', berlin], // biome-ignore format: a table
    ['and is as long as ever', every(1_440, leftOut), null, '2026-03-29T01:59:59Z', 'now', berlin],
    ['and no longer', every(1_440, leftOut), null, '2026-03-29T02:00:00Z', '2026-03-30T00:00:00Z', berlin],
    ['the night after it is at its hour again', every(1_440, leftOut), begun('2026-03-29T01:20:00Z'), '2026-03-29T05:00:00Z', '2026-03-30T00:00:00Z', berlin], // biome-ignore format: a table
    ['one that begins in it opens as the clock goes on', every(60, daily(150, 300)), null, '2026-03-29T00:59:00Z', '2026-03-29T01:00:00Z', berlin], // biome-ignore format: a table
    ['one that ends in it closes there: open', every(60, daily(60, 150)), null, '2026-03-29T00:59:59Z', 'now', berlin],
    ['one that ends in it closes there: closed', every(60, daily(60, 150)), null, '2026-03-29T01:00:00Z', '2026-03-29T23:00:00Z', berlin], // biome-ignore format: a table
    [
      'a day that begins at one',
      every(60, daily(0, 60)),
      null,
      '2018-11-04T02:30:00Z',
      '2018-11-04T03:00:00Z',
      saoPaulo,
    ],
    [
      'half an hour left out',
      every(60, daily(120, 150)),
      null,
      '2026-10-03T15:00:00Z',
      '2026-10-03T15:30:00Z',
      lordHowe,
    ],
  ]);
});

describe('a night of 25 hours', () => {
  const twice = daily(120, 180); // from the first 02:00 to 03:00, which comes after the second
  check([
    ['opens at the first of two', every(1_440, twice), null, '2026-10-24T23:30:00Z', '2026-10-25T00:00:00Z', berlin],
    ['is open over both', every(1_440, twice), null, '2026-10-25T01:59:59Z', 'now', berlin],
    ['and closes after the second', every(1_440, twice), null, '2026-10-25T02:00:00Z', '2026-10-26T01:00:00Z', berlin],
    ['a daily run is run once', every(1_440, twice), begun('2026-10-25T00:00:00Z'), '2026-10-25T01:00:00Z', '2026-10-26T01:00:00Z', berlin], // biome-ignore format: a table
    ['one of the hour before closes at the first', every(60, daily(60, 120)), null, '2026-10-25T00:00:00Z', '2026-10-26T00:00:00Z', berlin], // biome-ignore format: a table
    [
      'the whole day is open for 25 hours',
      every(60, daily(0, 1_440, [7])),
      null,
      '2026-10-25T22:59:59Z',
      'now',
      berlin,
    ],
    ['and no longer', every(60, daily(0, 1_440, [7])), null, '2026-10-25T23:00:00Z', '2026-10-31T23:00:00Z', berlin],
  ]);
});

test.each([
  ['two to three', daily(120, 180)],
  ['a minute', daily(150, 151)],
  ['the first half hour', daily(0, 30)],
  ['the last half hour', daily(1_410, 1_440)],
])('a daily plan is run once on every day of a year: %s', (_, window) => {
  const schedule = every(1_440, window);
  const days: string[] = [];
  let last: LastRun | null = null;
  for (let now = at('2026-01-01T00:00:00+01:00'); now < at('2027-01-01T00:00:00+01:00'); ) {
    const due = nextDue(schedule, last, now, berlin)!;
    if (due > now) {
      now = due + 20_000; // nobody looks at the clock all the time
      continue;
    }
    days.push(new Date(now + berlin(now) * 60_000).toISOString().slice(0, 10));
    last = { startedAtMs: now, ended: true };
    now += 5_000;
  }
  expect(days.filter((day) => day < '2027')).toHaveLength(365);
  expect(new Set(days).size).toBe(days.length);
});
