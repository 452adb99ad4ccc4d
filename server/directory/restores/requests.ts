/**
 * The life of a restore: planned, begun, heard of while it runs, ended. Each step is an act in the log, but for what is
 * heard on the way.
 *
 * Lock order: the restore's row, then what its asker is charged with (thresholds/charging.ts), then the head of the audit log.
 * Nobody who holds one restore's row asks for another's. What two do at once is decided by the row: of two that begin, the
 * second finds it running; whoever cancels is seen by the one that runs when it is next heard of, and its end then changes
 * nothing.
 */
import { Problem } from '../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../storage/catalog/database.ts';
import type { RestoreFormat } from '../../restoring/types.ts';
import type { Act, By, JsonValue } from '../audit/act.ts';
import { record } from '../audit/record.ts';
import { assertExpected } from '../users/locks.ts';
import { type Asked, insertPlanned } from './insert-planned.ts';
import { cancelPushed } from './pushing/cancelling.ts';
import { lockRestoreRow, type OfRestore, type RestoreWithLists, type StoredReason, viewOf } from './rows.ts';
import type { RestoreState, RestoreViewed } from './shapes.ts';
import { endStaged } from './staging/rows.ts';
import { askerOf } from './thresholds/askers.ts';
import { assertNotBlocked, charge, settle } from './thresholds/charging.ts';
import { holdMoment } from './thresholds/moments.ts';

const sql = {
  begin: statement(
    'directory.beginRestore',
    `UPDATE restore_requests SET state = 'running', attempt = $3, attempts = attempts + 1, begun_at = coalesce(begun_at, now()),
            seen_at = now(), ended_at = NULL, why = NULL, permission = $4, done_files = 0, done_bytes = 0, sent_bytes = 0,
            left_out = 0, left_out_first = '[]', version = version + 1
      WHERE tenant_id = $1 AND restore_id = $2`,
  ),
  // Of one that somebody else streams, or that has ended, nothing is changed.
  progress: statement(
    'directory.noteRestoreProgress',
    `UPDATE restore_requests SET done_files = $4, done_bytes = $5, sent_bytes = $6, left_out = $7, seen_at = now()
      WHERE tenant_id = $1 AND restore_id = $2 AND attempt = $3 AND state = 'running' RETURNING 1`,
  ),
  state: statement(
    'directory.stateOfRestore',
    'SELECT state, attempt FROM restore_requests WHERE tenant_id = $1 AND restore_id = $2',
  ),
  end: statement(
    'directory.endRestore',
    `UPDATE restore_requests SET state = $3, why = $4, done_files = $5, done_bytes = $6, sent_bytes = $7, left_out = $8,
            left_out_first = $9::jsonb, leave_out = leave_out || $10::jsonb, ended_at = coalesce(ended_at, now()),
            attempt = NULL, lapses_at = now() + $11 * interval '1 ms', version = version + 1
      WHERE tenant_id = $1 AND restore_id = $2`,
  ),
  // What was staged is kept no longer: of its moment no more than is left of the lease from when it was made counts.
  cancel: statement(
    'directory.cancelRestore',
    `UPDATE restore_requests SET state = 'cancelled', why = $3, ended_at = now(), stage_after = NULL, version = version + 1,
            lapses_at = CASE WHEN kind = 'staged' THEN least(lapses_at, ended_at + $4 * interval '1 ms') ELSE lapses_at END
      WHERE tenant_id = $1 AND restore_id = $2`,
  ),
};

export interface PlannedRestore extends Asked {
  format: RestoreFormat;
  /** Of the moment's lease, from now. */
  leaseMs: number;
  kind?: 'streamed' | 'staged';
  /** Of a staged one: how often a worker begins it on its own. */
  stageTries?: number;
}

/** @returns what the history shows of it */
export async function planned(tx: Transaction, by: By, asked: PlannedRestore): Promise<RestoreViewed> {
  const { target, plan, reason, leaseMs, kind = 'streamed', stageTries = 0 } = asked;
  await assertNotBlocked(tx, by);
  await holdMoment(tx, by, { vault: target.vault, archive: target.archive, seq: plan.seq, leaseMs });
  const row = await insertPlanned(tx, by, { ...asked, kind, stageTries, lapsesMs: leaseMs, pushed: null });
  await record(tx, by, actOf('restore.plan', row, 'done', { ...aboutPlan(row), ...(reason !== null && { reason }) }));
  return viewOf(row);
}

