/** All versions of an archive, whatever became of them: pages in the order of their key, without what is sealed. */
import type { ArchiveRef } from '../../storage.ts';
import { statement, type Transaction } from '../database.ts';

const sql = {
  page: statement(
    'versions.manifest',
    `SELECT v.file_id AS "fileId", v.seq, v.committed_at AS "committedAt", v.kind, v.deleted, v.size, v.mtime,
            octet_length(v.blocks) / 32 AS blocks, octet_length(v.lists) / 32 AS lists
       FROM versions v
      WHERE v.vault_id = $1 AND v.archive_id = $2 AND (v.file_id, v.seq) > ($3::bigint, $4::bigint) AND v.seq <= $5
      ORDER BY v.file_id, v.seq LIMIT $6`,
  ),
};

export interface ManifestRow {
  fileId: number;
  seq: number;
  committedAt: Date;
  kind: 'file' | 'directory' | 'symlink';
  deleted: boolean;
  size: number;
  /** Milliseconds since the Unix epoch, as the device said. */
  mtime: number;
  /** Named by the version itself; those of its lists come on top. */
  blocks: number;
  lists: number;
}

export interface ManifestPlace {
  fileId: number;
  seq: number;
}

/** At most `limit` versions behind a place, of those committed up to a seq. */
export function manifestPage(
  db: Transaction,
  ref: ArchiveRef,
  { after, upTo, limit }: { after: ManifestPlace; upTo: number; limit: number },
): Promise<ManifestRow[]> {
  return db.query<ManifestRow>(sql.page, [ref.vault, ref.archive, after.fileId, after.seq, upTo, limit]);
}
