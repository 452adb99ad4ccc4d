/**
 * What the one deleter of versions reads and writes. Lock order: the vault, alone in its statement; what the lock
 * protects (holds) in a later one; the archive; then what refs.ts locks. Nobody but deleters, holds, and who raises or
 * forgets its keys locks a vault.
 */
import type { ArchiveRef } from '../../storage.ts';
import { statement, type Transaction } from '../database.ts';
import { packArray } from '../writing/packing.ts';

const sql = {
  lockVault: statement('vaults.lock', 'SELECT 1 FROM vaults WHERE vault_id = $1 FOR NO KEY UPDATE'),

  // Never in the statement that takes the lock: that one's snapshot is older than the lock, and a hold placed while it
  // waited would not be seen.
  activeHolds: statement(
    'holds.active',
    `SELECT policy FROM holds WHERE vault_id = $1 AND (release_effective_at IS NULL OR release_effective_at > now()) ORDER BY hold_id`,
  ),

  lockArchive: statement(
    'archives.lockForDeleting',
    `SELECT state, kind, frozen_at IS NOT NULL AS frozen, expired_at AS "expiredAt", now() AS now
       FROM archives WHERE vault_id = $1 AND archive_id = $2 FOR NO KEY UPDATE`,
  ),

  leasedSeqs: statement(
    'restores.live',
    `SELECT seq, lease_until AS "until" FROM restores
      WHERE vault_id = $1 AND archive_id = $2 AND lease_until > now() ORDER BY seq`,
  ),

  deleteVersions: statement(
    'versions.delete',
    `DELETE FROM versions v USING unnest($3::bigint[], $4::bigint[]) AS x (file_id, seq)
      WHERE v.vault_id = $1 AND v.archive_id = $2 AND v.file_id = x.file_id AND v.seq = x.seq
     RETURNING v.blocks, v.lists, v.size`,
  ),

  setPruneAfter: statement(
    'files.setPruneAfter',
    `UPDATE files f SET prune_after = CASE WHEN x.after_ms = 'Infinity' THEN 'infinity' ELSE to_timestamp(x.after_ms / 1000) END
       FROM unnest($3::bigint[], $4::float8[]) AS x (file_id, after_ms)
      WHERE f.vault_id = $1 AND f.archive_id = $2 AND f.file_id = x.file_id`,
  ),

  // A name that has no version left and nothing in it is nobody's. Asked again for its folder, in a later statement.
  deleteEmptyFiles: statement(
    'files.deleteEmpty',
    `DELETE FROM files f USING unnest($3::bigint[]) AS x (file_id)
      WHERE f.vault_id = $1 AND f.archive_id = $2 AND f.file_id = x.file_id
        AND NOT EXISTS (SELECT 1 FROM versions v WHERE v.vault_id = $1 AND v.archive_id = $2 AND v.file_id = x.file_id)
        AND NOT EXISTS (SELECT 1 FROM files c WHERE c.vault_id = $1 AND c.archive_id = $2 AND c.parent_id = x.file_id)
     RETURNING f.parent_id AS "parentId"`,
  ),

  countDeleted: statement(
    'archives.countDeleted',
    `UPDATE archives SET version_count = version_count - $3, live_files = live_files - $4, pruned_at = now(),
            expired_versions = $5 + CASE WHEN expired_since > now() - interval '1 day' AND expired_since <= now() THEN expired_versions ELSE 0 END,
            expired_since = CASE WHEN expired_since > now() - interval '1 day' AND expired_since <= now() THEN expired_since ELSE now() END
      WHERE vault_id = $1 AND archive_id = $2`,
  ),

  parents: statement(
    'files.parents',
    `SELECT x.file_id AS "fileId", f.parent_id AS "parentId", f.name
       FROM unnest($3::bigint[]) AS x (file_id)
      CROSS JOIN LATERAL (
        SELECT f.parent_id, f.name FROM files f WHERE f.vault_id = $1 AND f.archive_id = $2 AND f.file_id = x.file_id OFFSET 0) f`,
  ),
};

/** Holds the vault for the rest of the transaction, and says which holds' policies are on it. */
export async function lockVaultAndReadHolds(tx: Transaction, vault: number): Promise<unknown[]> {
  await tx.query(sql.lockVault, [vault]);
  return readHoldsUnlocked(tx, vault);
}

