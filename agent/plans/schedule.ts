/**
 * When a plan is due. Pure: the moment and the device's zone are arguments, and nothing is remembered but when the plan was
 * last begun. So a laptop that slept, a clock that was set and a service that was restarted are all the same question.
 *
 * Windows are read by the clock on the wall, on the two days of a year that have 23 and 25 hours too:
 * a minute that the clock leaves out is the moment at which it goes on, and a window that lies wholly in what is left out
 * opens then, for as long as it is long: no night is skipped. Of a minute that comes twice the first counts.
 */
import type { PlanMessage } from '../../protocol/messages.ts';

/** Minutes to add to UTC at a moment (ms since the epoch). */
export type Zone = (moment: number) => number;

export type Schedule = Pick<PlanMessage, 'everyMinutes' | 'windows'>;
type Window = Schedule['windows'][number];

export interface LastRun {
  startedAtMs: number;
  /** It came to its end, well or not. One that broke off is tried again soon. */
  ended: boolean;
}

const minuteMs = 60_000;
const dayMinutes = 1_440;
const dayMs = dayMinutes * minuteMs;
/** A run that broke off (no server, a killed process) is begun again after this, or when the plan says if that is sooner. */
export const retryMinutes = 15;
/** A last run that begins later than now by more shows a clock that was set back: when the run was, nobody knows. */
const clockSlackMs = minuteMs;
/** A week and the day before it: windows repeat by the week, and one of yesterday's may have been moved into today. */
const daysLookedAt = 9;

/** The zone of the machine this runs on. */
export const zoneOfMachine: Zone = (moment) => -new Date(moment).getTimezoneOffset();

/**
 * When the plan is due: `now` if it is, else the moment at which it will be; null if its windows never open.
 * What was missed is made up for once. @param last null: it was never begun
 */
export function nextDue(schedule: Schedule, last: LastRun | null, now: number, zone: Zone): number | null {
  const isKnown = last !== null && last.startedAtMs <= now + clockSlackMs;
  const after = isKnown ? afterInterval(schedule, last, zone) : now;
  return firstOpen(schedule.windows, Math.max(now, after), zone);
}

/**
 * The interval after the last run. Days of it are the calendar's, so that a run at two stays at two when the clock changes;
 * in windows it counts on the beat that begins as a window opens, so that a late run does not push those after it out.
 */
function afterInterval({ everyMinutes, windows }: Schedule, last: LastRun, zone: Zone): number {
  const days = Math.floor(everyMinutes / dayMinutes);
  const restMs = (everyMinutes % dayMinutes) * minuteMs;
  const window = windows.length > 0 ? openAt(windows, last.startedAtMs, zone) : null;
  const due = (): number => {
    if (window) {
      if (days > 0) return momentOf(window.day + days, window.fromMinute, zone) + restMs;
      return window.opens + (Math.floor((last.startedAtMs - window.opens) / restMs) + 1) * restMs;
    }
    // Begun outside of the windows, by hand or before they were what they are: those to come are as if it had not been.
    if (windows.length > 0) return last.startedAtMs;
    if (days === 0) return last.startedAtMs + restMs;
    const local = last.startedAtMs + zone(last.startedAtMs) * minuteMs;
    const day = Math.floor(local / dayMs);
    return momentOf(day + days, (local - day * dayMs) / minuteMs, zone) + restMs;
  };
  return last.ended ? due() : Math.min(due(), last.startedAtMs + retryMinutes * minuteMs);
}

interface Opening {
  /** Days since 1970-01-01, by the device's calendar. */
  day: number;
  fromMinute: number;
  opens: number;
  closes: number;
}

/** The first moment from `moment` on at which a window is open. */
function firstOpen(windows: readonly Window[], moment: number, zone: Zone): number | null {
  if (windows.length === 0) return moment;
  let first: number | null = null;
  for (const { opens, closes } of openings(windows, moment, zone)) {
    if (closes <= moment) continue;
    const at = Math.max(opens, moment);
    if (first === null || at < first) first = at;
  }
  return first;
}

function openAt(windows: readonly Window[], moment: number, zone: Zone): Opening | null {
  for (const opening of openings(windows, moment, zone))
    if (opening.opens <= moment && moment < opening.closes) return opening;
  return null;
}

/** The windows of yesterday, today and a week on. */
function* openings(windows: readonly Window[], moment: number, zone: Zone): Generator<Opening> {
  const today = Math.floor((moment + zone(moment) * minuteMs) / dayMs);
  for (let day = today - 1; day < today - 1 + daysLookedAt; day++) {
    const weekday = ((day + 3) % 7) + 1; // 1970-01-01 was a Thursday, 4
    for (const { days, fromMinute, untilMinute } of windows) {
      if (!days.includes(weekday) || untilMinute <= fromMinute) continue;
      const opens = momentOf(day, fromMinute, zone);
      const closes = momentOf(day, untilMinute, zone);
      const isLeftOut = closes <= opens;
      yield { day, fromMinute, opens, closes: isLeftOut ? opens + (untilMinute - fromMinute) * minuteMs : closes };
    }
  }
}

/** The moment of a day's minute by the clock on the wall; `minute` may have a fraction, and 1,440 is the next midnight. */
function momentOf(day: number, minute: number, zone: Zone): number {
  const local = day * dayMs + minute * minuteMs;
  // Zones are at most 14 hours from UTC, so that a day to either side is before and after any change on this one.
  const [before, after] = [zone(local - dayMs), zone(local + dayMs)];
  const found = [before, after]
    .filter((offset) => zone(local - offset * minuteMs) === offset)
    .map((offset) => local - offset * minuteMs);
  if (found.length > 0) return Math.min(...found);
  // The clock leaves this minute out: it goes on at the moment of the change, which lies between the two readings.
  let [low, high] = [local - after * minuteMs, local - before * minuteMs];
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (zone(middle) === before) low = middle;
    else high = middle;
  }
  return high;
}
