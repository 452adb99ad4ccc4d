/**
 * Destroys the keys that were kept for holds, once no hold is on their vault any more: then nobody but their user opens
 * what they sealed, as was promised when the level was raised. Each vault is a transaction of its own.
 */
import { type Database, statement, type Transaction } from '../../../../storage/catalog/database.ts';
import { lockVaultAndReadHolds } from '../../../../storage/catalog/deleting/deleting.ts';
import { forgetHeldVaultKeys, vaultsWithHeldKeys } from '../../../../storage/catalog/vault-keys.ts';
import type { By } from '../../audit/act.ts';
import { record } from '../../audit/record.ts';

const ownerOfVault = statement(
  'directory.ownerOfVault',
  `SELECT u.tenant_id AS tenant, u.user_id AS "user", u.name, u.organization_id AS organization
     FROM vaults v JOIN users u ON u.user_id = v.user_id WHERE v.vault_id = $1`,
);

/** @returns how many keys are gone; the signal's reason ends it between two vaults */
export async function forgetHeldKeys(
  database: Database,
  options: { signal?: AbortSignal } = {},
): Promise<{ keys: number }> {
  let keys = 0;
  for (const vault of await vaultsWithHeldKeys(database)) {
    options.signal?.throwIfAborted();
    keys += await database.transaction((tx) => forgetOf(tx, vault));
  }
  return { keys };
}

/** Locks the vault alone, as whoever places a hold does; then the log's head. */
async function forgetOf(tx: Transaction, vault: number): Promise<number> {
  if ((await lockVaultAndReadHolds(tx, vault)).length > 0) return 0;
  const generations = await forgetHeldVaultKeys(tx, vault);
  if (generations.length === 0) return 0;
  const [owner] = await tx.query<{ tenant: number; user: number; name: string; organization: number }>(ownerOfVault, [
    vault,
  ]);
  const by: By = {
    tenant: owner?.tenant ?? null,
    party: { kind: 'server', id: null, name: 'Holdfast' },
    address: null,
  };
  await record(tx, by, {
    action: 'key.forget_held',
    target: owner ? { kind: 'user', id: owner.user, name: owner.name } : null,
    organization: owner?.organization ?? null,
    result: 'done',
    details: { vault, generations },
  });
  return generations.length;
}
