/**
 * Counts references anew, for a vault at a time, each kind in one statement: one snapshot, in which a version and the
 * counts that its commit added are seen both or not at all. The statements read a vault whole; so they run in a
 * transaction that is allowed what the others are not (hash joins, scans, minutes).
 *
 * The rule of counting is countRefs()'s (storage/archive/writing/count-refs.ts): once for each version or list that names it.
 */
import { type Statement, statement, type Transaction } from '../database.ts';
import type { PlainFigures } from '../plain-figures.ts';
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

  plainFigures: statement(
    'plainFigures.recount',
    `SELECT coalesce(c.archive_id, f.archive_id) AS archive, coalesce(c.folder, f.folder) AS folder,
            (coalesce(c.files, 0) - coalesce(f.files, 0))::bigint AS files, (coalesce(c.bytes, 0) - coalesce(f.bytes, 0))::bigint AS bytes,
            (coalesce(c.hidden_files, 0) - coalesce(f.hidden_files, 0))::bigint AS "hiddenFiles",
            (coalesce(c.hidden_bytes, 0) - coalesce(f.hidden_bytes, 0))::bigint AS "hiddenBytes", count(*) OVER () AS total
       FROM (
         SELECT e.archive_id, coalesce(convert_from(p.name, 'LATIN1'), '') AS folder,
                count(*) FILTER (WHERE NOT e.hidden) AS files, coalesce(sum(e.size) FILTER (WHERE NOT e.hidden), 0) AS bytes,
                count(*) FILTER (WHERE e.hidden) AS hidden_files, coalesce(sum(e.size) FILTER (WHERE e.hidden), 0) AS hidden_bytes
           FROM (
             SELECT v.archive_id, v.file_id, (array_agg(v.deleted ORDER BY v.seq DESC))[1] AS hidden,
                    (array_agg(v.size ORDER BY v.seq DESC) FILTER (WHERE NOT v.deleted))[1] AS size
               FROM versions v JOIN archives a ON a.vault_id = $1 AND a.archive_id = v.archive_id AND a.kind = 'plain'
              WHERE v.vault_id = $1 GROUP BY v.archive_id, v.file_id) e
           JOIN files n ON n.vault_id = $1 AND n.archive_id = e.archive_id AND n.file_id = e.file_id
           LEFT JOIN files p ON p.vault_id = $1 AND p.archive_id = e.archive_id AND p.file_id = n.parent_id
          GROUP BY 1, 2) c
       FULL JOIN (SELECT * FROM plain_figures WHERE vault_id = $1) f ON f.archive_id = c.archive_id AND f.folder = c.folder
      WHERE (coalesce(c.files, 0), coalesce(c.bytes, 0), coalesce(c.hidden_files, 0), coalesce(c.hidden_bytes, 0))
         <> (coalesce(f.files, 0), coalesce(f.bytes, 0), coalesce(f.hidden_files, 0), coalesce(f.hidden_bytes, 0))
      LIMIT $2`,
  ),

  // What blocks noted as hidden come to, less what the vault's usage says.
  hidden: statement(
    'hiddenBlocks.recount',
    `SELECT (coalesce((SELECT sum(h.byte_length) FROM hidden_blocks h WHERE h.vault_id = $1), 0)
           - coalesce((SELECT u.hidden_bytes FROM vault_usage u WHERE u.vault_id = $1), 0)
           - coalesce((SELECT sum(d.hidden_bytes) FROM usage_deltas d WHERE d.vault_id = $1), 0))::bigint AS bytes`,
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
       UPDATE blocks SET refs = refs + $3 WHERE vault_id = $1 AND hash = ANY (${hashArray('$2')}) RETURNING refs, byte_length),
     shown AS (
       DELETE FROM hidden_blocks WHERE vault_id = $1 AND hash = ANY (${hashArray('$2')}) RETURNING byte_length)
     SELECT count(*) AS raised, coalesce(sum(byte_length) FILTER (WHERE refs = $3), 0)::bigint AS bytes,
            (SELECT coalesce(sum(byte_length), 0)::bigint FROM shown) AS "shownBytes" FROM counted`,
  ),

  raiseLists: statement(
    'lists.raiseRefs',
    `WITH counted AS (
       UPDATE lists SET refs = refs + $3 WHERE vault_id = $1 AND hash = ANY (${hashArray('$2')}) RETURNING refs)
     SELECT count(*) AS raised, 0::bigint AS bytes, 0::bigint AS "shownBytes" FROM counted`,
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

export interface FigureDrift extends PlainFigures {
  archive: number;
  folder: string;
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

/** What is missing in the figures of a vault's plain archives; below 0: there is too much. */
export async function recountPlainFigures(
  tx: Transaction,
  vault: number,
  options: { limit: number; timeoutMs: number },
): Promise<Drifts<FigureDrift>> {
  return scanning<FigureDrift>(tx, sql.plainFigures, vault, options);
}

/** What is missing in a vault's hidden bytes, which quotas do not charge; below 0: there is too much. */
export async function recountHiddenBytes(tx: Transaction, vault: number): Promise<number> {
  const [row] = await tx.query<{ bytes: number }>(sql.hidden, [vault]);
  return row!.bytes;
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
 * too: everybody else only adds and subtracts. Of a block that was noted as hidden the missing name may be of something
 * that is there: quotas charge it again (hidden-blocks.ts).
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
  const values = [vault, missing.hashes, missing.by];
  const [row] = await tx.query<{ raised: number; bytes: number; shownBytes: number }>(raise, values);
  await addUsage(tx, vault, { referencedBytes: row!.bytes, hiddenBytes: -row!.shownBytes });
  return row!.raised;
}
