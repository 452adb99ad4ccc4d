/** The times and bounds of a simulated world: short, so that everything lapses all the time. */
import type { ArchivePolicies } from '../../storage/archive/retention/policies.ts';
import type { RetentionPolicy } from '../../storage/archive/retention/retention.ts';
import { type StorageSettings, storageDefaults } from '../../storage/storage.ts';
import type { Random } from '../helpers/random.ts';

export const second = 1_000;
export const minute = 60 * second;
export const day = 24 * 60 * minute;
export const beatMs = minute;

export const settings: StorageSettings = {
  ...storageDefaults,
  claimWindowMs: 80 * second,
  uploadLeaseMs: minute,
  objectDeleteDelayMs: 2 * minute,
  freedMarginMs: 35 * second, // longer than any transaction (transactionTimeoutMs)
  restoreLeaseMs: 2 * minute,
  expiryVersionsMin: 12,
  suspiciousFilesMin: 7,
};

/** One for all, now and then with others for a folder. */
export function somePolicies(random: Random): ArchivePolicies {
  const folders = [{ path: Buffer.from('/folder1'), anyCase: false }];
  const ofFolders = Array.from({ length: random.pick([0, 0, 1, 2]) }, (_, i) => ({
    name: `plan ${i}`,
    folders,
    policy: somePolicy(random),
  }));
  return { name: 'archive', policy: somePolicy(random), folders: ofFolders };
}

/** A policy whose windows are as short as the worlds' lives. */
function somePolicy(random: Random): RetentionPolicy {
  const [first, second, third] = random.pick([
    [0, 15, 60],
    [15, 60, 24 * 60],
    [15, 60, 24 * 60],
    [60, 24 * 60, 7 * 24 * 60],
  ] as const);
  return {
    windows: [
      { untilDays: 1, everyMinutes: first },
      { untilDays: 3, everyMinutes: second },
      { untilDays: 10, everyMinutes: third },
      { untilDays: null, everyMinutes: 30 * 24 * 60 },
    ],
    deletedAfterDays: random.pick([null, 0, 0, 1, 2]),
    keepNewest: random.pick([0, 0, 0, 2]),
    keepWithinDays: random.pick([0, 0, 1]),
  };
}
