/**
 * That a device begins to read all versions below a path of an archive: how every restore with an agent begins, and how an
 * agent that has lost its cache compares. It is in the log before the first of them is sent. A reader that was cut off and
 * goes on is not written again; one that begins again and again is written as often as anybody's repeated acts are, and counted.
 */
import type { ArchiveRef } from '../../../storage/storage.ts';
import { recordAlone } from '../audit/record.ts';
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
  await recordAlone(
    database,
    { tenant, party: { kind: 'device', id: guid, name: deviceName }, address },
    {
      action: 'archive.read',
      target: { kind: 'device', id: of.guid, name: of.deviceName },
      organization,
      result: 'done',
      details: {
        user,
        own,
        path: read.path.toString('utf8').slice(0, pathMax).toWellFormed(),
        at: read.at?.toISOString() ?? null,
        deleted: read.deleted,
      },
    },
  );
}
