/**
 * Pushes settings down: organizations below that have a value of their own inherit again, and so do devices, which can
 * have a retention policy of their own.
 *
 * In one transaction, so a push has happened whole or not at all. It writes a row for each value it takes away: a hundred
 * thousand are some seconds, within the bound of a statement; past that it is undone, and is to be made for parts of the tree.
 * Lock order: organizations by id, then devices by id.
 */
import type { z } from 'zod';
import { Problem } from '../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../storage/catalog/database.ts';
import type { By } from '../audit/act.ts';
import { record } from '../audit/record.ts';
import type { SettingName } from './definitions.ts';
import type { PushedSettings } from './shapes.ts';

const sql = {
  // Itself among them, in its place: it may have a higher id than those below it.
  lockBelow: statement(
    'directory.lockForPush',
    `SELECT o.organization_id AS id, o.name, o.version FROM organizations o
      WHERE o.tenant_id = $1 AND o.path @> ARRAY[$2::bigint]
        AND (o.organization_id = $2 OR EXISTS (
          SELECT 1 FROM organization_settings s WHERE s.organization_id = o.organization_id AND s.name = ANY ($3::text[])))
      ORDER BY o.organization_id FOR NO KEY UPDATE OF o`,
  ),
  // Only of those that are locked: whoever comes to be below meanwhile was not pushed to.
  clear: statement(
    'directory.clearForPush',
    `DELETE FROM organization_settings
      WHERE tenant_id = $1 AND organization_id = ANY ($2::bigint[]) AND name = ANY ($3::text[])
      RETURNING organization_id AS id, name`,
  ),
  raise: statement(
    'directory.raiseForPush',
    'UPDATE organizations SET version = version + 1 WHERE tenant_id = $1 AND organization_id = ANY ($2::bigint[])',
  ),
  // Those of replaced devices too: a policy is kept on every row of an archive.
  lockDevices: statement(
    'directory.lockDevicesForPush',
    `SELECT d.device_id AS id FROM organizations o
       JOIN users u ON u.organization_id = o.organization_id JOIN devices d ON d.user_id = u.user_id
      WHERE o.tenant_id = $1 AND o.path @> ARRAY[$2::bigint] AND d.retention IS NOT NULL
      ORDER BY d.device_id FOR NO KEY UPDATE OF d`,
  ),
  clearDevices: statement(
    'directory.clearDevicesForPush',
    `UPDATE devices SET retention = NULL, version = version + 1 WHERE tenant_id = $1 AND device_id = ANY ($2::bigint[])
      RETURNING vault_id AS vault, archive_id AS archive`,
  ),
};

/**
 * @param request.settings only of those that are inherited
 * @returns for each setting, how many had a value of their own
 * @throws Problem not_found, precondition_failed
 */
export async function pushSettings(
  tx: Transaction,
  by: By,
  request: { tenant: number; organization: number; settings: readonly SettingName[]; expected: number | null },
): Promise<z.infer<typeof PushedSettings>> {
  const { tenant, organization, settings, expected } = request;
  const locked = await tx.query<{ id: number; name: string; version: number }>(sql.lockBelow, [
    tenant,
    organization,
    settings,
  ]);
  const from = locked.find(({ id }) => id === organization);
  if (!from) throw new Problem('not_found', 'there is no such organization');
  const { name, version } = from;
  if (expected !== null && version !== expected)
    throw new Problem('precondition_failed', `it was changed since: it has version ${version} now`, { version });

  const below = locked.map(({ id }) => id).filter((id) => id !== organization);
  const cleared = await tx.query<{ id: number; name: string }>(sql.clear, [tenant, below, settings]);
  await tx.query(sql.raise, [tenant, [...new Set(cleared.map(({ id }) => id))]]);
  const archives = settings.includes('retention.policy') ? await clearDevices(tx, tenant, organization) : 0;

  const pushed = settings.map((setting) => ({
    setting,
    organizations: cleared.filter(({ name }) => name === setting).length,
    devices: setting === 'retention.policy' ? archives : 0,
  }));
  for (const { setting, organizations, devices } of pushed) {
    await record(tx, by, {
      action: 'settings.push',
      target: { kind: 'organization', id: organization, name },
      organization,
      result: 'done',
      details: { setting, organizations, devices },
    });
  }
  return { pushed };
}

/** @returns archives whose devices had a policy of their own */
async function clearDevices(tx: Transaction, tenant: number, organization: number): Promise<number> {
  const devices = await tx.query<{ id: number }>(sql.lockDevices, [tenant, organization]);
  type Cleared = { vault: number; archive: number };
  const cleared = await tx.query<Cleared>(sql.clearDevices, [tenant, devices.map(({ id }) => id)]);
  return new Set(cleared.map(({ vault, archive }) => `${vault}/${archive}`)).size;
}
