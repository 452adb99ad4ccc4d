/**
 * The server's description of its API, kept for a while so that `--help` answers at once, and also while the server is
 * away. It is a copy of what anyone may read; the folder it lies in is its reader's own.
 */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { makeHome, readTextFile, writePrivateFile } from './home.ts';

export interface StoredDocument {
  /** By this machine's clock, in ms since the epoch. */
  fetchedAt: number;
  etag: string | null;
  document: unknown;
}

/** Another server has another file. */
const fileOf = (home: string, origin: string): string =>
  join(home, `api-${createHash('sha256').update(origin).digest('hex').slice(0, 16)}.json`);

/** Null when there is none, or none that can be read: it is fetched again then. */
export function readStoredDocument(home: string, origin: string): StoredDocument | null {
  const text = readTextFile(fileOf(home, origin));
  if (text === null) return null;
  try {
    const read = JSON.parse(text) as StoredDocument;
    const isWhole = typeof read.fetchedAt === 'number' && typeof read.document === 'object' && read.document !== null;
    return isWhole ? { ...read, etag: typeof read.etag === 'string' ? read.etag : null } : null;
  } catch {
    return null;
  }
}

export function storeDocument(home: string, origin: string, stored: StoredDocument): void {
  makeHome(home);
  writePrivateFile(fileOf(home, origin), JSON.stringify(stored));
}
