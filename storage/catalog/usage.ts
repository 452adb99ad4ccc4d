/**
 * How much a vault holds, kept without scans: every transaction that changes it adds a row of differences as its last
 * statement, and a job folds those rows into one. Nobody waits for a counter, and a figure is exact to the transaction.
 */
import { type Database, statement, type Transaction } from './database.ts';
import { vaultsWith } from './deleting/vaults-with.ts';
import { packArray } from './writing/packing.ts';

/** Rows that one folding takes. */
export const foldRowsMax = 10_000;

const sql = {
  add: statement(
    'usageDeltas.insert',
    `INSERT INTO usage_deltas (vault_id, logical_bytes, stored_bytes, referenced_bytes, object_bytes, versions, hidden_bytes)
     VALUES ($1, $2, $3, $4, $5, $6, $7)`,
  ),

  // Rows that another folder holds are left to it; two never add the same row.
  fold: statement(
    'vaultUsage.fold',
    `WITH taken AS (
       DELETE FROM usage_deltas WHERE vault_id = $1 AND delta_id = ANY (ARRAY(
         SELECT delta_id FROM usage_deltas WHERE vault_id = $1 ORDER BY delta_id LIMIT ${foldRowsMax} FOR UPDATE SKIP LOCKED))
       RETURNING logical_bytes, stored_bytes, referenced_bytes, object_bytes, versions, hidden_bytes),
     summed AS (
       SELECT sum(logical_bytes)::bigint AS logical_bytes, sum(stored_bytes)::bigint AS stored_bytes,
              sum(referenced_bytes)::bigint AS referenced_bytes, sum(object_bytes)::bigint AS object_bytes,
              sum(versions)::bigint AS versions, sum(hidden_bytes)::bigint AS hidden_bytes, count(*) AS folded
         FROM taken)
     INSERT INTO vault_usage AS u (vault_id, logical_bytes, stored_bytes, referenced_bytes, object_bytes, versions, hidden_bytes)
     SELECT $1, logical_bytes, stored_bytes, referenced_bytes, object_bytes, versions, hidden_bytes FROM summed WHERE folded > 0
     ON CONFLICT (vault_id) DO UPDATE SET
       logical_bytes = u.logical_bytes + excluded.logical_bytes, stored_bytes = u.stored_bytes + excluded.stored_bytes,
       referenced_bytes = u.referenced_bytes + excluded.referenced_bytes,
       object_bytes = u.object_bytes + excluded.object_bytes, versions = u.versions + excluded.versions,
       hidden_bytes = u.hidden_bytes + excluded.hidden_bytes
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

  // One statement, so one moment: an upload that turns live takes its bytes from flight to the stored in one transaction.
  charged: statement(
    'vaultUsage.charged',
    `SELECT coalesce(sum(each.bytes), 0)::bigint AS bytes
       FROM unnest($1::bigint[]) AS asked (vault_id)
      CROSS JOIN LATERAL (
       SELECT coalesce((SELECT u.stored_bytes FROM vault_usage u WHERE u.vault_id = asked.vault_id), 0)
            + coalesce((SELECT sum(d.stored_bytes) FROM usage_deltas d WHERE d.vault_id = asked.vault_id), 0)
            + coalesce((SELECT sum(o.charged_bytes) FROM objects o WHERE o.vault_id = asked.vault_id AND o.charged_bytes >= 1), 0)
           AS bytes OFFSET 0) each`,
  ),

  hidden: statement(
    'vaultUsage.hidden',
    `SELECT coalesce(sum(each.bytes), 0)::bigint AS bytes
       FROM unnest($1::bigint[]) AS asked (vault_id)
      CROSS JOIN LATERAL (
       SELECT coalesce((SELECT u.hidden_bytes FROM vault_usage u WHERE u.vault_id = asked.vault_id), 0)
            + coalesce((SELECT sum(d.hidden_bytes) FROM usage_deltas d WHERE d.vault_id = asked.vault_id), 0) AS bytes OFFSET 0) each`,
  ),

  lock: statement('vaultUsage.lock', 'SELECT 1 FROM vault_usage WHERE vault_id = $1 FOR NO KEY UPDATE'),
  make: statement(
    'vaultUsage.make',
    `INSERT INTO vault_usage (vault_id, logical_bytes, stored_bytes, referenced_bytes, object_bytes, versions)
     VALUES ($1, 0, 0, 0, 0, 0) ON CONFLICT (vault_id) DO NOTHING`,
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

/** What may change of a vault's usage. */
export interface UsageChange extends VaultUsage {
  /** Of the stored bytes, those of blocks that only hidden files name, or named last (hidden-blocks.ts). */
  hiddenBytes: number;
}

/** Adds differences, as the last statement of the transaction that makes them true. */
export async function addUsage(tx: Transaction, vault: number, change: Partial<UsageChange>): Promise<void> {
  const { logicalBytes = 0, storedBytes = 0, referencedBytes = 0, objectBytes = 0, versions = 0 } = change;
  const { hiddenBytes = 0 } = change;
  const values = [logicalBytes, storedBytes, referencedBytes, objectBytes, versions, hiddenBytes];
  if (values.every((value) => value === 0)) return;
  await tx.query(sql.add, [vault, ...values]);
}

/** What a vault holds now, unfolded differences included. */
export async function readVaultUsage(db: Database | Transaction, vault: number): Promise<VaultUsage> {
  const [row] = await db.query<VaultUsage>(sql.read, [vault]);
  return row!;
}

/**
 * What quotas count of vaults: sealed bytes of the blocks that they hold, each once, and of those on their way in. Not
 * what the server has of its own accord: footers, and bytes that wait for their deletion or for compaction.
 */
export async function readChargedBytes(db: Transaction, vaults: readonly number[]): Promise<number> {
  const [row] = await db.query<{ bytes: number }>(sql.charged, [packArray(vaults)]);
  return row!.bytes;
}

/** Of what quotas count of vaults, that which nothing needs but files that restic has deleted. Never more than they hold. */
export async function readHiddenBytes(db: Transaction, vaults: readonly number[]): Promise<number> {
  const [row] = await db.query<{ bytes: number }>(sql.hidden, [packArray(vaults)]);
  return row!.bytes;
}

/** Lets uploads of a vault that ask for its usage go one after the other, to the transaction's end. Folding waits, too. */
export async function lockVaultUsage(tx: Transaction, vault: number): Promise<void> {
  if ((await tx.query(sql.lock, [vault])).length > 0) return;
  await tx.query(sql.make, [vault]);
  await tx.query(sql.lock, [vault]);
}

/** Folds what has gathered. @returns rows folded */
export async function foldVaultUsage(db: Database, vault: number): Promise<number> {
  const [row] = await db.transaction((tx) => tx.query<{ folded: number }>(sql.fold, [vault]));
  return row?.folded ?? 0;
}

export function vaultsWithUnfoldedUsage(db: Database): Promise<number[]> {
  return sql.vaultsToFold(db, []);
}
