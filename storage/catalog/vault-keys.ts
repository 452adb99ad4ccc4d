/**
 * All generations of a vault's key, and the change of their level, as rows. Lock order: the vault, alone in its
 * statement (deleting/deleting.ts), so that no hold comes meanwhile; then its keys by generation. A key that a hold needs
 * is kept beside (`held_vault_keys`) before its record is replaced.
 */
import { type Database, statement, type Transaction } from './database.ts';
import { vaultsWith } from './deleting/vaults-with.ts';
import type { VaultKeyRow } from './vaults.ts';

const sql = {
  readAll: statement(
    'vaultKeys.readAll',
    'SELECT generation, level, record FROM vault_keys WHERE vault_id = $1 ORDER BY generation',
  ),

  lockAll: statement(
    'vaultKeys.lockAll',
    'SELECT generation, level, record FROM vault_keys WHERE vault_id = $1 ORDER BY generation FOR NO KEY UPDATE',
  ),

  rewrap: statement(
    'vaultKeys.rewrap',
    'UPDATE vault_keys SET level = $3, record = $4 WHERE vault_id = $1 AND generation = $2',
  ),

  hold: statement(
    'heldKeys.hold',
    'INSERT INTO held_vault_keys (vault_id, generation, record) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING',
  ),

  readHeld: statement('heldKeys.read', 'SELECT record FROM held_vault_keys WHERE vault_id = $1 AND generation = $2'),

  replaceHeld: statement(
    'heldKeys.replaceRecord',
    `UPDATE held_vault_keys SET record = $4 WHERE vault_id = $1 AND generation = $2 AND record = $3 RETURNING generation`,
  ),

  forgetHeld: statement('heldKeys.forget', 'DELETE FROM held_vault_keys WHERE vault_id = $1 RETURNING generation'),
};

/** Every generation that is kept, oldest first. */
export function readVaultKeys(db: Database | Transaction, vault: number): Promise<VaultKeyRow[]> {
  return db.query<VaultKeyRow>(sql.readAll, [vault]);
}

/** The same, as they stay to the transaction's end. */
export function lockVaultKeys(tx: Transaction, vault: number): Promise<VaultKeyRow[]> {
  return tx.query<VaultKeyRow>(sql.lockAll, [vault]);
}

/** Puts another way to the same key in the place of the one there is. */
export async function rewrapVaultKey(tx: Transaction, vault: number, key: VaultKeyRow): Promise<void> {
  await tx.query(sql.rewrap, [vault, key.generation, key.level, key.record]);
}

/** Keeps a sealed key for legal. One that is kept already stays as it is. */
export async function holdVaultKey(
  tx: Transaction,
  vault: number,
  key: { generation: number; record: Buffer },
): Promise<void> {
  await tx.query(sql.hold, [vault, key.generation, key.record]);
}

/** The sealed key that is kept for legal, or null. */
export async function readHeldVaultKey(
  tx: Transaction,
  of: { vault: number; generation: number },
): Promise<Buffer | null> {
  const [row] = await tx.query<{ record: Buffer }>(sql.readHeld, [of.vault, of.generation]);
  return row?.record ?? null;
}

/** As `replaceVaultKeyRecord`, of a key that is kept for legal. */
export async function replaceHeldVaultKeyRecord(
  tx: Transaction,
  of: { vault: number; generation: number },
  record: { from: Buffer; to: Buffer },
): Promise<boolean> {
  const rows = await tx.query(sql.replaceHeld, [of.vault, of.generation, record.from, record.to]);
  return rows.length > 0;
}

/** The caller holds the vault and has seen that no hold is on it. @returns the generations that are gone */
export async function forgetHeldVaultKeys(tx: Transaction, vault: number): Promise<number[]> {
  const rows = await tx.query<{ generation: number }>(sql.forgetHeld, [vault]);
  return rows.map(({ generation }) => generation);
}

const vaultsWithHeld = vaultsWith('held_vault_keys', 'heldKeys.vaults');

/** The vaults of which keys are kept for legal. */
export function vaultsWithHeldKeys(db: Database): Promise<number[]> {
  return vaultsWithHeld(db, []);
}
