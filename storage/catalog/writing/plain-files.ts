/**
 * Files of plain archives, as rows: one name in a folder, its latest version, and the pages of a folder. Lock order: the
 * caller that changes something holds the archive's row.
 */
import type { ArchiveRef } from '../../storage.ts';
import { type Database, statement, type Transaction } from '../database.ts';
import { packBytes } from './packing.ts';

/**
 * Versions of one name, with those that are hidden, beyond which restic puts it no more: the deleter reads them all at once.
 * Hiding it is always let through, and makes one more; so does undoing.
 */
export const plainHistoryMax = 1_000;

const latest = `SELECT v.seq, v.deleted, v.size, v.blocks FROM versions v
          WHERE v.vault_id = $1 AND v.archive_id = $2 AND v.file_id = f.file_id ORDER BY v.seq DESC LIMIT 1`;

// The names are counted before their versions are looked at: any number of them may be hidden.
const pageOfNames = `SELECT f.name, v.size, v.seq
  FROM (SELECT f.name, f.file_id FROM files f
         WHERE f.vault_id = $1 AND f.archive_id = $2 AND f.parent_id = $3 AND f.name > $4
         ORDER BY f.name LIMIT $5) f
  LEFT JOIN LATERAL (SELECT l.size, l.seq FROM (${latest}) l WHERE NOT l.deleted) v ON true
 ORDER BY f.name`;

/** Files `f` that there are of the names asked for, `x.ordinal` their places: of a statement with `valuesOfNames`. */
export const filesByNames = `unnest($4::int[], $5::int[], $7::int[], $8::int[]) WITH ORDINALITY
              AS x (folder_offset, folder_length, name_offset, name_length, ordinal)
      CROSS JOIN LATERAL (
        SELECT f.file_id FROM files f
         WHERE f.vault_id = $1 AND f.archive_id = $2 AND f.name = substr($6::bytea, x.name_offset, x.name_length)
           AND f.parent_id = CASE WHEN x.folder_length = 0 THEN 0 ELSE (
                 SELECT p.file_id FROM files p
                  WHERE p.vault_id = $1 AND p.archive_id = $2 AND p.parent_id = 0
                    AND p.name = substr($3::bytea, x.folder_offset, x.folder_length)) END
        OFFSET 0) f`;

const sql = {
  // Without a folder the name lies at the top.
  find: statement(
    'plainFiles.find',
    `SELECT v.size, v.blocks
       FROM files f CROSS JOIN LATERAL (${latest}) v
      WHERE f.vault_id = $1 AND f.archive_id = $2 AND f.name = $4 AND NOT v.deleted
        AND f.parent_id = CASE WHEN $3::bytea = '' THEN 0 ELSE (
              SELECT p.file_id FROM files p WHERE p.vault_id = $1 AND p.archive_id = $2 AND p.parent_id = 0 AND p.name = $3) END`,
  ),

  findFolder: statement(
    'plainFiles.findFolder',
    'SELECT file_id AS "fileId" FROM files WHERE vault_id = $1 AND archive_id = $2 AND parent_id = 0 AND name = $3',
  ),

  list: statement('plainFiles.list', pageOfNames),

  // A page as one value: as rows, many names cost 1.7 times the processor time.
  listPage: statement(
    'plainFiles.listPage',
    `SELECT count(*)::int AS looked, (array_agg(p.name ORDER BY p.name DESC))[1] AS last,
            json_agg(json_build_array(convert_from(p.name, 'UTF8'), p.size) ORDER BY p.name)
              FILTER (WHERE p.size IS NOT NULL) AS files
       FROM (${pageOfNames}) p`,
  ),

  // What a hidden one still has is the newest version before the record of its deletion.
  latestOf: statement(
    'plainFiles.latestOf',
    `SELECT x.ordinal::int - 1 AS i, f.file_id AS "fileId", v.deleted, v.size, v.blocks,
            CASE WHEN v.deleted THEN coalesce((
              SELECT h.size FROM versions h
               WHERE h.vault_id = $1 AND h.archive_id = $2 AND h.file_id = f.file_id AND NOT h.deleted
               ORDER BY h.seq DESC LIMIT 1), 0) ELSE v.size END AS "heldBytes",
            (SELECT count(*)::int FROM (
              SELECT 1 FROM versions h WHERE h.vault_id = $1 AND h.archive_id = $2 AND h.file_id = f.file_id
               ORDER BY h.seq LIMIT ${plainHistoryMax}) each) AS versions
       FROM ${filesByNames}
      CROSS JOIN LATERAL (${latest}) v`,
  ),
};

