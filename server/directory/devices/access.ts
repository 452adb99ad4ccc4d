/** Who asks, and what they may see: the questions every request of a device begins with. */
import type { z } from 'zod';
import type { DevicesAnswer, SelfAnswer } from '../../../protocol/messages.ts';
import { Problem } from '../../../protocol/problems.ts';
import type { Transaction } from '../../../storage/catalog/database.ts';
import { findVaultOfUser } from '../../../storage/catalog/vaults.ts';
import type { Directory } from '../directory.ts';
import { isPushedTo } from '../restores/pushing/grant.ts';
import { signInFailed } from '../sign-in/sign-in.ts';
import { tokenHash } from '../sign-in/tokens.ts';
import type { EffectiveState } from '../users/effective-state.ts';
import { lockActiveUser } from '../users/people.ts';
import {
  type DeviceIdentity,
  type DeviceOfUser,
  type DeviceState,
  findDeviceByToken,
  listDevicesOfVault,
  noteDeviceSeen,
  vaultHasArchive,
} from './devices.ts';
import { findMade, makeListingCode, newRegistrationCode } from './registering/registration-codes.ts';
import { type Registrant, type SignInOrCode, usedMeanwhile, useUp, whoRegisters } from './registering/who-registers.ts';
import { settingsOfMany } from './settings-of-many.ts';

/** Backs up, and restores only if it says so. */
export interface DeviceAccess extends DeviceIdentity {
  /** False: blocked, or of a suspended tenant. Its backups go on. */
  mayRestore: boolean;
}

/** In these a device backs up, and in the first it restores (docs/decisions/directory.md). */
export const statesThatBackUp: ReadonlySet<string> = new Set<EffectiveState>(['active', 'suspended', 'blocked']);

/** Why a token that was right is no longer enough, and what agents are told the state is: nothing about what is above. */
const refusals: Partial<Record<EffectiveState, { state: DeviceState; detail: string }>> = {
  replaced: { state: 'replaced', detail: 'another installation has taken the place of this device' },
  deauthorized: { state: 'deauthorized', detail: 'this device was signed out; register it again' },
};
const deactivated = { state: 'deactivated', detail: 'this device or its user is deactivated' };

/**
 * The device a token belongs to, and what it may; null when nobody's. Its state and those of all above it are asked in
 * one statement with the token, so that what was taken away is gone with the next request.
 * @throws Problem device_deauthorized { state } when it may not even back up
 */
export async function authenticateDevice(directory: Directory, token: string): Promise<DeviceAccess | null> {
  const hash = tokenHash(token);
  if (!hash) return null;
  const found = await findDeviceByToken(directory.database, hash);
  if (!found) return null;
  const { seenLongAgo, state: held, ...device } = found;
  if (!statesThatBackUp.has(held)) {
    const { state, detail } = refusals[held] ?? deactivated;
    throw new Problem('device_deauthorized', detail, { state });
  }
  if (seenLongAgo) await noteDeviceSeen(directory.database, device.deviceId);
  return { ...device, mayRestore: held === 'active' };
}

/**
 * Whether a device may read archives of its user's other devices: it may restore, and its organization lets it. A setting
 * that cannot be read lets nobody.
 */
async function mayReadOthers(
  db: Transaction,
  { mayRestore, tenantId, organizationId }: DeviceAccess,
): Promise<boolean> {
  if (!mayRestore) return false;
  const settings = await settingsOfMany(db, tenantId, [organizationId], ['devices.readOthers']);
  return settings.value(organizationId, 'devices.readOthers') === true;
}

/** Whether a device may read an archive that is not its own: one of its user's that is not deactivated, or that is pushed to it. */
export async function mayReadArchive(directory: Directory, device: DeviceAccess, archive: number): Promise<boolean> {
  const { database } = directory;
  if (!device.mayRestore) return false;
  if (await isPushedTo(database, device, archive)) return true;
  return (await mayReadOthers(database, device)) && (await vaultHasArchive(database, { vault: device.vault, archive }));
}

/**
 * The archives a device may read: its own, whose lists of files it needs to back up, and, if it may, those of its user's
 * other devices that are not deactivated.
 */
export async function archivesReadableBy(directory: Directory, device: DeviceAccess): Promise<SelfAnswer['archives']> {
  const devices = await listDevicesOfVault(directory.database, device.vault);
  const others = await mayReadOthers(directory.database, device);
  return devices
    .filter(({ archive, state }) => archive === device.archive || (others && state !== 'deactivated'))
    .map((each) => ({
      archive: each.archive,
      guid: each.guid,
      deviceName: each.deviceName,
      own: each.archive === device.archive,
      lastCommittedAt: each.lastCommittedAt?.getTime() ?? null,
    }));
}

/**
 * The devices a new installation of this user can take the place of, newest first. A registration code is only looked at.
 * A code of the second factor is used up, as it would be at any door; a registration code is answered in its place, so
 * that its user needs no other to register with.
 * @throws Problem as `whoRegisters`
 */
export async function listReplaceable(
  directory: Directory,
  request: SignInOrCode,
  address: string,
): Promise<z.infer<typeof DevicesAnswer>> {
  const who = await whoRegisters(directory, request, address);
  const code = who.by === 'sign-in' ? await useForLooking(directory, who, address) : null;
  const vault = await findVaultOfUser(directory.database, who.userId);
  const devices = vault === null ? [] : await listDevicesOfVault(directory.database, vault);
  return {
    devices: devices.filter(isReplaceable).map(describe),
    ...(code !== null && { registrationCode: code }),
  };
}

/** @returns a registration code, where a code of the second factor was given */
async function useForLooking(
  directory: Directory,
  who: Registrant & { by: 'sign-in' },
  address: string,
): Promise<string | null> {
  const code = who.judged.code ? newRegistrationCode() : null;
  const { userId: user, tenantId: tenant, userName: name, organization } = who;
  const done = await directory.database.transaction(async (tx) => {
    if (!(await lockActiveUser(tx, user))) throw signInFailed();
    // By a COMMIT whose outcome was not known.
    if (code !== null && (await findMade(tx, code)) !== null) return true;
    if (!(await useUp(tx, who))) return false;
    if (code !== null) await makeListingCode(tx, { tenant, user, name, organization, address }, code);
    return true;
  });
  if (!done) throw await usedMeanwhile(directory, who);
  return code;
}

function isReplaceable({ state }: DeviceOfUser): boolean {
  return state === 'active' || state === 'deauthorized';
}

function describe({ guid, deviceName, platform, state, lastCommittedAt }: DeviceOfUser) {
  return { guid, deviceName, platform, state, lastCommittedAt: lastCommittedAt?.getTime() ?? null };
}
