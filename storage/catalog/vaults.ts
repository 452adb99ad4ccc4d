/**
 * Vaults, their keys and their archives, as rows. Called inside the transaction that makes the user's or device's own
 * rows, so that neither exists without the other.
 */
import type { ArchiveRef } from '../storage.ts';
import { statement, type Transaction } from './database.ts';

const sql = {
  findVault: statement('vaults.findByUser', 'SELECT vault_id AS vault FROM vaults WHERE user_id = $1'),
  insertVault: statement(
    'vaults.insert',
    `INSERT INTO vaults (user_id) VALUES ($1) ON CONFLICT (user_id) DO NOTHING RETURNING vault_id AS vault`,
  ),
  insertArchive: statement(
    'archives.insert',
    'INSERT INTO archives (vault_id, device_id, kind) VALUES ($1, $2, $3) RETURNING archive_id AS archive',
  ),
  moveArchive: statement('archives.move', 'UPDATE archives SET device_id = $3 WHERE vault_id = $1 AND archive_id = $2'),
  insertKey: statement(
    'vaultKeys.insert',
    'INSERT INTO vault_keys (vault_id, generation, level, record) VALUES ($1, $2, $3, $4)',
  ),
  readKey: statement(
    'vaultKeys.read',
    'SELECT generation, level, record FROM vault_keys WHERE vault_id = $1 ORDER BY generation DESC LIMIT 1',
  ),
  readGeneration: statement(
    'vaultKeys.readGeneration',
    'SELECT generation, level, record FROM vault_keys WHERE vault_id = $1 AND generation = $2',
  ),

  // Only what is still as it was read: whoever has changed it since knew more.
  replaceRecord: statement(
    'vaultKeys.replaceRecord',
    `UPDATE vault_keys SET record = $4
      WHERE vault_id = $1 AND generation = $2 AND level = 'standard' AND record = $3 RETURNING generation`,
  ),
};

export type KeyLevel = 'standard' | 'password' | 'custom';

export interface VaultKeyRow {
  generation: number;
  level: KeyLevel;
  /** standard: sealed by the key service; password: wrapped by the agent; custom: a check value. */
  record: Buffer;
}

export async function findVaultOfUser(tx: Transaction, userId: number): Promise<number | null> {
  const [row] = await tx.query<{ vault: number }>(sql.findVault, [userId]);
  return row?.vault ?? null;
}

/** @returns null when another transaction has made the user's vault meanwhile: look it up */
export async function createVault(tx: Transaction, owner: { userId: number }): Promise<number | null> {
  const [row] = await tx.query<{ vault: number }>(sql.insertVault, [owner.userId]);
  return row?.vault ?? null;
}

/** @param of.kind who writes it: an agent, or whoever puts files into it one at a time (archive/plain-files/) */
export async function createArchive(
  tx: Transaction,
  of: { vault: number; deviceId: number; kind?: 'agent' | 'plain' },
): Promise<number> {
  const [row] = await tx.query<{ archive: number }>(sql.insertArchive, [of.vault, of.deviceId, of.kind ?? 'agent']);
  return row!.archive;
}

/** Gives an archive to another installation, which goes on where the one before it ended. */
export async function moveArchive(tx: Transaction, ref: ArchiveRef, to: { deviceId: number }): Promise<void> {
  await tx.query(sql.moveArchive, [ref.vault, ref.archive, to.deviceId]);
}

/**
 * Enters a generation of a vault's key. Which key it is never changes; under which server key it is sealed may
 * (`replaceVaultKeyRecord`).
 */
export async function putVaultKey(tx: Transaction, vault: number, key: VaultKeyRow): Promise<void> {
  await tx.query(sql.insertKey, [vault, key.generation, key.level, key.record]);
}

/** The newest generation of a vault's key. */
export async function readVaultKey(tx: Transaction, vault: number): Promise<VaultKeyRow | null> {
  const [row] = await tx.query<VaultKeyRow>(sql.readKey, [vault]);
  return row ?? null;
}

/** One generation of a vault's key. */
export async function readVaultKeyGeneration(
  tx: Transaction,
  of: { vault: number; generation: number },
): Promise<VaultKeyRow | null> {
  const [row] = await tx.query<VaultKeyRow>(sql.readGeneration, [of.vault, of.generation]);
  return row ?? null;
}

/**
 * Puts another record of the same key in the place of the one that was read, under the lock of its row alone: nobody
 * holds that lock and asks for another. Both records open, so readers need not wait.
 * @returns false when the record is not `from` any more: somebody has put another there
 */
export async function replaceVaultKeyRecord(
  tx: Transaction,
  of: { vault: number; generation: number },
  record: { from: Buffer; to: Buffer },
): Promise<boolean> {
  const rows = await tx.query(sql.replaceRecord, [of.vault, of.generation, record.from, record.to]);
  return rows.length > 0;
}
