/**
 * Marks blocks whose bytes are not theirs any more, and takes the mark back from those whose bytes are. A marked block is
 * absent for a claim, a fetch and a commit.
 */
import { joinHashes } from '../../../protocol/hashes.ts';
import { type Database, type Statement, statement, type Transaction } from '../database.ts';
import { hashArray, packArray } from '../writing/packing.ts';

const sql = {
  placesNow: statement(
    'blocks.placesNow',
    `SELECT b.hash, b.object_id AS "objectId", o.key, b.byte_offset AS "offset", b.byte_length AS "length" FROM blocks b
      CROSS JOIN LATERAL (SELECT o.key FROM objects o WHERE o.vault_id = $1 AND o.object_id = b.object_id OFFSET 0) o
      WHERE b.vault_id = $1 AND b.hash = ANY (${hashArray('$2')}) AND b.damaged_at IS NULL`,
  ),

  lock: statement(
    'blocks.lockToMark',
    `SELECT hash FROM blocks WHERE vault_id = $1 AND hash = ANY (${hashArray('$2')}) ORDER BY hash FOR NO KEY UPDATE`,
  ),

  // Compare and set on the place that was read: the block may have been healed, moved, or stored anew since.
  mark: statement(
    'blocks.markDamaged',
    `WITH marked AS (
       UPDATE blocks b SET damaged_at = now()
         FROM (SELECT substr($2::bytea, (x.ordinal::int - 1) * 32 + 1, 32) AS hash, x.object_id, x.byte_offset
                 FROM unnest($3::bigint[], $4::int[]) WITH ORDINALITY AS x (object_id, byte_offset, ordinal) OFFSET 0) x
        WHERE b.vault_id = $1 AND b.hash = x.hash AND b.object_id = x.object_id AND b.byte_offset = x.byte_offset AND b.damaged_at IS NULL
       RETURNING b.hash),
     noted AS (
       INSERT INTO damage (vault_id, hash) SELECT $1, hash FROM marked ORDER BY hash
       ON CONFLICT (vault_id, hash) DO UPDATE SET found_at = now(), users_found_at = NULL)
     SELECT hash FROM marked`,
  ),

  // `hash > ''`: by the key, for vaults with any number of marks. Lists are marked for the blocks they name.
  markedLately: statement(
    'damage.markedLately',
    `SELECT count(*) AS marked FROM (
       SELECT 1 FROM damage d WHERE d.vault_id = $1 AND d.hash > '' AND d.found_at > now() - interval '1 day'
          AND EXISTS (SELECT 1 FROM blocks b WHERE b.vault_id = $1 AND b.hash = d.hash OFFSET 0) LIMIT $2) each`,
  ),

  unmark: statement(
    'blocks.unmarkDamaged',
    `UPDATE blocks b SET damaged_at = NULL
       FROM (SELECT substr($2::bytea, (x.ordinal::int - 1) * 32 + 1, 32) AS hash, x.object_id, x.byte_offset
               FROM unnest($3::bigint[], $4::int[]) WITH ORDINALITY AS x (object_id, byte_offset, ordinal) OFFSET 0) x
      WHERE b.vault_id = $1 AND b.hash = ANY (${hashArray('$2')}) AND b.hash = x.hash AND b.object_id = x.object_id AND b.byte_offset = x.byte_offset AND b.damaged_at IS NOT NULL
     RETURNING b.hash`,
  ),
};

export interface DoubtedPlace {
  hash: Buffer;
  objectId: number;
  key: string;
  offset: number;
  length: number;
}

/** Where a block lies now, as marking it needs it. @returns null when the vault does not hold it, or it is marked */
export async function findPlaceNow(db: Database, vault: number, hash: Buffer): Promise<DoubtedPlace | null> {
  const [place] = await db.query<DoubtedPlace>(sql.placesNow, [vault, hash]);
  return place ?? null;
}

/** Blocks of the vault that were marked within a day, counted up to `max`. */
export async function countMarkedLately(db: Database, vault: number, max: number): Promise<number> {
  const [row] = await db.query<{ marked: number }>(sql.markedLately, [vault, max]);
  return row!.marked;
}

type PlacedBlocks = readonly { hash: Buffer; objectId: number; offset: number }[];

/** @returns those marked now: blocks that have moved since they were read, or are marked already, are left alone */
export function markBlocksDamaged(tx: Transaction, vault: number, blocks: PlacedBlocks): Promise<Buffer[]> {
  return atTheirPlaces(tx, sql.mark, vault, blocks);
}

/** Takes the mark from blocks that a complete read of their place found to be well. @returns those it was taken from */
export function unmarkBlocks(tx: Transaction, vault: number, blocks: PlacedBlocks): Promise<Buffer[]> {
  return atTheirPlaces(tx, sql.unmark, vault, blocks);
}

async function atTheirPlaces(
  tx: Transaction,
  change: Statement,
  vault: number,
  blocks: PlacedBlocks,
): Promise<Buffer[]> {
  const hashes = joinHashes(blocks.map((block) => block.hash));
  await tx.query(sql.lock, [vault, hashes]);
  const rows = await tx.query<{ hash: Buffer }>(change, [
    vault,
    hashes,
    packArray(blocks.map((block) => block.objectId)),
    packArray(blocks.map((block) => block.offset)),
  ]);
  return rows.map((row) => row.hash);
}
