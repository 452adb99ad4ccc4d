/**
 * Listings of an archive. Every one is a page by key, in a statement of its own: no cursor is held open, so that a
 * listing of ten million files keeps no old row versions alive. All of them look at the archive as of a seq, which
 * never changes under the reader: seqs are given out in order under the archive's lock.
 */
import type { ArchiveRef } from '../../storage.ts';
import { type Database, statement, type Transaction } from '../database.ts';
import { packArray } from '../writing/packing.ts';

const versionColumns = `v.file_id AS "fileId", v.seq, v.committed_at AS "committedAt", v.kind, v.deleted, v.size, v.mtime`;
const heavyColumns = 'v.attributes, v.mac, v.blocks, v.lists';
const weight = 'octet_length(v.blocks) + octet_length(v.lists) + octet_length(v.attributes) AS weight';

const sql = {
  findMoment: statement(
    'archives.findMoment',
    `SELECT a.next_seq - 1 AS "newestSeq", now() AS now,
            (SELECT v.seq FROM versions v
              WHERE v.vault_id = $1 AND v.archive_id = $2 AND v.committed_at < $3::timestamptz + interval '1 millisecond'
              ORDER BY v.committed_at DESC, v.seq DESC LIMIT 1) AS "lastSeq",
            (SELECT v.seq FROM versions v
              WHERE v.vault_id = $1 AND v.archive_id = $2 AND v.committed_at >= $3::timestamptz + interval '1 millisecond'
              ORDER BY v.committed_at, v.seq LIMIT 1) AS "nextSeq",
            (SELECT max(c.first_seq + c.count - 1) FROM commits c
              WHERE c.vault_id = $1 AND c.archive_id = $2 AND c.committed_at < $3::timestamptz + interval '1 millisecond') AS "commitSeq",
            (SELECT CASE WHEN r.finished_at IS NOT NULL AND r.progressed_at < $3::timestamptz + interval '1 millisecond'
                         THEN coalesce((SELECT n.before_seq FROM runs n
                                         WHERE n.vault_id = $1 AND n.archive_id = $2 AND n.run_id > r.run_id
                                         ORDER BY n.run_id LIMIT 1), a.next_seq - 1)
                         ELSE r.before_seq END
               FROM runs r
              WHERE r.vault_id = $1 AND r.archive_id = $2 AND r.started_at < $3::timestamptz + interval '1 millisecond'
              ORDER BY r.started_at DESC, r.run_id DESC LIMIT 1) AS "runSeq"
       FROM archives a WHERE a.vault_id = $1 AND a.archive_id = $2`,
  ),

  followPath: statement(
    'files.followPath',
    `WITH RECURSIVE step (depth, file_id) AS (
       SELECT 0, 0::bigint
       UNION ALL
       SELECT step.depth + 1, f.file_id FROM step
        CROSS JOIN LATERAL (
          SELECT f.file_id FROM files f
           WHERE f.vault_id = $1 AND f.archive_id = $2 AND f.parent_id = step.file_id
             AND f.name = substr($3::bytea, ($4::int[])[step.depth + 1], ($5::int[])[step.depth + 1])
          OFFSET 0) f
        WHERE step.depth < cardinality($4::int[]))
     SELECT file_id AS "fileId" FROM step WHERE depth > 0 ORDER BY depth`,
  ),

  // The names are counted before their versions are looked at: a folder may hold any number of deleted ones, and a
  // statement must end.
  listFolders: statement(
    'files.listFolders',
    `SELECT folder.ordinal::int - 1 AS folder, child.*
       FROM unnest($4::bigint[]) WITH ORDINALITY AS folder (file_id, ordinal)
       CROSS JOIN LATERAL (
         SELECT f.file_id AS "fileId", f.name, f.folder AS "isFolder", f.created_seq <= $3 AS "wasMade", f.implied AS "wasImplied",
                v.seq, v.committed_at AS "committedAt", v.kind, v.deleted, v.size, v.mtime, v.weight
           FROM (SELECT * FROM files f
                  WHERE f.vault_id = $1 AND f.archive_id = $2 AND f.parent_id = folder.file_id AND f.name > $5
                  ORDER BY f.name LIMIT $6) f
           LEFT JOIN LATERAL (
             SELECT v.seq, v.committed_at, v.kind, v.deleted, v.size, v.mtime, ${weight}
               FROM versions v
              WHERE v.vault_id = $1 AND v.archive_id = $2 AND v.file_id = f.file_id AND v.seq <= $3
              ORDER BY v.seq DESC LIMIT 1) v ON true
          ORDER BY f.name) child`,
  ),

  lookAtName: statement(
    'files.lookAtName',
    `SELECT f.folder AS "isFolder", f.created_seq <= $4 AND NOT f.implied AS "wasThere"
       FROM files f WHERE f.vault_id = $1 AND f.archive_id = $2 AND f.file_id = $3`,
  ),

  nextContents: statement(
    'versions.nextContents',
    `SELECT x.ordinal::int - 1 AS i, v.seq, v.committed_at AS "committedAt"
       FROM unnest($3::bigint[]) WITH ORDINALITY AS x (file_id, ordinal)
      CROSS JOIN LATERAL (
        SELECT v.seq, v.committed_at FROM versions v
         WHERE v.vault_id = $1 AND v.archive_id = $2 AND v.file_id = x.file_id AND v.seq > $4 AND NOT v.deleted
         ORDER BY v.seq LIMIT 1) v`,
  ),

  latestVersion: statement(
    'versions.latest',
    `SELECT ${versionColumns}, ${weight}
       FROM versions v WHERE v.vault_id = $1 AND v.archive_id = $2 AND v.file_id = $3 AND v.seq <= $4
      ORDER BY v.seq DESC LIMIT 1`,
  ),

  history: statement(
    'versions.history',
    `SELECT ${versionColumns}, ${weight}
       FROM versions v WHERE v.vault_id = $1 AND v.archive_id = $2 AND v.file_id = $3 AND v.seq < $4
      ORDER BY v.seq DESC LIMIT $5`,
  ),

  laterHistory: statement(
    'versions.laterHistory',
    `SELECT ${versionColumns}, ${weight}
       FROM versions v WHERE v.vault_id = $1 AND v.archive_id = $2 AND v.file_id = $3 AND v.seq > $4
      ORDER BY v.seq LIMIT $5`,
  ),

  loadContents: statement(
    'versions.loadContents',
    `SELECT x.ordinal::int - 1 AS i, ${heavyColumns}
       FROM unnest($3::bigint[], $4::bigint[]) WITH ORDINALITY AS x (file_id, seq, ordinal)
      CROSS JOIN LATERAL (
        SELECT * FROM versions v WHERE v.vault_id = $1 AND v.archive_id = $2 AND v.file_id = x.file_id AND v.seq = x.seq OFFSET 0) v`,
  ),
};

