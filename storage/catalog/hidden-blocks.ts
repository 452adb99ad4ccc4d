/**
 * Blocks that nothing of a vault names but hidden files of its plain archives: quotas do not charge them. A block is noted when
 * a file is hidden, and only if no other name is counted on it; whatever names it again takes the note away (refs.ts), and
 * reclaim does with its row. So nothing that is there is ever left uncharged, and no block twice.
 *
 * What is in doubt is charged: content that two files have stays charged until both are hidden in one step, or it is reclaimed.
 *
 * Lock order: blocks by hash, in one pass; rows here are touched only by who holds their block.
 */
import type { ArchiveRef } from '../storage.ts';
import { statement, type Transaction } from './database.ts';
import { addUsage } from './usage.ts';
import { hashArray, packArray } from './writing/packing.ts';

const sql = {
  // Times that the files' own versions name a block, against all that is counted on it. Earlier content of a name that is
  // no digest is not looked at, and stays charged. Of a row that is held the count is the one after any wait for it.
  note: statement(
    'hiddenBlocks.note',
    `WITH own AS (
       SELECT n.h AS hash, sum(v.times) AS times
         FROM unnest($3::bigint[]) AS x (file_id)
        CROSS JOIN LATERAL (
          SELECT newest.blocks, (
                   SELECT count(*) FROM versions v
                    WHERE v.vault_id = $1 AND v.archive_id = $2 AND v.file_id = x.file_id AND NOT v.deleted AND v.blocks = newest.blocks) AS times
            FROM (SELECT v.blocks FROM versions v
                   WHERE v.vault_id = $1 AND v.archive_id = $2 AND v.file_id = x.file_id AND NOT v.deleted ORDER BY v.seq DESC LIMIT 1) newest
          OFFSET 0) v
        CROSS JOIN LATERAL (
          SELECT DISTINCT substr(v.blocks, i * 32 + 1, 32) AS h FROM generate_series(0, octet_length(v.blocks) / 32 - 1) AS i) n
        GROUP BY n.h),
     noted AS (
       INSERT INTO hidden_blocks (vault_id, hash, byte_length)
       SELECT $1, b.hash, b.byte_length
         FROM (SELECT hash, times FROM own ORDER BY hash OFFSET 0) own
        CROSS JOIN LATERAL (
          SELECT b.hash, b.byte_length, b.refs FROM blocks b WHERE b.vault_id = $1 AND b.hash = own.hash OFFSET 0 FOR NO KEY UPDATE) b
        WHERE b.refs = own.times
       ON CONFLICT DO NOTHING RETURNING byte_length)
     SELECT coalesce(sum(byte_length), 0)::bigint AS bytes FROM noted`,
  ),

  forget: statement(
    'hiddenBlocks.forget',
    `WITH gone AS (
       DELETE FROM hidden_blocks WHERE vault_id = $1 AND hash = ANY (${hashArray('$2')}) RETURNING byte_length)
     SELECT coalesce(sum(byte_length), 0)::bigint AS bytes FROM gone`,
  ),
};

/**
 * Notes what is needed no more by anything that is there, and holds the rows of these blocks.
 * @param fileIds files of a plain archive that are hidden now; a caller that has changed other blocks holds them all already
 * @returns bytes, which the caller adds to the vault's usage
 */
export async function noteHiddenBlocks(tx: Transaction, ref: ArchiveRef, fileIds: readonly number[]): Promise<number> {
  if (fileIds.length === 0) return 0;
  const [row] = await tx.query<{ bytes: number }>(sql.note, [ref.vault, ref.archive, packArray(fileIds)]);
  return row!.bytes;
}

/** Of blocks whose rows are deleted in this transaction. @param hashes n x 32 bytes */
export async function forgetHiddenBlocks(tx: Transaction, vault: number, hashes: Buffer): Promise<void> {
  if (hashes.byteLength === 0) return;
  const [row] = await tx.query<{ bytes: number }>(sql.forget, [vault, hashes]);
  await addUsage(tx, vault, { hiddenBytes: -row!.bytes });
}
