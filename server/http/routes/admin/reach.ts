/**
 * What an administrator's path names, within their tenant. What is another tenant's answers like what does not exist:
 * the same words, whatever was asked for.
 */
import { Problem } from '../../../../protocol/problems.ts';
import { type DeviceRow, findDevice, findOrganization, isGuid } from '../../../directory/tenant-view.ts';
import type { Context } from '../../deps.ts';
import { idParameter } from '../../parameters.ts';

/** The device of `:guid`. @throws Problem not_found */
export async function deviceInPath(ctx: Context): Promise<DeviceRow> {
  const { guid = '' } = (ctx as unknown as { params: Record<string, string> }).params;
  const { deps, administrator } = ctx.state;
  const device = isGuid(guid) && (await findDevice(deps.directory.database, administrator!.tenantId, guid));
  if (!device) throw new Problem('not_found', 'there is no such device');
  return device;
}

/** The organization of `:organization`. @throws Problem not_found */
export async function organizationInPath(ctx: Context): Promise<{ organizationId: number; name: string }> {
  const id = idParameter(ctx, 'organization');
  const { deps, administrator } = ctx.state;
  const organization = await findOrganization(deps.directory.database, administrator!.tenantId, id);
  if (!organization) throw new Problem('not_found', 'there is no such organization');
  return organization;
}
