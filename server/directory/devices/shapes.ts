/** What is sent and answered about devices. */
import { z } from 'zod';
import { runOutcomes, skipReasons } from '../../../protocol/messages.ts';
import { Moment, MomentAhead } from '../moments.ts';
import { EffectiveStateView, effectiveStates } from '../users/effective-state.ts';
import { PageQuery } from '../users/pages.ts';
import { id, line, prefix } from '../users/shapes.ts';
import { Health } from './health.ts';

export const platforms = ['linux', 'darwin', 'win32', 'other'] as const;
const idInQuery = z.coerce.number().pipe(id);

export const Guid = z
  .string()
  .regex(/^[1-9]\d{0,18}$/, { error: 'is no GUID', abort: true })
  .refine((text) => BigInt(text) < 1n << 63n, 'is no GUID')
  .meta({ description: 'A decimal 64-bit integer, as text.', examples: ['1000001'] });

export const RenameDeviceRequest = z.strictObject({ name: line(255) });

export const ColdUntilRequest = z.strictObject({
  until: MomentAhead.meta({ description: 'Until then the archive is kept; 20 days later its versions are deleted.' }),
});

export const ColdUntilView = z.strictObject({ coldUntil: z.iso.datetime() });

export const RunView = z.strictObject({
  run: id,
  startedAt: z.iso.datetime(),
  lastHeardAt: z.iso.datetime(),
  finishedAt: z.iso.datetime().nullable(),
  outcome: z.enum(runOutcomes).nullable().meta({ description: 'Null while it goes on.' }),
  reason: z.string(),
  counts: z
    .record(z.string(), z.number())
    .nullable()
    .meta({ description: 'As the agent told them; null: it never did.' }),
});

export const ArchiveView = z.strictObject({
  id,
  state: z.enum(['active', 'cold', 'expired']),
  coldUntil: z.iso.datetime().nullable(),
  expiredAt: z.iso.datetime().nullable(),
  versions: z.int(),
  liveFiles: z.int().meta({ description: 'Files that exist and have content.' }),
  bytesSelected: z
    .int()
    .nullable()
    .meta({ description: 'Plain bytes of what the last completed run saw; null: there was none.' }),
});

export const DeviceView = z.strictObject({
  guid: Guid,
  name: z.string(),
  kind: z.enum(['agent', 'restic']).meta({ description: 'restic: a repository, which has no agent: /v1/repositories' }),
  user: z.strictObject({ id, name: z.string() }),
  organization: z.strictObject({ id, name: z.string() }),
  platform: z.enum(platforms),
  agentVersion: z.string(),
  state: z.enum(['active', 'blocked', 'deauthorized', 'deactivated']).meta({ description: 'Its own.' }),
  effective: EffectiveStateView,
  health: Health.nullable().meta({
    description:
      'By the last completed run, of a repository by its newest snapshot. Null: no backups are expected of it, or the settings cannot be read.',
  }),
  lastConnectedAt: z.iso.datetime().nullable().meta({ description: 'To five minutes.' }),
  channel: z
    .strictObject({
      isOpen: z.boolean().meta({ description: 'It is there now: what it is told it does at once' }),
      connectedAt: z.iso.datetime(),
      heardAt: z.iso.datetime().meta({ description: 'To two minutes' }),
    })
    .nullable()
    .meta({
      description: 'On which it is told what to do. Null: its agent never asked; an older one, or one without `watch`',
    }),
  lastActivityAt: z.iso
    .datetime()
    .nullable()
    .meta({ description: 'When a run last told something, however it ended.' }),
  lastCompletedAt: z.iso.datetime().nullable().meta({ description: 'Of a repository: when a snapshot last came.' }),
  lastRun: RunView.nullable(),
  archive: ArchiveView,
  createdAt: z.iso.datetime(),
  version: z.int(),
});

export const DeviceDetails = DeviceView.extend({
  lastCompletedRun: RunView.nullable(),
  skipped: z
    .array(z.strictObject({ reason: z.enum(skipReasons), files: z.int() }))
    .meta({ description: 'What the last run left out, by reason.' }),
  userStoredBytes: z.int().meta({ description: "Sealed bytes stored for all of the user's devices together." }),
});

export const DevicePage = z.strictObject({
  items: z.array(DeviceView),
  next: z.string().nullable().meta({ description: 'A page may hold fewer than asked for and still have a next.' }),
});

export const ListDevicesQuery = z.strictObject({
  ...PageQuery,
  user: idInQuery.optional(),
  organization: idInQuery.optional().meta({ description: 'Of users in this organization itself.' }),
  below: idInQuery.optional().meta({ description: 'Of users in this organization or below it.' }),
  state: z.enum(effectiveStates).optional().meta({ description: 'What holds, not its own.' }),
  search: prefix.optional().meta({ description: 'How the name begins, whatever its case.' }),
  platform: z.enum(platforms).optional(),
  health: Health.optional(),
  connectedBefore: Moment.optional().meta({ description: 'Not connected since.' }),
  completedBefore: Moment.optional().meta({ description: 'No run completed since; also when none ever did.' }),
});

export const ListSkippedQuery = z.strictObject({
  after: z
    .string()
    .regex(/^[0-9a-f]{64}$/)
    .optional()
    .meta({ description: 'The `next` of the page before.' }),
  limit: PageQuery.limit,
  reason: z.enum(skipReasons).optional(),
});

export const SkippedPage = z.strictObject({
  run: id.nullable().meta({ description: 'The last run; null: there was none.' }),
  items: z.array(
    z.strictObject({
      path: z.string().meta({ description: 'As it can be shown.' }),
      pathBytes: z.string().meta({ description: 'As it is, in base64url.' }),
      reason: z.enum(skipReasons),
      detail: z.string(),
    }),
  ),
  next: z.string().nullable(),
});

export type DeviceRecord = z.infer<typeof DeviceView>;
