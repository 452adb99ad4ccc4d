/** Who asks, and what they may see: the questions every request of a device begins with. */
import type { z } from 'zod';
import type { DevicesAnswer, SelfAnswer } from '../../protocol/messages.ts';
import { Problem } from '../../protocol/problems.ts';
import { findVaultOfUser } from '../../storage/catalog/vaults.ts';
import {
  type DeviceIdentity,
  type DeviceOfUser,
  type DeviceState,
  findDeviceByToken,
  listDevicesOfVault,
  noteDeviceSeen,
} from './devices.ts';
import type { Directory } from './directory.ts';
import { type SignInRequest, signIn } from './sign-in.ts';
import { tokenHash } from './tokens.ts';

/** Why a token that was right is no longer enough. */
const refusals: Record<Exclude<DeviceState, 'active'>, string> = {
  replaced: 'another installation has taken the place of this device',
  deauthorized: 'this device was signed out; register it again',
  blocked: 'this device or its user is blocked',
  deactivated: 'this device or its user is deactivated',
};

/**
 * The device a token belongs to; null when nobody's.
 * @throws Problem device_deauthorized { state } when the device, or its user, is not active any more
 */
export async function authenticateDevice(directory: Directory, token: string): Promise<DeviceIdentity | null> {
  const hash = tokenHash(token);
  if (!hash) return null;
  const found = await findDeviceByToken(directory.database, hash);
  if (!found) return null;
  const { seenLongAgo, state, ...device } = found;
  if (state !== 'active') throw new Problem('device_deauthorized', refusals[state], { state });
  if (seenLongAgo) await noteDeviceSeen(directory.database, device.deviceId);
  return device;
}

/** The archives a device may read: its own and those of its user's other devices. */
export async function archivesReadableBy(
  directory: Directory,
  device: { vault: number; archive: number },
): Promise<SelfAnswer['archives']> {
  const devices = await listDevicesOfVault(directory.database, device.vault);
  return devices.map((each) => ({
    archive: each.archive,
    guid: each.guid,
    deviceName: each.deviceName,
    own: each.archive === device.archive,
    lastCommittedAt: each.lastCommittedAt?.getTime() ?? null,
  }));
}

/**
 * The devices a new installation of this user can take the place of, newest first.
 * @throws Problem sign_in_failed, too_many_requests
 */
export async function listReplaceable(
  directory: Directory,
  request: SignInRequest,
  address: string,
): Promise<z.infer<typeof DevicesAnswer>> {
  const user = await signIn(directory, request, address);
  const vault = await findVaultOfUser(directory.database, user.userId);
  const devices = vault === null ? [] : await listDevicesOfVault(directory.database, vault);
  return { devices: devices.filter(isReplaceable).map(describe) };
}

function isReplaceable({ state }: DeviceOfUser): boolean {
  return state === 'active' || state === 'deauthorized';
}

function describe({ guid, deviceName, platform, state, lastCommittedAt }: DeviceOfUser) {
  return { guid, deviceName, platform, state, lastCommittedAt: lastCommittedAt?.getTime() ?? null };
}