/** The same policies for a look that deletes nothing. */
export async function readHoldsUnlocked(tx: Transaction, vault: number): Promise<unknown[]> {
  const rows = await tx.query<{ policy: unknown }>(sql.activeHolds, [vault]);
  return rows.map((row) => row.policy);
}

export interface DeletingArchive {
  state: 'active' | 'cold' | 'expired';
  kind: 'agent' | 'plain';
  /** Nothing of it is deleted by retention until somebody has looked at an alert. */
  frozen: boolean;
  /** Since when it is expired; null: it is not. */
  expiredAt: Date | null;
  now: Date;
}

export async function lockArchiveForDeleting(tx: Transaction, ref: ArchiveRef): Promise<DeletingArchive | null> {
  const [row] = await tx.query<DeletingArchive>(sql.lockArchive, [ref.vault, ref.archive]);
  return row ?? null;
}

export interface Lease {
  /** The moment a reader looks at. */
  seq: number;
  until: Date;
}

/** The leases readers hold on moments of the archive, ascending by seq. */
export function readLeases(tx: Transaction, ref: ArchiveRef): Promise<Lease[]> {
  return tx.query<Lease>(sql.leasedSeqs, [ref.vault, ref.archive]);
}

/** @returns what the deleted versions named: only what was there is returned, so only that is counted off */
export async function deleteVersionRows(
  tx: Transaction,
  ref: ArchiveRef,
  versions: readonly { fileId: number; seq: number }[],
): Promise<{ blocks: Buffer; lists: Buffer; size: number }[]> {
  return tx.query(sql.deleteVersions, [
    ref.vault,
    ref.archive,
    packArray(versions.map((version) => version.fileId)),
    packArray(versions.map((version) => version.seq)),
  ]);
}

/** @param files when each is worth planning again, in ms; null: it has no history; Infinity: only when the policy changes */
export async function setPruneAfter(
  tx: Transaction,
  ref: ArchiveRef,
  files: readonly { fileId: number; afterMs: number | null }[],
): Promise<void> {
  await tx.query(sql.setPruneAfter, [
    ref.vault,
    ref.archive,
    packArray(files.map((file) => file.fileId)),
    packArray(files.map((file) => (file.afterMs === null ? 'NULL' : file.afterMs))),
  ]);
}

/** Deletes the rows of files that have no version left and nothing in them, and of folders that this leaves so. */
export async function deleteEmptyFiles(tx: Transaction, ref: ArchiveRef, fileIds: readonly number[]): Promise<void> {
  for (let level = [...new Set(fileIds)]; level.length > 0; ) {
    const rows = await tx.query<{ parentId: number }>(sql.deleteEmptyFiles, [ref.vault, ref.archive, packArray(level)]);
    level = [...new Set(rows.map((row) => row.parentId))].filter((id) => id !== 0);
  }
}

/**
 * Counts versions off, and towards what expired in this archive within a day.
 * @param gone.capped of the versions, those that count towards it
 * @param gone.liveFiles files whose latest version had content, less those of which that is so afterwards
 */
export async function countDeletedVersions(
  tx: Transaction,
  ref: ArchiveRef,
  gone: { versions: number; capped: number; liveFiles: number },
): Promise<void> {
  await tx.query(sql.countDeleted, [ref.vault, ref.archive, gone.versions, gone.liveFiles, gone.capped]);
}

/** The names along the path of each file, from the root down. Every folder is looked up once, a level at a time. */
export async function readPathNames(
  tx: Transaction,
  ref: ArchiveRef,
  fileIds: readonly number[],
): Promise<Map<number, Buffer[]>> {
  type Row = { fileId: number; parentId: number; name: Buffer };
  const known = new Map<number, Row>();
  for (let level = [...new Set(fileIds)]; level.length > 0; ) {
    const rows = await tx.query<Row>(sql.parents, [ref.vault, ref.archive, packArray(level)]);
    for (const row of rows) known.set(row.fileId, row);
    level = [...new Set(rows.map((row) => row.parentId))].filter((id) => id !== 0 && !known.has(id));
  }
  const paths = new Map<number, Buffer[]>();
  for (const fileId of fileIds) {
    const names: Buffer[] = [];
    for (let row = known.get(fileId); row; row = known.get(row.parentId)) names.push(row.name);
    if (names.length > 0) paths.set(fileId, names.reverse());
  }
  return paths;
}
