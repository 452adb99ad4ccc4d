/** What is sent, stored and answered about identity providers. */
import { z } from 'zod';
import { narrower, scopes } from '../../roles/permissions.ts';
import { isRole, type Role, roles } from '../../roles/roles.ts';
import { PageQuery } from '../../users/pages.ts';
import { id, line } from '../../users/shapes.ts';

const claim = line(255);
/** As in a mail address after the @; compared in lower case. */
const domain = z
  .string()
  .max(253)
  .toLowerCase()
  .regex(/^(?=.{4,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+$/, 'is no domain');

const roleOfGroup = z
  .strictObject({
    role: z
      .string()
      .max(128)
      .refine((text): text is Role => isRole(text), 'is no role'),
    scope: z.enum(scopes),
  })
  .refine(({ role, scope }) => narrower(scope, roles.get(role)?.scope ?? 'self') === scope, 'is wider than the role');

/** What is stored as one document, and read by the same schema. */
export const ProviderDocument = z
  .strictObject({
    scopes: z
      .array(z.string().regex(/^[\x21\x23-\x5b\x5d-\x7e]{1,128}$/, 'is no scope'))
      .max(20)
      .default(['email', 'profile'])
      .meta({ description: 'What is asked for beside `openid`.' }),
    nameClaim: claim.default('email').meta({ description: 'The claim that a new user is named by.' }),
    groupsClaim: claim.nullable().default(null).meta({ description: 'The claim that lists the groups; null: none.' }),
    groups: z
      .array(
        z.strictObject({
          group: line(255),
          organization: id
            .optional()
            .meta({ description: 'Where a new user of that group goes; the first one counts.' }),
          roles: z.array(roleOfGroup).max(31).default([]).meta({
            description: 'Given at each sign-in in the organization the user is in, and taken when the group is gone.',
          }),
        }),
      )
      .max(200)
      .default([]),
    createsUsers: z.boolean().default(false).meta({ description: 'Whoever signs in and is unknown becomes a user.' }),
    organization: id.nullable().default(null).meta({ description: 'Where new users go if no group says so.' }),
    domains: z.array(domain).max(100).default([]).meta({
      description:
        'Mail domains that this provider speaks for: a verified address in one finds the user who has it, and with any given nobody else is created.',
    }),
  })
  .refine((document) => !document.createsUsers || document.organization !== null, {
    path: ['organization'],
    message: 'is needed for new users',
  });

const name = line(255).meta({ description: 'What people choose it by when they sign in.' });
const issuer = z
  .url()
  .max(2_048)
  .meta({ description: 'As the provider says it of itself. It never changes: users are known by it.' });
/** In bytes, too: more than this no key service seals at once. */
const secretBytesMax = 4_096;
const secret = z
  .string()
  .min(1)
  .max(2_048)
  .refine((text) => Buffer.byteLength(text) <= secretBytesMax, `is more than ${secretBytesMax} bytes`)
  .meta({ writeOnly: true });

export const CreateProviderRequest = z.strictObject({
  name,
  issuer,
  openidClient: line(255).meta({ description: 'The client id that the provider has given.' }),
  openidSecret: secret.nullable().default(null).meta({ description: 'Null: a public client.' }),
  settings: ProviderDocument,
});

export const UpdateProviderRequest = z
  .strictObject({
    name: name.optional(),
    openidSecret: secret.nullable().optional(),
    settings: ProviderDocument.optional(),
    state: z
      .enum(['active', 'off'])
      .optional()
      .meta({ description: 'Off: nobody signs in by it, and who has is signed out.' }),
  })
  .refine((change) => Object.values(change).some((value) => value !== undefined), 'changes nothing');

export const ProviderView = z.strictObject({
  id: z.int(),
  name: z.string(),
  issuer: z.string(),
  openidClient: z.string(),
  hasSecret: z.boolean(),
  settings: ProviderDocument,
  state: z.enum(['active', 'off']),
  createdAt: z.iso.datetime(),
  version: z.int(),
});

export const ListProvidersQuery = z.strictObject(PageQuery);
export const ProviderPage = z.strictObject({ items: z.array(ProviderView), next: z.string().nullable() });

/** For a page that signs in: whoever knows the tenant's name sees this. */
export const SignInProviders = z.strictObject({ items: z.array(z.strictObject({ id: z.int(), name: z.string() })) });
