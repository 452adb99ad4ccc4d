/** What is sent and answered about repositories of restic. */
import { z } from 'zod';
import { undoBounds } from '../../../storage/archive/plain-files/undo.ts';
import { Health } from '../devices/health.ts';
import { Guid } from '../devices/shapes.ts';
import { UnsealReason } from '../keys/unseal.ts';
import { EffectiveStateView } from '../users/effective-state.ts';
import { PageQuery } from '../users/pages.ts';
import { id, line, prefix } from '../users/shapes.ts';

const tokenModes = ['full', 'append', 'read'] as const;
/** Tokens of a repository that are in force, at most. */
export const tokensMax = 100;
const tokenDaysMax = 3_660;
/** Days of deletes that a repository is shown with. */
export const deleteDaysShown = 31;

/** A time that a file may be of. What a calendar has beyond these years, PostgreSQL and `Date` write each in their own way. */
export const isMoment = (text: string): boolean => Date.parse(text) >= 0 && Date.parse(text) < Date.UTC(10_000, 0);
const moment = z.iso.datetime({ offset: true }).refine(isMoment, 'is before 1970, or after the year 9999');
const time = z.iso.datetime();
const count = z.int().meta({ description: 'Bytes, or files.' });

export const RepositoryName = z
  .string()
  .regex(/^[A-Za-z0-9._-]{1,64}$/, 'is 1 to 64 letters (a to z), digits, dots, dashes and underscores')
  .refine((name) => name !== '.' && name !== '..', 'is no name in a URL')
  .meta({ description: 'Stands in its URL; one among the repositories of its user, whatever state they are in.' });

const newToken = {
  name: line(255).default('first').meta({ description: 'What the token is for, for people.' }),
  mode: z.enum(tokenModes).default('full').meta({
    description:
      'full: everything. append: deletes nothing but locks, so no `forget` and no `prune`. read: writes nothing but locks.',
  }),
  days: z.int().min(1).max(tokenDaysMax).nullable().default(null).meta({
    description: 'How long it is good. null: until it is revoked.',
  }),
};

/** Whoever has only an access token gets nothing that lasts longer. */
const proof = {
  password: z.string().min(1).max(1_024).nullable().meta({
    description: 'Your password. null: you have none here, and have just signed in at your identity provider.',
  }),
  code: z.string().min(1).max(64).optional().meta({
    description: 'Of your second factor, if you have one, or a recovery code.',
  }),
};

export const CreateTokenRequest = z.strictObject(newToken);
export const CreateOwnTokenRequest = z.strictObject({ ...newToken, ...proof });
const token = z.strictObject(newToken).prefault({}).meta({ description: 'Its first token.' });
export const CreateRepositoryRequest = z.strictObject({ name: RepositoryName, token });
export const CreateOwnRepositoryRequest = z.strictObject({ name: RepositoryName, token, ...proof });

export const TokenView = z.strictObject({
  id,
  name: z.string(),
  mode: z.enum(tokenModes),
  state: z.enum(['inForce', 'expired', 'revoked']),
  createdAt: time,
  createdBy: z.string(),
  expiresAt: time.nullable(),
  lastUsedAt: time.nullable().meta({ description: 'To a minute.' }),
  revokedAt: time.nullable(),
});

/** What stands in this answer and nowhere else. */
const secret = {
  token: z.string().meta({ description: 'Shown once: RESTIC_REST_PASSWORD.' }),
  url: z.string().meta({ description: 'For `restic -r`, with the token in it. Shown once.' }),
};

export const TokenWithSecret = TokenView.extend(secret);

const Figures = z.strictObject({
  files: count,
  bytes: count,
  hiddenFiles: count,
  hiddenBytes: count,
  lastAddedAt: time.nullable(),
});

export const RepositoryView = z.strictObject({
  guid: Guid,
  name: RepositoryName,
  user: z.strictObject({ id, name: z.string() }),
  organization: z.strictObject({ id, name: z.string() }),
  path: z.string().meta({ description: 'Of the server: what comes after its name in the URL.' }),
  state: z.enum(['active', 'blocked', 'deauthorized', 'deactivated']).meta({ description: 'Its own.' }),
  effective: EffectiveStateView,
  health: Health.nullable().meta({
    description:
      'By its newest snapshot that came while there is one. Null: no backups are expected, or the settings cannot be read.',
  }),
  lastBackupAt: time.nullable().meta({ description: 'When a snapshot last came, if there is any now.' }),
  lastConnectedAt: time.nullable().meta({ description: 'To five minutes.' }),
  files: count,
  bytes: count.meta({ description: 'Of the files that are there, as restic made them.' }),
  hiddenFiles: count,
  hiddenBytes: count.meta({
    description:
      'Deleted, and kept to be had back. Not charged to quotas, unless something that is there is stored as the same.',
  }),
  createdAt: time,
  version: z.int(),
});