/** What may be begun: anew, or once more after it ended before its end. */
const toBegin: ReadonlySet<RestoreState> = new Set<RestoreState>(['planned', 'broken', 'refused']);

const notToBegin: Record<Exclude<RestoreState, 'planned' | 'broken' | 'refused'>, string> = {
  running: 'is being fetched already; cancel it, or wait for its end',
  completed: 'was fetched to its end: plan another',
  cancelled: 'was cancelled: plan another',
  lapsed: 'was planned too long ago, and what was there then may be gone: plan another',
};

/** Before anything is opened for it. @throws Problem conflict */
export function assertToBegin(row: Pick<RestoreWithLists, 'kind' | 'state' | 'askerKind' | 'askerId'>, by: By): void {
  if (row.kind === 'pushed')
    throw new Problem('conflict', 'this restore is pushed to a device: there is nothing to fetch', { kind: row.kind });
  const { kind, id } = askerOf(by);
  if (row.askerKind !== kind || row.askerId !== id)
    throw new Problem('conflict', 'this restore is for whoever planned it: plan one of your own');
  if (!toBegin.has(row.state))
    throw new Problem('conflict', `this restore ${notToBegin[row.state as keyof typeof notToBegin]}`, {
      state: row.state,
    });
}

export interface OfAttempt extends OfRestore {
  /** A UUID, drawn by whoever streams. */
  attempt: string;
}

/**
 * @param asked.permission by which it is allowed now
 * @param also what else begins with it, in the same transaction, before the act
 * @throws Problem not_found; conflict when it is not to be begun (any more)
 */
export async function begin(
  tx: Transaction,
  by: By,
  asked: OfAttempt & { permission: string },
  also?: (tx: Transaction, row: RestoreWithLists) => Promise<void>,
): Promise<RestoreWithLists> {
  const row = await lockRestoreRow(tx, asked);
  if (!row) throw noSuchRestore();
  // The same attempt, in a transaction whose outcome was not known.
  if (row.state === 'running' && row.attempt === asked.attempt) return row;
  assertToBegin(row, by);
  await charge(tx, by, row);
  await tx.query(sql.begin, [asked.tenant, asked.restore, asked.attempt, asked.permission]);
  await also?.(tx, row);
  const { seq, format, attempts } = row;
  const details = { seq, format, try: attempts + 1, permission: asked.permission, bytes: row.plannedBytes };
  await record(tx, by, actOf('restore.begin', row, 'done', { ...details, ...reasonOf(row) }));
  return row;
}

export interface Progress {
  files: number;
  /** Plain bytes of files. */
  bytes: number;
  /** Of the archive that was made. */
  sentBytes: number;
  leftOut: number;
}

/** Says that it is still there. @returns what it is instead of running under this attempt; null: it is that */
export async function progress(
  db: Transaction,
  { tenant, restore, attempt }: OfAttempt,
  { files, bytes, sentBytes, leftOut }: Progress,
): Promise<RestoreState | 'gone' | null> {
  const told = await db.query(sql.progress, [tenant, restore, attempt, files, bytes, sentBytes, leftOut]);
  if (told.length > 0) return null;
  const [row] = await db.query<{ state: RestoreState; attempt: string | null }>(sql.state, [tenant, restore]);
  return row?.attempt === attempt && row.state !== 'running' ? row.state : 'gone';
}

export interface Ending {
  state: Exclude<RestoreState, 'planned' | 'running'>;
  why: string | null;
  progress: Progress;
  /** The first of what was left out. */
  leftOutFirst: readonly StoredReason[];
  /** In whose middle it broke off. */
  brokeOffAt: StoredReason | null;
  leaseMs: number;
}

/**
 * Writes down how it ended, once. One that was cancelled meanwhile stays so, and has what was done till then; one that somebody
 * else has begun anew is theirs.
 * @param also what else ends with it, in the same transaction, before the act
 * @returns the state it is in
 */
