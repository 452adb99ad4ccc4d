/**
 * Moments as they are answered and asked for. What passes `Moment` PostgreSQL takes as well. A text of the standard may name an
 * hour that is 23 hours away from Greenwich, the year 0, or a thousandth of a thousandth of a microsecond, and those it refuses.
 */
import { z } from 'zod';

const first = Date.parse('0001-01-01T00:00:00Z');
const beyond = Date.UTC(10_000, 0);
const isMoment = (text: string): boolean => Date.parse(text) >= first && Date.parse(text) < beyond;

/** Of the hour of Greenwich, to the microsecond. */
function written(text: string): string {
  const fraction = /\.\d{1,6}/.exec(text)?.[0] ?? '';
  return `${new Date(text).toISOString().slice(0, 19)}${fraction}Z`;
}

const text = z.iso.datetime({ offset: true }).refine(isMoment, 'is before the year 1, or after 9999');

/** ISO 8601 with an offset. */
export const Moment = text.transform(written);

// By the clock when the program begins: whatever the year, six months ahead and less than two years.
const ahead = `${new Date().getUTCFullYear() + 1}-06-30T00:00:00Z`;

/** The same, of what has to be ahead: those who read examples get one that is not refused. */
export const MomentAhead = text.meta({ examples: [ahead] }).transform(written);

/** As it is answered; null: there is none. */
export const iso = (moment: Date | null | undefined): string | null => moment?.toISOString() ?? null;
