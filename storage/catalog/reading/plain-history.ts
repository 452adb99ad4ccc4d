/**
 * What became of the files of a plain archive: those that changed since a moment, what they were then and are now, and those
 * that are hidden. Pages by key; locks nothing: whoever changes something by it holds the archive's row.
 */
import type { ArchiveRef } from '../../storage.ts';
import { statement, type Transaction } from '../database.ts';
import { filesByNames, type PlainName, valuesOfNames } from '../writing/plain-files.ts';

const ofFile = 'v.vault_id = $1 AND v.archive_id = $2 AND v.file_id = f.file_id';

/** Of a file `f`: what it is now, and the newest content that it still has. */
const now = `CROSS JOIN LATERAL (
        SELECT v.seq, v.deleted, v.committed_at FROM versions v WHERE ${ofFile} ORDER BY v.seq DESC LIMIT 1) now
       LEFT JOIN LATERAL (
        SELECT v.size, v.blocks, v.committed_at FROM versions v WHERE ${ofFile} AND NOT v.deleted ORDER BY v.seq DESC LIMIT 1) held ON true`;

const folder = `LEFT JOIN LATERAL (
        SELECT p.name FROM files p WHERE p.vault_id = $1 AND p.archive_id = $2 AND p.file_id = f.parent_id) p ON true`;

const sql = {
  // By time, which never goes back as seq grows, since that is what there is an index for; `+ 0` keeps seq from being looked for
  // in another one, which would be read whole. A file is named by its first version behind the moment alone, so once; the
  // others only say how far the page goes, and have no content.
  changedSince: statement(
    'plainHistory.changedSince',
    `SELECT page.seq, to_char(page.committed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS "committedAt", f.file_id AS "fileId", coalesce(p.name, '') AS folder, f.name,
            page.first, past.deleted IS NOT DISTINCT FROM false AS "wasThere", past.size AS "pastSize",
            CASE WHEN page.first THEN past.blocks END AS "pastBlocks",
            NOT now.deleted AS "isThere", now.seq AS "newestSeq", held.size AS "heldSize", CASE WHEN page.first THEN held.blocks END AS "heldBlocks"
       FROM (SELECT v.file_id, v.seq, v.committed_at, NOT EXISTS (
                SELECT 1 FROM versions e WHERE e.vault_id = $1 AND e.archive_id = $2 AND e.file_id = v.file_id AND e.seq > $3 AND e.seq < v.seq) AS first
               FROM versions v
              WHERE v.vault_id = $1 AND v.archive_id = $2 AND v.committed_at >= $4::timestamptz AND (v.committed_at, v.seq) > ($4::timestamptz, $5::bigint)
                AND v.seq + 0 > $3 AND v.seq + 0 <= $6
              ORDER BY v.committed_at, v.seq LIMIT $7) page
      CROSS JOIN LATERAL (
        SELECT f.file_id, f.parent_id, f.name FROM files f WHERE f.vault_id = $1 AND f.archive_id = $2 AND f.file_id = page.file_id OFFSET 0) f
       ${folder}
       LEFT JOIN LATERAL (
        SELECT v.deleted, v.size, v.blocks FROM versions v WHERE ${ofFile} AND v.seq <= $3 ORDER BY v.seq DESC LIMIT 1) past ON true
       ${now}
      ORDER BY page.committed_at, page.seq`,
  ),

  ofNames: statement(
    'plainHistory.ofNames',
    `SELECT x.ordinal::int - 1 AS i, NOT now.deleted AS "isThere", held.size AS "heldSize", held.blocks AS "heldBlocks"
       FROM ${filesByNames}
       ${now}`,
  ),

  // Whatever is hidden has history that retention looks at.
  hidden: statement(
    'plainHistory.hidden',
    `SELECT f.file_id AS "fileId", coalesce(p.name, '') AS folder, f.name, now.deleted AS hidden, now.committed_at AS "hiddenAt",
            held.size, held.committed_at AS "addedAt"
       FROM (SELECT * FROM files f WHERE f.vault_id = $1 AND f.archive_id = $2 AND f.file_id > $3 AND f.prune_after IS NOT NULL
              ORDER BY f.file_id LIMIT $4) f
       ${folder}
       ${now}
      ORDER BY f.file_id`,
  ),
};

