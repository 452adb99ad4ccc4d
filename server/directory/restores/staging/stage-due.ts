/**
 * What workers do by themselves: begin what is due, and write down what came of what could not be begun. The rows say what is
 * due, so it is found again whatever becomes of a job; two workers that find the same are told apart by its row.
 */
import { Problem } from '../../../../protocol/problems.ts';
import type { Transaction } from '../../../../storage/catalog/database.ts';
import { lockRestoreRow, readRestoreRow } from '../rows.ts';
import { blockFor } from '../thresholds/blocking.ts';
import { ThresholdCrossed } from '../thresholds/charging.ts';
import { NoRoom } from './room.ts';
import { type DueRestore, restoresToStage, restoreToStage, setStageTries, stageLater } from './rows.ts';
import { type StagingParts, stage, stageAgainMs } from './stage.ts';

/** How often a worker begins one by itself: what breaks off at a file leaves it out the next time. */
export const stageTriesMax = 5;
const roomAgainMs = 30_000;

/** How the restores looked at ended: whole; not (any more), and there may be another try; not to be begun now. */
export type StageResult = { staged: number; broken: number; waiting: number };

/** One restore, if it is due. */
export async function stageOne(parts: StagingParts, restore: number, signal: AbortSignal): Promise<StageResult> {
  const due = await restoreToStage(parts.directory.database, restore);
  const result = { staged: 0, broken: 0, waiting: 0 };
  if (due) result[await tryOne(parts, due, signal)]++;
  return result;
}

const startedMax = 1_000;

/**
 * Has all that are due begun, each in a job of its own, whatever became of the one it had. What there are more of is found
 * the next time: those that were begun are not due then.
 * @param start puts the job in; where it is there already, nothing
 */
export async function startDue(
  db: Transaction,
  start: (restore: number) => Promise<void>,
): Promise<{ started: number }> {
  const due = await restoresToStage(db, startedMax);
  for (const { restore } of due) await start(restore);
  return { started: due.length };
}

async function tryOne(parts: StagingParts, of: DueRestore, signal: AbortSignal): Promise<keyof StageResult> {
  const { database } = parts.directory;
  const row = await readRestoreRow(database, of);
  if (!row) return 'waiting';
  const { askerKind, askerId } = row;
  try {
    await stage(parts, { ...of, asker: { tenant: of.tenant, askerKind, askerId }, address: 'worker', signal });
    return 'staged';
  } catch (error) {
    // What stops it with its process is no fault.
    if (!(error instanceof Problem) && !signal.aborted) parts.onFault(error);
    const now = await readRestoreRow(database, of);
    // Its try had begun, and wrote its end down; or it is another's.
    if (now?.attempts !== of.attempts) return now?.state === 'running' ? 'waiting' : 'broken';
    if (error instanceof ThresholdCrossed) await blockFor(database, error);
    await database.transaction((tx) => writeWaiting(tx, of, error));
    return 'waiting';
  }
}

/**
 * It was not begun: why, and whether it is tried again. Of one that another has begun since it was found nothing is said.
 * Locks the restore's row alone, as whoever begins it does first.
 */
async function writeWaiting(tx: Transaction, of: DueRestore, error: unknown): Promise<void> {
  const row = await lockRestoreRow(tx, of);
  const due = row && (await restoreToStage(tx, of.restore));
  if (due?.attempts !== of.attempts) return;
  if (error instanceof NoRoom && error.code === 'too_many_requests')
    return stageLater(tx, of, { afterMs: roomAgainMs, tries: 0, why: 'it waits for room among the staged restores' });
  if (error instanceof Problem && error.status < 500) return setStageTries(tx, of, 0, error.message);
  await stageLater(tx, of, { afterMs: stageAgainMs, tries: -1, why: 'something went wrong inside the server' });
}
