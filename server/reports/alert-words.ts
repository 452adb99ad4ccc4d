/**
 * What each kind of alert means, and what to do about it, for people. Every number that was raised is told: who reads
 * alerts in a terminal sees nothing else. Nothing of an alert's details is taken for granted: they are what the version
 * of the server said that raised it.
 */
import type { AlertKind } from '../../storage/catalog/checking/alerts.ts';
import { moment } from './shapes.ts';

export interface AlertWords {
  says: string;
  /** What to do first, and what reviewing does. */
  toDo: string;
}

type Details = Readonly<Record<string, unknown>>;

/** What an alert means. */
export function explainAlert(kind: AlertKind, details: Details): AlertWords {
  const explain = Object.hasOwn(words, kind) ? words[kind] : null;
  if (explain) return explain(details);
  // Raised by a newer version of the server.
  return {
    says: `An alert of the kind "${kind}": ${JSON.stringify(details)}.`,
    toDo: 'Look at its details. Reviewing closes it.',
  };
}

const words: Record<AlertKind, (details: Details) => AlertWords> = {
  suspicious_run: (details) => {
    const run = number(details, 'run');
    const when = momentIn(details, 'startedAt');
    const { beforeSeq, watchBeforeSeq } = details;
    const counted = `${number(details, 'replacedFiles')} of the ${number(details, 'liveFilesBefore')} files there were`;
    const isSecondOf = isNumber(watchBeforeSeq) && isNumber(beforeSeq) && watchBeforeSeq < beforeSeq;
    const after = isNumber(beforeSeq) ? `, which began after version ${beforeSeq},` : '';
    const says = isSecondOf
      ? `Backup run ${run}${when ? ` of ${when}` : ''}${after} and those shortly before it, from version ${watchBeforeSeq + 1} on, changed or deleted ${counted}.`
      : `Backup run ${run}${when ? ` of ${when}` : ''}${after} changed or deleted ${counted}.`;
    const which = isSecondOf
      ? `restore with "--before-run" and the first of these runs (of those "runs --json" lists, one whose beforeSeq is ${watchBeforeSeq})`
      : `restore with "--before-run ${run}"`;
    return {
      says: `${says} Retention deletes nothing of this archive meanwhile.`,
      toDo: `Find out what changed the files. If it was not meant, ${which}, and do not review this before you have what you need. Reviewing lets retention delete again.`,
    };
  },

  expiry_cap: (details) => {
    const today = isNumber(details.expiredToday) ? `, after ${details.expiredToday} that went today` : '';
    return {
      says: `Retention would delete ${number(details, 'expiring')} of the ${number(details, 'versionCount')} versions at once; at most ${number(details, 'cap')} more go unasked${today}. It has stopped there.`,
      toDo: 'Look at the plan ("retention plan"), and at who changed the policy. Reviewing lets the next prune delete so many, once, under the policy and holds as they are now.',
    };
  },

  refs_drift: (details) => ({
    says: `Counts do not agree with what they count, which is a fault of the program${driftIn(details)}. Nothing that is concerned is deleted.`,
    toDo: 'Report it with these words and the log of that time. "recount" counts anew at once. Reviewing closes the alert; it comes back while the cause is there.',
  }),

  verify_suspicious: (details) => {
    const { missingObjects } = details;
    const what = isNumber(missingObjects)
      ? `Much more is missing than bit rot explains: ${missingObjects} of this user's ${number(details, 'objects')} objects are not in the bucket`
      : `Much more looks damaged than bit rot explains: ${number(details, 'damaged')} of ${number(details, 'blocks')} blocks, in ${number(details, 'objects')} objects of this user that were read`;
    const look = isNumber(missingObjects)
      ? 'is it the right one, did a lifecycle rule or a person delete from it, can what is gone be brought back?'
      : 'is it the right one, does the store give back what was put into it, was it restored from somewhere?';
    return {
      says: `${what}. That looks like a wrong bucket, or a store that lies or was emptied. Nothing was marked damaged, and no bytes of this user are read to verify them meanwhile.`,
      toDo: `Look at the bucket first: ${look} Review this when the bucket is right again, or when you know that the data is lost: for a week from then on, whatever is still found missing or damaged is marked so, and agents send it again.`,
    };
  },

  damaged: (details) => {
    const since = momentIn(details, 'oldestFoundAt');
    return {
      says: `${number(details, 'blocks')} blocks do not hold their bytes any more${since ? `; the first was found at ${since}` : ''}. Agents send again what they still have.`,
      toDo: 'Look at "damage" of this user\'s devices for what no agent can heal, and keep the disks or the store in view. It closes by itself when all is well; reviewing closes it until it is found again.',
    };
  },

  audit_log_altered: (details) => {
    const of =
      details.tenant === 0 ? "the server's own log (tenant 0)" : `the log of tenant ${number(details, 'tenant')}`;
    const detail = typeof details.detail === 'string' ? details.detail : 'nothing was told';
    return {
      says: `${number(details, 'logs')} audit logs do not agree with what was signed of them. The first, ${of}: ${detail}. They are not signed meanwhile.`,
      toDo: 'Run "audit verify" to see from which act on. After restoring the database to an earlier moment "audit resume" goes on. Otherwise somebody has changed rows or removed heads: find out who can. It closes by itself when the logs agree.',
    };
  },

  unusual_restores: (details) => ({
    says: `${text(details.askerName) ?? 'Somebody'} has restored ${number(details, 'restoredBytes')} bytes of other people's archives within a day, and would have restored ${number(details, 'bytes')} more of this one; ${number(details, 'thresholdBytes')} are allowed. Nothing is restored for them meanwhile.`,
    toDo: `Ask them what for, look at the history of restores, and decide it as restore review ${number(details, 'review')} ("restore-reviews"). Reviewing the alert closes the alert only: they restore nothing until the restore review releases them.`,
  }),

  deleting_stopped: (details) => {
    const detail = text(details.detail) ?? 'the fence does not hold';
    const reason = text(details.reason);
    return {
      says: `Nothing is deleted: ${detail}${reason ? ` (${reason})` : ''}. Backups and restores go on.`,
      toDo: `${whatStops[reason ?? ''] ?? 'Do what it says.'} It closes by itself when deleting goes on.`,
    };
  },

  retention_unreadable: (details) => ({
    says: `Retention deletes nothing of this archive, because a policy of it cannot be read: ${text(details.why) ?? 'it is none'}. Backups and restores go on.`,
    toDo: 'Set the policy anew, on the device or the organization it is of, or let it inherit; a backup plan, delete and make anew (docs/retention.md). If a newer version of the server stored it, bring every server and worker to that version. It closes by itself when the policy can be read; reviewing only closes it, and it comes back while it cannot.',
  }),
};

