/**
 * What a setting is for an organization, and why: pure. A value an organization has of its own holds for it and for all
 * below it that have none. One that it *locks* holds for all below it, whatever they have: theirs is kept, and holds
 * again when the lock is gone.
 */
import {
  readSetting,
  type SettingFault,
  type SettingName,
  type SettingValue,
  settingDefinitions,
  settingNames,
} from './definitions.ts';

/** What an organization has said itself, as stored. */
export interface OwnSettings {
  organization: { id: number; name: string };
  own: Readonly<Partial<Record<SettingName, { value: unknown; locked: boolean }>>>;
}

export type SettingSource = 'default' | { organization: { id: number; name: string } };

export interface EffectiveSetting<Name extends SettingName = SettingName> {
  name: Name;
  /** Null: the stored value cannot be read; whoever needs it must do nothing. */
  value: SettingValue<Name> | null;
  from: SettingSource;
  /** Who has locked it, so that the organization asked about cannot change it; null: nobody above it. */
  lockedBy: { id: number; name: string } | null;
  /** The organization asked about has locked it for those below. */
  locks: boolean;
  /** It has a value of its own that does not hold now, because of the lock. */
  overridden: boolean;
  /** Why the value cannot be read. */
  faults: SettingFault[];
}

/**
 * @param path from the tenant's top organization down to the one asked about; at least one
 */
export function effectiveSetting<Name extends SettingName>(
  name: Name,
  path: readonly OwnSettings[],
): EffectiveSetting<Name> {
  const asked = path.at(-1);
  if (!asked) throw new RangeError('a path of organizations has at least one');
  const { byDefault, inherited } = settingDefinitions[name];
  const heard = inherited ? path : [asked];
  const lock = heard.find(({ own }) => own[name]?.locked === true);
  const source = lock ?? heard.findLast(({ own }) => own[name] !== undefined);
  const about = {
    name,
    lockedBy: lock && lock !== asked ? lock.organization : null,
    locks: asked.own[name]?.locked === true,
    overridden: asked.own[name] !== undefined && source !== asked,
  };
  if (!source) return { ...about, value: byDefault as SettingValue<Name>, from: 'default', faults: [] };
  const from = { organization: source.organization };
  const { value, faults } = readSetting(name, source.own[name]!.value);
  return faults
    ? { ...about, value: null, from, faults }
    : { ...about, value: value as SettingValue<Name>, from, faults: [] };
}

/** All of them, in the order in which they are defined. */
export function effectiveSettings(path: readonly OwnSettings[]): EffectiveSetting[] {
  return settingNames.map((name) => effectiveSetting(name, path));
}
