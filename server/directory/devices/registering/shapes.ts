/** What is sent and answered about registration codes. */
import { z } from 'zod';

/** Whoever has no password shows who they are by a session that began at an identity provider so long ago at most. */
export const freshMinutes = 15;

/** How long a code is good, in minutes: one for somebody else has to be handed over first. */
export const codeMinutes = { min: 5, max: 24 * 60, ownMax: 60, default: 60 } as const;

const minutesTo = (max: number) =>
  z.int().min(codeMinutes.min).max(max).default(codeMinutes.default).meta({ description: 'How long it is good.' });

export const RegistrationCodeRequest = z.strictObject({ minutes: minutesTo(codeMinutes.max) });

/** For oneself. */
export const OwnRegistrationCodeRequest = z.strictObject({
  password: z
    .string()
    .min(1)
    .max(1_024)
    .nullable()
    .meta({
      description: `Your password. null: you have none here, and have signed in at your identity provider in the last ${freshMinutes} minutes.`,
    }),
  code: z
    .string()
    .min(1)
    .max(64)
    .optional()
    .meta({ description: 'Of your second factor, if you have one, or a recovery code.' }),
  minutes: minutesTo(codeMinutes.ownMax),
});

/** The code is shown once. */
export const RegistrationCode = z.strictObject({
  id: z.int().meta({ description: 'What the log calls it by.' }),
  code: z.string().meta({
    description: 'Registers one device of the user: `npm run agent -- register --registration-code CODE`.',
  }),
  expiresAt: z.iso.datetime(),
});

export const RevokedCodes = z.strictObject({ revoked: z.int() });
