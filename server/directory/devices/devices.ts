/** Devices, as rows. A GUID goes past 2^53, so it is text on this side. */
import { type Database, statement, type Transaction } from '../../../storage/catalog/database.ts';
import { type EffectiveState, heldOfDevice } from '../users/effective-state.ts';

/** A user's devices, without the replaced ones: as many as are listed, so that none is there and not seen. */
export const devicesPerUserMax = 1_000;

const sql = {
  findByToken: statement(
    'directory.findByToken',
    `SELECT d.device_id AS "deviceId", d.guid::text AS guid, d.name AS "deviceName", d.tenant_id AS "tenantId", d.user_id AS "userId",
            u.name AS "userName", u.organization_id AS "organizationId", d.vault_id AS vault, d.archive_id AS archive,
            held.state,
            (d.last_seen_at IS NULL OR d.last_seen_at < now() - interval '5 minutes') AS "seenLongAgo"
       FROM devices d JOIN users u ON u.user_id = d.user_id JOIN organizations o ON o.organization_id = u.organization_id
      CROSS JOIN LATERAL ${heldOfDevice} held
      WHERE d.token_sha256 = $1`,
  ),

  // At most once in five minutes per device, whatever it sends. Who is changing the device may take long, and no request
  // waits for that: it is noted with the next one.
  noteSeen: statement(
    'directory.noteSeen',
    `UPDATE devices SET last_seen_at = now()
      WHERE device_id = (SELECT device_id FROM devices
         WHERE device_id = $1 AND (last_seen_at IS NULL OR last_seen_at < now() - interval '5 minutes') FOR NO KEY UPDATE SKIP LOCKED)`,
  ),

  findRegistered: statement(
    'directory.findRegistered',
    `SELECT guid::text AS guid, name AS "deviceName", vault_id AS vault, archive_id AS archive, user_id AS "userId", state,
            replaces_id IS NOT NULL AS "tookPlace"
       FROM devices WHERE token_sha256 = $1`,
  ),

  // Counts no further than the bound.
  countOfUser: statement(
    'directory.countDevicesOfUser',
    `SELECT count(*)::int AS devices FROM (SELECT 1 FROM devices WHERE user_id = $1 AND state <> 'replaced' LIMIT $2) d`,
  ),

  nextId: statement(
    'directory.nextDeviceId',
    `SELECT nextval(pg_get_serial_sequence('devices', 'device_id')) AS "deviceId"`,
  ),

  insert: statement(
    'directory.insertDevice',
    `INSERT INTO devices (device_id, tenant_id, user_id, guid, name, platform, agent_version, token_sha256, vault_id, archive_id, replaces_id, registered_with, last_seen_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, now())`,
  ),

  lockByGuid: statement(
    'directory.lockDeviceByGuid',
    `SELECT device_id AS "deviceId", name AS "deviceName", vault_id AS vault, archive_id AS archive, state
       FROM devices WHERE user_id = $1 AND guid = $2::bigint AND state <> 'replaced' AND kind = 'agent' FOR UPDATE`,
  ),

  setState: statement('directory.setDeviceState', 'UPDATE devices SET state = $2 WHERE device_id = $1'),

  // The archive's last commit is the engine's to tell; both sides are asked within the one vault.
  listOfVault: statement(
    'directory.listDevicesOfVault',
    `SELECT d.guid::text AS guid, d.name AS "deviceName", d.platform, d.state, d.vault_id AS vault, d.archive_id AS archive,
            a.last_committed_at AS "lastCommittedAt"
       FROM devices d JOIN archives a ON a.vault_id = $1 AND a.archive_id = d.archive_id
      WHERE d.vault_id = $1 AND d.state <> 'replaced' AND d.kind = 'agent'
      ORDER BY d.device_id DESC LIMIT ${devicesPerUserMax}`,
  ),
};

// What is deactivated is restored from by administrators.
const hasArchive = statement(
  'directory.hasArchive',
  "SELECT 1 FROM devices WHERE vault_id = $1 AND archive_id = $2 AND kind = 'agent' AND state NOT IN ('replaced', 'deactivated')",
);

export type DeviceState = 'active' | 'replaced' | 'deauthorized' | 'blocked' | 'deactivated';

