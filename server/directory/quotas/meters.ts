/**
 * How full an organization with a quota of bytes is, without adding up all of its vaults at every upload. A meter is never
 * below what is stored and in flight below its organization. Uploads add to it under its row's lock, and nothing takes
 * away from it: deletes and uploads that stored less make it too high, never too low. Where it says that there is no room
 * it is counted anew, and that count decides.
 *
 * Why it is never too low (docs/decisions/quotas.md): what is stored or in flight grows by uploads alone, which hold the
 * row from the time they are added to the transaction's end; and by what moves below the organization, which the
 * database notes on the row (migrations/0013_quotas.sql), so that it is counted before it is believed again.
 */
import { type Database, statement, type Transaction } from '../../../storage/catalog/database.ts';
import { readChargedBytes, readHiddenBytes } from '../../../storage/catalog/usage.ts';

/** Counting takes at most a twentieth of the time: a count that took 50 ms is not repeated for a second. */
const restPerCount = 20;
/** However little happens, a count is made anew after so many minutes. */
const believedMinutes = 10;

const sql = {
  // must: it is not known to be high enough. should: it may be much too high, or may have missed an upload that was under
  // way when the tree or the quota changed. may: the last count is long enough ago.
  lock: statement(
    'directory.lockMeter',
    `SELECT bytes, counted_at <= changed_at AS must,
            counted_at <= changed_at + interval '2 minutes' OR counted_at <= now() - interval '${believedMinutes} minutes' AS should,
            clock_timestamp() >= counted_at + ${restPerCount} * count_ms * interval '1 ms' AS may
       FROM organization_meters WHERE organization_id = $1 FOR NO KEY UPDATE`,
  ),

  make: statement(
    'directory.makeMeter',
    'INSERT INTO organization_meters (organization_id) VALUES ($1) ON CONFLICT (organization_id) DO NOTHING',
  ),

  vaultsBelow: statement(
    'directory.vaultsBelow',
    `SELECT coalesce(array_agg(v.vault_id), '{}') AS vaults, clock_timestamp()::text AS "begunAt"
       FROM organizations o JOIN users u ON u.organization_id = o.organization_id JOIN vaults v ON v.user_id = u.user_id
      WHERE o.path @> ARRAY[$1::bigint]`,
  ),

  counted: statement(
    'directory.meterCounted',
    `UPDATE organization_meters SET bytes = $2, counted_at = $3::timestamptz,
            count_ms = ceil(extract(epoch FROM clock_timestamp() - $3::timestamptz) * 1000)
      WHERE organization_id = $1`,
  ),

  add: statement(
    'directory.addToMeters',
    'UPDATE organization_meters SET bytes = bytes + $2 WHERE organization_id = ANY ($1::bigint[])',
  ),
};

/**
 * Locks an organization's meter to the transaction's end and reads it: the bytes stored and in flight below it, or, where
 * they are sure to leave room for `bytes` more, a figure that is not below them. Meters are locked from the top down.
 */
export async function lockMeter(
  tx: Transaction,
  organization: number,
  { bytes, limitBytes }: { bytes: number; limitBytes: number },
): Promise<number> {
  const meter = (await lockedMeter(tx, organization)) ?? (await madeMeter(tx, organization));
  const isFull = meter.bytes + bytes > limitBytes;
  return meter.must || (meter.may && (meter.should || isFull)) ? count(tx, organization) : meter.bytes;
}

/** Adds what was let in to meters that the transaction holds. */
export async function addToMeters(tx: Transaction, organizations: readonly number[], bytes: number): Promise<void> {
  if (organizations.length > 0) await tx.query(sql.add, [organizations, bytes]);
}

/** Bytes stored and in flight below an organization, added up now. */
export async function countBytesBelow(db: Database | Transaction, organization: number): Promise<number> {
  const [row] = await db.query<{ vaults: number[] }>(sql.vaultsBelow, [organization]);
  return readChargedBytes(db, row!.vaults);
}

/** Bytes of files below an organization that restic has deleted and could have back. */
export async function countHiddenBelow(db: Transaction, organization: number): Promise<number> {
  const [row] = await db.query<{ vaults: number[] }>(sql.vaultsBelow, [organization]);
  return readHiddenBytes(db, row!.vaults);
}

interface Meter {
  bytes: number;
  must: boolean;
  should: boolean;
  may: boolean;
}

async function lockedMeter(tx: Transaction, organization: number): Promise<Meter | null> {
  const [meter] = await tx.query<Meter>(sql.lock, [organization]);
  return meter ?? null;
}

/** The row comes with the quota; this is for one that somebody took away. */
async function madeMeter(tx: Transaction, organization: number): Promise<Meter> {
  await tx.query(sql.make, [organization]);
  return (await lockedMeter(tx, organization))!;
}

/**
 * Under the meter's lock, in statements later than it. A vault that appears between the two of them has nothing in it:
 * its first upload waits for the lock.
 */
async function count(tx: Transaction, organization: number): Promise<number> {
  const [row] = await tx.query<{ vaults: number[]; begunAt: string }>(sql.vaultsBelow, [organization]);
  const bytes = await readChargedBytes(tx, row!.vaults);
  await tx.query(sql.counted, [organization, bytes, row!.begunAt]);
  return bytes;
}
