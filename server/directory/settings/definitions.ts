/**
 * Every setting an organization can have, by group: what values it takes, and what it is when nobody has said. The one
 * list that the API, the inheritance and the documentation are made from.
 *
 * A stored value is read by the same schema that let it in. One that this code cannot read is an error where it is
 * needed, and never passed over for the parent's or the default: those may delete or show what it was made to keep.
 */
import { z } from 'zod';
import { undeleteDaysMax } from '../../../storage/archive/retention/plain-policies.ts';
import { defaultRetention, type RetentionPolicy } from '../../../storage/archive/retention/retention.ts';
import { readPolicyDocument } from '../retention-document.ts';

const unlimited = -1;
const megabyte = 1_000_000;

/** Bytes; 0: none. */
const bytes = z.int().min(0).max(Number.MAX_SAFE_INTEGER);
/** -1: no bound. */
const quota = z.int().min(unlimited).max(Number.MAX_SAFE_INTEGER);
const days = z.int().min(1).max(36_500);
const minutes = z.int().min(1).max(525_600);
/** PostgreSQL holds no NUL, and half a surrogate pair is no character. */
const pattern = z
  .string()
  .min(1)
  .max(4_096)
  .refine((text) => text.isWellFormed() && !text.includes('\0'), 'is no path');
const patterns = z.array(pattern).max(1_000);

/** Through the one way in for policies, which knows what windows may follow one another. */
const retentionPolicy = z.unknown().transform((value, context): RetentionPolicy => {
  const { policy, faults } = readPolicyDocument(value);
  if (policy) return policy;
  for (const { field, message } of faults) {
    const path = field === '' ? [] : field.split('.');
    context.addIssue({ code: 'custom', path, message, input: value });
  }
  return z.NEVER;
});

export interface SettingDefinition<Value> {
  schema: z.ZodType<Value>;
  byDefault: Value;
  /** What it does, for people. */
  says: string;
  /**
   * Whether children have it too. A quota of an organization counts everything below it, so it binds them without being
   * theirs.
   */
  inherited: boolean;
}

const setting = <Value>(
  schema: z.ZodType<Value>,
  byDefault: Value,
  says: string,
  { inherited = true } = {},
): SettingDefinition<Value> => ({ schema, byDefault, says, inherited });

export const settingDefinitions = {
  'retention.policy': setting<RetentionPolicy>(
    retentionPolicy,
    defaultRetention,
    'Which versions of files stay, and for how long.',
  ),
  'webRestore.userBytesMax': setting(
    bytes,
    250 * megabyte,
    'Most bytes of one restore that a user fetches with a browser. 0: none.',
  ),
  'webRestore.administratorBytesMax': setting(
    bytes,
    250 * megabyte,
    'The same for an administrator, for `restore.limited`. 0: none.',
  ),
  'restoreAlerts.bytesPerDay': setting(
    quota,
    100 * 1_000 * megabyte,
    'Most bytes of the archives of its users that somebody else restores within a day, in all ways together. Whoever would come to more is refused, raises an alert, and restores nothing until somebody else has reviewed it. -1: no bound.',
  ),
  'quotas.seats': setting(quota, unlimited, 'Most active users, in the organization and below it. -1: no bound.', {
    inherited: false,
  }),
  'quotas.bytes': setting(quota, unlimited, 'Most bytes stored, in the organization and below it. -1: no bound.', {
    inherited: false,
  }),
  'quotas.bytesPerUser': setting(quota, unlimited, 'Most bytes stored of one user. -1: no bound.'),
  'alerts.userWarningDays': setting(days, 3, 'Days without a completed backup after which a user is warned.'),
  'alerts.userCriticalDays': setting(days, 5, 'Days without a completed backup after which a user is alarmed.'),
  'alerts.administratorWarningDays': setting(days, 7, 'The same, for those who administer the organization.'),
  'alerts.administratorCriticalDays': setting(days, 14, 'The same, for those who administer the organization.'),
  'keyEscrow.level': setting(
    z.enum(['free', 'standard', 'password', 'custom']),
    'free',
    'Who can open backups: the server too (`standard`), whoever has the archive password (`password`), whoever has the key (`custom`); `free`: each user chooses.',
  ),
  'coldStorage.days': setting(days, 365, 'How long the archive of a deactivated device is kept.'),
  'restic.undeleteDays': setting(
    z.int().min(0).max(undeleteDaysMax),
    30,
    'For how many days what restic deletes in a repository is hidden, and can be had back. 0: it goes at the next prune.',
  ),
  'backupDefaults.include': setting(patterns, [], 'Folders that a new device backs up. None: the home folders.'),
  'backupDefaults.exclude': setting(patterns, [], 'Patterns of paths that a new device leaves out.'),
  'backupDefaults.everyMinutes': setting(minutes, 15, 'How often a device looks for what has changed.'),
  // No less than a month: whoever has taken over an administrator could otherwise have the log forget it overnight.
  'auditLog.days': setting(
    z.int().min(30).max(36_500),
    36_500,
    'How long acts stay in the audit log. Counts at the top of the tenant only: of several there, the longest.',
    { inherited: false },
  ),
  'signIn.twoFactor': setting(z.boolean(), false, 'Users with a password must have a second factor.'),
  'signIn.password': setting(
    z.boolean(),
    true,
    'Users may sign in with a password; off: by the identity provider only.',
  ),
  'devices.readOthers': setting(z.boolean(), true, "A device may read the archives of its user's other devices."),
} as const satisfies Record<string, SettingDefinition<never> | SettingDefinition<unknown> | object>;

export type SettingName = keyof typeof settingDefinitions;
export type SettingValue<Name extends SettingName> = (typeof settingDefinitions)[Name]['byDefault'] extends infer Value
  ? Name extends 'keyEscrow.level'
    ? 'free' | 'standard' | 'password' | 'custom'
    : Value
  : never;

export const settingNames = Object.keys(settingDefinitions) as SettingName[];

export const isSettingName = (name: string): name is SettingName => Object.hasOwn(settingDefinitions, name);

/** The part before the dot: settings that are shown and changed together. */
export const groupOf = (name: SettingName): string => name.slice(0, name.indexOf('.'));

export interface SettingFault {
  /** A path such as `retention.policy.windows.1.untilDays`. */
  field: string;
  message: string;
}

/** Exactly one of the two is there. */
export type ReadSetting<Value> = { value: Value; faults?: never } | { value?: never; faults: SettingFault[] };

/** Reads a value, sent or stored, or says all that is wrong with it. */
export function readSetting<Name extends SettingName>(name: Name, value: unknown): ReadSetting<SettingValue<Name>> {
  const parsed = (settingDefinitions[name].schema as z.ZodType).safeParse(value);
  if (parsed.success) return { value: parsed.data as SettingValue<Name> };
  const faults = parsed.error.issues.map(({ path, message }) => {
    const field = [name, ...path].join('.');
    return { field, message: `${field}: ${message}` };
  });
  return { faults };
}
