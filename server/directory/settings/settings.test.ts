import { describe, expect, test } from '@jest/globals';
import { defaultRetention } from '../../../storage/archive/retention/retention.ts';
import {
  groupOf,
  isSettingName,
  readSetting,
  type SettingName,
  settingDefinitions,
  settingNames,
} from './definitions.ts';
import { effectiveSetting, effectiveSettings, type OwnSettings } from './effective.ts';

const organization = (id: number, own: OwnSettings['own'] = {}): OwnSettings => ({
  organization: { id, name: `organization ${id}` },
  own,
});
const of = (value: unknown, locked = false) => ({ 'coldStorage.days': { value, locked } }) as OwnSettings['own'];
const cold = (...path: OwnSettings[]) => effectiveSetting('coldStorage.days', path);
const named = (id: number) => ({ organization: { id, name: `organization ${id}` } });

describe('definitions', () => {
  test.each(settingNames)('%s: its default is a value it takes, and it says what it does', (name) => {
    const { byDefault, says } = settingDefinitions[name];
    expect(readSetting(name, byDefault)).toEqual({ value: byDefault });
    expect(says.length).toBeGreaterThan(20);
    expect(groupOf(name)).toMatch(/^[a-z][A-Za-z]+$/);
  });

  test.each<[SettingName, unknown]>([
    ['quotas.bytes', -1],
    ['quotas.bytes', 0],
    ['quotas.bytes', Number.MAX_SAFE_INTEGER],
    ['coldStorage.days', 1],
    ['coldStorage.days', 36_500],
    ['backupDefaults.everyMinutes', 525_600],
    ['backupDefaults.include', ['x'.repeat(4_096)]],
    ['backupDefaults.include', Array.from({ length: 1_000 }, () => 'x')],
    ['webRestore.userBytesMax', 0],
  ])('%s takes %j, which is at its edge', (name, value) => {
    expect(readSetting(name, value)).toEqual({ value });
  });

  test.each<[SettingName, unknown]>([
    ['quotas.bytes', -2],
    ['quotas.bytes', 1.5],
    ['quotas.bytes', Number.MAX_SAFE_INTEGER + 1],
    ['quotas.bytes', '5'],
    ['quotas.bytes', null],
    ['coldStorage.days', 0],
    ['coldStorage.days', 36_501],
    ['backupDefaults.everyMinutes', 525_601],
    ['backupDefaults.include', ['']],
    ['backupDefaults.include', ['x'.repeat(4_097)]],
    ['backupDefaults.include', Array.from({ length: 1_001 }, () => 'x')],
    ['webRestore.userBytesMax', -1],
    ['keyEscrow.level', 'none'],
    ['signIn.twoFactor', 'yes'],
  ])('%s does not take %j, and the fault names it', (name, value) => {
    const { faults } = readSetting(name, value);
    expect(faults!.length).toBeGreaterThan(0);
    for (const { field, message } of faults!) {
      expect(field.startsWith(name)).toBe(true);
      expect(message.startsWith(field)).toBe(true);
    }
  });

  test('a fault in a policy names the field in it', () => {
    const windows = defaultRetention.windows.map((window) => ({ ...window }));
    windows[1]!.everyMinutes = -1;
    const { faults } = readSetting('retention.policy', { ...defaultRetention, windows });
    expect(faults!.map(({ field }) => field)).toContain('retention.policy.windows.1.everyMinutes');
  });

  test.each(['toString', '__proto__', 'retention', ''])('%j names no setting', (name) => {
    expect(isSettingName(name)).toBe(false);
  });
});

describe('inheritance', () => {
  test.each<[string, OwnSettings[], unknown, unknown]>([
    ['nobody has said', [organization(1), organization(2)], 365, 'default'],
    ['the top has', [organization(1, of(30)), organization(2), organization(3)], 30, named(1)],
    ['the nearest above wins', [organization(1, of(30)), organization(2, of(60)), organization(3)], 60, named(2)],
    ['its own wins', [organization(1, of(30)), organization(2, of(60))], 60, named(2)],
    ['not before a lock', [organization(1, of(30, true)), organization(2, of(60))], 30, named(1)],
    ['the topmost lock wins', [organization(1, of(30, true)), organization(2, of(60, true))], 30, named(1)],
    ['a lock binds those below it only', [organization(1, of(30)), organization(2, of(60, true))], 60, named(2)],
  ])('%s', (_, path, value, from) => {
    expect(cold(...path)).toMatchObject({ value, from, faults: [] });
  });

  test('says who has locked it, whether it locks itself, and whether its own value is put aside', () => {
    const top = organization(1, of(30, true));
    expect(cold(top)).toMatchObject({ lockedBy: null, locks: true, overridden: false });
    expect(cold(top, organization(2))).toMatchObject({ lockedBy: { id: 1 }, locks: false, overridden: false });
    expect(cold(top, organization(2, of(60)))).toMatchObject({ lockedBy: { id: 1 }, locks: false, overridden: true });
    expect(cold(organization(1, of(30)), organization(2, of(60)))).toMatchObject({ lockedBy: null, overridden: false });
  });

  test('what is put aside holds again when the lock is gone', () => {
    const child = organization(2, of(60));
    expect(cold(organization(1, of(30, true)), child).value).toBe(30);
    expect(cold(organization(1, of(30)), child).value).toBe(60);
    expect(cold(organization(1), child).value).toBe(60);
  });

  test('a quota of an organization is not its children\u2019s', () => {
    const own = { 'quotas.bytes': { value: 5, locked: true }, 'quotas.bytesPerUser': { value: 7, locked: false } };
    const path = [organization(1, own), organization(2)];
    expect(effectiveSetting('quotas.bytes', path)).toMatchObject({ value: -1, from: 'default', lockedBy: null });
    expect(effectiveSetting('quotas.bytesPerUser', path)).toMatchObject({ value: 7, from: named(1) });
    expect(effectiveSetting('quotas.bytes', path.slice(0, 1))).toMatchObject({ value: 5, locks: true });
  });

  test('a stored value that cannot be read is nobody\u2019s value, and the one above it does not stand in', () => {
    const found = cold(organization(1, of(30)), organization(2, of('a year')), organization(3));
    expect(found).toMatchObject({ value: null, from: named(2) });
    expect(found.faults[0]!.field).toBe('coldStorage.days');
  });

  test('all settings at once, each with its own source', () => {
    const all = effectiveSettings([organization(1, of(30)), organization(2)]);
    expect(all.map(({ name }) => name)).toEqual(settingNames);
    expect(all.filter(({ from }) => from !== 'default').map(({ name }) => name)).toEqual(['coldStorage.days']);
  });

  test('there is no setting of no organization', () => {
    expect(() => cold()).toThrow(RangeError);
  });
});
