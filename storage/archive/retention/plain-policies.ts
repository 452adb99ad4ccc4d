/**
 * How long the files of a plain archive stay. Not by windows: a file that is there stays, with all its content; one that was
 * deleted stays hidden for some days and then goes, whole. So what was there at a moment within these days is there to be
 * had back. Locks are different: a lock that was given up is of no use to anybody, and goes at the next prune.
 */
import type { ArchivePolicies } from './policies.ts';
import type { RetentionPolicy } from './retention.ts';

/** Days that a deletion can be undone for. */
export const undeleteDaysMax = 3_650;

const locks = { path: Buffer.from('/locks'), anyCase: false };

/** Every version of a file stays until so many days after its deletion. */
function untilDeleted(deletedAfterDays: number): RetentionPolicy {
  return {
    windows: [
      { untilDays: 7, everyMinutes: 0 },
      { untilDays: 90, everyMinutes: 0 },
      { untilDays: 365, everyMinutes: 0 },
      { untilDays: null, everyMinutes: 0 },
    ],
    deletedAfterDays,
    keepNewest: 0,
    keepWithinDays: 0,
  };
}

/**
 * @param undeleteDays 0: what is deleted goes at the next prune
 * @param name whose decision that is, for people
 */
export function plainPolicies(undeleteDays: number, name: string): ArchivePolicies {
  return {
    name,
    policy: untilDeleted(undeleteDays),
    // Two versions for every command of restic's, so many that the cap would keep everything else from going.
    folders: [{ name: 'locks', folders: [locks], policy: untilDeleted(0), isUncapped: true }],
  };
}
