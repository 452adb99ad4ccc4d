/**
 * Moves the blocks that are left of sparse objects into a new one. The new object is entered like an upload's: its row
 * before its bytes. Then one transaction: own object, blocks by hash, the old objects by id. A row is moved only if it
 * still lies where it was read (compare and set): meanwhile it may have been healed, reclaimed, or moved by another.
 */
import assert from 'node:assert/strict';
import { hashAt } from '../../../protocol/hashes.ts';
import { type Database, statement, type Transaction } from '../database.ts';
import { lockLiveObjects } from '../lock-objects.ts';
import { lockRows } from '../lock-rows.ts';
import { makeLive, setLiveBytes, shrinkObjects } from '../writing/blocks.ts';
import { packArray } from '../writing/packing.ts';
import { vaultsWith } from './vaults-with.ts';

const sparse = "t.state = 'live' AND (t.rewrite OR t.live_bytes * 2 < t.size_bytes)";

const sql = {
  sparse: statement(
    'objects.sparse',
    `SELECT t.object_id AS "objectId", t.key, t.live_bytes AS "liveBytes", t.size_bytes AS "sizeBytes", t.rewrite FROM objects t
      WHERE t.vault_id = $1 AND ${sparse} AND t.object_id > $2 ORDER BY t.object_id LIMIT $3`,
  ),

  blocksOf: statement(
    'blocks.ofObjects',
    `SELECT b.hash, b.object_id AS "objectId", b.byte_offset AS "offset", b.byte_length AS "length"
       FROM unnest($2::bigint[]) AS x (object_id)
      CROSS JOIN LATERAL (
        SELECT * FROM blocks b WHERE b.vault_id = $1 AND b.object_id = x.object_id AND b.damaged_at IS NULL OFFSET 0) b`,
  ),

  allBlocksOf: statement(
    'blocks.ofObject',
    `SELECT hash, object_id AS "objectId", byte_offset AS "offset", byte_length AS "length", damaged_at IS NOT NULL AS damaged
       FROM blocks WHERE vault_id = $1 AND object_id = $2`,
  ),

  move: statement(
    'blocks.move',
    `UPDATE blocks b SET object_id = $2, byte_offset = x.new_offset
       FROM (SELECT substr($3::bytea, (x.ordinal::int - 1) * 32 + 1, 32) AS hash, x.old_object, x.old_offset, x.new_offset
               FROM unnest($4::bigint[], $5::int[], $6::int[]) WITH ORDINALITY AS x (old_object, old_offset, new_offset, ordinal) OFFSET 0) x
      WHERE b.vault_id = $1 AND b.hash = x.hash AND b.object_id = x.old_object AND b.byte_offset = x.old_offset AND b.damaged_at IS NULL
     RETURNING x.old_object AS "objectId", b.byte_length AS "byteLength"`,
  ),

  verifyNext: statement(
    'objects.verifyNext',
    `WITH locked AS MATERIALIZED (${lockLiveObjects('$2')})
     UPDATE objects SET verified_at = NULL WHERE vault_id = $1 AND object_id = ANY (ARRAY(SELECT object_id FROM locked))`,
  ),

  vaultsWithSparse: vaultsWith('objects', 'objects.vaultsWithSparse', 'true', sparse),
};

export const vaultsWithSparseObjects = (db: Database): Promise<number[]> => sql.vaultsWithSparse(db, []);

export interface SparseObject {
  objectId: number;
  key: string;
  liveBytes: number;
  sizeBytes: number;
  /** To be rewritten however full it is. */
  rewrite: boolean;
}

/** Live objects of which less than half is in use, or that are marked to be rewritten, in the order of their ids. */
export function sparseObjects(
  db: Database,
  vault: number,
  afterObjectId: number,
  limit: number,
): Promise<SparseObject[]> {
  return db.query<SparseObject>(sql.sparse, [vault, afterObjectId, limit]);
}

/** Makes objects the next that verify reads. */
export async function verifyNext(db: Database, vault: number, objectIds: readonly number[]): Promise<void> {
  await db.query(sql.verifyNext, [vault, packArray(objectIds)]);
}

export interface PlacedBlock {
  hash: Buffer;
  objectId: number;
  offset: number;
  length: number;
}

/** All blocks that lie in an object now, those marked damaged too. */
export function allBlocksOfObject(
  db: Database,
  vault: number,
  objectId: number,
): Promise<(PlacedBlock & { damaged: boolean })[]> {
  return db.query<PlacedBlock & { damaged: boolean }>(sql.allBlocksOf, [vault, objectId]);
}

/** The undamaged blocks that lie in these objects now. */
export function blocksOfObjects(db: Database, vault: number, objectIds: readonly number[]): Promise<PlacedBlock[]> {
  return db.query<PlacedBlock>(sql.blocksOf, [vault, packArray(objectIds)]);
}

/**
 * Turns the new object live and moves blocks into it, in the caller's transaction. Old objects that this leaves without
 * a block die, and so does the new one if no block was where it was read.
 * @param moves in the order of the new object; `hashes` are theirs
 * @returns blocks moved; null when the new object's row is gone (its lease lapsed): its bytes are somebody else's to delete
 */
export async function moveBlocks(
  tx: Transaction,
  object: { vault: number; objectId: number; key: string },
  hashes: Buffer,
  moves: readonly { objectId: number; oldOffset: number; newOffset: number }[],
  settings: { objectDeleteDelayMs: number },
): Promise<number | null> {
  assert(moves.length > 0 && hashAt(hashes, moves.length - 1).byteLength === 32, 'a hash for every move');
  const { vault, objectId } = object;
  if (!(await makeLive(tx, object, 0))) return null;
  await lockRows(tx, vault, 'blocks', hashes, { damagedToo: true });
  const moved = await tx.query<{ objectId: number; byteLength: number }>(sql.move, [
    vault,
    objectId,
    hashes,
    packArray(moves.map((move) => move.objectId)),
    packArray(moves.map((move) => move.oldOffset)),
    packArray(moves.map((move) => move.newOffset)),
  ]);
  const bytes = moved.reduce((sum, block) => sum + block.byteLength, 0);
  await setLiveBytes(tx, object, bytes, settings.objectDeleteDelayMs);
  await shrinkObjects(tx, vault, moved, settings.objectDeleteDelayMs);
  return moved.length;
}
