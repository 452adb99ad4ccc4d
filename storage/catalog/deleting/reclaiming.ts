/**
 * Takes away what nothing refers to any more: freed blocks and lists, and finds uploads that were never committed.
 *
 * Lock order: lists, blocks, freed rows, objects by id, as everywhere; and locks of lists and blocks are taken with
 * SKIP LOCKED: what is in use now is looked at the next time. Only counting down the blocks of a list waits for them.
 */
import { joinHashes } from '../../../protocol/hashes.ts';
import { type Database, statement, type Transaction } from '../database.ts';
import { forgetHiddenBlocks } from '../hidden-blocks.ts';
import { lockLiveObjects } from '../lock-objects.ts';
import { addUsage } from '../usage.ts';
import { shrinkObjects } from '../writing/blocks.ts';
import { hashArray, packArray } from '../writing/packing.ts';
import { vaultsWith } from './vaults-with.ts';

/**
 * Declares what is asked of rows that fell to 0, alike for blocks and lists.
 * @param freed the table that notes them, and the name its statements have
 * @param columns what of a locked row is wanted beside its hash, its count and whether its claim has lapsed
 */
const freedOf = (table: 'blocks' | 'lists', freed: { table: string; name: string }, columns: string) => ({
  due: statement(
    `${freed.name}.due`,
    `SELECT hash FROM ${freed.table} WHERE vault_id = $1 AND check_after < now() ORDER BY check_after LIMIT $2`,
  ),

  // What is returned is the row as locked, and not as it was when it was looked for.
  lock: statement(
    `${table}.lockFreed`,
    `SELECT hash, refs, claimed_until < now() AS lapsed, ${columns}
       FROM ${table} WHERE vault_id = $1 AND hash = ANY (${hashArray('$2')}) ORDER BY hash FOR UPDATE SKIP LOCKED`,
  ),

  delete: statement(
    `${table}.delete`,
    `DELETE FROM ${table} WHERE vault_id = $1 AND hash = ANY (${hashArray('$2')}) AND refs = 0 AND claimed_until < now() RETURNING hash`,
  ),

  forget: statement(
    `${freed.name}.delete`,
    `DELETE FROM ${freed.table} WHERE vault_id = $1 AND hash = ANY (${hashArray('$2')})`,
  ),

  // A freed row whose block or list is gone. There should be none; but one must not be looked at for ever.
  forgetAbsent: statement(
    `${freed.name}.deleteAbsent`,
    `DELETE FROM ${freed.table} f WHERE f.vault_id = $1 AND f.hash = ANY (${hashArray('$2')})
        AND NOT EXISTS (SELECT 1 FROM ${table} b WHERE b.vault_id = $1 AND b.hash = f.hash OFFSET 0)`,
  ),

  postpone: statement(
    `${freed.name}.postpone`,
    `UPDATE ${freed.table} f SET check_after = (SELECT b.claimed_until FROM ${table} b WHERE b.vault_id = $1 AND b.hash = f.hash)
      WHERE f.vault_id = $1 AND f.hash = ANY (${hashArray('$2')})`,
  ),
});

const sql = {
  blocks: freedOf('blocks', { table: 'freed', name: 'freed' }, 'object_id AS "objectId", byte_length AS "byteLength"'),

  lists: freedOf(
    'lists',
    { table: 'freed_lists', name: 'freedLists' },
    'CASE WHEN refs = 0 AND claimed_until < now() THEN blocks END AS blocks',
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
    `WITH locked AS MATERIALIZED (${lockLiveObjects('$2')})
     UPDATE objects SET settled = true WHERE vault_id = $1 AND object_id = ANY (ARRAY(SELECT object_id FROM locked))`,
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

/**
 * Deletes a batch of what fell to 0 and is not claimed any more; forgets what is referred to again, and comes back later
 * to what is claimed.
 * @returns rows looked at, and those that were deleted
 */
async function reclaimRows<Row extends { hash: Buffer }>(
  tx: Transaction,
  vault: number,
  of: ReturnType<typeof freedOf>,
  limit: number,
): Promise<{ seen: number; doomed: Row[] }> {
  const due = await tx.query<{ hash: Buffer }>(of.due, [vault, limit]);
  if (due.length === 0) return { seen: 0, doomed: [] };
  const locked = await tx.query<Row & { refs: number; lapsed: boolean }>(of.lock, [vault, join(due)]);
  const doomed = locked.filter((row) => row.refs === 0 && row.lapsed);
  const used = locked.filter((row) => row.refs > 0);
  const claimed = locked.filter((row) => row.refs === 0 && !row.lapsed);
  const absent = await tx.query(of.forgetAbsent, [vault, join(due)]);
  if (doomed.length > 0) {
    const deleted = await tx.query(of.delete, [vault, join(doomed)]);
    if (deleted.length !== doomed.length) throw new Error('a row that was locked changed under its lock');
  }
  if (doomed.length + used.length > 0) await tx.query(of.forget, [vault, join([...doomed, ...used])]);
  if (claimed.length > 0) await tx.query(of.postpone, [vault, join(claimed)]);
  return { seen: locked.length + absent.length, doomed };
}

/** One batch of freed blocks, in the caller's transaction. Their bytes leave their objects; an empty object dies. */
export async function reclaimBlocks(
  tx: Transaction,
  vault: number,
  settings: { objectDeleteDelayMs: number; limit: number },
): Promise<Reclaimed> {
  type Row = { hash: Buffer; objectId: number; byteLength: number };
  const { seen, doomed } = await reclaimRows<Row>(tx, vault, sql.blocks, settings.limit);
  await shrinkObjects(tx, vault, doomed, settings.objectDeleteDelayMs);
  const bytes = doomed.reduce((sum, block) => sum + block.byteLength, 0);
  await forgetHiddenBlocks(tx, vault, join(doomed));
  await addUsage(tx, vault, { storedBytes: -bytes });
  return { seen, deleted: doomed.length, bytes };
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
  const { seen, doomed } = await reclaimRows<{ hash: Buffer; blocks: Buffer }>(tx, vault, sql.lists, limit);
  return { seen, blocks: doomed.map((list) => list.blocks) };
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
