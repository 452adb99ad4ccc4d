/**
 * A retention policy as it is sent and stored: JSON of exactly this shape. One way in for both, so that nothing is
 * stored that could not be read again; and what this code does not understand is no policy, however near it comes.
 */
import { z } from 'zod';
import { type RetentionPolicy, retentionFaults } from '../../storage/archive/retention/retention.ts';

const Window = z.strictObject({ untilDays: z.number().nullable(), everyMinutes: z.number() });

/** Its shape. Which windows may follow one another is more than a shape says: `readPolicyDocument`. */
export const PolicyDocument = z.strictObject({
  windows: z.tuple([Window, Window, Window, Window]).readonly(),
  deletedAfterDays: z.number().nullable(),
  keepNewest: z.number(),
  keepWithinDays: z.number(),
});

export interface PolicyFault {
  /** A path such as `windows.1.untilDays`; '' for the whole policy. */
  field: string;
  message: string;
}

/** Exactly one of the two is there. */
export type ReadPolicy = { policy: RetentionPolicy; faults?: never } | { policy?: never; faults: PolicyFault[] };

/** Reads a policy, or says all that is wrong with it. Nothing is filled in: what is left out is a fault. */
export function readPolicyDocument(value: unknown): ReadPolicy {
  const parsed = PolicyDocument.safeParse(value);
  if (!parsed.success) {
    const faults = parsed.error.issues.map(({ path, message }) => {
      const field = path.join('.');
      return { field, message: `${field || 'the policy'}: ${message}` };
    });
    return { faults };
  }
  const faults = retentionFaults(parsed.data);
  return faults.length > 0 ? { faults } : { policy: parsed.data };
}
