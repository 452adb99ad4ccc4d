/** What verify, the comparison with the bucket, and the recount ask of the catalog, and the times of the checks. */

import { type Database, statement, type Transaction } from '../database.ts';
import { lockLiveObjects } from '../lock-objects.ts';
import { packArray } from '../writing/packing.ts';
import type { AlertKind } from './alerts.ts';

/** What was verified then was verified by a clock that was wrong: nobody knows when. */
const future = "now() + interval '1 hour'";

const sql = {
  vaultsAfter: statement(
    'vaults.after',
    'SELECT vault_id AS vault FROM vaults WHERE vault_id > $1 ORDER BY vault_id LIMIT $2',
  ),

  vaultsToVerify: statement(
    'vaults.toVerify',
    `SELECT v.vault_id AS vault FROM vaults v
      WHERE v.vault_id > $1
        AND (EXISTS (SELECT 1 FROM objects o WHERE o.vault_id = v.vault_id AND o.state = 'live' AND o.verified_at IS NULL)
          OR EXISTS (SELECT 1 FROM objects o WHERE o.vault_id = v.vault_id AND o.state = 'live' AND o.verified_at < $2::timestamptz)
          OR EXISTS (SELECT 1 FROM objects o WHERE o.vault_id = v.vault_id AND o.state = 'live' AND o.verified_at > ${future}))
      ORDER BY v.vault_id LIMIT $3`,
  ),

  // Ranges of one index; asked for all at once it would read all objects of a vault where none is due.
  objectsToVerify: statement(
    'objects.toVerify',
    `SELECT * FROM (
       (SELECT object_id AS "objectId", key, size_bytes AS "sizeBytes" FROM objects
         WHERE vault_id = $1 AND state = 'live' AND verified_at IS NULL AND object_id <> ALL ($3::bigint[])
         ORDER BY verified_at NULLS FIRST LIMIT $4)
       UNION ALL
       (SELECT object_id, key, size_bytes FROM objects
         WHERE vault_id = $1 AND state = 'live' AND verified_at < $2::timestamptz AND object_id <> ALL ($3::bigint[])
         ORDER BY verified_at NULLS FIRST LIMIT $4)
       UNION ALL
       (SELECT object_id, key, size_bytes FROM objects
         WHERE vault_id = $1 AND state = 'live' AND verified_at > ${future} AND object_id <> ALL ($3::bigint[])
         ORDER BY verified_at NULLS FIRST LIMIT $4)) due
      LIMIT $4`,
  ),

  isLive: statement(
    'objects.isLive',
    `SELECT 1 FROM objects WHERE vault_id = $1 AND object_id = $2 AND state = 'live'`,
  ),

  setVerified: statement(
    'objects.setVerified',
    `WITH locked AS MATERIALIZED (${lockLiveObjects('$2')})
     UPDATE objects SET verified_at = now() WHERE vault_id = $1 AND object_id = ANY (ARRAY(SELECT object_id FROM locked))`,
  ),

  setRewrite: statement(
    'objects.setRewrite',
    `UPDATE objects SET rewrite = true WHERE vault_id = $1 AND object_id = ANY ($2::bigint[]) AND state = 'live' AND NOT rewrite`,
  ),

  coverage: statement(
    'objects.coverage',
    `SELECT never.objects AS "neverVerified", never.bytes AS "neverVerifiedBytes", done.objects AS verified, done.bytes AS "verifiedBytes", done.oldest AS "oldestVerifiedAt"
       FROM (SELECT count(*) AS objects, coalesce(sum(size_bytes), 0)::bigint AS bytes FROM (
               SELECT size_bytes FROM objects
                WHERE vault_id = $1 AND state = 'live' AND verified_at IS NULL ORDER BY verified_at NULLS FIRST OFFSET 0) o) never,
            (SELECT count(*) AS objects, coalesce(sum(size_bytes), 0)::bigint AS bytes, min(verified_at) AS oldest FROM (
               SELECT size_bytes, verified_at FROM objects
                WHERE vault_id = $1 AND state = 'live' AND verified_at >= '-infinity' ORDER BY verified_at NULLS FIRST OFFSET 0) o) done`,
  ),

  findKeys: statement('objects.findKeys', 'SELECT key FROM objects WHERE vault_id = $1 AND key = ANY ($2::text[])'),

  liveBetween: statement(
    'objects.liveBetween',
    `SELECT object_id AS "objectId", key FROM objects
      WHERE vault_id = $1 AND key COLLATE "C" > $2 AND key COLLATE "C" <= $3 AND state = 'live' AND ($4::timestamptz IS NULL OR created_at < $4)
      ORDER BY key COLLATE "C" LIMIT $5`,
  ),

  reviewedSince: statement(
    'alerts.reviewedSince',
    `SELECT 1 FROM alerts WHERE vault_id = $1 AND alert_id > 0 AND kind = $2 AND archive_id = 0 AND reviewed_at > now() - $3 * interval '1 ms'
      ORDER BY alert_id DESC LIMIT 1`,
  ),

  now: statement('catalog.now', 'SELECT now() AS now'),
};

