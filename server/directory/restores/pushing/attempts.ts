/**
 * What a device says of a restore that was pushed to it: how far it is, and how it ended. Believed of its own commands only.
 * A device that is silent may come back and go on, in another attempt: what is said of an earlier one counts no more.
 *
 * Lock order: the restore's row, the command's row, what its asker is charged with, the head of the audit log.
 */
import type {
  CommandEndRequest,
  CommandProgressAnswer,
  CommandProgressRequest,
} from '../../../../protocol/commands.ts';
import { Problem } from '../../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../../storage/catalog/database.ts';
import { renewLease } from '../../../../storage/catalog/reading/leases.ts';
import { uuidOf } from '../../../uuid.ts';
import type { By } from '../../audit/act.ts';
import { record } from '../../audit/record.ts';
import {
  beginAttempt,
  type CommandRow,
  findCommand,
  lockCommand,
  type OfDevice,
  prolong,
} from '../../devices/commands/rows.ts';
import { actOf } from '../requests.ts';
import { lockRestoreRow, type PushedEnd, type RestoreWithLists } from '../rows.ts';
import type { RestoreState } from '../shapes.ts';
import { endPushed } from './ending.ts';
import { endUnheard } from './lapsing.ts';
import { assertAskerStillMay, refusalOf } from './still-may.ts';

/** Begun anew so often it comes to no end; an agent that waits as it should is there after days. */
export const attemptsMax = 1_000;
/** Each of the first is an act; of those after, one that begins when its device was silent for a minute. The row counts all. */
export const attemptsTold = 20;

const sql = {
  begin: statement(
    'directory.beginPushedRestore',
    `UPDATE restore_requests r SET state = 'running', attempt = $3, attempts = r.attempts + 1, begun_at = coalesce(r.begun_at, now()),
            seen_at = now(), why = NULL, version = r.version + 1
       FROM (SELECT restore_id, coalesce(seen_at < now() - interval '1 minute', true) AS silent FROM restore_requests
              WHERE tenant_id = $1 AND restore_id = $2) before
      WHERE r.tenant_id = $1 AND r.restore_id = $2 RETURNING before.silent AS "wasSilent"`,
  ),
  progress: statement(
    'directory.notePushedProgress',
    `UPDATE restore_requests SET done_files = $3, done_bytes = $4, sent_bytes = $5, seen_at = now(),
            lapses_at = $6
      WHERE tenant_id = $1 AND restore_id = $2`,
  ),
  end: statement(
    'directory.endPushedRestore',
    `UPDATE restore_requests SET state = $3, why = $4, done_files = $5, done_bytes = $6, sent_bytes = $7, left_out = $8,
            left_out_first = $9::jsonb, pushed_end = $10::jsonb, begun_at = coalesce(begun_at, now()), ended_at = now(),
            attempt = NULL, version = version + 1
      WHERE tenant_id = $1 AND restore_id = $2`,
  ),
};

export interface PushSettings {
  /** How long a device may be silent. */
  expiresMs: number;
  /** Of the moment. */
  leaseMs: number;
}

const attemptText = (bytes: Buffer): string => uuidOf(bytes.toString('hex'));

interface Held {
  command: CommandRow;
  row: RestoreWithLists;
}

/** Both rows under their locks; null: there is no such restore for this device (any more). */
async function hold(tx: Transaction, of: OfDevice): Promise<Held | null> {
  const found = await findCommand(tx, of);
  if (!found || found.restore === null) return null;
  const row = await lockRestoreRow(tx, { tenant: of.tenant, restore: found.restore });
  const command = row && (await lockCommand(tx, of.command));
  return command ? { command, row } : null;
}