/** Where a file lies: in a folder at the top, or, with an empty one, at the top itself. */
export interface PlainName {
  folder: string;
  name: string;
}

export interface PlainFileRow {
  /** Bytes. */
  size: number;
  /** n x 32 bytes: the hashes of its blocks, in order. */
  blocks: Buffer;
}

/** The content of a file that is there and not hidden. */
export async function findPlainFile(
  db: Database,
  ref: ArchiveRef,
  { folder, name }: PlainName,
): Promise<PlainFileRow | null> {
  const values = [ref.vault, ref.archive, Buffer.from(folder), Buffer.from(name)];
  const [row] = await db.query<PlainFileRow>(sql.find, values);
  return row ?? null;
}

export async function findPlainFolder(db: Transaction, ref: ArchiveRef, folder: string): Promise<number | null> {
  const [row] = await db.query<{ fileId: number }>(sql.findFolder, [ref.vault, ref.archive, Buffer.from(folder)]);
  return row?.fileId ?? null;
}

/** Names of a folder in byte order, behind `after`; `size`, and `seq` of the version, are null of what is hidden. */
export function listPlainNames(
  db: Transaction,
  ref: ArchiveRef,
  page: { folderId: number; after: Buffer; limit: number },
): Promise<{ name: Buffer; size: number | null; seq: number | null }[]> {
  return db.query(sql.list, [ref.vault, ref.archive, page.folderId, page.after, page.limit]);
}

interface PlainPage {
  /** Names looked at, hidden or not. */
  looked: number;
  /** The last of them; null: there was none. */
  last: Buffer | null;
  /** Those that are not hidden, each with its bytes; null: none. */
  files: [name: string, size: number][] | null;
}

/** The same for whoever reads a whole folder: less work. */
export async function listPlainPage(
  db: Transaction,
  ref: ArchiveRef,
  page: { folderId: number; after: Buffer; limit: number },
): Promise<PlainPage> {
  const [row] = await db.query<PlainPage>(sql.listPage, [
    ref.vault,
    ref.archive,
    page.folderId,
    page.after,
    page.limit,
  ]);
  return row!;
}

/** $1 to $8 of a statement with `filesByNames`. */
export function valuesOfNames({ vault, archive }: ArchiveRef, files: readonly PlainName[]): unknown[] {
  const folders = packBytes(files.map(({ folder }) => Buffer.from(folder)));
  const names = packBytes(files.map(({ name }) => Buffer.from(name)));
  return [
    ...[vault, archive, folders.bytes, folders.offsets, folders.lengths],
    ...[names.bytes, names.offsets, names.lengths],
  ];
}

export interface LatestPlain {
  fileId: number;
  deleted: boolean;
  size: number;
  blocks: Buffer;
  /** Bytes of the newest content that the file still has, hidden or not; 0 when it has none. */
  heldBytes: number;
  /** How many it has; beyond `plainHistoryMax` they are not counted. */
  versions: number;
}

/** What files are now, in the order asked; undefined for one that has no version. The caller holds the archive. */
export async function latestPlainFiles(
  tx: Transaction,
  ref: ArchiveRef,
  files: readonly PlainName[],
): Promise<(LatestPlain | undefined)[]> {
  const found = new Array<LatestPlain | undefined>(files.length);
  if (files.length === 0) return found;
  const rows = await tx.query<LatestPlain & { i: number }>(sql.latestOf, valuesOfNames(ref, files));
  for (const { i, ...row } of rows) found[i] = row;
  return found;
}
