/**
 * How much a vault holds, kept without scans: every transaction that changes it adds a row of differences as its last
 * statement, and a job folds those rows into one. Nobody waits for a counter, and a figure is exact to the transaction.
 */
import { type Database, statement, type Transaction } from './database.ts';
import { vaultsWith } from './deleting/vaults-with.ts';

/** Rows that one folding takes. */
export const foldRowsMax = 10_000;

const sql = {
  add: statement(
    'usageDeltas.insert',
    `INSERT INTO usage_deltas (vault_id, logical_bytes, stored_bytes, referenced_bytes, object_bytes, versions)
     VALUES ($1, $2, $3, $4, $5, $6)`,
  ),

  // Rows that another folder holds are left to it; two never add the same row.
  fold: statement(
    'vaultUsage.fold',
    `WITH taken AS (
       DELETE FROM usage_deltas WHERE vault_id = $1 AND delta_id = ANY (ARRAY(
         SELECT delta_id FROM usage_deltas WHERE vault_id = $1 ORDER BY delta_id LIMIT ${foldRowsMax} FOR UPDATE SKIP LOCKED))
       RETURNING logical_bytes, stored_bytes, referenced_bytes, object_bytes, versions),
     summed AS (
       SELECT sum(logical_bytes)::bigint AS logical_bytes, sum(stored_bytes)::bigint AS stored_bytes,
              sum(referenced_bytes)::bigint AS referenced_bytes, sum(object_bytes)::bigint AS object_bytes,
              sum(versions)::bigint AS versions, count(*) AS folded
         FROM taken)
     INSERT INTO vault_usage AS u (vault_id, logical_bytes, stored_bytes, referenced_bytes, object_bytes, versions)
     SELECT $1, logical_bytes, stored_bytes, referenced_bytes, object_bytes, versions FROM summed WHERE folded > 0
     ON CONFLICT (vault_id) DO UPDATE SET
       logical_bytes = u.logical_bytes + excluded.logical_bytes, stored_bytes = u.stored_bytes + excluded.stored_bytes,
       referenced_bytes = u.referenced_bytes + excluded.referenced_bytes,
       object_bytes = u.object_bytes + excluded.object_bytes, versions = u.versions + excluded.versions
     RETURNING (SELECT folded FROM summed) AS folded`,
  ),

  read: statement(
    'vaultUsage.read',
    `SELECT coalesce(sum(logical_bytes), 0)::bigint AS "logicalBytes", coalesce(sum(stored_bytes), 0)::bigint AS "storedBytes",
            coalesce(sum(referenced_bytes), 0)::bigint AS "referencedBytes", coalesce(sum(object_bytes), 0)::bigint AS "objectBytes",
            coalesce(sum(versions), 0)::bigint AS versions
       FROM (SELECT logical_bytes, stored_bytes, referenced_bytes, object_bytes, versions FROM vault_usage WHERE vault_id = $1
             UNION ALL
             SELECT logical_bytes, stored_bytes, referenced_bytes, object_bytes, versions FROM usage_deltas WHERE vault_id = $1) each`,
  ),

  vaultsToFold: vaultsWith('usage_deltas', 'usageDeltas.vaults'),
};

export interface VaultUsage {
  /** Plain bytes of every version kept. */
  logicalBytes: number;
  /** Sealed bytes of the blocks the vault holds, each once. */
  storedBytes: number;
  /** Of those, the blocks that a version or a list refers to. */
  referencedBytes: number;
  /** Bytes of objects that the store holds or may hold for the vault. */
  objectBytes: number;
  versions: number;
}

/** Bytes that deleting will give back by itself: what the store holds for the vault and no version needs. */
export function reclaimableBytes(usage: VaultUsage): number {
  return usage.objectBytes - usage.referencedBytes;
}

/** Adds differences, as the last statement of the transaction that makes them true. */
export async function addUsage(tx: Transaction, vault: number, change: Partial<VaultUsage>): Promise<void> {
  const { logicalBytes = 0, storedBytes = 0, referencedBytes = 0, objectBytes = 0, versions = 0 } = change;
  const values = [logicalBytes, storedBytes, referencedBytes, objectBytes, versions];
  if (values.every((value) => value === 0)) return;
  await tx.query(sql.add, [vault, ...values]);
}

/** What a vault holds now, unfolded differences included. */
export async function readVaultUsage(db: Database | Transaction, vault: number): Promise<VaultUsage> {
  const [row] = await db.query<VaultUsage>(sql.read, [vault]);
  return row!;
}

/** Folds what has gathered. @returns rows folded */
export async function foldVaultUsage(db: Database, vault: number): Promise<number> {
  const [row] = await db.transaction((tx) => tx.query<{ folded: number }>(sql.fold, [vault]));
  return row?.folded ?? 0;
}

export function vaultsWithUnfoldedUsage(db: Database): Promise<number[]> {
  return sql.vaultsToFold(db, []);
}