/** Vaults by id, a page of them: for work that looks at every vault. */
export async function vaultsAfter(db: Database, after: number, limit: number): Promise<number[]> {
  return (await db.query<{ vault: number }>(sql.vaultsAfter, [after, limit])).map((row) => row.vault);
}

/** Vaults with an object that was never read whole, or not since a moment. */
export async function vaultsToVerify(
  db: Database,
  page: { after: number; since: Date; limit: number },
): Promise<number[]> {
  const rows = await db.query<{ vault: number }>(sql.vaultsToVerify, [page.after, page.since, page.limit]);
  return rows.map((row) => row.vault);
}

export interface ObjectToRead {
  objectId: number;
  key: string;
  sizeBytes: number;
}

/** Live objects not read whole since a moment: those that never were, then those for which it is the longest ago. */
export async function objectsToVerify(
  db: Database,
  vault: number,
  choice: { since: Date; except: Iterable<number>; limit: number },
): Promise<ObjectToRead[]> {
  const values = [vault, choice.since, packArray([...choice.except]), choice.limit];
  return db.query<ObjectToRead>(sql.objectsToVerify, values);
}

export async function isObjectLive(db: Database, vault: number, objectId: number): Promise<boolean> {
  return (await db.query(sql.isLive, [vault, objectId])).length > 0;
}

/** Notes that objects were read whole just now. */
export async function setVerified(tx: Transaction, vault: number, objectIds: readonly number[]): Promise<void> {
  if (objectIds.length > 0) await tx.query(sql.setVerified, [vault, packArray(objectIds)]);
}

/** Has objects compacted although they are full: what is wrong with them the new ones will not have. They are locked already. */
export async function setRewrite(tx: Transaction, vault: number, objectIds: readonly number[]): Promise<void> {
  if (objectIds.length > 0) await tx.query(sql.setRewrite, [vault, packArray(objectIds)]);
}

/** Whether somebody has reviewed an alert about the whole vault in the last so many ms. */
export async function wasReviewedSince(
  db: Database,
  about: { vault: number; kind: AlertKind },
  ms: number,
): Promise<boolean> {
  return (await db.query(sql.reviewedSince, [about.vault, about.kind, ms])).length > 0;
}

export interface Coverage {
  /** Live objects that were read whole at some time, and their bytes. */
  verified: number;
  verifiedBytes: number;
  neverVerified: number;
  neverVerifiedBytes: number;
  /** The longest ago that one of those verified was; null when none was. */
  oldestVerifiedAt: Date | null;
}

/** How much of a vault has been verified, and how long ago. */
export async function readCoverage(db: Database, vault: number): Promise<Coverage> {
  const [row] = await db.query<Coverage>(sql.coverage, [vault]);
  return row!;
}

/** Which of these keys have a row, in whatever state. */
export async function findObjectKeys(db: Transaction, vault: number, keys: readonly string[]): Promise<Set<string>> {
  const rows = await db.query<{ key: string }>(sql.findKeys, [vault, packArray(keys)]);
  return new Set(rows.map((row) => row.key));
}

/** Live objects by key, in the byte order of stores, that were live before a moment; null: all of them. */
export async function liveObjectsBetween(
  db: Database,
  vault: number,
  range: { after: string; upTo: string; liveBefore: Date | null; limit: number },
): Promise<{ objectId: number; key: string }[]> {
  const values = [vault, range.after, range.upTo, range.liveBefore, range.limit];
  return db.query<{ objectId: number; key: string }>(sql.liveBetween, values);
}

/** The database's clock. */
export async function readNow(db: Transaction): Promise<Date> {
  const [row] = await db.query<{ now: Date }>(sql.now);
  return row!.now;
}
