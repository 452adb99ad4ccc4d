/** What is sent and answered about second factors. */
import { z } from 'zod';

export const CodeRequest = z.strictObject({
  code: z.string().min(1).max(64).meta({ description: 'Of the generator, or a recovery code.' }),
});

/** Shown once. */
export const BegunSecondFactor = z.strictObject({
  secret: z.string().meta({ description: 'In base32, to be typed into a generator of codes.' }),
  uri: z.string().meta({ description: 'The same as otpauth://, to be shown as a QR code.' }),
});

/** Shown once. */
export const RecoveryCodes = z.strictObject({
  recoveryCodes: z.array(z.string()).meta({ description: 'Each signs in once in the place of a code.' }),
});

export const SecondFactorView = z.strictObject({
  state: z.enum(['none', 'begun', 'inForce']),
  since: z.iso.datetime().nullable(),
  recoveryCodesLeft: z.int(),
});
