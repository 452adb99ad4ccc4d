/**
 * Takes away what nothing refers to any more: freed blocks and lists, and finds uploads that were never committed.
 *
 * Lock order: lists, blocks, freed rows, objects by id, as everywhere; and locks of lists and blocks are taken with
 * SKIP LOCKED: what is in use now is looked at the next time. Only counting down the blocks of a list waits for them.
 */
import { joinHashes } from '../../../protocol/hashes.ts';
import { type Database, statement, type Transaction } from '../database.ts';
import { addUsage } from '../usage.ts';
import { shrinkObjects } from '../writing/blocks.ts';
import { hashArray, packArray } from '../writing/packing.ts';
import { vaultsWith } from './vaults-with.ts';

const sql = {
  due: statement(
    'freed.due',
    'SELECT hash FROM freed WHERE vault_id = $1 AND check_after < now() ORDER BY check_after LIMIT $2',
  ),

  // What is returned is the row as locked, and not as it was when it was looked for.
  lockFreed: statement(
    'blocks.lockFreed',
    `SELECT hash, refs, object_id AS "objectId", byte_length AS "byteLength", claimed_until < now() AS lapsed
       FROM blocks WHERE vault_id = $1 AND hash = ANY (${hashArray('$2')}) ORDER BY hash FOR UPDATE SKIP LOCKED`,
  ),

  deleteBlocks: statement(
    'blocks.delete',
    `DELETE FROM blocks WHERE vault_id = $1 AND hash = ANY (${hashArray('$2')}) AND refs = 0 AND claimed_until < now() RETURNING hash`,
  ),

  forgetFreed: statement('freed.delete', `DELETE FROM freed WHERE vault_id = $1 AND hash = ANY (${hashArray('$2')})`),

  // A freed row whose block is gone. There should be none; but one must not be looked at for ever.
  forgetAbsent: statement(
    'freed.deleteAbsent',
    `DELETE FROM freed f WHERE f.vault_id = $1 AND f.hash = ANY (${hashArray('$2')})
        AND NOT EXISTS (SELECT 1 FROM blocks b WHERE b.vault_id = $1 AND b.hash = f.hash OFFSET 0)`,
  ),

  postponeFreed: statement(
    'freed.postpone',
    `UPDATE freed f SET check_after = (SELECT b.claimed_until FROM blocks b WHERE b.vault_id = $1 AND b.hash = f.hash)
      WHERE f.vault_id = $1 AND f.hash = ANY (${hashArray('$2')})`,
  ),

  dueLists: statement(
    'freedLists.due',
    'SELECT hash FROM freed_lists WHERE vault_id = $1 AND check_after < now() ORDER BY check_after LIMIT $2',
  ),

  lockFreedLists: statement(
    'lists.lockFreed',
    `SELECT hash, refs, claimed_until < now() AS lapsed, CASE WHEN refs = 0 AND claimed_until < now() THEN blocks END AS blocks
       FROM lists WHERE vault_id = $1 AND hash = ANY (${hashArray('$2')}) ORDER BY hash FOR UPDATE SKIP LOCKED`,
  ),

  deleteLists: statement(
    'lists.delete',
    `DELETE FROM lists WHERE vault_id = $1 AND hash = ANY (${hashArray('$2')}) AND refs = 0 AND claimed_until < now() RETURNING hash`,
  ),

  forgetFreedLists: statement(
    'freedLists.delete',
    `DELETE FROM freed_lists WHERE vault_id = $1 AND hash = ANY (${hashArray('$2')})`,
  ),

  forgetAbsentLists: statement(
    'freedLists.deleteAbsent',
    `DELETE FROM freed_lists f WHERE f.vault_id = $1 AND f.hash = ANY (${hashArray('$2')})
        AND NOT EXISTS (SELECT 1 FROM lists l WHERE l.vault_id = $1 AND l.hash = f.hash OFFSET 0)`,
  ),

  postponeFreedLists: statement(
    'freedLists.postpone',
    `UPDATE freed_lists f SET check_after = (SELECT l.claimed_until FROM lists l WHERE l.vault_id = $1 AND l.hash = f.hash)
      WHERE f.vault_id = $1 AND f.hash = ANY (${hashArray('$2')})`,
  ),

  unsettled: statement(
    'objects.unsettled',
    `SELECT object_id AS "objectId" FROM objects
      WHERE vault_id = $1 AND state = 'live' AND NOT settled AND created_at < now() - $2 * interval '1 ms'
      ORDER BY created_at LIMIT $3`,
  ),

  freeUnreferenced: statement(
    'freed.insertUnreferenced',
    `INSERT INTO freed (vault_id, hash, check_after)
     SELECT $1, b.hash, b.claimed_until FROM unnest($2::bigint[]) AS x (object_id)
      CROSS JOIN LATERAL (
        SELECT b.hash, b.claimed_until FROM blocks b WHERE b.vault_id = $1 AND b.object_id = x.object_id AND b.refs = 0 OFFSET 0) b
      ORDER BY b.hash
     ON CONFLICT DO NOTHING RETURNING hash`,
  ),

  markSettled: statement(
    'objects.markSettled',
    `UPDATE objects SET settled = true WHERE vault_id = $1 AND object_id = ANY ($2::bigint[]) AND state = 'live'`,
  ),

  vaultsWithFreed: vaultsWith('freed', 'freed.vaults', 't.check_after < now()'),
  vaultsWithFreedLists: vaultsWith('freed_lists', 'freedLists.vaults', 't.check_after < now()'),
  vaultsWithUnsettled: vaultsWith(
    'objects',
    'objects.vaultsWithUnsettled',
    "t.created_at < now() - $2 * interval '1 ms'",
    "t.state = 'live' AND NOT t.settled",
  ),
};

