/**
 * How many licences a user takes, and when they renew: pure, from when the user and their devices counted.
 *
 * A licence is a named user's and covers four devices; the fifth takes another, and so on. The first is taken when the
 * user is added, a further one when the device that needs it has first backed up. Each is taken for twelve months and
 * renews on its day for as long as it is needed. A user or device that is deactivated needs none from then on: what they
 * had stays taken until its day and is not renewed. Back before that day, they have the same one; back later, they take
 * a new one. Days are those of UTC, and begin the renewing: who is deactivated on the day itself was renewed.
 */

export const devicesPerLicence = 4;

/** From `at` on it counts, or not. */
export interface Change {
  at: Date;
  counts: boolean;
}

export interface LicenceHistory {
  /** Of the user, in order of time; before the first they do not count. */
  user: readonly Change[];
  /** Those that have backed up: since when, and what changed after; without changes they count. */
  devices: readonly { firstBackupAt: Date; changes: readonly Change[] }[];
}

export interface Licence {
  /** 1 for the first four devices, 2 for the next. */
  number: number;
  takenAt: Date;
  /** Midnight UTC of the day it renews, or ends. */
  renewsAt: Date;
  /** Whether it is needed now, and so renews if nothing changes. */
  needed: boolean;
}

/** A licence that came to its day, or will. */
export interface Renewal {
  number: number;
  takenAt: Date;
  renewsAt: Date;
  /** False: it ends. */
  renews: boolean;
  /** False: that day is to come, and things may change until then. */
  settled: boolean;
}

/** The licences a user has taken and not let end, by number. */
export function licencesAt(history: LicenceHistory, now: Date): Licence[] {
  const { slots, needed } = play(history, now);
  return slots.flatMap((slot, i) => (slot ? [{ number: i + 1, ...slot, needed: i < needed }] : []));
}

/** Licences needed now: none for who does not count, one at least for who does. */
export function licencesNeeded(devices: number): number {
  return Math.max(1, Math.ceil(devices / devicesPerLicence));
}

/** Devices that have backed up and count now, whether their user does or not. */
export function devicesCountingAt(history: LicenceHistory, now: Date): number {
  return history.devices.filter((device) => changesOf(device).findLast(({ at }) => at <= now)?.counts === true).length;
}

/**
 * What comes to its day from `from` on, and before `to`; up to now as it was, after that as it will be if nothing changes.
 * In order of the day, then of the number.
 */
export function renewalsBetween(
  history: LicenceHistory,
  { from, to, now }: { from: Date; to: Date; now: Date },
): Renewal[] {
  const found: Renewal[] = [];
  const { slots, needed } = play(history, now, (renewal) => found.push({ ...renewal, settled: true }));
  for (const [i, slot] of slots.entries()) {
    for (let at = slot?.renewsAt; slot && at && at < to; at = yearAfter(slot.takenAt, at)) {
      const renews = i < needed;
      found.push({ number: i + 1, takenAt: slot.takenAt, renewsAt: at, renews, settled: false });
      if (!renews) break;
    }
  }
  return found
    .filter(({ renewsAt }) => renewsAt >= from && renewsAt < to)
    .sort((a, b) => a.renewsAt.getTime() - b.renewsAt.getTime() || a.number - b.number);
}

interface Slot {
  takenAt: Date;
  renewsAt: Date;
}

/** Goes through everything that happened up to and including `until`. */
function play(
  history: LicenceHistory,
  until: Date,
  onRenewal: (renewal: Omit<Renewal, 'settled'>) => void = () => undefined,
): { slots: (Slot | null)[]; needed: number } {
  const slots: (Slot | null)[] = [];
  let needed = 0;
  const renewUpTo = (at: Date): void => {
    for (const [i, slot] of slots.entries()) {
      while (slots[i] && slot && slot.renewsAt <= at) {
        const renews = i < needed;
        onRenewal({ number: i + 1, ...slot, renews });
        if (renews) slot.renewsAt = yearAfter(slot.takenAt, slot.renewsAt);
        else slots[i] = null;
      }
    }
  };
  for (const step of stepsOf(history)) {
    if (step.at > until) break;
    renewUpTo(step.at);
    needed = step.needed;
    for (let i = 0; i < needed; i++) slots[i] ??= { takenAt: step.at, renewsAt: firstRenewal(step.at) };
  }
  renewUpTo(until);
  return { slots, needed };
}

/** The licences needed from each moment on at which something changed. */
function stepsOf(history: LicenceHistory): { at: Date; needed: number }[] {
  const ofDevices = history.devices.map(() => false);
  let ofUser = false;
  const changes = [
    ...history.user.map((change) => ({ ...change, device: -1 })),
    ...history.devices.flatMap((device, i) => changesOf(device).map((change) => ({ ...change, device: i }))),
  ].sort((a, b) => a.at.getTime() - b.at.getTime());
  const steps = new Map<number, number>();
  for (const { at, counts, device } of changes) {
    if (device === -1) ofUser = counts;
    else ofDevices[device] = counts;
    // Of several at one moment the last stands: then all of them have happened.
    steps.set(at.getTime(), ofUser ? licencesNeeded(ofDevices.filter(Boolean).length) : 0);
  }
  return Array.from(steps, ([at, needed]) => ({ at: new Date(at), needed }));
}

/** From the first backup on, as the last change before it says. */
function changesOf({ firstBackupAt, changes }: LicenceHistory['devices'][number]): Change[] {
  const before = changes.findLast(({ at }) => at <= firstBackupAt);
  return [{ at: firstBackupAt, counts: before?.counts ?? true }, ...changes.filter(({ at }) => at > firstBackupAt)];
}

function firstRenewal(takenAt: Date): Date {
  return yearsAfter(takenAt, 1);
}

/** Always counted from the day it was taken, so that one taken on a leap day comes back to it. */
function yearAfter(takenAt: Date, renewsAt: Date): Date {
  return yearsAfter(takenAt, renewsAt.getUTCFullYear() - takenAt.getUTCFullYear() + 1);
}

function yearsAfter(taken: Date, years: number): Date {
  const year = taken.getUTCFullYear() + years;
  const month = taken.getUTCMonth();
  const day = new Date(Date.UTC(year, month, taken.getUTCDate()));
  // 29 February, where there is none: the 28th.
  return day.getUTCMonth() === month ? day : new Date(Date.UTC(year, month + 1, 0));
}
