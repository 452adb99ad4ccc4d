/**
 * The sealed vault keys of all tenants, as rows: what is at stake when a server key is missing, and what is sealed anew.
 * The rows are the engine's (storage/catalog/ changes them); whose they are is the directory's to know.
 */
import { type Database, statement } from '../../../storage/catalog/database.ts';

// A generation is in one of the two tables: raising the level moves it from the first to the second in one transaction.
const sql = {
  anyOfFile: statement(
    'directory.anyFileSealedKey',
    `SELECT 1 FROM (SELECT record FROM vault_keys WHERE level = 'standard' UNION ALL SELECT record FROM held_vault_keys) k
      WHERE substring(record FROM 1 FOR 1) = '\\x01' LIMIT 1`,
  ),

  after: statement(
    'directory.sealedKeysAfter',
    `SELECT k.vault_id AS vault, k.generation, k.record, k.held, v.user_id AS "user", u.tenant_id AS tenant
       FROM (SELECT vault_id, generation, record, false AS held FROM vault_keys WHERE level = 'standard'
             UNION ALL SELECT vault_id, generation, record, true FROM held_vault_keys) k
       JOIN vaults v ON v.vault_id = k.vault_id LEFT JOIN users u ON u.user_id = v.user_id
      WHERE (k.vault_id, k.generation) > ($1::bigint, $2::int)
      ORDER BY k.vault_id, k.generation LIMIT $3`,
  ),
};

/** Whether a key file has sealed vault keys: one that is missing then was lost, and a new one opens none of them. */
export async function hasFileSealedKeys(db: Database): Promise<boolean> {
  return (await db.query(sql.anyOfFile)).length > 0;
}

export interface SealedKey {
  vault: number;
  generation: number;
  record: Buffer;
  /** Kept for legal, in held_vault_keys. */
  held: boolean;
  user: number;
  /** Null: its user is gone. */
  tenant: number | null;
}

/** Every sealed key, in pages of at most so many. What is added meanwhile may be in it or not. */
export async function* sealedKeyPages(db: Database, options: { pageKeys: number }): AsyncGenerator<SealedKey[]> {
  for (let last = { vault: 0, generation: 0 }; ; ) {
    const page = await db.query<SealedKey>(sql.after, [last.vault, last.generation, options.pageKeys]);
    if (page.length > 0) yield page;
    const end = page.at(-1);
    if (!end || page.length < options.pageKeys) return;
    last = end;
  }
}
