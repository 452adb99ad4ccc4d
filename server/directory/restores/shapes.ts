/** What is sent and answered about restores to a browser. */
import { z } from 'zod';
import { commandOutcomes, existingPolicies, restoredPermissions } from '../../../protocol/commands.ts';
import { limits } from '../../../protocol/limits.ts';
import { restoreFormats, selectionPathsMax } from '../../restoring/types.ts';
import { Guid } from '../devices/shapes.ts';
import { UnsealReason } from '../keys/unseal.ts';
import { Moment } from '../moments.ts';
import { PageQuery } from '../users/pages.ts';
import { id, wantedText } from '../users/shapes.ts';

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
    at: Moment.optional().meta({ description: 'As of this moment' }),
    seq: z.int().min(0).optional().meta({ description: 'As of this seq, as an answer named it; neither: now' }),
    deleted: z.boolean().default(false).meta({ description: 'What was deleted by then too, as it last was' }),
    format: z.enum(restoreFormats).default('zip').meta({
      description:
        'A zip opens everywhere. A tar has owners, hard links, exact times, and names as they are, whatever their bytes. An export stays sealed: for backups that the server cannot open, and opened by the agent with their keys (docs/export.md)',
    }),
    kind: z.enum(['streamed', 'staged']).default('streamed').meta({
      description:
        'streamed: made while it is sent, once to its end. staged: made by a worker and kept for a time, to be fetched as often as wanted, in ranges, and with a link',
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

// In the order in which a table shows it: what there is room for comes first.
const view = {
  id,
  kind: z.enum(['streamed', 'staged', 'pushed']),
  state: z.enum(restoreStates).meta({
    description:
      'planned: to be fetched (staged: begun) until `lapsesAt`; completed: everything was sent (staged: is there, to be fetched until `lapsesAt`); broken: ended before its end, and may be fetched again; refused: whoever asked was no more allowed while it went on',
  }),
  device: z.strictObject({ guid: Guid, name: z.string().nullable() }),
  user: z.strictObject({ id, name: z.string() }).meta({ description: 'Whose archive it is' }),
  askedBy: z.strictObject({ kind: z.enum(['user', 'client']), id, name: z.string() }),
  begunAt: time.nullable(),
  endedAt: time.nullable(),
  planned: z.strictObject({
    files: count,
    folders: count,
    links: count,
    bytes: count,
    damaged: count.meta({ description: 'Files that cannot be had as things stand; among `files`' }),
    gone: count.meta({ description: 'Deleted files of which no content is kept' }),
    thinned: count.meta({
      description:
        'What was there before the moment, and retention has kept no version of from then: not in what is restored, and not in `files`',
    }),
    missing: count.meta({ description: 'Paths where nothing was' }),
  }),
  done: z.strictObject({
    files: count,
    bytes: count,
    sentBytes: count.meta({ description: 'Of the zip or tar' }),
    leftOut: count.meta({ description: 'Files; the archive names all of them in its last entry' }),
  }),
  why: z.string().nullable().meta({ description: 'Why it ended as it did; null: nothing to say' }),
  reason: z.string().nullable(),
  at: time.nullable().meta({ description: 'The moment as it was asked for; null: by its seq' }),
  format: z.enum(restoreFormats).nullable().meta({ description: 'Null: pushed to a device, which writes files' }),
  seq: count.meta({ description: 'The moment of the archive' }),
  deleted: z.boolean(),
  paths: count.meta({ description: 'How many were chosen' }),
  tries: count,
  staged: z
    .strictObject({
      percent: z.int().min(0).max(100).meta({ description: 'How much of it is made' }),
      length: count.nullable().meta({ description: 'Bytes of the archive, once it is made' }),
      waitsFor: z.enum(['worker', 'request']).nullable().meta({
        description: 'What makes it, or makes it anew: a worker by itself, or POST /stage; null: it is made, or was',
      }),
      fetchedBytes: count,
    })
    .nullable()
    .meta({ description: 'Of a staged one' }),
  pushed: z
    .strictObject({
      device: z.strictObject({ guid: Guid, name: z.string() }),
      folder: shownPath.nullable().meta({ description: 'Null: each file to the place it had' }),
      existing: z.enum(existingPolicies),
      permissions: z.enum(restoredPermissions),
      end: z
        .strictObject({ outcome: z.enum(commandOutcomes), counts: z.record(z.string(), count) })
        .nullable()
        .meta({ description: 'As its agent told; null: it has not' }),
    })
    .nullable()
    .meta({ description: 'The device that it is written to; null: it is none of these' }),
  permission: z.string().meta({ description: 'By which it was planned' }),
  address: z.string().nullable().meta({ description: 'Where it was asked from' }),
  createdAt: time,
  lapsesAt: time,
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

const historyFilter = {
  device: Guid.optional(),
  askedBy: idInQuery.optional().meta({ description: 'The user who asked' }),
  askedByClient: idInQuery.optional().meta({ description: 'The API client that asked' }),
  state: z.enum(restoreStates).optional(),
  since: Moment.optional().meta({ description: 'Planned at this moment or later' }),
  until: Moment.optional().meta({ description: 'Planned before this moment' }),
  kind: z.enum(['streamed', 'staged', 'pushed']).optional(),
  user: idInQuery.optional().meta({ description: 'Of whose archives' }),
  askedByName: wantedText(255).optional().meta({
    description:
      'In the name of who asked, as it was then; upper and lower case are the same, as the database knows them',
  }),
  bytesMin: z.coerce
    .number()
    .int()
    .min(0)
    .max(Number.MAX_SAFE_INTEGER)
    .optional()
    .meta({ description: 'Planned to be of at least so many bytes' }),
};

export const ListRestoresQuery = z.strictObject({ ...PageQuery, ...historyFilter });

const historyFormats = ['csv', 'jsonl'] as const;
export type HistoryFormat = (typeof historyFormats)[number];

export const ExportRestoresQuery = z.strictObject({
  ...historyFilter,
  format: z.enum(historyFormats).default('csv'),
});

export const RestoreTotalsQuery = z.strictObject({
  ...PageQuery,
  since: Moment,
  until: Moment.meta({ description: 'Not included; at most 366 days after `since`' }),
  othersOnly: z
    .enum(['0', '1'])
    .default('0')
    .transform((text) => text === '1')
    .meta({ description: '1: without what people restored of their own archives' }),
});

export const RestoreTotals = z.strictObject({
  items: z.array(
    z.strictObject({
      askedBy: z.strictObject({ kind: z.enum(['user', 'client']), id, name: z.string() }),
      user: z.strictObject({ id, name: z.string() }).meta({ description: 'Whose archives' }),
      restores: count,
      files: count,
      bytes: count,
      latestAt: time,
    }),
  ),
  next: z.string().nullable(),
});

/** What opens a vault of level `password`. */
export const RestoreContentRequest = z.strictObject({
  password: z.string().min(1).max(4_096).optional().meta({
    description: 'The archive password, where the backups are wrapped with one. It is kept nowhere',
    writeOnly: true,
  }),
});

/** Begins the staging of what no worker begins by itself. */
export const StageRestoreRequest = RestoreContentRequest;

export const linkSecondsMax = 24 * 60 * 60;

export const LinkRequest = z.strictObject({
  seconds: z
    .int()
    .min(60)
    .max(linkSecondsMax)
    .default(linkSecondsMax)
    .meta({ description: 'How long it opens; never longer than the archive is kept' }),
});

export const LinkAnswer = z.strictObject({
  url: z.string().optional().meta({
    description: 'Opens this archive to whoever has it, without a sign-in. Shown once: a repeated request has none',
  }),
  expiresAt: time,
});
