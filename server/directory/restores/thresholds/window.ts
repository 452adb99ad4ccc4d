/**
 * Bytes by the hour they were charged in, and how many of them count: those of this hour and of the 24 before it, so a day
 * at least and never as much as an hour more. Pure; as many hours as count are kept.
 */
export interface ChargedHour {
  /** Hours since the epoch, by the database's clock. */
  hour: number;
  bytes: number;
}

export const windowHours = 24;

/** Those that count now. */
export function counting(hours: readonly ChargedHour[], now: number): ChargedHour[] {
  return hours.filter(({ hour }) => hour >= now - windowHours);
}

export function bytesOf(hours: readonly ChargedHour[]): number {
  return hours.reduce((sum, { bytes }) => sum + bytes, 0);
}

/** With so many bytes more (or less) in an hour; nothing falls below 0, and what cannot be counted exactly is the most there is. */
export function withBytes(hours: readonly ChargedHour[], { hour, bytes }: ChargedHour): ChargedHour[] {
  const before = hours.find((each) => each.hour === hour)?.bytes ?? 0;
  const after = Math.min(Math.max(0, before + bytes), Number.MAX_SAFE_INTEGER);
  const others = hours.filter((each) => each.hour !== hour);
  return after === 0 ? others : [...others, { hour, bytes: after }].sort((a, b) => a.hour - b.hour);
}
