/**
 * Changes of devices. A state is the device's own; what holds also follows from its user and what is above.
 *
 * Lock order: the tenant's row for sharing (where the way up decides about the archive), the user's, the device's; then
 * the archive, and the head of the audit log last.
 */
import type { z } from 'zod';
import { Problem } from '../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../storage/catalog/database.ts';
import type { By } from '../audit/act.ts';
import { record } from '../audit/record.ts';
import { RepositoryName } from '../restic/shapes.ts';
import { isGuid } from '../tenant-view.ts';
import { assertExpected, type LockedUser, lockUser, shareTree } from '../users/locks.ts';
import { coolArchives, warmArchives } from './cold.ts';
import { tell } from './commands/tell.ts';
import { noSuchDevice, readDeviceView } from './read.ts';
import type { DeviceRecord, RenameDeviceRequest } from './shapes.ts';

const sql = {
  userOf: statement(
    'directory.userOfDevice',
    `SELECT user_id AS "userId" FROM devices WHERE tenant_id = $1 AND guid = $2::bigint AND state <> 'replaced'`,
  ),

  lock: statement(
    'directory.lockDeviceOfTenant',
    `SELECT device_id AS "deviceId", name, kind, state, state_before AS before, version FROM devices
      WHERE tenant_id = $1 AND guid = $2::bigint AND state <> 'replaced' FOR NO KEY UPDATE`,
  ),

  rename: statement(
    'directory.renameDevice',
    'UPDATE devices SET name = $3, version = version + 1 WHERE tenant_id = $1 AND device_id = $2',
  ),

  repositoryOfName: statement(
    'directory.repositoryOfName',
    "SELECT 1 FROM devices WHERE user_id = $1 AND name = $2 AND kind = 'restic'",
  ),

  setState: statement(
    'directory.changeDeviceState',
    `UPDATE devices SET state = $3, state_before = CASE $3 WHEN 'deactivated' THEN state END, version = version + 1
      WHERE tenant_id = $1 AND device_id = $2`,
  ),
};

export interface OfDevice {
  tenant: number;
  guid: string;
  /** The version the change was made from; null: whichever. */
  expected: number | null;
}

export interface LockedDevice {
  deviceId: number;
  name: string;
  /** `restic`: a repository, which no agent writes. */
  kind: 'agent' | 'restic';
  state: DeviceRecord['state'];
  /** What it was before it was deactivated. */
  before: DeviceRecord['state'] | null;
  version: number;
  user: LockedUser;
}

/** Locks the tenant's tree for sharing, its user and the device. @throws Problem not_found, precondition_failed */
export async function lockDevice(tx: Transaction, { tenant, guid, expected }: OfDevice): Promise<LockedDevice> {
  if (!isGuid(guid)) throw noSuchDevice();
  await shareTree(tx, tenant);
  const [owner] = await tx.query<{ userId: number }>(sql.userOf, [tenant, guid]);
  if (!owner) throw noSuchDevice();
  const user = await lockUser(tx, { tenant, user: owner.userId, expected: null });
  // Another installation takes the place of a device under its user's lock: from here on it is the one it is.
  const [device] = await tx.query<Omit<LockedDevice, 'user'>>(sql.lock, [tenant, guid]);
  if (!device) throw noSuchDevice();
  assertExpected(device.version, expected);
  return { ...device, user };
}

/**
 * The name of a repository stands in its URL: whoever uses it has to be told the new one.
 * @throws Problem not_found, precondition_failed; out_of_bounds (field `name`), and conflict when its user has another
 *   repository of that name
 */
export async function renameDevice(
  tx: Transaction,
  by: By,
  request: OfDevice & z.infer<typeof RenameDeviceRequest>,
): Promise<DeviceRecord> {
  const locked = await lockDevice(tx, request);
  if (locked.name !== request.name) {
    if (locked.kind === 'restic') await assertRepositoryName(tx, { user: locked.user.id, name: request.name });
    await tx.query(sql.rename, [request.tenant, locked.deviceId, request.name]);
    await recordChange(tx, by, { locked, guid: request.guid, name: request.name }, 'device.rename', {
      from: locked.name,
      to: request.name,
    });
  }
  return readDeviceView(tx, request);
}

