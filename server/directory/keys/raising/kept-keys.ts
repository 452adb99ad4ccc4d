/** All generations of a vault's key as agents are told of them: each as the server keeps it, oldest first. */
import type { KeptKey } from '../../../../protocol/messages.ts';
import type { Database } from '../../../../storage/catalog/database.ts';
import { readVaultKeys } from '../../../../storage/catalog/vault-keys.ts';
import type { VaultKeyRow } from '../../../../storage/catalog/vaults.ts';

/** Without keys in escrow: a device has got those when it was registered. */
export async function keptKeysOf(db: Database, vault: number): Promise<KeptKey[]> {
  const rows = await readVaultKeys(db, vault);
  return rows.map((row) => keptKey(row, { newest: row === rows.at(-1) }));
}

/** @param of.newest of a custom one, the record of the newest is its check, and that of others a wrapped key */
export function keptKey({ generation, level, record }: VaultKeyRow, of: { newest: boolean }): KeptKey {
  switch (level) {
    case 'standard':
      return { level, generation };
    case 'password':
      return { level, generation, wrapped: record };
    case 'custom':
      return of.newest ? { level, generation, check: record } : { level, generation, wrapped: record };
  }
}
