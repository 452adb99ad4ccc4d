/** What is sent and answered about passwords and invitations. */
import { z } from 'zod';
import { passwordCharactersMax, passwordCharactersMin } from './password-rules.ts';

const bytesMax = 1_024;
const newPassword = z
  .string()
  .min(1)
  .max(bytesMax)
  .meta({
    description: `${passwordCharactersMin} to ${passwordCharactersMax} characters, and not one that is tried first.`,
  });

export const ChangePasswordRequest = z.strictObject({ password: z.string().min(1).max(bytesMax), newPassword });

/** Shown once. */
export const OneTimePassword = z.strictObject({
  password: z.string().meta({ description: 'Good for one thing: signing in with a new password beside it.' }),
  expiresAt: z.iso.datetime(),
});

/** Shown once. */
export const InvitationAnswer = z.strictObject({
  token: z.string().meta({ description: 'With it the user sets the first password. Nobody else should have it.' }),
  expiresAt: z.iso.datetime(),
});

export const InvitationRequest = z.strictObject({ token: z.string().min(1).max(64) });

export const InvitationView = z.strictObject({
  tenant: z.int(),
  tenantName: z.string(),
  userName: z.string(),
  expiresAt: z.iso.datetime(),
});

export const AcceptInvitationRequest = InvitationRequest.extend({ newPassword });