/** Under the user's lock, as whoever else names a repository of theirs. @throws Problem out_of_bounds, conflict; field `name` */
export async function assertRepositoryName(tx: Transaction, of: { user: number; name: string }): Promise<void> {
  const fault = RepositoryName.safeParse(of.name).error?.issues[0]?.message;
  if (fault !== undefined) throw new Problem('out_of_bounds', `the name of a repository ${fault}`, { field: 'name' });
  if ((await tx.query(sql.repositoryOfName, [of.user, of.name])).length > 0)
    throw new Problem('conflict', `this user has a repository of the name ${of.name}`, { field: 'name' });
}

type State = DeviceRecord['state'];

interface StateChange {
  action: string;
  from: readonly State[];
  to: State;
}

/** Its backups go on, and it does not restore. @throws Problem not_found, precondition_failed, conflict { state } */
export function blockDevice(tx: Transaction, by: By, request: OfDevice): Promise<DeviceRecord> {
  return changeState(tx, by, request, { action: 'device.block', from: ['active'], to: 'blocked' });
}

/** @throws as `blockDevice` */
export function unblockDevice(tx: Transaction, by: By, request: OfDevice): Promise<DeviceRecord> {
  return changeState(tx, by, request, { action: 'device.unblock', from: ['blocked'], to: 'active' });
}

/**
 * Its token stops working, until its user registers it again under its GUID; its archive stays. One that was blocked
 * would come back unblocked by that, so it is unblocked first. @throws as `blockDevice`
 */
export function deauthorizeDevice(tx: Transaction, by: By, request: OfDevice): Promise<DeviceRecord> {
  return changeState(tx, by, request, { action: 'device.deauthorize', from: ['active'], to: 'deauthorized' });
}

/** Ends its backups; its archive goes cold, until its date. @throws as `blockDevice` */
export function deactivateDevice(tx: Transaction, by: By, request: OfDevice): Promise<DeviceRecord> {
  const from = ['active', 'blocked', 'deauthorized'] as const;
  return changeState(tx, by, request, { action: 'device.deactivate', from, to: 'deactivated' });
}

/**
 * It is again what it was before: blocked, or signed out, if it was. Its archive comes back with it, unless something above
 * it is deactivated too. @throws as `blockDevice`
 */
export function reactivateDevice(tx: Transaction, by: By, request: OfDevice): Promise<DeviceRecord> {
  return changeState(tx, by, request, { action: 'device.reactivate', from: ['deactivated'], to: 'active' });
}

/** To the state it is in already: nothing changes. */
async function changeState(tx: Transaction, by: By, request: OfDevice, change: StateChange): Promise<DeviceRecord> {
  const { tenant, guid } = request;
  const locked = await lockDevice(tx, request);
  const { deviceId, state, name } = locked;
  if (locked.kind === 'restic' && change.to === 'deauthorized')
    throw new Problem('conflict', 'a repository is signed in by its tokens: revoke those', { state });
  if (state !== change.to) {
    if (!change.from.includes(state)) throw new Problem('conflict', `the device is ${state}`, { state });
    const to = state === 'deactivated' ? (locked.before ?? 'active') : change.to;
    await tx.query(sql.setState, [tenant, deviceId, to]);
    await tell(tx, { device: guid }); // whoever holds its channel asks whether it may go on
    const scope = { tenant, of: { device: deviceId } };
    if (change.to === 'deactivated') await coolArchives(tx, by, scope);
    if (state === 'deactivated') await warmArchives(tx, by, scope);
    await recordChange(tx, by, { locked, guid, name }, change.action, { from: state, to });
  }
  return readDeviceView(tx, { tenant, guid });
}

function recordChange(
  tx: Transaction,
  by: By,
  { locked, guid, name }: { locked: LockedDevice; guid: string; name: string },
  action: string,
  details: Record<string, string>,
): Promise<void> {
  const { user } = locked;
  const organization = user.organization;
  const target = { kind: 'device', id: guid, name } as const;
  return record(tx, by, { action, target, organization, result: 'done', details: { ...details, user: user.id } });
}
