/** What is sent and answered about restores to a browser. */
import { z } from 'zod';
import { limits } from '../../../protocol/limits.ts';
import { selectionPathsMax } from '../../restoring/types.ts';
import { Guid } from '../devices/shapes.ts';
import { UnsealReason } from '../keys/unseal.ts';
import { PageQuery } from '../users/pages.ts';
import { id } from '../users/shapes.ts';

export const restoreStates = ['planned', 'running', 'completed', 'broken', 'cancelled', 'lapsed', 'refused'] as const;
export type RestoreState = (typeof restoreStates)[number];

const pathBytes = z
  .string()
  .min(1)
  .max(Math.ceil((limits.pathBytesMax * 4) / 3))
  .regex(/^[\w-]+$/, 'is not base64url');

export const PlanRestoreRequest = z
  .strictObject({
    device: Guid,
    paths: z
      .array(z.string().min(1).max(limits.pathBytesMax))
      .max(selectionPathsMax)
      .default([])
      .meta({
        description: `Files and folders from the root, each with all that is below it; "/" is everything. At most ${selectionPathsMax}, with those of \`pathBytes\``,
      }),
    pathBytes: z
      .array(pathBytes)
      .max(selectionPathsMax)
      .default([])
      .meta({ description: 'Paths that are no text, as base64url' }),
    at: z.iso.datetime({ offset: true }).optional().meta({ description: 'As of this moment' }),
    seq: z.int().min(0).optional().meta({ description: 'As of this seq, as an answer named it; neither: now' }),
    deleted: z.boolean().default(false).meta({ description: 'What was deleted by then too, as it last was' }),
    format: z.enum(['zip', 'tar']).default('zip').meta({
      description:
        'A zip opens everywhere. A tar has owners, hard links, exact times, and names as they are, whatever their bytes',
    }),
    reason: UnsealReason.optional().meta({
      description: 'Why. Needed for an archive that is not your own; kept in the history and in the audit log',
    }),
  })
  .refine(({ at, seq }) => at === undefined || seq === undefined, {
    message: 'a moment is given as a time or as a seq, not both',
    path: ['seq'],
  });
export type PlanRestore = z.output<typeof PlanRestoreRequest>;

const count = z.int().min(0);
const shownPath = z.strictObject({
  path: z.string().nullable().meta({ description: 'Null: its bytes are no text' }),
  pathBytes: z.string().optional().meta({ description: 'Base64url, where they are no text' }),
});
const time = z.iso.datetime();

const view = {
  id,
  kind: z.literal('streamed'),
  device: z.strictObject({ guid: Guid, name: z.string().nullable() }),
  user: z.strictObject({ id, name: z.string() }).meta({ description: 'Whose archive it is' }),
  askedBy: z.strictObject({ kind: z.enum(['user', 'client']), id, name: z.string() }),
  address: z.string().nullable().meta({ description: 'Where it was asked from' }),
  permission: z.string().meta({ description: 'By which it was planned' }),
  reason: z.string().nullable(),
  format: z.enum(['zip', 'tar']),
  seq: count.meta({ description: 'The moment of the archive' }),
  at: time.nullable().meta({ description: 'The moment as it was asked for; null: by its seq' }),
  deleted: z.boolean(),
  paths: count.meta({ description: 'How many were chosen' }),
  planned: z.strictObject({
    files: count,
    folders: count,
    links: count,
    bytes: count,
    damaged: count.meta({ description: 'Files that cannot be had as things stand; among `files`' }),
    gone: count.meta({ description: 'Deleted files of which no content is kept' }),
    missing: count.meta({ description: 'Paths where nothing was' }),
  }),
  state: z.enum(restoreStates).meta({
    description:
      'planned: to be fetched until `lapsesAt`; broken: ended before its end, and may be fetched again; refused: whoever asked was no more allowed while it went on',
  }),
  tries: count,
  done: z.strictObject({
    files: count,
    bytes: count,
    sentBytes: count.meta({ description: 'Of the zip or tar' }),
    leftOut: count.meta({ description: 'Files; the archive names all of them in its last entry' }),
  }),
  why: z.string().nullable().meta({ description: 'Why it ended as it did; null: nothing to say' }),
  createdAt: time,
  lapsesAt: time,
  begunAt: time.nullable(),
  endedAt: time.nullable(),
  version: z.int(),
};

export const RestoreView = z.strictObject(view);
export type RestoreViewed = z.output<typeof RestoreView>;

const notHad = z.array(shownPath.extend({ reason: z.string() }));

export const RestoreDetails = z.strictObject({
  ...view,
  selected: z.array(shownPath),
  leftOutFirst: notHad.meta({ description: 'The first hundred that were left out' }),
  brokeOffAt: notHad.meta({
    description: 'Files in whose middle earlier tries broke off; the next one leaves them out',
  }),
});

export const RestorePage = z.strictObject({ items: z.array(RestoreView), next: z.string().nullable() });

const idInQuery = z.coerce.number().pipe(id);
const momentInQuery = z.iso.datetime({ offset: true });

export const ListRestoresQuery = z.strictObject({
  ...PageQuery,
  device: z
    .string()
    .regex(/^[1-9]\d{0,18}$/, 'is not a GUID')
    .optional(),
  askedBy: idInQuery.optional().meta({ description: 'The user who asked' }),
  askedByClient: idInQuery.optional().meta({ description: 'The API client that asked' }),
  state: z.enum(restoreStates).optional(),
  since: momentInQuery.optional().meta({ description: 'Planned at this moment or later' }),
  until: momentInQuery.optional().meta({ description: 'Planned before this moment' }),
});

/** What opens a vault of level `password`. */
export const RestoreContentRequest = z.strictObject({
  password: z
    .string()
    .min(1)
    .max(4_096)
    .optional()
    .meta({ description: 'The archive password, where the backups are wrapped with one. It is kept nowhere' }),
});
