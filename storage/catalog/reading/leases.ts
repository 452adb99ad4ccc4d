/**
 * Readers' leases on a moment of an archive. A lease is taken under the archive's lock, so that a batch of deletions
 * either has ended before the moment is chosen or sees the lease.
 */
import type { ArchiveRef } from '../../storage.ts';
import { type Database, statement, type Transaction } from '../database.ts';
import { vaultsWith } from '../deleting/vaults-with.ts';

const sql = {
  lease: statement(
    'restores.lease',
    `INSERT INTO restores (vault_id, archive_id, seq, lease_until) VALUES ($1, $2, $3, now() + $4 * interval '1 ms')
     ON CONFLICT (vault_id, archive_id, seq) DO UPDATE SET lease_until = greatest(restores.lease_until, excluded.lease_until)`,
  ),
  count: statement(
    'restores.count',
    'SELECT count(*) AS live FROM (SELECT 1 FROM restores WHERE vault_id = $1 AND archive_id = $2 AND lease_until > now() LIMIT $3) each',
  ),
  renew: statement(
    'restores.renew',
    `UPDATE restores SET lease_until = greatest(lease_until, now() + $4 * interval '1 ms')
      WHERE vault_id = $1 AND archive_id = $2 AND seq = $3 AND lease_until > now() RETURNING seq`,
  ),
  until: statement(
    'restores.leaseUntil',
    'SELECT lease_until AS until FROM restores WHERE vault_id = $1 AND archive_id = $2 AND seq = $3',
  ),
  forget: statement(
    'restores.forget',
    'DELETE FROM restores WHERE vault_id = $1 AND lease_until < now() RETURNING seq',
  ),
  vaultsWithLeases: vaultsWith('restores', 'restores.vaults', 't.lease_until < now()'),
};

/** Keeps what was current at `seq` from prune until the lease ends; taken again it only lengthens. */
export async function leaseMoment(tx: Transaction, ref: ArchiveRef, seq: number, leaseMs: number): Promise<void> {
  await tx.query(sql.lease, [ref.vault, ref.archive, seq, leaseMs]);
}

/** Leases of the archive that have not ended, counted up to `max`. */
export async function countLeases(tx: Transaction, ref: ArchiveRef, max: number): Promise<number> {
  const [row] = await tx.query<{ live: number }>(sql.count, [ref.vault, ref.archive, max]);
  return row!.live;
}

/** Lengthens a lease. @returns false: it has ended, and what it kept may be gone */
export async function renewLease(db: Transaction, ref: ArchiveRef, seq: number, leaseMs: number): Promise<boolean> {
  return (await db.query(sql.renew, [ref.vault, ref.archive, seq, leaseMs])).length > 0;
}

/** Until when a moment is kept, or was; null: nothing is known of it. */
export async function leaseUntil(db: Transaction, ref: ArchiveRef, seq: number): Promise<Date | null> {
  const [row] = await db.query<{ until: Date }>(sql.until, [ref.vault, ref.archive, seq]);
  return row?.until ?? null;
}

/** Deletes the rows of leases that have ended. @returns how many */
export async function forgetLeases(db: Database): Promise<number> {
  let leases = 0;
  for (const vault of await sql.vaultsWithLeases(db, [])) leases += (await db.query(sql.forget, [vault])).length;
  return leases;
}
