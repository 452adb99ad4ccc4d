import { describe, expect, test } from '@jest/globals';
import { devicesCountingAt, type LicenceHistory, licencesAt, licencesNeeded, renewalsBetween } from './licences.ts';

const day = (text: string): Date => new Date(text.length === 10 ? `${text}T12:00:00Z` : text);
const iso = (date: Date): string => date.toISOString().slice(0, 10);
const on = (at: string) => ({ at: day(at), counts: true });
const off = (at: string) => ({ at: day(at), counts: false });
const device = (first: string, ...changes: ReturnType<typeof on>[]) => ({ firstBackupAt: day(first), changes });
const devices = (count: number, first: string) => Array.from({ length: count }, () => device(first));

/** As `number taken -> renews`, with `!` when it is not needed. */
const licences = (history: LicenceHistory, now: string): string[] =>
  licencesAt(history, day(now)).map(
    ({ number, takenAt, renewsAt, needed }) => `${number} ${iso(takenAt)} -> ${iso(renewsAt)}${needed ? '' : ' !'}`,
  );

const month = (history: LicenceHistory, from: string, to: string, now: string): string[] =>
  renewalsBetween(history, {
    from: day(`${from}T00:00:00Z`),
    to: day(`${to}T00:00:00Z`),
    now: day(now),
  }).map(
    ({ number, renewsAt, renews, settled }) =>
      `${number} ${iso(renewsAt)} ${renews ? 'renews' : 'ends'}${settled ? '' : ' ?'}`,
  );

test.each([
  [0, 1],
  [1, 1],
  [4, 1],
  [5, 2],
  [8, 2],
  [9, 3],
])('%i devices take %i', (count, expected) => {
  expect(licencesNeeded(count)).toBe(expected);
});

const user = [on('2024-03-10')];

