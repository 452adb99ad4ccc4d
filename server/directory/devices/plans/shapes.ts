/**
 * What is sent and answered about backup plans: what is backed up, and when. How long versions are kept is not a plan's: an
 * archive has one retention policy, its device's or that of an organization above, and files of two plans would meet in it.
 */
import { z } from 'zod';
import { PageQuery } from '../../users/pages.ts';
import { id, line } from '../../users/shapes.ts';
import { Guid } from '../shapes.ts';

const pattern = z
  .string()
  .min(1)
  .max(4_096)
  .refine((text) => text.isWellFormed() && !text.includes('\0'), 'is no path');
const patterns = z.array(pattern).max(1_000);
const minuteOfDay = z.int().min(0).max(1_440);

export const PlanWindow = z
  .strictObject({
    days: z
      .array(z.int().min(1).max(7))
      .min(1)
      .max(7)
      .refine((days) => new Set(days).size === days.length, 'names a day twice')
      .meta({ description: '1: Monday, 7: Sunday.' }),
    fromMinute: minuteOfDay,
    untilMinute: minuteOfDay,
  })
  .refine(({ fromMinute, untilMinute }) => fromMinute < untilMinute, 'ends before it begins')
  .meta({ description: "Of the device's day, in minutes from its midnight." });

export const PlanContent = z.strictObject({
  include: patterns.meta({ description: 'Folders. None: the home folders.' }),
  exclude: patterns.meta({ description: 'Patterns of paths that are left out.' }),
  everyMinutes: z.int().min(1).max(525_600),
  windows: z.array(PlanWindow).max(50).meta({ description: 'When runs may begin. None: always.' }),
});

const owner = {
  organization: id.optional(),
  device: Guid.optional(),
};

export const CreatePlanRequest = z
  .strictObject({ ...owner, name: line(255), ...PlanContent.shape })
  .refine(
    ({ organization, device }) => (organization === undefined) !== (device === undefined),
    'is of an organization or of a device',
  );

export const UpdatePlanRequest = z
  .strictObject({ name: line(255), ...PlanContent.shape })
  .partial()
  .refine((change) => Object.values(change).some((value) => value !== undefined), 'changes nothing');

const PlanOwner = z.union([
  z.strictObject({ organization: z.strictObject({ id, name: z.string() }) }),
  z.strictObject({ device: z.strictObject({ guid: Guid, name: z.string() }) }),
]);

export const PlanView = z.strictObject({
  id,
  of: PlanOwner,
  name: z.string(),
  ...PlanContent.shape,
  createdAt: z.iso.datetime(),
  version: z.int(),
});
export const PlanPage = z.strictObject({ items: z.array(PlanView), next: z.string().nullable() });

const idInQuery = z.coerce.number().pipe(id);
export const ListPlansQuery = z.strictObject({
  ...PageQuery,
  organization: idInQuery.optional().meta({ description: 'Of this organization itself.' }),
  device: Guid.optional().meta({ description: 'Of this device itself.' }),
});

export const EffectivePlans = z.strictObject({
  plans: z.array(
    z.strictObject({
      name: z.string(),
      ...PlanContent.shape,
      from: z
        .union([z.literal('settings'), PlanOwner])
        .meta({ description: '`settings`: there is no plan, and the backupDefaults of the organization hold.' }),
    }),
  ),
});

export type PlanRecord = z.infer<typeof PlanView>;
