/**
 * A restore that the agent of a device carries out: its row in the history and the command to the device, in one transaction.
 *
 * Lock order: the restore's row, its asker's meter (thresholds/charging.ts), the device's queue, the command's row, the
 * head of the audit log. Here both rows are new.
 */
import type { Transaction } from '../../../../storage/catalog/database.ts';
import type { By } from '../../audit/act.ts';
import { record } from '../../audit/record.ts';
import { insertCommand, type PushedTo } from '../../devices/commands/rows.ts';
import type { DeviceTarget } from '../../targets.ts';
import { type Asked, insertPlanned } from '../insert-planned.ts';
import { aboutPlan, actOf } from '../requests.ts';
import { viewOf } from '../rows.ts';
import type { RestoreViewed } from '../shapes.ts';
import { assertNotBlocked, charge } from '../thresholds/charging.ts';
import { holdMoment } from '../thresholds/moments.ts';

export interface PushAsked extends Asked {
  /** A device of the same user, which writes it. */
  to: DeviceTarget;
  /** Base64url; null: the original places. */
  folder: string | null;
  existing: PushedTo['existing'];
  permissions: PushedTo['permissions'];
  /** How long the device may be silent. */
  expiresMs: number;
  /** Of the moment's lease, which a job lengthens. */
  leaseMs: number;
}

/**
 * Queues it for the device. It counts towards what its asker may restore from here on: whoever asks does no more for it.
 * @returns what the history shows of it
 * @throws Problem too_many_requests, restores_blocked
 */
export async function pushPlanned(tx: Transaction, by: By, asked: PushAsked): Promise<RestoreViewed> {
  const { target, to, plan, expiresMs, folder, existing, permissions, reason } = asked;
  await assertNotBlocked(tx, by);
  const { vault, archive } = target;
  await holdMoment(tx, by, { vault, archive, seq: plan.seq, leaseMs: asked.leaseMs });
  const pushed = { guid: to.id, to: { name: to.name, folder, existing, permissions } };
  const rest = { kind: 'pushed', format: null, lapsesMs: expiresMs, stageTries: 0, pushed } as const;
  const row = await insertPlanned(tx, by, { ...asked, ...rest });
  await charge(tx, by, row);
  const { tenant, user, id: guid } = to;
  const pathBytes = asked.paths.reduce((sum, path) => sum + path.byteLength, 0);
  const command = await insertCommand(tx, { tenant, user, guid, of: { restore: row.id, pathBytes }, expiresMs });
  const told = { device: guid, name: to.name, folder: toldFolder(folder), existing, permissions };
  const about = { ...aboutPlan(row), kind: 'pushed', command, to: told, ...(reason !== null && { reason }) };
  await record(tx, by, actOf('restore.plan', row, 'done', about));
  return viewOf(row);
}

const folderCharactersTold = 300;

function toldFolder(folder: string | null): string | null {
  if (folder === null) return null;
  return Buffer.from(folder, 'base64url').toString('utf8').slice(0, folderCharactersTold).toWellFormed();
}
