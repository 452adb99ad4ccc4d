/**
 * Whether whoever may restore from a device may do so in the state it is in (docs/decisions/directory.md, "What each state
 * stops"). Administrators may in every state that this server knows. Users of their own accord may as far as another device
 * of theirs might: not from one that is deactivated, and from one that is blocked unless `devices.readOthers` is off where
 * they are; that a device is signed out, or was lost, is why they ask.
 *
 * Whether the archive has expired is the engine's to ask (assertShown): then it is shown to nobody.
 */
import { Problem } from '../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../storage/catalog/database.ts';
import { settingsOfMany } from '../devices/settings-of-many.ts';
import { type Actor, may } from '../roles/may.ts';
import type { DeviceTarget } from '../targets.ts';
import { type EffectiveState, effectiveStates, heldOfDevice } from '../users/effective-state.ts';

const held = statement(
  'directory.heldOfDeviceToBrowse',
  `SELECT held.state FROM devices d JOIN users u ON u.user_id = d.user_id
     JOIN organizations o ON o.organization_id = u.organization_id
    CROSS JOIN LATERAL ${heldOfDevice} held
    WHERE d.tenant_id = $1 AND d.device_id = $2`,
);

/** In these a user restores from a device of theirs without asking further. */
const open: ReadonlySet<EffectiveState> = new Set<EffectiveState>(['active', 'deauthorized']);

/** @throws Problem forbidden */
export async function assertMayBrowse(db: Transaction, actor: Actor, target: DeviceTarget): Promise<void> {
  const [row] = await db.query<{ state: EffectiveState }>(held, [target.tenant, target.deviceId]);
  if (!row || !effectiveStates.includes(row.state))
    throw new Problem('forbidden', 'this device is in a state in which nobody restores from it');
  if (open.has(row.state) || isAdministrator(actor, target)) return;
  if (row.state !== 'blocked')
    throw new Problem('forbidden', `this device is ${row.state}: an administrator can restore from it`);
  const organization = target.organizationPath.at(-1)!;
  const settings = await settingsOfMany(db, target.tenant, [organization], ['devices.readOthers']);
  if (settings.value(organization, 'devices.readOthers') !== true)
    throw new Problem('forbidden', 'this device is blocked: an administrator can restore from it');
}

/** Whether they may by more than that it is theirs. */
function isAdministrator(actor: Actor, target: DeviceTarget): boolean {
  return (['restore.limited', 'pushrestore.limited'] as const).some((each) => may(actor, each, target).allowed);
}
