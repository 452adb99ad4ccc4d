/**
 * Which devices have a channel open, as rows: written when one is opened or closed, and once a minute for all that a process
 * holds. A device has one: whoever finds another's number in its row is the older one, and closes. It is an installation's:
 * one whose place another takes under the same GUID has none any more.
 */
import { randomUUID } from 'node:crypto';
import { statement, type Transaction } from '../../../../storage/catalog/database.ts';
import { heldOfDevice } from '../../users/effective-state.ts';
import { statesThatBackUp } from '../access.ts';
import { tell } from './tell.ts';

/** Not heard of for so long, its process is gone. A multiple of how often they write. */
export const channelSilentMs = 180_000;

const sql = {
  open: statement(
    'directory.openChannel',
    `INSERT INTO device_channels (guid, tenant_id, user_id, channel, is_open)
     SELECT $1::bigint, $2, $3, $4, true FROM devices WHERE tenant_id = $2 AND device_id = $5 AND state <> 'replaced'
     ON CONFLICT (guid) DO UPDATE SET tenant_id = $2, user_id = $3, channel = $4, is_open = true, connected_at = now(), heard_at = now()`,
  ),
  close: statement(
    'directory.closeChannels',
    'UPDATE device_channels SET is_open = false, heard_at = now() WHERE guid = ANY ($1::bigint[]) AND channel = ANY ($2::uuid[])',
  ),
  hear: statement(
    'directory.hearChannels',
    `UPDATE device_channels c SET heard_at = now()
       FROM unnest($1::bigint[], $2::uuid[]) AS held (guid, channel)
      WHERE c.guid = held.guid AND c.channel = held.channel AND c.is_open`,
  ),
  // Those that may go on: the newest of a device that may back up, held by the installation that the device is now.
  current: statement(
    'directory.currentChannels',
    `SELECT c.channel, held.state FROM unnest($1::bigint[], $2::uuid[], $3::bigint[]) AS asked (guid, channel, device_id)
       JOIN device_channels c ON c.guid = asked.guid AND c.channel = asked.channel
       JOIN devices d ON d.tenant_id = c.tenant_id AND d.device_id = asked.device_id
       JOIN users u ON u.user_id = d.user_id
       JOIN organizations o ON o.organization_id = u.organization_id
      CROSS JOIN LATERAL ${heldOfDevice} held`,
  ),
  read: statement(
    'directory.readChannel',
    `SELECT is_open AND heard_at > now() - interval '${channelSilentMs} ms' AS "isOpen", connected_at AS "connectedAt",
            heard_at AS "heardAt"
       FROM device_channels WHERE guid = $1::bigint AND tenant_id = $2`,
  ),
};

export interface HeldChannel {
  guid: string;
  /** A UUID. */
  channel: string;
}

/** Takes the place of the device's older channel, wherever that is. Of one that was replaced meanwhile, nothing is changed. */
export async function openChannel(
  tx: Transaction,
  device: { deviceId: number; tenantId: number; userId: number; guid: string },
  channel: string,
): Promise<void> {
  await tx.query(sql.open, [device.guid, device.tenantId, device.userId, channel, device.deviceId]);
  await tell(tx, { device: device.guid });
}

export const newChannel = (): string => randomUUID();

/** Of those that have a newer one, nothing is changed. */
export async function closeChannels(db: Transaction, held: readonly HeldChannel[]): Promise<void> {
  await db.query(sql.close, [held.map(({ guid }) => guid), held.map(({ channel }) => channel)]);
}

/** Of those that were closed meanwhile, nothing is changed. */
export async function hearChannels(db: Transaction, held: readonly HeldChannel[]): Promise<void> {
  await db.query(sql.hear, [held.map(({ guid }) => guid), held.map(({ channel }) => channel)]);
}

/** @returns the numbers of those that may go on */
export async function currentChannels(
  db: Transaction,
  held: readonly (HeldChannel & { deviceId: number })[],
): Promise<Set<string>> {
  const rows = await db.query<{ channel: string; state: string }>(sql.current, [
    held.map(({ guid }) => guid),
    held.map(({ channel }) => channel),
    held.map(({ deviceId }) => deviceId),
  ]);
  return new Set(rows.filter(({ state }) => statesThatBackUp.has(state)).map(({ channel }) => channel));
}

export interface ChannelSeen {
  isOpen: boolean;
  connectedAt: Date;
  heardAt: Date;
}

/** @returns null: its agent never asked for commands */
export async function readChannel(db: Transaction, of: { tenant: number; guid: string }): Promise<ChannelSeen | null> {
  const [row] = await db.query<ChannelSeen>(sql.read, [of.guid, of.tenant]);
  return row ?? null;
}
