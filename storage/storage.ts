/** What every verb works on, as one argument. */
import type { Database } from './catalog/database.ts';
import { checkCatalog } from './catalog/migrate.ts';
import type { ObjectStore } from './objects/object-store.ts';

export interface StorageSettings {
  /** How long a claim promises to keep a block. */
  claimWindowMs: number;
  /** How long an upload may take from its object's row to its blocks' rows. */
  uploadLeaseMs: number;
  /** How long the bytes of a dead object stay: at least the window of PostgreSQL's point-in-time recovery. */
  objectDeleteDelayMs: number;
  /** Added to the claim window when a block is freed: longer than any transaction, so that a claim that only looked is a promise. */
  freedMarginMs: number;
  /** How long a reader may be silent before prune takes what only it needs. */
  restoreLeaseMs: number;
  /** Prunes that would expire more than this share of an archive's versions in a day, and more than so many, raise an alert instead. */
  expiryShareMax: number;
  expiryVersionsMin: number;
  /** When this share of the files that were there, and at least so many, is changed or deleted within the window, expiry is frozen and an alert raised. */
  suspiciousShare: number;
  suspiciousFilesMin: number;
  suspiciousWindowMs: number;
}

const HOUR = 3_600_000;

export const storageDefaults: StorageSettings = {
  claimWindowMs: 7 * 24 * HOUR,
  uploadLeaseMs: HOUR,
  objectDeleteDelayMs: 7 * 24 * HOUR,
  freedMarginMs: 60_000,
  restoreLeaseMs: 24 * HOUR,
  expiryShareMax: 0.3,
  expiryVersionsMin: 1_000,
  suspiciousShare: 0.5,
  suspiciousFilesMin: 100,
  suspiciousWindowMs: 24 * HOUR,
};

export interface Storage {
  database: Database;
  objects: ObjectStore;
  /** Every object key begins with it, so that two catalogs in one bucket never meet. */
  catalogId: string;
  settings: StorageSettings;
}

/** One archive, named in full: no statement asks for an archive without its vault. */
export interface ArchiveRef {
  vault: number;
  archive: number;
}

export async function openStorage(parts: {
  database: Database;
  objects: ObjectStore;
  settings: StorageSettings;
}): Promise<Storage> {
  const { catalogId } = await checkCatalog(parts.database);
  return { ...parts, catalogId };
}
