/** How routes find what they are about, by the parameters of their paths. */
import { z } from 'zod';
import { Guid } from '../../directory/devices/shapes.ts';
import { Moment } from '../../directory/moments.ts';
import {
  type DeviceTarget,
  findDeviceTarget,
  findOrganizationTarget,
  findUserTarget,
  type OrganizationTarget,
  type TenantTarget,
  tenantTarget,
  type UserTarget,
} from '../../directory/targets.ts';
import type { Finder } from './route.ts';

/** A decimal id in a path or query. */
export const idText = z
  .string()
  .regex(/^[1-9]\d{0,14}$/, 'is not a decimal id')
  .transform(Number)
  .meta({ description: 'An id', examples: ['12'] });

export const guidText = Guid.meta({
  description: 'The GUID of a device, a decimal number of up to 19 digits',
  examples: ['1000001'],
});

/** In a query: 1 or 0; left out it is 0. */
export const yesOrNo = z
  .enum(['0', '1'])
  .default('0')
  .transform((text) => text === '1');

export const organizationParams = z.strictObject({ organization: idText });
export const userParams = z.strictObject({ user: idText });
export const deviceParams = z.strictObject({ guid: guidText });

// biome-ignore lint/suspicious/noExplicitAny: whatever else is asked, a finder looks at one parameter
type Any = any;

export const organizationInPath: Finder<{ organization: number }, Any, Any, OrganizationTarget> = (
  db,
  { actor, params },
) => findOrganizationTarget(db, actor.tenant, params.organization);

export const userInPath: Finder<{ user: number }, Any, Any, UserTarget> = (db, { actor, params }) =>
  findUserTarget(db, actor.tenant, params.user);

export const deviceInPath: Finder<{ guid: string }, Any, Any, DeviceTarget> = (db, { actor, params }) =>
  findDeviceTarget(db, actor.tenant, params.guid);

/** The tenant itself, above its organizations. */
export const theTenant: Finder<Any, Any, Any, TenantTarget> = async (_, { actor }) => tenantTarget(actor.tenant);

/** The organization that the body names; null there means the tenant itself. */
export const organizationInBody =
  (name: string): Finder<Any, Any, Any, OrganizationTarget | TenantTarget> =>
  async (db, { actor, body }) => {
    const id = (body as Record<string, number | null | undefined>)[name] ?? null;
    return id === null ? tenantTarget(actor.tenant) : findOrganizationTarget(db, actor.tenant, id);
  };

export const momentText = Moment.transform((text) => new Date(text));