/**
 * The last seq committed by a moment, or the newest when none is given; 0 before the first commit. Where retention has taken
 * the versions that were committed last by then, it is known by the commits of a month, and by the runs: all that one had
 * committed when it was last heard of, or when the one after it began. Of a moment in the middle of a run it may be earlier by
 * what was taken, when the commits are forgotten.
 * @returns null when there is no such archive
 */
export async function findMoment(
  db: Transaction,
  ref: ArchiveRef,
  at: Date | null,
): Promise<{ seq: number; at: Date } | null> {
  const [row] = await db.query<{
    newestSeq: number;
    now: Date;
    lastSeq: number | null;
    commitSeq: number | null;
    nextSeq: number | null;
    runSeq: number | null;
  }>(sql.findMoment, [ref.vault, ref.archive, at]);
  if (!row) return null;
  if (!at) return { seq: row.newestSeq, at: row.now };
  // A run may begin while what the one before it sent is still being committed.
  const byRuns = Math.min(row.runSeq ?? 0, (row.nextSeq ?? row.newestSeq + 1) - 1);
  return { seq: Math.max(row.lastSeq ?? 0, row.commitSeq ?? 0, byRuns), at };
}

/** The ids along a path, as far as it exists: as many as it has names when all of it does. */
export async function followPath(db: Database, ref: ArchiveRef, names: readonly Buffer[]): Promise<number[]> {
  if (names.length === 0) return [];
  const offsets: number[] = [];
  let at = 1;
  for (const name of names) {
    offsets.push(at);
    at += name.byteLength;
  }
  const lengths = packArray(names.map((name) => name.byteLength));
  const rows = await db.query<{ fileId: number }>(sql.followPath, [
    ref.vault,
    ref.archive,
    Buffer.concat(names),
    packArray(offsets),
    lengths,
  ]);
  return rows.map((row) => row.fileId);
}

/** A version without its attributes, blocks and lists; `weight` is the bytes of those. */
export interface VersionRow {
  fileId: number;
  seq: number;
  committedAt: Date;
  kind: 'file' | 'directory' | 'symlink';
  deleted: boolean;
  size: number;
  mtime: number;
  weight: number;
}

/** A name in a folder, visible at the moment or not. */
export interface ChildRow {
  name: Buffer;
  fileId: number;
  /** Something lies in it, or did at some time: whatever it is itself at the moment. */
  isFolder: boolean;
  /** It is a folder at the moment because something lies in it. */
  implied: boolean;
  /** Something was at this name by the moment, and retention has kept no version of it up to then. It may have been deleted by then. */
  thinned: boolean;
  /** Its latest version at the moment. */
  version: VersionRow | null;
}

