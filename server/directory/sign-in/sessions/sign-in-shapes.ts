/** What is sent and answered about signing in and sessions. */
import { z } from 'zod';
import { PageQuery } from '../../users/pages.ts';

const text = (max: number) => z.string().min(1).max(max);
/** More than any password has: it is judged, not measured, where it is only compared. */
const password = text(1_024);

export const SignInRequest = z.strictObject({
  tenant: text(255).optional().meta({
    description:
      "The tenant's number, the registration key of one of its organizations, or its name if no other has that. Left out: the first tenant, or the one before the slash of a name such as `12/anna`.",
  }),
  userName: text(300),
  password,
  code: text(64).optional().meta({
    description: 'Of the second factor, or a recovery code; needed when the answer was `second_factor_needed`.',
  }),
  newPassword: password.optional().meta({
    description: 'Sets a new password; needed when the answer was `password_change_needed`. Ends all other sessions.',
  }),
});

export const OperatorSignInRequest = SignInRequest.omit({ tenant: true });

export const RefreshRequest = z.strictObject({ refreshToken: text(128) });

export const SignInAnswer = z.strictObject({
  session: z.int(),
  accessToken: z.string(),
  accessExpiresInSeconds: z.int(),
  refreshToken: z.string().meta({ description: 'Good once: each refresh answers a new one.' }),
  refreshExpiresAt: z.iso.datetime(),
  limited: z
    .boolean()
    .meta({ description: 'A second factor has to be set up first; this session can do nothing else.' }),
});

export const SessionsQuery = z.strictObject(PageQuery);

export const SessionView = z.strictObject({
  id: z.int(),
  createdAt: z.iso.datetime(),
  lastUsedAt: z.iso.datetime().meta({ description: 'When its tokens were last exchanged.' }),
  endsAt: z.iso.datetime().meta({ description: 'Unless it is used before.' }),
  address: z.string().nullable(),
  program: z.string().nullable().meta({ description: 'What the client called itself (User-Agent).' }),
  limited: z.boolean(),
  provider: z.int().nullable().meta({ description: 'The identity provider it came by; null: a password.' }),
});

export const SessionList = z.strictObject({ items: z.array(SessionView), next: z.string().nullable() });

export const EndedSessions = z.strictObject({ ended: z.int() });

export const SignInFailuresView = z.strictObject({
  items: z.array(
    z.strictObject({
      what: z.enum(['password', 'code']),
      known: z.boolean().meta({ description: 'From an address the user is known at; else from all others together.' }),
      failures: z.int(),
      lastAt: z.iso.datetime(),
      lockedUntil: z.iso.datetime().nullable(),
    }),
  ),
});