export interface HeldContent {
  /** Bytes. */
  size: number;
  /** n x 32 bytes. */
  blocks: Buffer;
}

/** A file that changed since a moment. */
export interface ChangedFile {
  folder: string;
  name: string;
  /** What it was at the moment; null: it was not there, or hidden. */
  past: HeldContent | null;
  isThere: boolean;
  /** Of its newest version of all. */
  seq: number;
  /** The newest content that it still has. */
  held: HeldContent | null;
  /** Of its first version behind the moment. */
  key: VersionKey;
}

/** A place among the versions of an archive, by time. */
export interface VersionKey {
  /** ISO 8601 in UTC, with microseconds, which a date of JavaScript does not know. */
  committedAt: string;
  seq: number;
}

interface ChangedPage {
  files: ChangedFile[];
  /** Behind which to go on; null: that was all. */
  next: VersionKey | null;
}

interface ChangedRow {
  seq: number;
  committedAt: string;
  folder: Buffer;
  name: Buffer;
  first: boolean;
  wasThere: boolean;
  pastSize: number | null;
  pastBlocks: Buffer | null;
  isThere: boolean;
  newestSeq: number;
  heldSize: number | null;
  heldBlocks: Buffer | null;
}

const content = (size: number | null, blocks: Buffer | null): HeldContent | null =>
  size === null || blocks === null ? null : { size, blocks };

/**
 * The files that have a version behind `since`, up to `through`, each once, as they were at `since` and are now.
 * @param page.limit versions looked at
 */
export async function filesChangedSince(
  db: Transaction,
  ref: ArchiveRef,
  { since, through }: { since: number; through: number },
  page: { after: VersionKey; limit: number },
): Promise<ChangedPage> {
  const rows = await db.query<ChangedRow>(sql.changedSince, [
    ref.vault,
    ref.archive,
    since,
    page.after.committedAt,
    page.after.seq,
    through,
    page.limit,
  ]);
  const files = rows
    .filter(({ first }) => first)
    .map((row) => ({
      folder: row.folder.toString('latin1'),
      name: row.name.toString('latin1'),
      past: row.wasThere ? content(row.pastSize, row.pastBlocks) : null,
      isThere: row.isThere,
      seq: row.newestSeq,
      held: content(row.heldSize, row.heldBlocks),
      key: { committedAt: row.committedAt, seq: row.seq },
    }));
  const last = rows.at(-1);
  const more = rows.length === page.limit && last;
  return { files, next: more ? { committedAt: last.committedAt, seq: last.seq } : null };
}

/** Files by their names, in the order asked; null for one that there never was. */
export async function plainFilesOf(
  db: Transaction,
  ref: ArchiveRef,
  files: readonly PlainName[],
): Promise<(Pick<ChangedFile, 'isThere' | 'held'> | null)[]> {
  const found = new Array<Pick<ChangedFile, 'isThere' | 'held'> | null>(files.length).fill(null);
  if (files.length === 0) return found;
  const rows = await db.query<Pick<ChangedRow, 'isThere' | 'heldSize' | 'heldBlocks'> & { i: number }>(
    sql.ofNames,
    valuesOfNames(ref, files),
  );
  for (const { i, isThere, heldSize, heldBlocks } of rows) found[i] = { isThere, held: content(heldSize, heldBlocks) };
  return found;
}

interface HiddenRow {
  fileId: number;
  folder: string;
  name: string;
  hidden: boolean;
  hiddenAt: Date;
  /** Of the newest content that it still has; null: it has none. */
  size: number | null;
  addedAt: Date | null;
}

/** Files that have history, by id behind `after`: those that are hidden, and those that were. */
export async function filesWithPast(
  db: Transaction,
  ref: ArchiveRef,
  page: { after: number; limit: number },
): Promise<HiddenRow[]> {
  type Row = Omit<HiddenRow, 'folder' | 'name'> & { folder: Buffer; name: Buffer };
  const rows = await db.query<Row>(sql.hidden, [ref.vault, ref.archive, page.after, page.limit]);
  return rows.map((row) => ({ ...row, folder: row.folder.toString('latin1'), name: row.name.toString('latin1') }));
}