/** Whether a name exists at the moment; deleted ones count if `deleted` says so. */
export function isVisible({ version, implied }: ChildRow, deleted: boolean): boolean {
  return version ? !version.deleted || deleted : implied;
}

/**
 * The names in several folders as of a seq, each folder's in byte order and at most `limit` of them, visible or not.
 * @param page.after names up to this one are left out, in every folder: give it with one folder only
 */
export async function listFolders(
  db: Database,
  ref: ArchiveRef,
  folders: readonly number[],
  page: { seq: number; after: Buffer; limit: number },
): Promise<ChildRow[][]> {
  type Row = { folder: number; name: Buffer; isFolder: boolean; wasMade: boolean; wasImplied: boolean } & {
    [K in keyof VersionRow]: VersionRow[K] | null;
  };
  const rows = await db.query<Row>(sql.listFolders, [
    ref.vault,
    ref.archive,
    page.seq,
    packArray(folders),
    page.after,
    page.limit,
  ]);
  const children: ChildRow[][] = folders.map(() => []);
  for (const { folder, name, isFolder, wasMade, wasImplied, ...version } of rows) {
    children[folder]!.push({
      name,
      fileId: version.fileId!,
      isFolder,
      implied: isFolder && wasMade,
      // A row that was made for what lies in it had no version then; any other had its own.
      thinned: wasMade && !wasImplied && version.seq === null,
      version: version.seq === null ? null : (version as VersionRow),
    });
  }
  return children;
}

export async function latestVersion(
  db: Database,
  ref: ArchiveRef,
  fileId: number,
  seq: number,
): Promise<VersionRow | null> {
  const [row] = await db.query<VersionRow>(sql.latestVersion, [ref.vault, ref.archive, fileId, seq]);
  return row ?? null;
}

/** Of a name without a version up to a seq: whether it was there by then (`thinned` of what is listed), and `isFolder`. */
export async function lookAtName(
  db: Database,
  ref: ArchiveRef,
  fileId: number,
  seq: number,
): Promise<{ wasThere: boolean; isFolder: boolean } | null> {
  const [row] = await db.query<{ wasThere: boolean; isFolder: boolean }>(sql.lookAtName, [
    ref.vault,
    ref.archive,
    fileId,
    seq,
  ]);
  return row ?? null;
}

/** The first version with content of each file behind a seq, in the order asked; undefined: there is none. */
export async function nextContents(
  db: Database,
  ref: ArchiveRef,
  files: readonly number[],
  seq: number,
): Promise<({ seq: number; committedAt: Date } | undefined)[]> {
  const rows = await db.query<{ i: number; seq: number; committedAt: Date }>(sql.nextContents, [
    ref.vault,
    ref.archive,
    packArray(files),
    seq,
  ]);
  const next = new Array<{ seq: number; committedAt: Date } | undefined>(files.length);
  for (const { i, ...version } of rows) next[i] = version;
  return next;
}

/** Versions of one file behind a seq, oldest first. */
export async function listLaterHistory(
  db: Database,
  ref: ArchiveRef,
  fileId: number,
  page: { above: number; limit: number },
): Promise<VersionRow[]> {
  return db.query<VersionRow>(sql.laterHistory, [ref.vault, ref.archive, fileId, page.above, page.limit]);
}

/** Versions of one file below a seq, newest first. */
export async function listHistory(
  db: Database,
  ref: ArchiveRef,
  fileId: number,
  page: { below: number; limit: number },
): Promise<VersionRow[]> {
  return db.query<VersionRow>(sql.history, [ref.vault, ref.archive, fileId, page.below, page.limit]);
}

export interface VersionContents {
  attributes: Buffer;
  mac: Buffer;
  /** One of the two names the content. */
  blocks: Buffer;
  lists: Buffer;
}

/** Attributes, MAC and blocks of versions, in the order asked; undefined for one that is gone since. */
export async function loadContents(
  db: Database,
  ref: ArchiveRef,
  versions: readonly { fileId: number; seq: number }[],
): Promise<(VersionContents | undefined)[]> {
  const rows = await db.query<VersionContents & { i: number }>(sql.loadContents, [
    ref.vault,
    ref.archive,
    packArray(versions.map((version) => version.fileId)),
    packArray(versions.map((version) => version.seq)),
  ]);
  const contents = new Array<VersionContents | undefined>(versions.length);
  for (const { i, ...rest } of rows) contents[i] = rest;
  return contents;
}
