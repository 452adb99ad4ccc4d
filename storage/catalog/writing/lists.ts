/**
 * Lists of large files: named, claimed and counted like blocks, but their content (hashes) is a column of their row. A
 * list counts once on each of its blocks for as long as its row exists, so a block behind a list needs no claim.
 *
 * Lock order of a transaction that enters lists: the lists by hash, then their blocks by hash, then freed rows by hash.
 */
import { hashKey } from '../../../protocol/hashes.ts';
import { type Database, statement, type Transaction } from '../database.ts';
import { claimsOn, hashSet } from './claims.ts';
import { hashArray, packBytes } from './packing.ts';

const sql = {
  // xmax is 0 in a row that this statement inserted; in one that was there it is the lock that ON CONFLICT took. Asking
  // for the row beforehand would not do: somebody else may insert it, and commit, while this statement waits.
  insert: statement(
    'lists.insert',
    `WITH entered AS (
       INSERT INTO lists (vault_id, hash, claimed_until, blocks)
       SELECT $1, w.h, clock_timestamp() + 2 * $6 * interval '1 ms', substr($3::bytea, x.blocks_offset, x.blocks_length)
         FROM unnest($4::int[], $5::int[]) WITH ORDINALITY AS x (blocks_offset, blocks_length, ordinal)
         CROSS JOIN LATERAL (SELECT substr($2::bytea, (x.ordinal::int - 1) * 32 + 1, 32) AS h) w
        ORDER BY w.h
       ON CONFLICT (vault_id, hash) DO UPDATE SET claimed_until = greatest(lists.claimed_until, excluded.claimed_until)
       RETURNING hash, xmax = 0 AS is_new, damaged_at IS NOT NULL AS damaged)
     SELECT string_agg(hash, '') FILTER (WHERE is_new) AS "new", string_agg(hash, '') FILTER (WHERE damaged) AS damaged
       FROM entered`,
  ),

  heal: statement(
    'lists.heal',
    `UPDATE lists SET damaged_at = NULL WHERE vault_id = $1 AND hash = ANY (${hashArray('$2')})`,
  ),

  // A list that no commit ever names is found by this row when its claim has ended.
  insertFreed: statement(
    'freedLists.insert',
    `INSERT INTO freed_lists (vault_id, hash, check_after)
     SELECT vault_id, hash, claimed_until FROM lists WHERE vault_id = $1 AND hash = ANY (${hashArray('$2')}) ORDER BY hash
     ON CONFLICT (vault_id, hash) DO UPDATE SET check_after = excluded.check_after`,
  ),

  read: statement(
    'lists.read',
    `SELECT hash, blocks FROM lists WHERE vault_id = $1 AND hash = ANY (${hashArray('$2')})`,
  ),
};

/**
 * Which of these lists the vault holds and will keep for the claim window; like claimHeldBlocks(). A list one of whose
 * blocks has to be sent again is damaged, and so as good as absent.
 */
export const claimHeldLists = claimsOn('lists');

export interface NewList {
  hash: Buffer;
  /** The hashes of its blocks, n x 32 bytes. */
  blocks: Buffer;
}

/**
 * Enters lists, distinct ones, and holds the rows of all of them; those that are there get their claims renewed. Their
 * blocks are not counted yet.
 * @returns keys (as hashKey) of those that are new, and of those that are marked damaged
 */
export async function insertLists(
  tx: Transaction,
  vault: number,
  lists: readonly NewList[],
  claimWindowMs: number,
): Promise<{ fresh: Set<string>; damaged: Set<string> }> {
  const blocks = packBytes(lists.map((list) => list.blocks));
  const [row] = await tx.query<{ new: Buffer | null; damaged: Buffer | null }>(sql.insert, [
    vault,
    Buffer.concat(lists.map((list) => list.hash)),
    blocks.bytes,
    blocks.offsets,
    blocks.lengths,
    claimWindowMs,
  ]);
  return { fresh: hashSet(row!.new), damaged: hashSet(row!.damaged) };
}

/** Marks lists as well again; their rows and blocks are held by the transaction. */
export async function healLists(tx: Transaction, vault: number, hashes: Buffer): Promise<void> {
  await tx.query(sql.heal, [vault, hashes]);
}

/** Notes of lists that nothing refers to yet when to look whether that is still so. */
export async function insertFreedLists(tx: Transaction, vault: number, hashes: Buffer): Promise<void> {
  await tx.query(sql.insertFreed, [vault, hashes]);
}

/** The blocks of lists, by hashKey; those the vault does not hold are left out, damaged ones are not. */
export async function findLists(db: Database, vault: number, hashes: Buffer): Promise<Map<string, Buffer>> {
  const rows = await db.query<NewList>(sql.read, [vault, hashes]);
  return new Map(rows.map((row) => [hashKey(row.hash), row.blocks]));
}
