/**
 * What every end of a pushed restore comes to, whoever tells it: its command is ended, what it was charged with is what was done,
 * and its moment counts among those of its asker no longer than it is kept.
 *
 * Lock order: the restore's row, the command's row, what its asker is charged with.
 */
import { statement, type Transaction } from '../../../../storage/catalog/database.ts';
import { leaseUntil } from '../../../../storage/catalog/reading/leases.ts';
import { setCommandState } from '../../devices/commands/rows.ts';
import type { RestoreRow } from '../rows.ts';
import { settle } from '../thresholds/charging.ts';

const shorten = statement(
  'directory.shortenPushedRestore',
  `UPDATE restore_requests SET lapses_at = least(lapses_at, greatest(coalesce($3::timestamptz, now()), now()))
    WHERE tenant_id = $1 AND restore_id = $2`,
);

/** Under both locks. @param doneBytes as its device told */
export async function endPushed(tx: Transaction, row: RestoreRow, command: number, doneBytes: number): Promise<void> {
  await setCommandState(tx, command, 'ended');
  await keepNoLonger(tx, row);
  // A device may say what it likes; nobody has restored more than there was, and whoever asked is stopped for no more.
  await settle(tx, row.tenant, row.id, Math.min(doneBytes, row.plannedBytes));
}

/** Its moment is not renewed from here on. Under the restore's lock. */
export async function keepNoLonger(tx: Transaction, row: RestoreRow): Promise<void> {
  const until = await leaseUntil(tx, { vault: row.vault, archive: row.archive }, row.seq);
  await tx.query(shorten, [row.tenant, row.id, until]);
}
