/** What is sent and answered about reviews of unusual restores. */
import { z } from 'zod';
import { PageQuery } from '../../users/pages.ts';
import { id } from '../../users/shapes.ts';

export const reviewStates = ['open', 'kept', 'released'] as const;
export type ReviewState = (typeof reviewStates)[number];

const bytes = z.int().min(0);
const time = z.iso.datetime();
const party = z.strictObject({ kind: z.enum(['user', 'client']), id, name: z.string() });

export const RestoreReviewView = z.strictObject({
  id,
  asker: party.meta({ description: 'Who restores nothing meanwhile; for an API client, whoever made it' }),
  since: time,
  state: z.enum(reviewStates).meta({
    description: 'open: nobody has looked yet; kept: somebody has, and it stays; released: they may restore again',
  }),
  restore: id.nullable().meta({ description: 'The one that was refused; null: it had not been planned' }),
  user: z.strictObject({ id, name: z.string().nullable() }).meta({ description: 'Whose archive that was of' }),
  restoredBytes: bytes.meta({ description: "Of others' archives, in the day before" }),
  askedBytes: bytes.meta({ description: 'What would have come to it' }),
  thresholdBytes: bytes.meta({ description: '`restoreAlerts.bytesPerDay` as it was' }),
  reviewedBy: z.strictObject({ kind: z.string(), id, name: z.string() }).nullable(),
  reviewedAt: time.nullable(),
  reason: z.string().nullable().meta({ description: 'What the reviewer gave as theirs' }),
  version: z.int(),
});
export type RestoreReviewViewed = z.output<typeof RestoreReviewView>;

export const RestoreReviewPage = z.strictObject({ items: z.array(RestoreReviewView), next: z.string().nullable() });

export const ListRestoreReviewsQuery = z.strictObject({
  ...PageQuery,
  state: z.enum(reviewStates).optional(),
});

export const ReviewRestoresRequest = z.strictObject({
  decision: z.enum(['release', 'keep']).meta({
    description: 'release: they may restore again, and are counted anew from now on; keep: they may not',
  }),
  reason: z
    .string()
    .min(1)
    .max(500)
    .refine((text) => text.trim() !== '' && text.isWellFormed() && !text.includes('\0'), 'says nothing')
    .meta({ description: 'Why; kept with it and in the audit log' }),
});