/** Who a token belongs to. */
export interface DeviceIdentity {
  deviceId: number;
  guid: string;
  deviceName: string;
  tenantId: number;
  userId: number;
  userName: string;
  organizationId: number;
  vault: number;
  archive: number;
}

export interface DeviceOfToken extends DeviceIdentity {
  /** What holds: the strictest of its own state, its user's, those of the organizations above, and the tenant's. */
  state: EffectiveState;
  seenLongAgo: boolean;
}

export async function findDeviceByToken(db: Database, tokenSha256: Buffer): Promise<DeviceOfToken | null> {
  const [row] = await db.query<DeviceOfToken>(sql.findByToken, [tokenSha256]);
  return row ?? null;
}

export async function noteDeviceSeen(db: Database, deviceId: number): Promise<void> {
  await db.query(sql.noteSeen, [deviceId]);
}

export interface RegisteredDevice {
  guid: string;
  deviceName: string;
  vault: number;
  archive: number;
}

/** The device of a token, whosever and however it is now: what a repeated registration made the first time. */
export interface DeviceThere extends RegisteredDevice {
  userId: number;
  /** Its own. */
  state: DeviceState;
  /** That of another device. */
  tookPlace: boolean;
}

export async function findRegistered(tx: Transaction, tokenSha256: Buffer): Promise<DeviceThere | null> {
  const [row] = await tx.query<DeviceThere>(sql.findRegistered, [tokenSha256]);
  return row ?? null;
}

/** Whether the user may have one more device. Registrations of one user go one after the other (lockActiveUser). */
export async function hasRoomForDevice(tx: Transaction, userId: number): Promise<boolean> {
  const [row] = await tx.query<{ devices: number }>(sql.countOfUser, [userId, devicesPerUserMax]);
  return row!.devices < devicesPerUserMax;
}

/** An id for a device to come: its archive's row wants to name it before its own row can name the archive. */
export async function nextDeviceId(tx: Transaction): Promise<number> {
  const [row] = await tx.query<{ deviceId: number }>(sql.nextId);
  return row!.deviceId;
}

export interface NewDevice extends RegisteredDevice {
  deviceId: number;
  tenantId: number;
  userId: number;
  platform: string;
  agentVersion: string;
  tokenSha256: Buffer;
  /** The device whose place it takes. */
  replaces: number | null;
  /** The code it is registered with, hashed together with its token; null: none. */
  registeredWith: Buffer | null;
}

export async function insertDevice(tx: Transaction, device: NewDevice): Promise<void> {
  const {
    deviceId,
    tenantId,
    userId,
    guid,
    deviceName,
    platform,
    agentVersion,
    tokenSha256,
    vault,
    archive,
    replaces,
    registeredWith,
  } = device;
  await tx.query(sql.insert, [
    deviceId,
    tenantId,
    userId,
    guid,
    deviceName,
    platform,
    agentVersion,
    tokenSha256,
    vault,
    archive,
    replaces,
    registeredWith,
  ]);
}

export interface ReplaceableDevice {
  deviceId: number;
  deviceName: string;
  vault: number;
  archive: number;
  state: DeviceState;
}

/** The user's device of that GUID as it is now, locked; null when there is none, or it is a repository, whose place nobody takes. */
export async function lockDeviceByGuid(
  tx: Transaction,
  userId: number,
  guid: string,
): Promise<ReplaceableDevice | null> {
  const [row] = await tx.query<ReplaceableDevice>(sql.lockByGuid, [userId, guid]);
  return row ?? null;
}

export async function setDeviceState(tx: Transaction, deviceId: number, state: DeviceState): Promise<void> {
  await tx.query(sql.setState, [deviceId, state]);
}

export interface DeviceOfUser extends RegisteredDevice {
  platform: string;
  state: DeviceState;
  lastCommittedAt: Date | null;
}

/** The devices of a vault that have an agent, which are those of its user, without the replaced ones; newest first, at most 1,000. */
export function listDevicesOfVault(db: Database, vault: number): Promise<DeviceOfUser[]> {
  return db.query<DeviceOfUser>(sql.listOfVault, [vault]);
}

/** Whether the archive is that of a device in the vault which has an agent and is not deactivated, however many there are. */
export async function vaultHasArchive(db: Database, ref: { vault: number; archive: number }): Promise<boolean> {
  return (await db.query(hasArchive, [ref.vault, ref.archive])).length > 0;
}
