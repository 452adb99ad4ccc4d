/**
 * Rows of objects on their way out. A lease that lapsed is ended, and a dead object is taken, by a lock on its row; so
 * of an upload, a sweeper and two deleters the first one decides. Nothing else here decides anything.
 */
import { type Database, statement, type Transaction } from '../database.ts';
import { addUsage } from '../usage.ts';
import { packArray } from '../writing/packing.ts';
import { vaultsWith } from './vaults-with.ts';

const sql = {
  // Whether an upload's last transaction or this one comes first, the other finds no row in the state it needs.
  endLapsedLeases: statement(
    'objects.endLapsedLeases',
    `UPDATE objects SET state = 'dead', next_at = now(), charged_bytes = 0
      WHERE vault_id = $1 AND object_id = ANY (ARRAY(
        SELECT object_id FROM objects WHERE vault_id = $1 AND next_at < now() AND state = 'writing'
         ORDER BY next_at LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED)) AND state = 'writing'
     RETURNING object_id`,
  ),

  // Due also when it is so since now: the same transaction may have ended its lease.
  takeDead: statement(
    'objects.takeDead',
    `UPDATE objects o SET next_at = now() + $3 * interval '1 ms'
      WHERE o.vault_id = $1 AND o.object_id = ANY (ARRAY(
        SELECT object_id FROM objects WHERE vault_id = $1 AND next_at <= now() AND state = 'dead'
         ORDER BY next_at LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED)) AND o.state = 'dead'
     RETURNING o.object_id AS "objectId", o.key,
       EXISTS (SELECT 1 FROM blocks b WHERE b.vault_id = $1 AND b.object_id = o.object_id) AS named`,
  ),

  forget: statement(
    'objects.forget',
    `DELETE FROM objects WHERE vault_id = $1 AND object_id = ANY ($2::bigint[]) AND state = 'dead' RETURNING size_bytes AS "sizeBytes"`,
  ),

  vaultsDue: vaultsWith('objects', 'objects.vaultsDue', 't.next_at < now()', 't.next_at IS NOT NULL'),
};

/** Vaults with a lease that lapsed or a dead object whose time has come; not all of them when there are many. */
export function vaultsWithDueObjects(db: Database): Promise<number[]> {
  return sql.vaultsDue(db, []);
}

/** Ends leases that lapsed: their objects are dead, and may go at once, since nobody ever saw them alive. @returns how many */
export async function endLapsedLeases(tx: Transaction, vault: number, limit: number): Promise<number> {
  return (await tx.query(sql.endLapsedLeases, [vault, limit])).length;
}

export interface DeadObject {
  objectId: number;
  key: string;
  /** A block row names it. That must not be: its bytes have to stay. */
  named: boolean;
}

/** Takes dead objects whose time has come: nobody else gets them for `holdMs`, and after that they are due again. */
export async function takeDeadObjects(
  tx: Transaction,
  vault: number,
  options: { limit: number; holdMs: number },
): Promise<DeadObject[]> {
  return tx.query<DeadObject>(sql.takeDead, [vault, options.limit, options.holdMs]);
}

/** Removes the rows of dead objects whose bytes are gone, and takes their bytes off the vault's usage. @returns how many */
export async function forgetObjects(tx: Transaction, vault: number, objectIds: readonly number[]): Promise<number> {
  const rows = await tx.query<{ sizeBytes: number }>(sql.forget, [vault, packArray(objectIds)]);
  await addUsage(tx, vault, { objectBytes: -rows.reduce((sum, row) => sum + row.sizeBytes, 0) });
  return rows.length;
}
