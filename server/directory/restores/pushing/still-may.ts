/**
 * Whether whoever pushed a restore may still, when its device begins it, days later perhaps, and while it goes on. By state and
 * roles: their session has long ended.
 */
import { Problem } from '../../../../protocol/problems.ts';
import type { Transaction } from '../../../../storage/catalog/database.ts';
import { may } from '../../roles/may.ts';
import { findDeviceTarget } from '../../targets.ts';
import type { RestoreRow } from '../rows.ts';
import { askerNow, byAsker } from '../staging/asker.ts';
import { assertNotBlocked } from '../thresholds/charging.ts';

const pushes = ['pushrestore.all', 'pushrestore.limited', 'pushrestore.personal'] as const;

/**
 * @param begins then they may not be stopped for having restored too much, either
 * @throws Problem forbidden, restores_blocked
 */
export async function assertAskerStillMay(
  tx: Transaction,
  row: RestoreRow,
  { begins }: { begins: boolean },
): Promise<void> {
  const { actor, name } = await askerNow(tx, row);
  const device = await findDeviceTarget(tx, row.tenant, row.guid);
  if (!device || device.vault !== row.vault || device.archive !== row.archive)
    throw new Problem('forbidden', 'the device has another archive now');
  if (!pushes.some((each) => may(actor, each, device).allowed))
    throw new Problem('forbidden', 'whoever asked for it may not push it any more');
  if (begins) await assertNotBlocked(tx, byAsker(row, name, null));
}

/** In words, of an answer to that; null: they may. Anything else that was thrown is no answer. */
export async function refusalOf(asked: Promise<void>): Promise<string | null> {
  try {
    await asked;
    return null;
  } catch (error) {
    if (error instanceof Problem && error.status < 500) return error.message;
    throw error;
  }
}