/** Says how far it is, and begins it with the first word of an attempt. @returns what the device is to do */
export async function pushProgressed(
  tx: Transaction,
  by: By,
  of: OfDevice,
  told: CommandProgressRequest,
  settings: PushSettings,
): Promise<CommandProgressAnswer['go']> {
  const held = await hold(tx, of);
  if (!held) return 'gone';
  const { command, row } = held;
  const attempt = attemptText(told.attempt);
  if (command.attemptsBefore.includes(attempt)) return 'gone';
  if (command.state === 'cancelling') return 'cancelled';
  if (command.state === 'ended' || command.isExpired) return 'gone';
  const { tenant, id } = row;
  const begins = row.attempt !== attempt;
  const refused = await refusalOf(assertAskerStillMay(tx, row, { begins }));
  if (refused !== null) {
    await endUnheard(tx, held, { state: 'refused', why: refused });
    return 'gone';
  }
  let isTold = false;
  if (begins) {
    if (row.attempts >= attemptsMax) {
      const why = `the device has begun it ${attemptsMax} times, and never came to its end`;
      await endUnheard(tx, held, { state: 'broken', why });
      return 'gone';
    }
    // What was current at its moment may be gone; what it would write then is not what was asked for.
    if (!(await renewLease(tx, { vault: row.vault, archive: row.archive }, row.seq, settings.leaseMs))) {
      await endUnheard(tx, held, { state: 'lapsed', why: 'its moment was not kept: plan it again' });
      return 'gone';
    }
    await beginAttempt(tx, command.id, row.attempt);
    const [begun] = await tx.query<{ wasSilent: boolean }>(sql.begin, [tenant, id, attempt]);
    isTold = row.attempts < attemptsTold || begun!.wasSilent;
  }
  const { filesDone, bytesDone, bytesFetched } = told;
  const expiresAt = await prolong(tx, command.id, settings.expiresMs);
  await tx.query(sql.progress, [tenant, id, filesDone, bytesDone, bytesFetched, expiresAt]);
  if (isTold) {
    const details = {
      kind: 'pushed',
      to: row.targetGuid,
      try: row.attempts + 1,
      seq: row.seq,
      bytes: row.plannedBytes,
    };
    await record(tx, by, actOf('restore.begin', row, 'done', details));
  }
  return 'on';
}

const states = {
  completed: 'completed',
  incomplete: 'completed', // `leftOut` says that something was
  failed: 'broken',
  cancelled: 'cancelled',
} as const satisfies Record<CommandEndRequest['outcome'], RestoreState>;

/**
 * Writes down how it ended, once: said again, it changes nothing, and so does what is said of an attempt that another has taken
 * the place of. One that was cancelled meanwhile stays so, and has what was done till then; one that lapsed in its device's
 * silence is what the device says after all.
 * @returns whether this was its end
 * @throws Problem not_found: nothing is known of it (any more)
 */
export async function pushEnded(tx: Transaction, by: By, of: OfDevice, told: CommandEndRequest): Promise<boolean> {
  const held = await hold(tx, of);
  if (!held) throw new Problem('not_found', 'there is no such command');
  const { command, row } = held;
  const attempt = attemptText(told.attempt);
  if (command.attemptsBefore.includes(attempt)) return false;
  const hasLapsed = row.state === 'lapsed' && row.pushedEnd === null && row.attempt === attempt;
  if (command.state === 'ended' && !hasLapsed) return false;
  const isCancelled = row.state === 'cancelled';
  const { outcome, counts, problems } = told;
  const state = isCancelled ? 'cancelled' : states[outcome];
  const toldWhy = told.why === '' ? null : told.why;
  const why = isCancelled ? row.why : outcome === 'cancelled' ? (toldWhy ?? 'stopped on the device') : toldWhy;
  const files = counts.filesRestored + counts.filesIdentical;
  const leftOut = problems.map(({ path, reason }) => ({ path: path.toString('base64url'), reason }));
  await tx.query(sql.end, [
    row.tenant,
    row.id,
    state,
    why,
    files,
    counts.bytesRestored,
    counts.bytesFetched,
    counts.problems,
    JSON.stringify(leftOut),
    JSON.stringify({ outcome, counts } satisfies PushedEnd),
  ]);
  await endPushed(tx, row, command.id, counts.bytesRestored);
  const done = { files, bytes: counts.bytesRestored, fetchedBytes: counts.bytesFetched, leftOut: counts.problems };
  const details = {
    kind: 'pushed',
    to: row.targetGuid,
    state,
    outcome,
    tries: row.attempts,
    ...done,
    ...(why !== null && { why }),
  };
  await record(tx, by, actOf('restore.end', row, state === 'completed' ? 'done' : 'failed', details));
  return true;
}