export async function end(
  tx: Transaction,
  by: By,
  of: OfAttempt,
  ending: Ending,
  also?: (tx: Transaction, state: Ending['state']) => Promise<void>,
): Promise<RestoreState | 'gone'> {
  const row = await lockRestoreRow(tx, of);
  // Ended already, in a transaction whose outcome was not known; or not this one's any more.
  if (!row || row.attempt !== of.attempt) return row?.state ?? 'gone';
  // One that was silent for too long shows as `broken`; as long as nobody has begun it anew, this is its end.
  const isCancelled = row.state === 'cancelled';
  const { files, bytes, sentBytes, leftOut } = ending.progress;
  const state = isCancelled ? 'cancelled' : ending.state;
  const why = isCancelled ? row.why : ending.why;
  await tx.query(sql.end, [
    of.tenant,
    of.restore,
    state,
    why,
    files,
    bytes,
    sentBytes,
    leftOut,
    JSON.stringify(ending.leftOutFirst),
    JSON.stringify(ending.brokeOffAt ? [ending.brokeOffAt] : []),
    ending.leaseMs,
  ]);
  // Of one that was to be staged nothing has left the server before it is whole.
  await settle(tx, of.tenant, of.restore, row.kind === 'staged' && state !== 'completed' ? 0 : bytes);
  await also?.(tx, state);
  const details = { state, files, bytes, sentBytes, leftOut, ...(why !== null && { why }) };
  const result = state === 'completed' ? 'done' : 'failed';
  await record(tx, by, actOf('restore.end', row, result, details));
  return state;
}

const toCancel: ReadonlySet<RestoreState> = new Set<RestoreState>(['planned', 'running', 'broken', 'refused']);

/**
 * Stops one that runs, wherever it does, within seconds.
 * @param of.leaseMs of its moment
 * @throws Problem not_found, conflict, precondition_failed
 */
export async function cancel(
  tx: Transaction,
  by: By,
  of: OfRestore & { expected: number | null; leaseMs: number },
): Promise<RestoreViewed> {
  const row = await lockRestoreRow(tx, of);
  if (!row) throw noSuchRestore();
  assertExpected(row.version, of.expected);
  if (row.state === 'cancelled') return viewOf(row);
  // What is staged is taken back as well.
  const isStaged = row.kind === 'staged' && row.state === 'completed';
  const isOver = row.kind === 'pushed' && row.endedAt !== null;
  if ((!toCancel.has(row.state) && !isStaged) || isOver)
    throw new Problem('conflict', `this restore is ${row.state}: there is nothing to cancel`, { state: row.state });
  const why = `cancelled by ${by.party.kind} ${by.party.name}`;
  await tx.query(sql.cancel, [of.tenant, of.restore, why, of.leaseMs]);
  await endStaged(tx, of);
  if (row.kind === 'pushed') await cancelPushed(tx, row);
  await record(tx, by, actOf('restore.cancel', row, 'done', { state: row.state, sentBytes: row.sentBytes }));
  return viewOf((await lockRestoreRow(tx, of))!);
}

export const noSuchRestore = (): Problem => new Problem('not_found', 'there is no such restore');

/** An act about somebody's archive, by the device that it is of. */
export function actOf(
  action: 'restore.plan' | 'restore.begin' | 'restore.end' | 'restore.cancel' | 'restore.link' | 'restore.fetch',
  row: Pick<RestoreWithLists, 'id' | 'guid' | 'deviceName' | 'user' | 'organization'>,
  result: Act['result'],
  details: Record<string, JsonValue>,
): Act {
  return {
    action,
    target: { kind: 'device', id: row.guid, name: row.deviceName },
    organization: row.organization,
    result,
    details: { restore: row.id, user: row.user, ...details },
  };
}

const reasonOf = ({ reason }: { reason: string | null }): Record<string, JsonValue> =>
  reason === null ? {} : { reason };

/** An act has room for some of the paths; the row has all of them. */
const pathsTold = 10;
const pathCharactersTold = 300;

export function aboutPlan(row: RestoreWithLists): Record<string, JsonValue> {
  const paths = row.paths
    .slice(0, pathsTold)
    .map((path) => Buffer.from(path, 'base64url').toString('utf8').slice(0, pathCharactersTold).toWellFormed());
  const { seq, format, permission, deleted, pathCount, plannedFiles: files, plannedBytes: bytes } = row;
  const { plannedThinned: thinned, plannedGone: gone, plannedMissing: missing, plannedDamaged: damaged } = row;
  const lacks = Object.entries({ damaged, gone, thinned, missing }).filter(([, count]) => count > 0);
  return { seq, format, permission, deleted, paths, pathCount, files, bytes, ...Object.fromEntries(lacks) };
}
