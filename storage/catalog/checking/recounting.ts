/**
 * Counts references anew, for a vault at a time, each kind in one statement: one snapshot, in which a version and the
 * counts that its commit added are seen both or not at all. The statements read a vault whole; so they run in a
 * transaction that is allowed what the others are not (hash joins, scans, minutes).
 *
 * The rule of counting is countRefs()'s (storage/archive/writing/count-refs.ts): once for each version or list that names it.
 */
import { type Statement, statement, type Transaction } from '../database.ts';
import { addUsage } from '../usage.ts';
import { hashArray } from '../writing/packing.ts';

/** The distinct hashes that one string of them names. `|| ''`: it is fetched once, and not once for each. */
const namedIn = (column: string, table: string): string =>
  `SELECT n.h FROM (SELECT ${column} || ''::bytea AS named FROM ${table} WHERE vault_id = $1 AND ${column} <> '' OFFSET 0) x
        CROSS JOIN LATERAL (SELECT DISTINCT substr(x.named, i * 32 + 1, 32) AS h FROM generate_series(0, octet_length(x.named) / 32 - 1) AS i) n`;

const compare = (table: string, names: string): string =>
  `SELECT coalesce(t.hash, n.h) AS hash, t.refs, coalesce(n.counted, 0)::int AS counted, count(*) OVER () AS total
       FROM (SELECT hash, refs FROM ${table} WHERE vault_id = $1) t
       FULL JOIN (SELECT h, count(*) AS counted FROM (${names}) each GROUP BY h) n ON n.h = t.hash
      WHERE t.refs IS DISTINCT FROM coalesce(n.counted, 0)
      LIMIT $2`;

const sql = {
  allowScans: statement(
    'catalog.allowScans',
    `SELECT set_config('statement_timeout', $1, true), set_config('transaction_timeout', '0', true), set_config('work_mem', '64MB', true),
            set_config('enable_hashjoin', 'on', true), set_config('enable_mergejoin', 'on', true), set_config('enable_seqscan', 'on', true)`,
  ),

  denyScans: statement(
    'catalog.denyScans',
    `SELECT set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true), set_config('enable_seqscan', 'off', true)`,
  ),

  blocks: statement(
    'blocks.recount',
    compare('blocks', `${namedIn('blocks', 'versions')} UNION ALL ${namedIn('blocks', 'lists')}`),
  ),

  lists: statement('lists.recount', compare('lists', namedIn('lists', 'versions'))),

  liveBytes: statement(
    'objects.recount',
    `SELECT o.object_id AS "objectId", o.live_bytes AS "liveBytes", coalesce(b.bytes, 0)::bigint AS counted, count(*) OVER () AS total
       FROM (SELECT object_id, live_bytes FROM objects WHERE vault_id = $1) o
       LEFT JOIN (SELECT object_id, sum(byte_length) AS bytes FROM blocks WHERE vault_id = $1 GROUP BY object_id) b ON b.object_id = o.object_id
      WHERE o.live_bytes <> coalesce(b.bytes, 0)
      LIMIT $2`,
  ),

  lockBlocks: statement(
    'blocks.lockToRecount',
    `SELECT hash FROM blocks WHERE vault_id = $1 AND hash = ANY (${hashArray('$2')}) ORDER BY hash FOR NO KEY UPDATE`,
  ),

  lockLists: statement(
    'lists.lockToRecount',
    `SELECT hash FROM lists WHERE vault_id = $1 AND hash = ANY (${hashArray('$2')}) ORDER BY hash FOR NO KEY UPDATE`,
  ),

  raiseBlocks: statement(
    'blocks.raiseRefs',
    `WITH counted AS (
       UPDATE blocks SET refs = refs + $3 WHERE vault_id = $1 AND hash = ANY (${hashArray('$2')}) RETURNING refs, byte_length)
     SELECT count(*) AS raised, coalesce(sum(byte_length) FILTER (WHERE refs = $3), 0)::bigint AS bytes FROM counted`,
  ),

  raiseLists: statement(
    'lists.raiseRefs',
    `WITH counted AS (
       UPDATE lists SET refs = refs + $3 WHERE vault_id = $1 AND hash = ANY (${hashArray('$2')}) RETURNING refs)
     SELECT count(*) AS raised, 0::bigint AS bytes FROM counted`,
  ),
};

/** Names whose count is not what is counted. */
export interface Drift {
  hash: Buffer;
  /** Null: there is no row, and something names it all the same. */
  refs: number | null;
  counted: number;
}

export interface ObjectDrift {
  objectId: number;
  liveBytes: number;
  counted: number;
}

/** The first drifts of a kind, and how many there are. */
export interface Drifts<Each> {
  total: number;
  first: Each[];
}

/** Counts of a vault's blocks or lists that are not what is counted, in the caller's transaction. */
export async function recountRefs(
  tx: Transaction,
  vault: number,
  table: 'blocks' | 'lists',
  options: { limit: number; timeoutMs: number },
): Promise<Drifts<Drift>> {
  return scanning<Drift>(tx, sql[table], vault, options);
}

/** Objects of a vault whose live bytes are not the sum of their blocks' lengths. */
export async function recountLiveBytes(
  tx: Transaction,
  vault: number,
  options: { limit: number; timeoutMs: number },
): Promise<Drifts<ObjectDrift>> {
  return scanning<ObjectDrift>(tx, sql.liveBytes, vault, options);
}

/** Plans are kept with the connection: whatever is planned after this must not have learned to scan. */
async function scanning<Each>(
  tx: Transaction,
  what: Statement,
  vault: number,
  { limit, timeoutMs }: { limit: number; timeoutMs: number },
): Promise<Drifts<Each>> {
  await tx.query(sql.allowScans, [String(timeoutMs)]);
  const rows = await tx.query<Each & { total: number }>({ ...what, timeoutMs: timeoutMs + 5_000 }, [vault, limit]);
  await tx.query(sql.denyScans);
  return { total: rows[0]?.total ?? 0, first: rows };
}

/** Holds the rows whose counts are about to be corrected, all in one pass. @param hashes n x 32 bytes */
export async function lockToRecount(
  tx: Transaction,
  vault: number,
  table: 'blocks' | 'lists',
  hashes: Buffer,
): Promise<void> {
  await tx.query(table === 'blocks' ? sql.lockBlocks : sql.lockLists, [vault, hashes]);
}

/**
 * Adds to the counts of rows that are there and held what is missing. A difference found in one snapshot is right later
 * too: everybody else only adds and subtracts.
 * @param missing distinct hashes and the difference of each, above 0
 * @returns how many were raised
 */
export async function raiseRefs(
  tx: Transaction,
  vault: number,
  table: 'blocks' | 'lists',
  missing: { hashes: Buffer; by: number },
): Promise<number> {
  const raise = table === 'blocks' ? sql.raiseBlocks : sql.raiseLists;
  const [row] = await tx.query<{ raised: number; bytes: number }>(raise, [vault, missing.hashes, missing.by]);
  await addUsage(tx, vault, { referencedBytes: row!.bytes });
  return row!.raised;
}
