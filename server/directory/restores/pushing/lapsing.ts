/**
 * The ends that no device tells: what nobody has come for, or come back to, within its time. And until then the moments that
 * queued restores are of are kept, so that a device which comes late gets what was asked for.
 *
 * Lock order: the restore's row, the command's row, what its asker is charged with, the head of the audit log.
 */
import { type Database, statement, type Transaction } from '../../../../storage/catalog/database.ts';
import { renewLease } from '../../../../storage/catalog/reading/leases.ts';
import type { By } from '../../audit/act.ts';
import { record } from '../../audit/record.ts';
import { type CommandRow, forgetEnded, lockCommand, removeCommand } from '../../devices/commands/rows.ts';
import { actOf } from '../requests.ts';
import { lockRestoreRow, type RestoreWithLists, readRestoreRow } from '../rows.ts';
import { endPushed } from './ending.ts';
import { assertAskerStillMay, refusalOf } from './still-may.ts';

const batch = 200;

const sql = {
  expired: statement(
    'directory.expiredCommands',
    `SELECT command_id AS id, tenant_id AS tenant, restore_id AS restore FROM device_commands
      WHERE state <> 'ended' AND expires_at <= now() ORDER BY expires_at LIMIT ${batch}`,
  ),
  lapse: statement(
    'directory.lapsePushedRestore',
    `UPDATE restore_requests SET state = $4, why = $3, ended_at = now(), version = version + 1
      WHERE tenant_id = $1 AND restore_id = $2`,
  ),
  kept: statement(
    'directory.momentsOfPushed',
    `SELECT c.command_id AS id, c.tenant_id AS tenant, c.restore_id AS restore, r.vault_id AS vault, r.archive_id AS archive, r.seq FROM device_commands c
       JOIN restore_requests r ON r.restore_id = c.restore_id
      WHERE c.command_id > $1 AND c.state IN ('queued', 'sent', 'running') AND c.expires_at > now()
      ORDER BY c.command_id LIMIT ${batch}`,
  ),
};

const server = { kind: 'server', id: null, name: 'Holdfast' } as const;

/** Ends it without a word of its device, under both locks. */
export async function endUnheard(
  tx: Transaction,
  { row, command }: { row: RestoreWithLists; command: CommandRow },
  { state, why }: { state: 'lapsed' | 'refused' | 'broken'; why: string },
): Promise<void> {
  await tx.query(sql.lapse, [row.tenant, row.id, why, state]);
  await endPushed(tx, row, command.id, row.doneBytes);
  const by: By = { tenant: row.tenant, party: server, address: null };
  const details = {
    kind: 'pushed',
    to: row.targetGuid,
    state,
    tries: row.attempts,
    files: row.doneFiles,
    bytes: row.doneBytes,
    why,
  };
  await record(tx, by, actOf('restore.end', row, 'failed', details));
}

/** Job: ends what has expired. @returns restores that lapsed */
export async function lapsePushed(
  database: Database,
  { signal }: { signal: AbortSignal },
): Promise<{ lapsed: number; forgotten: number }> {
  let lapsed = 0;
  for (let more = true; more && !signal.aborted; ) {
    const due = await database.query<{ id: number; tenant: number; restore: number | null }>(sql.expired);
    for (const each of due) if (await database.transaction((tx) => lapseOne(tx, each))) lapsed++;
    more = due.length === batch;
  }
  return { lapsed, forgotten: await forgetEnded(database, 10_000) };
}

async function lapseOne(
  tx: Transaction,
  { id, tenant, restore }: { id: number; tenant: number; restore: number | null },
): Promise<boolean> {
  const row = restore === null ? null : await lockRestoreRow(tx, { tenant, restore });
  const command = await lockCommand(tx, id);
  // It was told of meanwhile.
  if (!command || command.state === 'ended' || !command.isExpired) return false;
  if (!row) {
    // A browse that nobody waits for any more, or one whose restore is gone.
    await removeCommand(tx, id);
    return false;
  }
  if (row.endedAt === null) {
    const why =
      row.begunAt === null ? 'the device was not heard of in time' : 'the device was not heard of any more in time';
    await endUnheard(tx, { row, command }, { state: 'lapsed', why });
    return true;
  }
  // Cancelled, and its device never came to hear of it.
  await endPushed(tx, row, id, row.doneBytes);
  return false;
}

/**
 * Job: keeps the moments of what is open, and ends what its asker may not push any more: a device that reads and says nothing
 * is asked for no more than one that does.
 * @returns how many
 */
export async function keepMomentsOfPushed(
  database: Database,
  { leaseMs, signal }: { leaseMs: number; signal: AbortSignal },
): Promise<{ kept: number; refused: number }> {
  let kept = 0;
  let refused = 0;
  for (let after = 0; !signal.aborted; ) {
    const page = await database.query<Open>(sql.kept, [after]);
    for (const each of page) {
      if (await endIfRefused(database, each)) refused++;
      // One that is kept no more ends when its device begins it.
      else if (await renewLease(database, each, each.seq, leaseMs)) kept++;
    }
    if (page.length < batch) break;
    after = page.at(-1)!.id;
  }
  return { kept, refused };
}

interface Open {
  id: number;
  tenant: number;
  restore: number;
  vault: number;
  archive: number;
  seq: number;
}

/** Asked without a lock first: nearly all may. */
async function endIfRefused(database: Database, { id, tenant, restore }: Open): Promise<boolean> {
  const seen = await readRestoreRow(database, { tenant, restore });
  if (!seen || (await refusalOf(assertAskerStillMay(database, seen, { begins: false }))) === null) return false;
  return database.transaction(async (tx) => {
    const row = await lockRestoreRow(tx, { tenant, restore });
    const command = row && (await lockCommand(tx, id));
    if (!command || command.state === 'ended' || command.state === 'cancelling' || command.isExpired) return false;
    const why = await refusalOf(assertAskerStillMay(tx, row, { begins: false }));
    if (why !== null) await endUnheard(tx, { row, command }, { state: 'refused', why });
    return why !== null;
  });
}
