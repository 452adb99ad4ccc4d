/**
 * What a tenant holds, as far as the reader reaches: a line for each user's vault, then one for each organization with all
 * that is below it, then the sum. Kept by counting, so the cost is a look-up for each user, however much they hold.
 */
import { addedUsage, noUsage, rollUp, type Usage, usageOfVault } from '../../storage/archive/checking/usage-report.ts';
import type { Storage } from '../../storage/storage.ts';
import { listDevicesOfVault } from '../directory/devices/devices.ts';
import { allOrganizations } from '../directory/organizations/reading.ts';
import { listUsers, type Reading, type UserRow } from '../directory/tenant-view.ts';
import { type ShownDevice, shownDevice } from './shapes.ts';

export interface VaultUsageLine extends Usage {
  user: { id: number; name: string; state: string };
  /** The id of the user's organization. */
  organization: number;
  /** Null: no device was registered yet. */
  vault: number | null;
  devices: ShownDevice[];
}

export interface OrganizationUsageLine {
  organization: { id: number; name: string; parent: number | null };
  users: number;
  /** Of its own users, and with all organizations below it. */
  own: Usage;
  total: Usage;
}

export interface UsageEnd {
  summary: Usage & { users: number };
}

/** @param isShown whether a user's own line is told, too; what they hold counts all the same */
export async function* usageLines(
  { database }: Pick<Storage, 'database'>,
  of: Reading,
  isShown: (user: UserRow) => boolean = () => true,
): AsyncGenerator<VaultUsageLine | OrganizationUsageLine | UsageEnd> {
  const own = new Map<number, { users: number; usage: Usage }>();
  let sum = noUsage;
  let users = 0;
  for await (const user of listUsers(database, of)) {
    const { organizationId, vault } = user;
    const usage = vault === null ? noUsage : await usageOfVault({ database }, vault);
    if (isShown(user)) {
      const devices = vault === null ? [] : await listDevicesOfVault(database, vault);
      yield {
        user: { id: user.userId, name: user.userName, state: user.state },
        organization: organizationId,
        vault,
        devices: devices.map(shownDevice),
        ...usage,
      };
    }
    const before = own.get(organizationId) ?? { users: 0, usage: noUsage };
    own.set(organizationId, { users: before.users + 1, usage: addedUsage(before.usage, usage) });
    sum = addedUsage(sum, usage);
    users++;
  }

  const nodes = (await allOrganizations(database, of)).map(({ organizationId: id, parentId, name }) => {
    const held = own.get(id);
    return { id, parentId, name, users: held?.users ?? 0, own: held?.usage ?? noUsage };
  });
  for (const { id, parentId, name, total, ...rest } of rollUp(nodes))
    yield { organization: { id, name, parent: parentId }, users: rest.users, own: rest.own, total };
  yield { summary: { users, ...sum } };
}
