/**
 * Holds rows of blocks or lists that are about to be changed together, in one pass and in the order of their hashes: two
 * transactions that hold many never wait for each other in a circle.
 */
import { type Statement, statement, type Transaction } from './database.ts';
import { hashArray } from './writing/packing.ts';

const lockOf = (table: 'blocks' | 'lists'): Statement =>
  statement(
    `${table}.lock`,
    `WITH locked AS MATERIALIZED (
       SELECT hash FROM ${table} WHERE vault_id = $1 AND hash = ANY (${hashArray('$2')}) AND (damaged_at IS NULL OR $3)
        ORDER BY hash FOR NO KEY UPDATE)
     SELECT count(*) AS locked FROM locked`,
  );

const sql = { blocks: lockOf('blocks'), lists: lockOf('lists') };

/**
 * @param hashes n x 32 bytes, distinct
 * @returns how many of them are there and are held from here to the end of the transaction
 */
export async function lockRows(
  tx: Transaction,
  vault: number,
  table: 'blocks' | 'lists',
  hashes: Buffer,
  options: { damagedToo: boolean },
): Promise<number> {
  const [row] = await tx.query<{ locked: number }>(sql[table], [vault, hashes, options.damagedToo]);
  return row!.locked;
}
