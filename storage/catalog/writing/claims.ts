/**
 * Claims on blocks and on lists: what an agent need not send, because it is here and stays. A row that a version or list
 * refers to is confirmed by a read alone, because whoever frees it leaves it claimed for one window; only an unreferenced
 * one about to lapse is written, to twice the window, and never shortened. What is marked damaged is as good as absent.
 */
import { hashCount, hashKey, hashKeyAt, splitHashes } from '../../../protocol/hashes.ts';
import { type Database, statement } from '../database.ts';
import { hashArray } from './packing.ts';

const keptUntil = "statement_timestamp() + $3 * interval '1 ms'";

export interface Claimed {
  /** Indexes of the hashes that are held and kept. */
  kept: Set<number>;
  /** The moment until which that holds. */
  until: Date;
}

/**
 * Declares the claim on a table.
 * @returns the claim: which of n x 32 bytes of hashes the vault holds and will keep for the claim window
 */
export function claimsOn(
  table: 'blocks' | 'lists',
): (db: Database, vault: number, hashes: Buffer, windowMs: number) => Promise<Claimed> {
  const read = statement(
    `${table}.readClaims`,
    `SELECT string_agg(hash, '') FILTER (WHERE refs > 0 OR claimed_until > ${keptUntil}) AS kept,
            string_agg(hash, '') FILTER (WHERE refs = 0 AND claimed_until <= ${keptUntil}) AS lapsing,
            ${keptUntil} AS until
       FROM ${table} WHERE vault_id = $1 AND hash = ANY (${hashArray('$2')}) AND damaged_at IS NULL`,
  );
  const renew = statement(
    `${table}.renewClaims`,
    `WITH locked AS MATERIALIZED (
       SELECT hash FROM ${table} WHERE vault_id = $1 AND hash = ANY (${hashArray('$2')}) AND damaged_at IS NULL
        ORDER BY hash FOR NO KEY UPDATE),
     renewed AS (
       UPDATE ${table} SET claimed_until = greatest(claimed_until, statement_timestamp() + 2 * $3 * interval '1 ms')
        WHERE vault_id = $1 AND hash = ANY (ARRAY(SELECT hash FROM locked)) RETURNING hash)
     SELECT string_agg(hash, '') AS kept FROM renewed`,
  );
  return async (db, vault, hashes, windowMs) => {
    type Row = { kept: Buffer | null; lapsing: Buffer | null; until: Date };
    const [row] = await db.query<Row>(read, [vault, hashes, windowMs]);
    const held = hashSet(row!.kept);
    if (row!.lapsing) {
      const [renewed] = await db.query<{ kept: Buffer | null }>(renew, [vault, row!.lapsing, windowMs]);
      for (const key of hashSet(renewed!.kept)) held.add(key);
    }
    const kept = new Set<number>();
    for (let i = 0; i < hashCount(hashes); i++) if (held.has(hashKeyAt(hashes, i))) kept.add(i);
    return { kept, until: row!.until };
  };
}

/** Keys (as hashKey) of n x 32 bytes; none of null, as string_agg() answers for no rows. */
export function hashSet(hashes: Buffer | null): Set<string> {
  return new Set(hashes ? splitHashes(hashes).map(hashKey) : []);
}