describe('licences', () => {
  test.each<[name: string, history: LicenceHistory, now: string, expected: string[]]>([
    ['nobody before they are added', { user, devices: [] }, '2024-03-09', []],
    ['one without a device', { user, devices: [] }, '2024-03-10', ['1 2024-03-10 -> 2025-03-10']],
    [
      'the fourth device takes none',
      { user, devices: devices(4, '2024-05-01') },
      '2024-06-01',
      ['1 2024-03-10 -> 2025-03-10'],
    ],
    [
      'the fifth takes another, on the day it first backed up',
      { user, devices: [...devices(4, '2024-05-01'), device('2024-10-31')] },
      '2024-11-01',
      ['1 2024-03-10 -> 2025-03-10', '2 2024-10-31 -> 2025-10-31'],
    ],
    [
      'before it has backed up it takes none',
      { user, devices: [...devices(4, '2024-05-01'), device('2024-10-31')] },
      '2024-10-30',
      ['1 2024-03-10 -> 2025-03-10'],
    ],
    [
      'several, each with its own day',
      { user, devices: [...devices(4, '2024-04-01'), ...devices(4, '2024-06-15'), device('2024-08-20')] },
      '2024-12-01',
      ['1 2024-03-10 -> 2025-03-10', '2 2024-06-15 -> 2025-06-15', '3 2024-08-20 -> 2025-08-20'],
    ],
    ['the day before it renews', { user, devices: [] }, '2025-03-09T23:59:59.999Z', ['1 2024-03-10 -> 2025-03-10']],
    ['the day it renews', { user, devices: [] }, '2025-03-10T00:00:00Z', ['1 2024-03-10 -> 2026-03-10']],
    ['years later', { user, devices: [] }, '2031-01-01', ['1 2024-03-10 -> 2031-03-10']],
    [
      'taken on the last of January',
      { user: [on('2025-01-31')], devices: [] },
      '2025-06-01',
      ['1 2025-01-31 -> 2026-01-31'],
    ],
    [
      'taken on a leap day: a common year',
      { user: [on('2024-02-29')], devices: [] },
      '2024-06-01',
      ['1 2024-02-29 -> 2025-02-28'],
    ],
    [
      'taken on a leap day: the next leap year',
      { user: [on('2024-02-29')], devices: [] },
      '2027-06-01',
      ['1 2024-02-29 -> 2028-02-29'],
    ],
    [
      'taken on the 28th: a leap year',
      { user: [on('2023-02-28')], devices: [] },
      '2023-06-01',
      ['1 2023-02-28 -> 2024-02-28'],
    ],
    [
      'a fifth device on a leap day',
      { user: [on('2023-05-05')], devices: [...devices(4, '2023-06-01'), device('2024-02-29')] },
      '2025-03-01',
      ['1 2023-05-05 -> 2025-05-05', '2 2024-02-29 -> 2026-02-28'],
    ],
    [
      'late in the evening elsewhere: the day is that of UTC',
      { user: [on('2024-03-10T23:59:59.999Z')], devices: [] },
      '2024-04-01',
      ['1 2024-03-10 -> 2025-03-10'],
    ],
    [
      'deactivated: taken until its day',
      { user: [...user, off('2024-09-01')], devices: [] },
      '2025-03-09',
      ['1 2024-03-10 -> 2025-03-10 !'],
    ],
    ['deactivated: gone from its day on', { user: [...user, off('2024-09-01')], devices: [] }, '2025-03-10', []],
    [
      'deactivated just before its day',
      { user: [...user, off('2025-03-09T23:59:59.999Z')], devices: [] },
      '2025-03-10',
      [],
    ],
    [
      'deactivated on its day: it was renewed',
      { user: [...user, off('2025-03-10T00:00:00Z')], devices: [] },
      '2025-03-11',
      ['1 2024-03-10 -> 2026-03-10 !'],
    ],
    [
      'back before its day: the same one',
      { user: [...user, off('2024-09-01'), on('2025-02-01')], devices: [] },
      '2025-04-01',
      ['1 2024-03-10 -> 2026-03-10'],
    ],
    [
      'back after its day: a new one',
      { user: [...user, off('2024-09-01'), on('2025-06-20')], devices: [] },
      '2025-07-01',
      ['1 2025-06-20 -> 2026-06-20'],
    ],
    [
      'a device is deactivated: the second licence is not needed',
      { user, devices: [...devices(4, '2024-05-01'), device('2024-06-01', off('2024-08-01'))] },
      '2024-09-01',
      ['1 2024-03-10 -> 2025-03-10', '2 2024-06-01 -> 2025-06-01 !'],
    ],
    [
      'another device takes its place: the same licence and day',
      { user, devices: [...devices(4, '2024-05-01'), device('2024-06-01', off('2024-08-01')), device('2024-10-01')] },
      '2024-11-01',
      ['1 2024-03-10 -> 2025-03-10', '2 2024-06-01 -> 2025-06-01'],
    ],
    [
      'an old device goes, later ones stay: no day changes',
      { user, devices: [device('2024-04-01', off('2024-12-01')), ...devices(4, '2024-06-01'), device('2024-11-01')] },
      '2025-01-01',
      ['1 2024-03-10 -> 2025-03-10', '2 2024-06-01 -> 2025-06-01'],
    ],
    [
      'a device that comes back when the second licence has ended takes a new one',
      { user, devices: [...devices(4, '2024-05-01'), device('2024-06-01', off('2024-08-01'), on('2025-09-09'))] },
      '2025-10-01',
      ['1 2024-03-10 -> 2026-03-10', '2 2025-09-09 -> 2026-09-09'],
    ],
    [
      'deactivated before it ever backed up: it counts when it comes back',
      { user, devices: [...devices(4, '2024-05-01'), device('2024-06-01', off('2024-05-20'), on('2024-07-07'))] },
      '2024-08-01',
      ['1 2024-03-10 -> 2025-03-10', '2 2024-07-07 -> 2025-07-07'],
    ],
    [
      'the user goes with five devices and comes back in time for one of two',
      {
        user: [...user, off('2024-12-01'), on('2025-04-01')],
        devices: [...devices(4, '2024-05-01'), device('2024-06-01')],
      },
      '2025-04-02',
      ['1 2025-04-01 -> 2026-04-01', '2 2024-06-01 -> 2025-06-01'],
    ],
  ])('%s', (_name, history, now, expected) => {
    expect(licences(history, now)).toEqual(expected);
  });

  test('devices that count, those of a deactivated user too', () => {
    const history = {
      user: [...user, off('2024-12-01')],
      devices: [...devices(2, '2024-05-01'), device('2024-06-01', off('2024-08-01'))],
    };
    expect(
      ['2024-04-30', '2024-05-02', '2024-07-01', '2025-01-01'].map((now) => devicesCountingAt(history, day(now))),
    ).toEqual([0, 2, 3, 2]);
  });
});

