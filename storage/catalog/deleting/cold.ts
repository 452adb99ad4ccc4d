/**
 * Archives whose devices are gone: cold until a date, then expired, then without versions. Whatever changes an archive's
 * state locks its row, as commits and deleters do, so none of them meets another half way. Whoever changes those of
 * several vaults goes through the vaults in the order of their numbers.
 *
 * An archive that was expired may have lost versions. When it comes back, its purge epoch is another one, so that an agent
 * compares what it remembers with what is there.
 */
import type { ArchiveRef } from '../../storage.ts';
import { type Database, statement, type Transaction } from '../database.ts';
import { packArray } from '../writing/packing.ts';
import { vaultsWith } from './vaults-with.ts';

const sql = {
  cool: statement(
    'archives.cool',
    `UPDATE archives SET state = 'cold', cold_until = now() + $3 * interval '1 day'
      WHERE vault_id = $1 AND archive_id = ANY ($2::bigint[]) AND state = 'active' RETURNING cold_until AS until`,
  ),

  warm: statement(
    'archives.warm',
    `UPDATE archives SET state = 'active', cold_until = NULL, expired_at = NULL,
            purge_epoch = purge_epoch + CASE state WHEN 'expired' THEN 1 ELSE 0 END
      WHERE vault_id = $1 AND archive_id = ANY ($2::bigint[]) AND state <> 'active' RETURNING archive_id AS archive`,
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

/** Archives of one vault. */
export interface ArchivesOfVault {
  vault: number;
  archives: readonly number[];
}

/**
 * Takes archives out of use, each to be kept for so many days. Those that are out already keep their date.
 * @returns the dates of those that were in use
 */
export async function coolArchiveRows(tx: Transaction, of: ArchivesOfVault & { days: number }): Promise<Date[]> {
  const rows = await tx.query<{ until: Date }>(sql.cool, [of.vault, packArray(of.archives), of.days]);
  return rows.map(({ until }) => until);
}

/** Takes archives back into use. @returns those that were out of it */
export async function warmArchiveRows(tx: Transaction, of: ArchivesOfVault): Promise<number[]> {
  const rows = await tx.query<{ archive: number }>(sql.warm, [of.vault, packArray(of.archives)]);
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
