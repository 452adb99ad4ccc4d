/** Which files have history that retention must look at, and that history. Pages by key; locks nothing. */
import type { ArchiveRef } from '../../storage.ts';
import { type Database, statement, type Transaction } from '../database.ts';
import { packArray } from '../writing/packing.ts';

const sql = {
  archivesOfVault: statement(
    'archives.ofVault',
    'SELECT archive_id AS archive FROM archives WHERE vault_id = $1 ORDER BY archive_id',
  ),

  allArchives: statement(
    'archives.all',
    'SELECT vault_id AS vault, archive_id AS archive FROM archives ORDER BY vault_id, archive_id',
  ),

  // Over all vaults: one step along an index for each archive.
  archivesWithDue: statement(
    'archives.withDueFiles',
    `SELECT a.vault_id AS vault, a.archive_id AS archive FROM archives a
      CROSS JOIN LATERAL (
        SELECT 1 FROM files f WHERE f.vault_id = a.vault_id AND f.archive_id = a.archive_id AND f.prune_after <= now() LIMIT 1) f
      ORDER BY a.vault_id, a.archive_id`,
  ),

  due: statement(
    'files.due',
    `SELECT file_id AS "fileId", prune_after::text AS after FROM files
      WHERE vault_id = $1 AND archive_id = $2 AND prune_after <= now() AND (prune_after, file_id) > ($3::timestamptz, $4::bigint)
      ORDER BY prune_after, file_id LIMIT $5`,
  ),

  withHistory: statement(
    'files.withHistory',
    `SELECT file_id AS "fileId" FROM files
      WHERE vault_id = $1 AND archive_id = $2 AND file_id > $3 AND prune_after IS NOT NULL ORDER BY file_id LIMIT $4`,
  ),

  histories: statement(
    'versions.histories',
    `SELECT x.file_id AS "fileId", v.seq, v.committed_at AS "committedAt", v.deleted, v.size, v.names
       FROM unnest($3::bigint[]) WITH ORDINALITY AS x (file_id, ordinal)
      CROSS JOIN LATERAL (
        SELECT v.seq, v.committed_at, v.deleted, v.size, (octet_length(v.blocks) + octet_length(v.lists)) / 32 AS names FROM versions v
         WHERE v.vault_id = $1 AND v.archive_id = $2 AND v.file_id = x.file_id ORDER BY v.seq) v
      ORDER BY x.ordinal, v.seq LIMIT $4`,
  ),

  retentionApplied: statement(
    'archives.retentionApplied',
    `SELECT retention_applied AS applied, frozen_at IS NOT NULL AS frozen, version_count AS "versionCount",
            CASE WHEN expired_since > now() - interval '1 day' AND expired_since <= now() THEN expired_versions ELSE 0 END AS "expiredToday",
            over_cap_versions AS "overCapVersions", over_cap_digest AS "overCapDigest", state, now() AS now
       FROM archives WHERE vault_id = $1 AND archive_id = $2`,
  ),

  // A page of files that have history and are not due: made due, because the policy is another one.
  makeDue: statement(
    'files.makeDue',
    `WITH later AS MATERIALIZED (
       SELECT file_id FROM files WHERE vault_id = $1 AND archive_id = $2 AND prune_after > now() ORDER BY prune_after LIMIT $3)
     UPDATE files SET prune_after = now()
      WHERE vault_id = $1 AND archive_id = $2 AND file_id = ANY (ARRAY(SELECT file_id FROM later)) RETURNING file_id`,
  ),

  setRetentionApplied: statement(
    'archives.setRetentionApplied',
    'UPDATE archives SET retention_applied = $3 WHERE vault_id = $1 AND archive_id = $2',
  ),

  allowOverCap: statement(
    'archives.allowOverCap',
    `UPDATE archives SET over_cap_versions = $3, over_cap_digest = $4,
            expired_versions = CASE WHEN $5 THEN 0 ELSE expired_versions END
      WHERE vault_id = $1 AND archive_id = $2`,
  ),

  unfreeze: statement(
    'archives.unfreeze',
    'UPDATE archives SET frozen_at = NULL, watch_since = NULL WHERE vault_id = $1 AND archive_id = $2',
  ),
};

