/** What requests about organizations hold, and what they are answered with. */
import { z } from 'zod';
import { EffectiveStateView, effectiveStates } from '../users/effective-state.ts';
import { PageQuery } from '../users/pages.ts';
import { id, line } from '../users/shapes.ts';

export const ownStates = ['active', 'blocked', 'deactivated'] as const;
export type OwnState = (typeof ownStates)[number];

/** Levels of a tenant's tree; the migration has the same number. */
export const organizationDepthMax = 16;

export const organizationName = line(255).meta({ description: 'What it is called. Others may be called the same.' });
const parent = id
  .nullable()
  .meta({ description: 'The organization it is directly below; null: at the top.', examples: [1] });
const idInQuery = z.coerce.number().pipe(id);

export const CreateOrganizationRequest = z.strictObject({ name: organizationName, parent });
export const RenameOrganizationRequest = z.strictObject({ name: organizationName });
export const MoveOrganizationRequest = z.strictObject({ parent });

export const OrganizationView = z.strictObject({
  id,
  parent,
  name: z.string(),
  path: z.array(id).meta({ description: 'From the top down to its own id.' }),
  state: z.enum(ownStates).meta({ description: 'Its own.' }),
  effective: EffectiveStateView,
  createdAt: z.iso.datetime(),
  version: z.int(),
});

export const OrganizationDetail = z.strictObject({
  ...OrganizationView.shape,
  registrationKey: z.string().meta({ description: 'What agents name, beside a sign-in, to become devices.' }),
  children: z.int().meta({ description: 'Organizations directly below it.' }),
  users: z.int().meta({ description: 'In it, whatever their state; not in those below.' }),
});

export const OrganizationPage = z.strictObject({ items: z.array(OrganizationView), next: z.string().nullable() });

export const ListOrganizationsQuery = z.strictObject({
  ...PageQuery,
  parent: z
    .union([z.literal('none').transform(() => null), idInQuery])
    .optional()
    .meta({ description: 'Directly below this one; `none`: at the top.' }),
  below: idInQuery.optional().meta({ description: 'This one and all below it.' }),
  state: z.enum(effectiveStates).optional().meta({ description: 'What holds, not its own.' }),
  search: z
    .string()
    .min(1)
    .max(255)
    .refine((text) => text.isWellFormed() && !text.includes('\0'), 'is no text')
    .optional()
    .meta({ description: 'A part of the name, whatever its case.' }),
});

export const DeletedOrganization = z.strictObject({ deleted: id });

export type Organization = z.infer<typeof OrganizationView>;