/** By the reason the fence gives, where its words alone do not say what to do. */
const whatStops: Readonly<Record<string, string>> = {
  stale: 'See whether a worker runs, and whether it reaches database and object store: its log says.',
  bucket_unreachable:
    "See whether the workers reach the object store, and whether their credentials still hold: a worker's log says.",
  catalog_unreachable: "See whether the workers reach the database: a worker's log says.",
};

/** What was found, in the numbers or words of whoever found it. */
function driftIn(details: Details): string {
  const { found, message, what, keys } = details;
  const by = text(found) ? `, found by "${found}"` : '';
  if (text(message)) return `${by}: ${message}`;
  if (text(what)) return `${by}: ${what}${Array.isArray(keys) ? ` (${keys.length}: ${someOf(keys)})` : ''}`;
  const counts = recounted.filter(([name]) => isNumber(details[name]) && details[name] > 0);
  const numbers = counts.map(([name, says]) => `${details[name]} ${says}`).join(', ');
  const examples = isRecord(details.examples) ? `. Examples: ${JSON.stringify(details.examples)}` : '';
  return `${by}${numbers ? `: ${numbers}` : ''}${examples}`;
}

const recounted: readonly (readonly [name: string, says: string])[] = [
  ['tooLow', 'counts too low'],
  ['tooHigh', 'too high'],
  ['absent', 'of what is not there'],
  ['liveBytes', 'objects with wrong live bytes'],
  ['figures', 'wrong figures of repositories'],
  ['raised', 'raised'],
  ['lowered', 'lowered'],
];

/** The others are in the alert's details (`--json`). */
const shownMax = 3;

function someOf(values: readonly unknown[]): string {
  const shown = values.slice(0, shownMax).map(String).join(', ');
  return values.length > shownMax ? `${shown}, ...` : shown;
}

const isNumber = (value: unknown): value is number => typeof value === 'number';
const isRecord = (value: unknown): value is object => typeof value === 'object' && value !== null;
const text = (value: unknown): string | null => (typeof value === 'string' && value !== '' ? value : null);

function number(details: Details, name: string): string {
  const value = details[name];
  return isNumber(value) ? String(value) : 'an unknown number';
}

/** Moments are raised as milliseconds, or as JSON writes a Date. */
function momentIn(details: Details, name: string): string | null {
  const value = details[name];
  const at = isNumber(value) || typeof value === 'string' ? new Date(value) : null;
  return at && !Number.isNaN(at.getTime()) ? moment(at) : null;
}