describe('what comes to its day in a month', () => {
  const two: LicenceHistory = { user, devices: [...devices(4, '2024-05-01'), device('2024-06-30')] };
  test.each<[name: string, history: LicenceHistory, from: string, to: string, now: string, expected: string[]]>([
    ['nothing in the month it was taken', two, '2024-03-01', '2024-04-01', '2024-07-01', []],
    ['to come', two, '2025-03-01', '2025-04-01', '2025-01-01', ['1 2025-03-10 renews ?']],
    ['over, and in the midst', two, '2025-03-01', '2025-04-01', '2025-03-10', ['1 2025-03-10 renews']],
    ['long over', two, '2025-06-01', '2025-07-01', '2029-01-01', ['2 2025-06-30 renews']],
    ['years ahead', two, '2028-06-01', '2028-07-01', '2025-01-01', ['2 2028-06-30 renews ?']],
    [
      'on the first, at midnight',
      { user: [on('2024-04-01')], devices: [] },
      '2025-04-01',
      '2025-05-01',
      '2025-01-01',
      ['1 2025-04-01 renews ?'],
    ],
    ['not the month before', { user: [on('2024-04-01')], devices: [] }, '2025-03-01', '2025-04-01', '2025-01-01', []],
    [
      'on the last',
      { user: [on('2024-01-31')], devices: [] },
      '2025-01-01',
      '2025-02-01',
      '2025-01-01',
      ['1 2025-01-31 renews ?'],
    ],
    [
      'a leap day, in a common year',
      { user: [on('2024-02-29')], devices: [] },
      '2025-02-01',
      '2025-03-01',
      '2025-01-01',
      ['1 2025-02-28 renews ?'],
    ],
    [
      'a leap day, four years on',
      { user: [on('2024-02-29')], devices: [] },
      '2028-02-01',
      '2028-03-01',
      '2025-01-01',
      ['1 2028-02-29 renews ?'],
    ],
    [
      'will end',
      { user: [...user, off('2024-09-01')], devices: [] },
      '2025-03-01',
      '2025-04-01',
      '2025-01-01',
      ['1 2025-03-10 ends ?'],
    ],
    [
      'has ended',
      { user: [...user, off('2024-09-01')], devices: [] },
      '2025-03-01',
      '2025-04-01',
      '2025-06-01',
      ['1 2025-03-10 ends'],
    ],
    [
      'what will have ended does not come again',
      { user: [...user, off('2024-09-01')], devices: [] },
      '2026-03-01',
      '2026-04-01',
      '2025-01-01',
      [],
    ],
    [
      'ended although they are back now',
      { user: [...user, off('2024-09-01'), on('2025-05-05')], devices: [] },
      '2025-03-01',
      '2025-04-01',
      '2025-06-01',
      ['1 2025-03-10 ends'],
    ],
    [
      'in order',
      { user, devices: devices(9, '2024-03-05') },
      '2025-03-01',
      '2025-04-01',
      '2025-01-01',
      ['1 2025-03-10 renews ?', '2 2025-03-10 renews ?', '3 2025-03-10 renews ?'],
    ],
  ])('%s', (_name, history, from, to, now, expected) => {
    expect(month(history, from, to, now)).toEqual(expected);
  });
});
