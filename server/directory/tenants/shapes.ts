/** What requests about tenants hold, and what the platform operator is answered: no name of a user, a device or a file. */
import { z } from 'zod';
import { tenantStates } from '../organizations/locking.ts';
import { PageQuery } from '../users/pages.ts';
import { id, line } from '../users/shapes.ts';

/** A page costs a look-up for each user of each tenant on it. */
export const tenantsPageMax = 100;

export const offboardingDelayDays = { min: 1, max: 365, byDefault: 30 };

const name = line(255).meta({ description: 'What the tenant, and at first its topmost organization, is called.' });

export const CreateTenantRequest = z.strictObject({
  name,
  administrator: line(254).meta({ description: 'The name its first administrator signs in with.' }),
});

export const RenameTenantRequest = z.strictObject({ name });

export const OffboardTenantRequest = z.strictObject({
  delayDays: z
    .int()
    .min(offboardingDelayDays.min)
    .max(offboardingDelayDays.max)
    .default(offboardingDelayDays.byDefault)
    .meta({ description: 'Until then it can be called back, and after that its data may be deleted.' }),
});

export const DeleteTenantRequest = z.strictObject({
  name: line(255).meta({
    description: 'What the tenant is called, letter by letter: so that one that is not meant is noticed.',
  }),
});

const figures = {
  organizations: z.int(),
  users: z.int(),
  activeUsers: z.int(),
  devices: z.int(),
  archives: z.int(),
  versions: z.int(),
  storedBytes: z.int(),
};

export const deletingWaitsFor = ['day', 'holds', 'versions', 'bytes', 'directory'] as const;

export const TenantDeletionView = z.strictObject({
  begunAt: z.iso.datetime(),
  begunBy: z.string().meta({ description: 'As `operator 3`.' }),
  finishedAt: z.iso.datetime().nullable(),
  had: z.strictObject(figures).meta({ description: 'When it began.' }),
  left: z.strictObject({ vaults: z.int(), archives: z.int(), versions: z.int(), keys: z.int() }).meta({
    description: 'Vaults stay until the object store has nothing of them. `keys`: records of the keys that open them.',
  }),
  waitsFor: z.enum(deletingWaitsFor).nullable().meta({
    description:
      '`day`: its day (`deleteAfter`) has not come, by the clock there is now. `holds`: legal holds, until they are released. `versions`: the job has them before it. `bytes`: claims and the delay of objects have to end. `directory`: users and organizations are left. Null: it is finished.',
  }),
  holds: z.int().meta({ description: 'Legal holds in force: what they cover stays, with its user and the keys.' }),
  heldUsers: z.int(),
});

export const TenantView = z.strictObject({
  id,
  name: z.string(),
  state: z.enum(tenantStates),
  deleteAfter: z.iso
    .datetime()
    .nullable()
    .meta({ description: 'Of one that is leaving, or has left: from when on its data may be deleted.' }),
  createdAt: z.iso.datetime(),
  version: z.int(),
  organizations: z.int(),
  users: z.int(),
  activeUsers: z.int().meta({ description: 'By their own state.' }),
  devices: z.int().meta({ description: 'Without replaced and deactivated ones.' }),
  storedBytes: z.int().meta({ description: 'Bytes in the object store.' }),
  deletion: TenantDeletionView.nullable().meta({ description: 'Of one whose data is being deleted, or was.' }),
});

export const TenantPage = z.strictObject({ items: z.array(TenantView), next: z.string().nullable() });

export const ListTenantsQuery = z.strictObject({
  ...PageQuery,
  limit: z.coerce.number().int().min(1).max(tenantsPageMax).default(50),
  state: z.enum(tenantStates).optional(),
  search: z
    .string()
    .min(1)
    .max(255)
    .refine((text) => text.isWellFormed() && !text.includes('\0'), 'is no text')
    .optional()
    .meta({ description: 'A part of the name, whatever its case.' }),
});

export const CreatedTenant = z.strictObject({ tenant: TenantView, organization: id, administrator: id });

export type Tenant = z.infer<typeof TenantView>;
export type TenantDeletion = z.infer<typeof TenantDeletionView>;
export type TenantFigures = TenantDeletion['had'];
