/** Rows for objects that the bucket holds and the catalog does not know, or not as live: after it was set back in time. */
import { statement, type Transaction } from '../database.ts';
import { addUsage } from '../usage.ts';
import { packArray } from '../writing/packing.ts';

const sql = {
  findStates: statement(
    'objects.findStates',
    `SELECT key, object_id AS "objectId", state FROM objects WHERE vault_id = $1 AND key = ANY ($2::text[])`,
  ),

  insertFound: statement(
    'objects.insertFound',
    `INSERT INTO objects (vault_id, key, state, size_bytes, live_bytes, next_at) VALUES ($1, $2, 'writing', $3, 0, now())
     ON CONFLICT (vault_id, key) DO NOTHING RETURNING object_id AS "objectId"`,
  ),

  hasVault: statement('vaults.exists', 'SELECT 1 FROM vaults WHERE vault_id = $1'),

  lastVaultId: statement(
    'vaults.lastId',
    'SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END AS "lastId" FROM vaults_vault_id_seq',
  ),

  advanceVaultIds: statement('vaults.advanceIds', "SELECT setval('vaults_vault_id_seq', $1::bigint)"),

  countElsewhere: statement(
    'objects.countElsewhere',
    `SELECT count(*) AS objects FROM objects WHERE state <> 'dead' AND NOT starts_with(key, $1)`,
  ),
};

export interface ObjectState {
  key: string;
  objectId: number;
  state: 'writing' | 'live' | 'dead';
}

/** Those of the keys that have a row, by key. */
export async function findObjectStates(
  db: Transaction,
  vault: number,
  keys: readonly string[],
): Promise<Map<string, ObjectState>> {
  const rows = await db.query<ObjectState>(sql.findStates, [vault, packArray(keys)]);
  return new Map(rows.map((row) => [row.key, row]));
}

/**
 * A row, in state `writing`, for an object that is there: the same transaction turns it live (recordObject), or nobody
 * ever sees it.
 * @returns its id; null when it has a row
 */
export async function insertFoundObject(
  tx: Transaction,
  object: { vault: number; key: string; sizeBytes: number },
): Promise<number | null> {
  const [row] = await tx.query<{ objectId: number }>(sql.insertFound, [object.vault, object.key, object.sizeBytes]);
  if (row) await addUsage(tx, object.vault, { objectBytes: object.sizeBytes });
  return row?.objectId ?? null;
}

export async function vaultExists(db: Transaction, vault: number): Promise<boolean> {
  return (await db.query(sql.hasVault, [vault])).length > 0;
}

/** The highest id that was handed out for a vault, also for one that was never made; 0 before the first. */
export async function readLastVaultId(db: Transaction): Promise<number> {
  const [row] = await db.query<{ lastId: number }>(sql.lastVaultId);
  return row!.lastId;
}

/**
 * The next vault gets a higher id than this. A rollback does not undo it. Whoever makes vaults at the same time may be
 * given, once, an id that a vault has: the key refuses it.
 */
export async function advanceVaultIds(tx: Transaction, past: number): Promise<void> {
  await tx.query(sql.advanceVaultIds, [past]);
}

/** Objects whose keys do not begin so. Reads all rows: for a command, not for a job. */
export async function countObjectsElsewhere(db: Transaction, prefix: string): Promise<number> {
  const [row] = await db.query<{ objects: number }>(sql.countElsewhere, [prefix]);
  return row!.objects;
}
