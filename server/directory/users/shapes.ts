/** What is sent and answered about users and the roles they have. */
import { z } from 'zod';
import { scopes } from '../roles/permissions.ts';
import { EffectiveStateView, effectiveStates } from './effective-state.ts';
import { PageQuery } from './pages.ts';

/** Text that PostgreSQL takes and that shows in one line. */
export const line = (max: number) =>
  z
    .string()
    .trim()
    .min(1)
    .max(max)
    .refine((text) => text.isWellFormed() && !/\p{Cc}/u.test(text), 'has characters that do not show');

/** A row's id. */
export const id = z.int().min(1);
const idInQuery = z.coerce.number().pipe(id);

/** Text to look for, that PostgreSQL takes. */
export const wantedText = (max: number) =>
  z
    .string()
    .min(1)
    .max(max)
    .refine((text) => text.isWellFormed() && !text.includes('\0'), 'is no text');

/** Beginning of a name, for a search. */
export const prefix = wantedText(254);

/** Also one that this server does not know: it may have been given by a later one. */
const roleName = z
  .string()
  .min(1)
  .max(128)
  .refine((text) => text.isWellFormed() && !text.includes('\0'), 'is no name of a role');

const name = line(254).meta({ description: 'What they sign in with; one in the tenant, whatever its case.' });
const displayName = line(255).nullable();
const email = z
  .email()
  .min(3)
  .max(254)
  .nullable()
  .meta({ description: 'Where alerts and invitations go; one in the tenant, whatever its case.' });

export const CreateUserRequest = z.strictObject({
  organization: id,
  name,
  displayName: displayName.default(null),
  email: email.default(null),
});

export const UpdateUserRequest = z
  .strictObject({ name: name.optional(), displayName: displayName.optional(), email: email.optional() })
  .refine((change) => Object.values(change).some((value) => value !== undefined), 'changes nothing');

export const MoveUserRequest = z.strictObject({
  organization: id,
  treeGrants: z.enum(['rewrite', 'leave']).meta({
    description:
      'Roles with scope `tree` count only in the organization they name. `rewrite`: they name the new one; `leave`: they stay as they are, without force.',
  }),
});

export const GiveRoleRequest = z.strictObject({
  role: roleName,
  scope: z.enum(scopes).optional().meta({ description: "No wider than the role's own, which it is when left out." }),
  organization: id.optional().meta({ description: "Where it is given; the user's own when left out." }),
});

export const TakeRoleRequest = z.strictObject({
  role: roleName,
  organization: id.optional().meta({ description: "Where it was given; the user's own when left out." }),
});

export const GrantView = z.strictObject({
  role: z.string(),
  scope: z.enum(scopes),
  organization: z.strictObject({ id, name: z.string() }),
  grantedAt: z.iso.datetime(),
  inForce: z.boolean().meta({ description: 'False: of scope `tree`, and the user is in another organization.' }),
});

const common = {
  id,
  organization: z.strictObject({ id, name: z.string() }),
  name: z.string(),
  displayName: z.string().nullable(),
  email: z.string().nullable(),
  state: z.enum(['active', 'blocked', 'deactivated']).meta({ description: 'Their own.' }),
  effective: EffectiveStateView,
  hasPassword: z.boolean().meta({ description: 'False: invited, or signed in by an identity provider only.' }),
  devices: z.int().meta({ description: 'Without replaced and deactivated ones.' }),
  roles: z.array(GrantView),
  createdAt: z.iso.datetime(),
  version: z.int(),
};

export const UserView = z.strictObject(common);

export const UserPage = z.strictObject({ items: z.array(UserView), next: z.string().nullable() });

export const ListUsersQuery = z.strictObject({
  ...PageQuery,
  organization: idInQuery.optional().meta({ description: 'In this organization itself.' }),
  below: idInQuery.optional().meta({ description: 'In this organization or below it.' }),
  state: z.enum(effectiveStates).optional().meta({ description: 'What holds, not their own.' }),
  search: prefix.optional().meta({ description: 'How the name or the mail address begins, whatever its case.' }),
  role: roleName.optional(),
});

export const MovedUser = z.strictObject({
  user: UserView,
  rewritten: z.array(z.string()).meta({ description: 'Roles that name the new organization now.' }),
  withoutForce: z.array(z.string()).meta({ description: 'Roles that name another organization, and have no force.' }),
});

export const RoleView = z.strictObject({
  name: z.string(),
  description: z.string(),
  scope: z.enum(scopes).meta({ description: 'The widest it can be given with.' }),
  permissions: z.array(
    z.strictObject({
      name: z.string(),
      inUse: z.boolean().meta({ description: 'Whether anything asks for it yet.' }),
    }),
  ),
});
export const RoleList = z.strictObject({ items: z.array(RoleView) });

export type UserRecord = z.infer<typeof UserView>;
export type Grant = z.infer<typeof GrantView>;
