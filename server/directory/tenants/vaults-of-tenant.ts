/**
 * A tenant's vaults, in batches. The directory knows which they are, and the engine what is in them: asked for one after
 * the other and never joined, so that the catalog can be sharded by vault.
 */
import { statement, type Transaction } from '../../../storage/catalog/database.ts';

const batchUsers = 1_000;

const sql = {
  // A user's vault is made with their first device, and every device names it.
  page: statement(
    'directory.vaultsOfTenant',
    `SELECT u.user_id AS "user", d.vault_id AS vault
       FROM users u LEFT JOIN LATERAL (SELECT vault_id FROM devices WHERE user_id = u.user_id LIMIT 1) d ON true
      WHERE u.tenant_id = $1 AND u.user_id > $2 ORDER BY u.user_id LIMIT ${batchUsers}`,
  ),
};

/** At most 1,000 at a time; never an empty batch. */
export async function* vaultsOfTenant(db: Transaction, tenant: number): AsyncGenerator<number[]> {
  for (let last = 0; ; ) {
    const page = await db.query<{ user: number; vault: number | null }>(sql.page, [tenant, last]);
    const vaults = page.map(({ vault }) => vault).filter((vault) => vault !== null);
    if (vaults.length > 0) yield vaults;
    if (page.length < batchUsers) return;
    last = page.at(-1)!.user;
  }
}