export async function vaultsWithFreed(db: Database): Promise<number[]> {
  const vaults = new Set([...(await sql.vaultsWithFreedLists(db, [])), ...(await sql.vaultsWithFreed(db, []))]);
  return [...vaults];
}

export const vaultsWithUnsettled = (db: Database, olderThanMs: number): Promise<number[]> =>
  sql.vaultsWithUnsettled(db, [olderThanMs]);

export interface Reclaimed {
  /** Rows looked at; 0: nothing is due, or all of it is in use. */
  seen: number;
  deleted: number;
  bytes: number;
}

const join = (rows: readonly { hash: Buffer }[]): Buffer => joinHashes(rows.map((row) => row.hash));

/** One batch of freed blocks, in the caller's transaction. Their bytes leave their objects; an empty object dies. */
export async function reclaimBlocks(
  tx: Transaction,
  vault: number,
  settings: { objectDeleteDelayMs: number; limit: number },
): Promise<Reclaimed> {
  const due = await tx.query<{ hash: Buffer }>(sql.due, [vault, settings.limit]);
  if (due.length === 0) return { seen: 0, deleted: 0, bytes: 0 };
  type Locked = { hash: Buffer; refs: number; objectId: number; byteLength: number; lapsed: boolean };
  const locked = await tx.query<Locked>(sql.lockFreed, [vault, join(due)]);
  const doomed = locked.filter((block) => block.refs === 0 && block.lapsed);
  const used = locked.filter((block) => block.refs > 0);
  const claimed = locked.filter((block) => block.refs === 0 && !block.lapsed);
  const absent = await tx.query(sql.forgetAbsent, [vault, join(due)]);
  if (doomed.length > 0) {
    const deleted = await tx.query(sql.deleteBlocks, [vault, join(doomed)]);
    if (deleted.length !== doomed.length) throw new Error('a block that was locked changed under its lock');
  }
  if (doomed.length + used.length > 0) await tx.query(sql.forgetFreed, [vault, join([...doomed, ...used])]);
  if (claimed.length > 0) await tx.query(sql.postponeFreed, [vault, join(claimed)]);
  await shrinkObjects(tx, vault, doomed, settings.objectDeleteDelayMs);
  const bytes = doomed.reduce((sum, block) => sum + block.byteLength, 0);
  await addUsage(tx, vault, { storedBytes: -bytes });
  return { seen: locked.length + absent.length, deleted: doomed.length, bytes };
}

/**
 * A few freed lists, in the caller's transaction.
 * @returns what the deleted ones named; the caller counts that off, in the same transaction
 */
export async function reclaimLists(
  tx: Transaction,
  vault: number,
  limit: number,
): Promise<{ seen: number; blocks: Buffer[] }> {
  const due = await tx.query<{ hash: Buffer }>(sql.dueLists, [vault, limit]);
  if (due.length === 0) return { seen: 0, blocks: [] };
  type Locked = { hash: Buffer; refs: number; lapsed: boolean; blocks: Buffer | null };
  const locked = await tx.query<Locked>(sql.lockFreedLists, [vault, join(due)]);
  const doomed = locked.filter((list) => list.blocks !== null);
  const used = locked.filter((list) => list.refs > 0);
  const claimed = locked.filter((list) => list.refs === 0 && !list.lapsed);
  const absent = await tx.query(sql.forgetAbsentLists, [vault, join(due)]);
  if (doomed.length > 0) {
    const deleted = await tx.query(sql.deleteLists, [vault, join(doomed)]);
    if (deleted.length !== doomed.length) throw new Error('a list that was locked changed under its lock');
  }
  if (doomed.length + used.length > 0) await tx.query(sql.forgetFreedLists, [vault, join([...doomed, ...used])]);
  if (claimed.length > 0) await tx.query(sql.postponeFreedLists, [vault, join(claimed)]);
  return { seen: locked.length + absent.length, blocks: doomed.map((list) => list.blocks!) };
}

/**
 * Finds the blocks of objects old enough that any upload of them was committed or given up. Holds no block: one that is
 * counted up meanwhile is looked at under its lock when it is due.
 * @returns objects looked at, and blocks that nothing refers to
 */
export async function settleObjects(
  tx: Transaction,
  vault: number,
  settings: { olderThanMs: number; limit: number },
): Promise<{ objects: number; freed: number }> {
  const rows = await tx.query<{ objectId: number }>(sql.unsettled, [vault, settings.olderThanMs, settings.limit]);
  if (rows.length === 0) return { objects: 0, freed: 0 };
  const ids = packArray(rows.map((row) => row.objectId).sort((a, b) => a - b));
  const freed = await tx.query(sql.freeUnreferenced, [vault, ids]);
  await tx.query(sql.markSettled, [vault, ids]);
  return { objects: rows.length, freed: freed.length };
}