export const RepositoryDetails = RepositoryView.extend({
  undeleteDays: z.int().nullable().meta({ description: 'Null: the setting cannot be read, and nothing is deleted.' }),
  folders: z
    .record(z.string(), Figures)
    .meta({ description: 'By type of file: `data`, `snapshots` ... and `config`.' }),
  deletes: z
    .array(z.strictObject({ day: z.string(), files: count, bytes: count }))
    .meta({ description: `Days (UTC) on which files were deleted, the newest first; at most ${deleteDaysShown}.` }),
});

export const CreatedRepository = z.strictObject({ repository: RepositoryView, token: TokenView });
export const CreatedRepositoryWithSecret = z.strictObject({ repository: RepositoryView, token: TokenWithSecret });

const idInQuery = z.coerce.number().pipe(id);
export const ListRepositoriesQuery = z.strictObject({
  ...PageQuery,
  user: idInQuery.optional(),
  below: idInQuery.optional().meta({ description: 'Of users in this organization or below it.' }),
  search: prefix.optional().meta({ description: 'How the name begins, whatever its case.' }),
});
export const RepositoryPage = z.strictObject({ items: z.array(RepositoryView), next: z.string().nullable() });
export const ListTokensQuery = z.strictObject(PageQuery);
export const TokenPage = z.strictObject({ items: z.array(TokenView), next: z.string().nullable() });

const fileTypes = ['data', 'index', 'keys', 'snapshots', 'config'] as const;

export const ListHiddenQuery = z.strictObject({
  ...PageQuery,
  type: z.enum(fileTypes).optional(),
  since: moment.optional().meta({ description: 'Deleted then or later.' }),
  until: moment.optional().meta({ description: 'Deleted before.' }),
});

const fileName = z.string().regex(/^(config|(data|index|keys|snapshots)\/[0-9a-f]{64})$/, 'is no file of a repository');

export const HiddenPage = z.strictObject({
  items: z.array(
    z.strictObject({
      name: fileName,
      bytes: z.int(),
      addedAt: time,
      deletedAt: time,
      goesAfter: time.nullable().meta({
        description: 'From then on it may go, unless a legal hold keeps it. Null: the setting cannot be read.',
      }),
    }),
  ),
  next: z.string().nullable().meta({ description: 'A page may hold fewer than asked for and still have a next.' }),
});

const next = z.string().max(400).nullable().meta({ description: 'Not all is done: ask again with this as `after`.' });
const after = z.string().min(1).max(400).optional().meta({ description: 'The `next` of the answer before.' });
const reason = UnsealReason.optional().meta({ description: 'Why. Needed for a repository that is not your own.' });

export const UndeleteRequest = z
  .strictObject({
    names: z
      .array(fileName)
      .min(1)
      .max(1_000)
      .refine((names) => new Set(names).size === names.length, 'names a file twice')
      .optional(),
    since: moment.optional().meta({ description: 'All that was deleted then or later, but locks.' }),
    after,
    reason,
  })
  .refine(({ names, since }) => (names === undefined) !== (since === undefined), {
    message: 'names files, or a moment',
    path: ['since'],
  });

const Counted = z.record(z.string(), z.strictObject({ files: z.int(), bytes: z.int() }));
const outcome = {
  shown: Counted.meta({ description: 'Had back, by type of file.' }),
  damaged: z.strictObject({ files: z.int(), first: z.array(z.string()) }).meta({
    description: `Left out: their content is damaged. At most ${undoBounds.namesToldMax} by name.`,
  }),
  next,
};

export const Undeleted = z.strictObject({
  ...outcome,
  gone: z.array(z.string()).meta({ description: 'Of the names those that never were, or of which nothing is left.' }),
});

const hideNewKeys = {
  description:
    'Also hides keys that came later. Whoever has changed the password of the repository since, and has only the new one, is locked out by it.',
};
export const SetBackQuery = z.strictObject({
  to: moment,
  after,
  hideNewKeys: z
    .enum(['true', 'false'])
    .default('false')
    .transform((text) => text === 'true')
    .meta(hideNewKeys),
});

export const SetBackRequest = z.strictObject({
  to: moment.meta({
    description:
      'The repository is as it was then: what came later is hidden (but keys), what was hidden since is back.',
  }),
  after,
  reason,
  hideNewKeys: z.boolean().default(false).meta(hideNewKeys),
  evenIfInUse: z.boolean().default(false).meta({
    description: 'Although a restic program has it locked. What that program is writing may be useless afterwards.',
  }),
  evenIfIncomplete: z.boolean().default(false).meta({
    description: 'Although some of what was there then is gone for good.',
  }),
});

export const SetBack = z.strictObject({
  ...outcome,
  hidden: Counted.meta({ description: 'Came later, or were locks.' }),
  inUseSince: time
    .nullable()
    .meta({ description: 'When a restic program last locked it, within half an hour; null: none did.' }),
  complete: z.boolean().meta({
    description: 'All that was there then can be had. false: some was deleted longer ago than deleted files are kept.',
  }),
});
