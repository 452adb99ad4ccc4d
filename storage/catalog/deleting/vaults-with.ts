/** Finds the vaults where a job has work, without reading the work: one step along an index per vault. */
import { type Database, statement } from '../database.ts';

/** Vaults found by one statement. */
const pageVaults = 1_000;

/** Names of the statements declared here: they look over all vaults, where every other statement works in one. */
export const findersOfVaults = new Set<string>();

/**
 * Declares a look for the vaults that have a row in a table, or one that `condition` is true of. Each vault costs two
 * steps along an index that begins with vault_id; so `condition` must be one that such an index answers.
 * @param condition of the row `t` and parameters from $2 on
 * @param present a condition every row of the index has (that of a partial one), to find vaults by
 */
export function vaultsWith(
  table: string,
  name: string,
  condition = 'true',
  present = 'true',
): (db: Database, values: readonly unknown[]) => Promise<number[]> {
  findersOfVaults.add(name);
  const declared = statement(
    name,
    `WITH RECURSIVE v (vault_id) AS (
       (SELECT t.vault_id FROM ${table} t WHERE t.vault_id > $1 AND ${present} ORDER BY t.vault_id LIMIT 1)
       UNION ALL
       SELECT (SELECT t.vault_id FROM ${table} t WHERE t.vault_id > v.vault_id AND ${present} ORDER BY t.vault_id LIMIT 1)
         FROM v WHERE v.vault_id IS NOT NULL)
     SELECT v.vault_id AS vault FROM v
      WHERE v.vault_id IS NOT NULL AND EXISTS (
        SELECT 1 FROM ${table} t WHERE t.vault_id = v.vault_id AND ${present} AND ${condition} OFFSET 0)
      ORDER BY v.vault_id LIMIT ${pageVaults}`,
  );
  return async (db, values) => {
    const vaults: number[] = [];
    for (let found = pageVaults; found === pageVaults; ) {
      const page = await db.query<{ vault: number }>(declared, [vaults.at(-1) ?? 0, ...values]);
      for (const { vault } of page) vaults.push(vault);
      found = page.length;
    }
    return vaults;
  };
}
