/** What is sent and answered about API clients. */
import { z } from 'zod';
import { MomentAhead } from '../../moments.ts';
import { isPermission, type Permission } from '../../roles/permissions.ts';
import { PageQuery } from '../../users/pages.ts';
import { id, line } from '../../users/shapes.ts';

export const clientDaysMax = 731;
export const overlapHoursMax = 168;

const permission = z
  .string()
  .max(128)
  .refine((text): text is Permission => isPermission(text), 'is no permission');
const permissions = z
  .array(permission)
  .min(1)
  .max(100)
  .refine((list) => new Set(list).size === list.length, 'names a permission twice')
  .meta({ description: 'Names of permissions. Nobody gives a client one that they do not have themselves as far.' });
const scope = z.enum(['tree', 'all']).meta({
  description:
    'How far, at most: its organization and below, or the whole tenant. It is nobody, so nothing is its own.',
});
const expiresAt = MomentAhead.meta({ description: 'At most two years from now.' });

export const CreateClientRequest = z.strictObject({ name: line(255), organization: id, permissions, scope, expiresAt });

export const UpdateClientRequest = CreateClientRequest.omit({ organization: true })
  .partial()
  .refine((change) => Object.values(change).some((value) => value !== undefined), 'changes nothing');

export const RotateClientRequest = z.strictObject({
  overlapHours: z.int().min(0).max(overlapHoursMax).default(24).meta({
    description:
      'How long the secret before still works. 0: it is known to somebody else, and its access tokens end at once too.',
  }),
});

export const ClientView = z.strictObject({
  id: z.int(),
  clientId: z.string().meta({ description: 'What it calls itself when it signs in.' }),
  name: z.string(),
  organization: z.int(),
  permissions: z.array(z.string()),
  scope: z.enum(['tree', 'all']),
  expiresAt: z.iso.datetime(),
  revokedAt: z.iso.datetime().nullable(),
  oldSecretUntil: z.iso.datetime().nullable(),
  madeBy: z.string(),
  createdAt: z.iso.datetime(),
  lastUsedAt: z.iso.datetime().nullable(),
  version: z.int(),
});

/** The secret is in this answer and nowhere else. */
export const ClientWithSecret = ClientView.extend({ clientSecret: z.string() });

export const ListClientsQuery = z.strictObject({
  ...PageQuery,
  state: z.enum(['inForce', 'expired', 'revoked']).optional(),
});

export const ClientPage = z.strictObject({ items: z.array(ClientView), next: z.string().nullable() });

/** OAuth 2.0, 4.4 (RFC 6749): as a form, or with the client's name and secret as HTTP Basic. */
export const ClientTokenRequest = z.object({
  grant_type: z.literal('client_credentials'),
  client_id: z.string().min(1).max(64),
  client_secret: z.string().min(1).max(128),
});

export const ClientTokenAnswer = z.strictObject({
  access_token: z.string(),
  token_type: z.literal('Bearer'),
  expires_in: z.int(),
});
