/**
 * That a device begins to read what names the blocks of files: all versions below a path of an archive as of a moment, or all
 * of one file. So every restore with an agent begins, and so does the comparing of an agent that has lost its cache. It is in
 * the log before the first of them is sent. Who goes on with a reading, from any place in it, is not written again within the
 * hour by the process that wrote it, if it is the same device at the same address (server/http/told-readings.ts); who begins
 * again is, each time: what was done is never left out because it is done often.
 */
import type { ArchiveRef } from '../../../storage/storage.ts';
import { record } from '../audit/record.ts';
import type { Directory } from '../directory.ts';
import type { DeviceAccess } from './access.ts';
import { listDevicesOfVault } from './devices.ts';

/** Characters of a path that an act holds. */
const pathMax = 1_024;

/** @param read.at the moment asked for; null: now, or a seq that was given */
export async function noteArchiveRead(
  { database }: Pick<Directory, 'database'>,
  device: DeviceAccess,
  read: { archive: ArchiveRef; path: Buffer; at: Date | null; deleted: boolean },
  address: string,
): Promise<void> {
  const { guid, deviceName, tenantId: tenant, organizationId: organization, userId: user } = device;
  const own = read.archive.archive === device.archive;
  const devices = own ? [] : await listDevicesOfVault(database, device.vault);
  const of = devices.find(({ archive }) => archive === read.archive.archive) ?? { guid, deviceName };
  const by = { tenant, party: { kind: 'device', id: guid, name: deviceName }, address } as const;
  const details = {
    user,
    own,
    path: read.path.toString('utf8').slice(0, pathMax).toWellFormed(),
    at: read.at?.toISOString() ?? null,
    deleted: read.deleted,
  };
  const target = { kind: 'device', id: of.guid, name: of.deviceName } as const;
  const act = { action: 'archive.read', target, organization, result: 'done', details } as const;
  await database.transaction((tx) => record(tx, by, act));
}
