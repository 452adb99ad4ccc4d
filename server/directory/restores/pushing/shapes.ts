/** What is sent and answered about restores that are pushed to devices, and about looking into their folders. */
import { z } from 'zod';
import { browseFaults, existingPolicies, restoredPermissions } from '../../../../protocol/commands.ts';
import { limits } from '../../../../protocol/limits.ts';
import { fileKinds } from '../../../../protocol/messages.ts';
import { Guid } from '../../devices/shapes.ts';
import { PlanRestoreRequest } from '../shapes.ts';

const base64url = (bytesMax: number) =>
  z
    .string()
    .min(1)
    .max(Math.ceil((bytesMax * 4) / 3))
    .regex(/^[\w-]+$/, 'is not base64url')
    // One character is less than a byte.
    .refine((text) => text.length >= 2, 'is no bytes');

const asked = PlanRestoreRequest.shape;

export const PushRestoreRequest = z
  .strictObject({
    device: asked.device.meta({ description: 'Whose archive it is of' }),
    paths: asked.paths,
    pathBytes: asked.pathBytes,
    at: asked.at,
    seq: asked.seq,
    deleted: asked.deleted,
    reason: asked.reason,
    to: z.strictObject({
      device: Guid.meta({ description: 'The device that writes it: of the same user' }),
      folder: z.string().min(1).max(limits.pathBytesMax).optional().meta({
        description: 'A folder of that device, as it calls it (C:\\Restored on Windows); made when it is not there',
      }),
      folderBytes: base64url(limits.pathBytesMax)
        .optional()
        .meta({ description: 'One that is no text, as base64url of the path as archives hold it' }),
      original: z.literal(true).optional().meta({ description: 'Instead of a folder: each file to the place it had' }),
    }),
    existing: z.enum(existingPolicies).default('rename').meta({
      description:
        'What becomes of something else that stands in the place of a file: it is renamed aside, or replaced',
    }),
    permissions: z.enum(restoredPermissions).default('original').meta({
      description:
        'original: mode and owner as they were; current: as the folder there, and whoever its agent runs as, make them',
    }),
  })
  .refine(({ at, seq }) => at === undefined || seq === undefined, {
    message: 'a moment is given as a time or as a seq, not both',
    path: ['seq'],
  })
  .refine(({ to }) => [to.folder, to.folderBytes, to.original].filter((each) => each !== undefined).length === 1, {
    message: 'is one of `folder`, `folderBytes` and `original`',
    path: ['to'],
  });
export type PushRestore = z.output<typeof PushRestoreRequest>;

export const BrowseDeviceRequest = z
  .strictObject({
    path: z
      .string()
      .min(1)
      .max(limits.pathBytesMax)
      .optional()
      .meta({ description: 'A folder, as the device calls it; left out, with `pathBytes`: where to begin' }),
    pathBytes: base64url(limits.pathBytesMax).optional().meta({ description: 'Base64url, in the place of `path`' }),
    after: base64url(limits.pathBytesMax).optional().meta({ description: 'The `next` of the page before' }),
    limit: z.int().min(1).max(limits.pageEntriesMax).default(limits.pageEntriesMax),
  })
  .refine(({ path, pathBytes }) => path === undefined || pathBytes === undefined, {
    message: 'a path is given as text or as bytes, not both',
    path: ['pathBytes'],
  });
export type BrowseDevice = z.output<typeof BrowseDeviceRequest>;

export const BrowsedFolder = z.strictObject({
  entries: z.array(
    z.strictObject({
      name: z.string().nullable().meta({ description: 'Whole paths where to begin. Null: its bytes are no text' }),
      nameBytes: z.string().optional().meta({ description: 'Base64url, where they are no text' }),
      kind: z.enum([...fileKinds, 'other']),
      bytes: z.int(),
      modifiedAt: z.iso.datetime().nullable(),
      readOnly: z.boolean().optional(),
    }),
  ),
  next: z.string().nullable().meta({ description: 'To go on with; null: there are no more' }),
  fault: z
    .strictObject({ code: z.enum([...browseFaults, 'shown_once']), detail: z.string() })
    .nullable()
    .meta({
      description:
        'Why the device shows nothing; null: it does. shown_once: this is a repeated request, and what the first one showed is kept nowhere',
    }),
});
export type Browsed = z.output<typeof BrowsedFolder>;