/** Archives that have files whose history is due to be planned. */
export function archivesWithDueFiles(db: Database): Promise<ArchiveRef[]> {
  return db.query<ArchiveRef>(sql.archivesWithDue);
}

export async function archivesOfVault(db: Database | Transaction, vault: number): Promise<ArchiveRef[]> {
  const rows = await db.query<{ archive: number }>(sql.archivesOfVault, [vault]);
  return rows.map(({ archive }) => ({ vault, archive }));
}

export function allArchives(db: Database): Promise<ArchiveRef[]> {
  return db.query<ArchiveRef>(sql.allArchives);
}

export interface DueFile {
  fileId: number;
  /** Since when, as PostgreSQL writes it. */
  after: string;
}

/** Files whose history is due to be planned, the longest waiting first. @param last where the page before ended */
export function dueFiles(db: Transaction, ref: ArchiveRef, last: DueFile | null, limit: number): Promise<DueFile[]> {
  return db.query<DueFile>(sql.due, [ref.vault, ref.archive, last?.after ?? '-infinity', last?.fileId ?? 0, limit]);
}

/** Files that have history, due or not, in the order of their ids. */
export async function filesWithHistory(
  db: Transaction,
  ref: ArchiveRef,
  afterFileId: number,
  limit: number,
): Promise<number[]> {
  const rows = await db.query<{ fileId: number }>(sql.withHistory, [ref.vault, ref.archive, afterFileId, limit]);
  return rows.map((row) => row.fileId);
}

export interface HistoryRow {
  fileId: number;
  seq: number;
  committedAt: Date;
  deleted: boolean;
  size: number;
  /** Blocks or lists it names, repeats included. */
  names: number;
}

/** All versions of files, file by file in the order given, oldest first, cut off at `limit` rows. */
export function readHistories(
  db: Transaction,
  ref: ArchiveRef,
  fileIds: readonly number[],
  limit: number,
): Promise<HistoryRow[]> {
  return db.query<HistoryRow>(sql.histories, [ref.vault, ref.archive, packArray(fileIds), limit]);
}

export interface RetentionState {
  /** Digest of the policy and the holds that the files were last planned with. */
  applied: Buffer | null;
  frozen: boolean;
  versionCount: number;
  /** Versions that went within the last day. */
  expiredToday: number;
  /** So many may go over the cap, once, under the policy and holds of this digest. */
  overCapVersions: number;
  overCapDigest: Buffer | null;
  state: string;
  now: Date;
}

export async function readRetentionState(db: Transaction, ref: ArchiveRef): Promise<RetentionState | null> {
  const [row] = await db.query<RetentionState>(sql.retentionApplied, [ref.vault, ref.archive]);
  return row ?? null;
}

/** Makes a page of the archive's files with history due now, under its lock. @returns how many: 0 when all are */
export async function makeFilesDue(tx: Transaction, ref: ArchiveRef, limit: number): Promise<number> {
  return (await tx.query(sql.makeDue, [ref.vault, ref.archive, limit])).length;
}

export async function setRetentionApplied(tx: Transaction, ref: ArchiveRef, digest: Buffer): Promise<void> {
  await tx.query(sql.setRetentionApplied, [ref.vault, ref.archive, digest]);
}

/** Lets so many versions go over the cap once, under the policy and holds of the digest. */
export async function allowOverCap(
  db: Transaction,
  ref: ArchiveRef,
  allowed: { versions: number; digest: Buffer },
): Promise<void> {
  await db.query(sql.allowOverCap, [ref.vault, ref.archive, allowed.versions, allowed.digest, false]);
}

/** Takes the leave to go over the cap back. @param used it was used: what went by it does not count towards the cap */
export async function endOverCap(db: Transaction, ref: ArchiveRef, used: boolean): Promise<void> {
  await db.query(sql.allowOverCap, [ref.vault, ref.archive, 0, null, used]);
}

/** Lets retention delete again, and begins the watch for mass changes anew. */
export async function unfreezeArchive(db: Transaction, ref: ArchiveRef): Promise<void> {
  await db.query(sql.unfreeze, [ref.vault, ref.archive]);
}
