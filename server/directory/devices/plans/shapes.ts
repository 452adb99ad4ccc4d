/** What is sent and answered about backup plans: what is backed up, when, and how long it is kept (docs/retention.md). */
import { z } from 'zod';
import { wildcardFault } from '../../../../protocol/exclude-patterns.ts';
import { retentionFaults } from '../../../../storage/archive/retention/retention.ts';
import { PolicyDocument } from '../../retention-document.ts';
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

/** A policy that could be planned by: its windows may follow one another. */
const planRetention = PolicyDocument.superRefine((policy, context) => {
  for (const { field, message } of retentionFaults(policy))
    context.addIssue({ code: 'custom', path: field.split('.'), message, input: policy });
})
  .nullable()
  .meta({
    description:
      "How long versions of what lies in the folders are kept, instead of the archive's policy. Null: that holds. Only with folders by absolute path. A file in folders of several such plans is kept by any of them.",
  });

/** What agents follow. */
const work = {
  include: patterns.meta({ description: 'Folders. None: the home folders.' }),
  exclude: patterns.meta({ description: 'Patterns of paths that are left out.' }),
  everyMinutes: z.int().min(1).max(525_600),
  windows: z.array(PlanWindow).max(50).meta({ description: 'When runs may begin. None: always.' }),
};

/** What is asked for anew; what is stored from before holds. */
const askedWork = {
  ...work,
  exclude: z
    .array(
      pattern.superRefine((text, context) => {
        const fault = wildcardFault(text, 'unknown');
        if (fault !== null) context.addIssue({ code: 'custom', message: fault, input: text });
      }),
    )
    .max(1_000)
    .meta({ description: 'Patterns of paths that are left out.' }),
};

/** As stored. One from before plans had a retention says nothing of it. */
export const PlanContent = z.strictObject({ ...work, retention: planRetention.default(null) });

const owner = {
  organization: id.optional(),
  device: Guid.optional(),
};

export const CreatePlanRequest = z
  .strictObject({ ...owner, name: line(255), ...askedWork, retention: planRetention.optional() })
  .refine(
    ({ organization, device }) => (organization === undefined) !== (device === undefined),
    'is of an organization or of a device',
  );

export const UpdatePlanRequest = z
  .strictObject({ name: line(255), ...askedWork, retention: planRetention })
  .partial()
  .refine((change) => Object.values(change).some((value) => value !== undefined), 'changes nothing');

export const PlanOwner = z.union([
  z.strictObject({ organization: z.strictObject({ id, name: z.string() }) }),
  z.strictObject({ device: z.strictObject({ guid: Guid, name: z.string() }) }),
]);

export const PlanView = z.strictObject({
  id,
  of: PlanOwner,
  name: z.string(),
  unreadable: z.boolean().meta({
    description:
      'What is stored of it cannot be read, and is null here. Delete it, or give all of its content anew: until then devices it is for get no plans, and keep those they have.',
  }),
  include: work.include.nullable(),
  exclude: work.exclude.nullable(),
  everyMinutes: work.everyMinutes.nullable(),
  windows: work.windows.nullable(),
  retention: planRetention,
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
      ...work,
      from: z
        .union([z.literal('settings'), PlanOwner])
        .meta({ description: '`settings`: there is no plan, and the backupDefaults of the organization hold.' }),
    }),
  ),
});

export type PlanRecord = z.infer<typeof PlanView>;
