/**
 * How far deleting is behind what it promises: freed rows and dead objects whose time has come, and the free bytes in
 * objects that compaction leaves alone. For the metrics, over all vaults: a step along an index for each vault that has
 * some, and one for each row that is late; nothing of what is in use is read. The last also reads each vault's usage.
 */
import { type Database, statement } from '../database.ts';

/** Late rows counted in one vault, at most: what is more is no news, and counting it would be work. */
const countedMax = 100_000;

/** The vaults that have a row in a partial index, found along it. `present` is the index's condition. */
const vaultsIn = (name: string, table: string, present: string): string => `${name} (vault_id) AS (
       (SELECT t.vault_id FROM ${table} t WHERE ${present} ORDER BY t.vault_id LIMIT 1)
       UNION ALL
       SELECT (SELECT t.vault_id FROM ${table} t WHERE t.vault_id > ${name}.vault_id AND ${present} ORDER BY t.vault_id LIMIT 1)
         FROM ${name} WHERE ${name}.vault_id IS NOT NULL)`;

/** How many rows of a table are late, since when (s), and a sum over them. */
const overdue = (table: string, due: string, condition: string, bytes: string, present: string): string =>
  `WITH RECURSIVE ${vaultsIn('v', table, present)}
     SELECT coalesce(sum(late.rows), 0)::bigint AS rows, coalesce(sum(late.bytes), 0)::bigint AS bytes,
            coalesce(extract(epoch FROM now() - min(late.oldest)), 0)::float8 AS "oldestSeconds"
       FROM v CROSS JOIN LATERAL (
         SELECT count(*) AS rows, min(each.due) AS oldest, sum(each.bytes) AS bytes FROM (
           SELECT t.${due} AS due, ${bytes} AS bytes FROM ${table} t
            WHERE t.vault_id = v.vault_id AND t.${due} < now() AND ${condition} ORDER BY t.${due} LIMIT ${countedMax}) each OFFSET 0) late
      WHERE v.vault_id IS NOT NULL`;

const sparse = "t.state = 'live' AND (t.rewrite OR t.live_bytes * 2 < t.size_bytes)";

const sql = {
  freed: statement('freed.overdue', overdue('freed', 'check_after', 'true', '0', 'true')),
  freedLists: statement('freedLists.overdue', overdue('freed_lists', 'check_after', 'true', '0', 'true')),
  dead: statement(
    'objects.overdue',
    overdue('objects', 'next_at', "t.state = 'dead'", 't.size_bytes', 't.next_at IS NOT NULL'),
  ),

  // All that objects hold and blocks do not, less what belongs to objects on their way in or out (next_at), and less
  // what compaction takes: the rest lies in objects that are at least half live. No object of those is looked at.
  freeBytes: statement(
    'objects.freeBytes',
    `WITH RECURSIVE ${vaultsIn('p', 'objects', 't.next_at IS NOT NULL')},
       ${vaultsIn('s', 'objects', sparse)}
     SELECT free.bytes - passing.bytes - chosen.bytes AS bytes, chosen.bytes AS "sparseBytes", chosen.objects AS "sparseObjects"
       FROM (SELECT coalesce(sum(u.bytes), 0)::bigint AS bytes FROM (
               SELECT object_bytes - stored_bytes AS bytes FROM vault_usage WHERE vault_id > 0
               UNION ALL
               SELECT object_bytes - stored_bytes FROM usage_deltas WHERE vault_id > 0) u) free,
            (SELECT coalesce(sum(each.bytes), 0)::bigint AS bytes FROM p CROSS JOIN LATERAL (
               SELECT sum(t.size_bytes) AS bytes FROM objects t
                WHERE t.vault_id = p.vault_id AND t.next_at IS NOT NULL OFFSET 0) each) passing,
            (SELECT coalesce(sum(each.bytes), 0)::bigint AS bytes, coalesce(sum(each.objects), 0)::bigint AS objects
               FROM s CROSS JOIN LATERAL (
               SELECT sum(t.size_bytes - t.live_bytes) AS bytes, count(*) AS objects FROM objects t
                WHERE t.vault_id = s.vault_id AND ${sparse} OFFSET 0) each) chosen`,
  ),
};

export interface Overdue {
  /** At most 100,000 of each vault are counted. */
  rows: number;
  /** Of objects; 0 for other rows. */
  bytes: number;
  /** For how long the oldest has been due, in seconds of the database's clock; 0 when none is. */
  oldestSeconds: number;
}

/** Freed blocks and lists whose last claim has ended and that are not taken away yet. */
export async function readOverdueFreed(db: Database): Promise<Overdue> {
  const [blocks] = await db.query<Overdue>(sql.freed);
  const [lists] = await db.query<Overdue>(sql.freedLists);
  return {
    rows: blocks!.rows + lists!.rows,
    bytes: 0,
    oldestSeconds: Math.max(blocks!.oldestSeconds, lists!.oldestSeconds),
  };
}

/** Dead objects that should have left the store. One that was tried lately is due again in some minutes. */
export async function readOverdueObjects(db: Database): Promise<Overdue> {
  const [row] = await db.query<Overdue>(sql.dead);
  return row!;
}

export interface FreeBytes {
  /** In live objects at least half of which is in use: it stays until they get emptier. Footers are in it. */
  bytes: number;
  /** In objects that compaction is to rewrite, and how many those are. */
  sparseBytes: number;
  sparseObjects: number;
}

export async function readFreeBytes(db: Database): Promise<FreeBytes> {
  const [row] = await db.query<FreeBytes>(sql.freeBytes);
  return row!;
}
