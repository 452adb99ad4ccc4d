/**
 * Archives whose devices are gone: cold until a date, then expired, then without versions. Whatever changes an archive's
 * state locks its row, as commits and deleters do, so none of them meets another half way. Whoever changes those of
 * several vaults locks them in the order of their keys, and changes them in a later statement, which sees what whoever
 * had them before has left: a statement for many archives, because an organization has thousands, and its tenant waits.
 *
 * An archive that was expired may have lost versions. When it comes back, its purge epoch is another one, so that an agent
 * compares what it remembers with what is there.
 */
import type { ArchiveRef } from '../../storage.ts';
import { type Database, statement, type Transaction } from '../database.ts';
import { packArray } from '../writing/packing.ts';
import { vaultsWith } from './vaults-with.ts';

/**
 * Archives of several vaults, named pair by pair: a step along the key for each, whatever the planner knows of the table.
 * Their rows are locked already, so that each stays in the place where it was found.
 */
const named = `ctid = ANY (ARRAY(
        SELECT a.ctid FROM unnest($1::bigint[], $2::bigint[]) AS x (vault, archive)
         CROSS JOIN LATERAL (SELECT ctid FROM archives WHERE vault_id = x.vault AND archive_id = x.archive OFFSET 0) a))`;

const sql = {
  // In the order in which they are named.
  lockMany: statement(
    'archives.lockMany',
    `SELECT 1 FROM unnest($1::bigint[], $2::bigint[]) AS x (vault, archive)
      CROSS JOIN LATERAL (
        SELECT 1 FROM archives WHERE vault_id = x.vault AND archive_id = x.archive FOR NO KEY UPDATE) a`,
  ),

  cool: statement(
    'archives.cool',
    `UPDATE archives SET state = 'cold', cold_until = now() + $3 * interval '1 day'
      WHERE ${named} AND state = 'active' RETURNING cold_until AS until`,
  ),

  warm: statement(
    'archives.warm',
    `UPDATE archives SET state = 'active', cold_until = NULL, expired_at = NULL,
            purge_epoch = purge_epoch + CASE state WHEN 'expired' THEN 1 ELSE 0 END
      WHERE ${named} AND state <> 'active' RETURNING archive_id AS archive`,
  ),

  lock: statement(
    'archives.lockCold',
    `SELECT state, cold_until AS until, version_count AS versions, now() AS now
       FROM archives WHERE vault_id = $1 AND archive_id = $2 FOR NO KEY UPDATE`,
  ),

  setUntil: statement(
    'archives.setColdUntil',
    `UPDATE archives SET cold_until = $3, expired_at = NULL, state = 'cold',
            purge_epoch = purge_epoch + CASE state WHEN 'expired' THEN 1 ELSE 0 END
      WHERE vault_id = $1 AND archive_id = $2 AND state <> 'active'`,
  ),

  expire: statement(
    'archives.expire',
    `UPDATE archives SET state = 'expired', expired_at = now() WHERE vault_id = $1 AND state = 'cold' AND cold_until <= now()
     RETURNING archive_id AS archive`,
  ),

  expired: statement(
    'archives.expiredInVault',
    `SELECT archive_id AS archive FROM archives
      WHERE vault_id = $1 AND state = 'expired' AND expired_at <= now() - $2 * interval '1 day' AND version_count > 0
      ORDER BY archive_id`,
  ),

  someFiles: statement(
    'files.after',
    'SELECT file_id AS "fileId" FROM files WHERE vault_id = $1 AND archive_id = $2 AND file_id > $3 ORDER BY file_id LIMIT $4',
  ),

  vaultsToExpire: vaultsWith('archives', 'archives.vaultsToExpire', 't.cold_until <= now()', "t.state = 'cold'"),

  vaultsWithExpired: vaultsWith(
    'archives',
    'archives.vaultsWithExpired',
    `t.expired_at <= now() - $2 * interval '1 day' AND t.version_count > 0`,
    "t.state = 'expired'",
  ),
};

/** As arrays of vaults and of archives, in the order of their keys. */
function keysOf(refs: readonly ArchiveRef[]): [vaults: string, archives: string] {
  const sorted = refs.toSorted((a, b) => a.vault - b.vault || a.archive - b.archive);
  return [packArray(sorted.map(({ vault }) => vault)), packArray(sorted.map(({ archive }) => archive))];
}

/**
 * Takes archives out of use, each to be kept for so many days. Those that are out already keep their date.
 * @param refs at most some thousands, of any vaults
 * @returns the dates of those that were in use
 */
export async function coolArchiveRows(tx: Transaction, refs: readonly ArchiveRef[], days: number): Promise<Date[]> {
  const keys = keysOf(refs);
  await tx.query(sql.lockMany, keys);
  const rows = await tx.query<{ until: Date }>(sql.cool, [...keys, days]);
  return rows.map(({ until }) => until);
}

/** Takes archives back into use. @param refs at most some thousands @returns those that were out of it */
export async function warmArchiveRows(tx: Transaction, refs: readonly ArchiveRef[]): Promise<number[]> {
  const keys = keysOf(refs);
  await tx.query(sql.lockMany, keys);
  const rows = await tx.query<{ archive: number }>(sql.warm, keys);
  return rows.map(({ archive }) => archive);
}

export interface LockedArchive {
  state: 'active' | 'cold' | 'expired';
  until: Date | null;
  versions: number;
  now: Date;
}

/** Holds the archive's row for the rest of the transaction. */
export async function lockColdArchive(tx: Transaction, ref: ArchiveRef): Promise<LockedArchive | null> {
  const [row] = await tx.query<LockedArchive>(sql.lock, [ref.vault, ref.archive]);
  return row ?? null;
}

/** Makes an archive that is locked, and out of use, cold until then. One that had expired is not any more. */
export async function setColdUntilRow(tx: Transaction, ref: ArchiveRef, until: Date): Promise<void> {
  await tx.query(sql.setUntil, [ref.vault, ref.archive, until]);
}

export function vaultsToExpire(db: Database): Promise<number[]> {
  return sql.vaultsToExpire(db, []);
}

/** Ends the archives of a vault that are past their date. @returns which */
export async function expireArchiveRows(tx: Transaction, vault: number): Promise<number[]> {
  return (await tx.query<{ archive: number }>(sql.expire, [vault])).map(({ archive }) => archive);
}

/** Archives that expired so many days ago, or longer, and have versions. */
export async function longExpiredArchives(db: Database, days: number): Promise<ArchiveRef[]> {
  const refs: ArchiveRef[] = [];
  for (const vault of await sql.vaultsWithExpired(db, [days])) {
    const rows = await db.query<{ archive: number }>(sql.expired, [vault, days]);
    refs.push(...rows.map(({ archive }) => ({ vault, archive })));
  }
  return refs;
}

/** Files of an archive behind one, by id. */
export async function filesAfter(
  tx: Transaction,
  ref: ArchiveRef,
  page: { after: number; limit: number },
): Promise<number[]> {
  const rows = await tx.query<{ fileId: number }>(sql.someFiles, [ref.vault, ref.archive, page.after, page.limit]);
  return rows.map(({ fileId }) => fileId);
}
