import { describe, expect, test } from '@jest/globals';
import { defaultRetention } from '../../../storage/archive/retention/retention.ts';
import { storageForFile } from '../../../tests/helpers/storage.ts';
import { readOrganization } from '../organizations/reading.ts';
import { testTenant } from '../organizations/testing.ts';
import { changeSettings } from './changing.ts';
import { type SettingName, settingNames } from './definitions.ts';
import { pushSettings } from './pushing.ts';
import { ChangeSettingsRequest, PushedSettings, PushSettingsRequest, SettingsView } from './shapes.ts';
import { effectiveSettingsOf, readSettings } from './stored.ts';

const storage = storageForFile();

async function world() {
  const its = await testTenant(storage.database);
  const [a, b] = (await its.chain(its.top, 'a', 'b')) as [number, number];
  const { tenant, by } = its;
  const change = (organization: number, changes: object, expected: number | null = null) =>
    storage.database.transaction((tx) =>
      changeSettings(tx, by, { tenant, organization, changes: ChangeSettingsRequest.parse(changes), expected }),
    );
  const push = (organization: number, settings: SettingName[], expected: number | null = null) =>
    storage.database.transaction((tx) => pushSettings(tx, by, { tenant, organization, settings, expected }));
  const read = (organization: number) => readSettings(storage.database, { tenant, organization });
  /** One setting, as the organization sees it. */
  const see = async (organization: number, name: SettingName) => {
    const [group, key] = name.split('.') as [string, string];
    return (await read(organization)).settings[group]![key]!;
  };
  const storeRaw = (organization: number, name: string, value: unknown) =>
    storage.rows(
      `INSERT INTO organization_settings (tenant_id, organization_id, name, value) VALUES ($1, $2, $3, $4::jsonb)
           ON CONFLICT (organization_id, name) DO UPDATE SET value = EXCLUDED.value`,
      [tenant, organization, name, JSON.stringify(value)],
    );
  return { ...its, a, b, change, push, read, see, storeRaw };
}

const cold = (days: number | null) => ({ coldStorage: { days } });

describe('reading', () => {
  test('all settings by group, each with where it comes from', async () => {
    const { top, a, b, read, change } = await world();
    await change(top, { settings: cold(30) });
    await change(a, { settings: { quotas: { seats: 5 } } });
    const found = await read(b);
    expect(SettingsView.parse(found)).toEqual(found);
    const names = Object.entries(found.settings).flatMap(([group, each]) =>
      Object.keys(each).map((key) => `${group}.${key}`),
    );
    expect(names.sort()).toEqual([...settingNames].sort());
    expect(found).toMatchObject({ organization: { id: b, name: 'b' }, version: 1 });
    expect(found.settings.coldStorage!.days).toEqual({
      value: 30,
      from: { organization: { id: top, name: 'top' } },
      own: null,
      lockedBy: null,
      locks: false,
      overridden: false,
      faults: [],
    });
    expect(found.settings.quotas!.seats).toMatchObject({ value: -1, from: 'default' });
    expect((await read(a)).settings.quotas!.seats).toMatchObject({ value: 5, own: 5 });
  });

  test('some of them, for the server', async () => {
    const { tenant, b, top, change } = await world();
    await change(top, { settings: { ...cold(30), retention: { policy: { ...defaultRetention, keepNewest: 3 } } } });
    const found = await effectiveSettingsOf(storage.database, tenant, b, ['coldStorage.days', 'retention.policy']);
    expect(Object.keys(found)).toEqual(['coldStorage.days', 'retention.policy']);
    const days: number | null = found['coldStorage.days'].value;
    expect(days).toBe(30);
    expect(found['retention.policy'].value).toEqual({ ...defaultRetention, keepNewest: 3 });
  });

  test("nothing of another tenant's", async () => {
    const [its, other] = [await world(), await world()];
    const names = ['coldStorage.days'] as const;
    await expect(effectiveSettingsOf(storage.database, its.tenant, other.a, names)).rejects.toMatchObject({
      code: 'not_found',
    });
    await expect(its.read(other.a)).rejects.toMatchObject({ code: 'not_found' });
    await expect(its.change(other.a, { settings: cold(1) })).rejects.toMatchObject({ code: 'not_found' });
    await expect(its.push(other.a, ['coldStorage.days'])).rejects.toMatchObject({ code: 'not_found' });
  });

  test.each([
    ['text', 'a year'],
    ['JSON null', null],
  ])('%s where a number of days should be holds for nobody, and is shown', async (_, value) => {
    const { tenant, top, a, b, see, change, storeRaw } = await world();
    await change(top, { settings: cold(30) });
    await storeRaw(a, 'coldStorage.days', value);
    expect(await see(b, 'coldStorage.days')).toMatchObject({
      value: null,
      from: { organization: { id: a } },
      faults: [{ field: 'coldStorage.days' }],
    });
    expect((await see(a, 'coldStorage.days')).own).toBe(value);
    const found = await effectiveSettingsOf(storage.database, tenant, b, ['coldStorage.days']);
    expect(found['coldStorage.days'].value).toBeNull();
    await change(a, { settings: cold(null) });
    expect(await see(b, 'coldStorage.days')).toMatchObject({ value: 30, faults: [] });
  });

  test('a name that this server does not know is nobody\u2019s setting', async () => {
    const { a, read, storeRaw } = await world();
    await storeRaw(a, '__proto__', 1);
    await storeRaw(a, 'later.setting', 1);
    expect(Object.keys((await read(a)).settings)).not.toContain('later');
  });
});

describe('changing', () => {
  test('sets and clears several at once, with one new version and an act for each', async () => {
    const { top, a, change, see, acts, tenant } = await world();
    const answer = await change(a, { settings: { ...cold(30), quotas: { seats: 5, bytes: -1 } } }, 1);
    expect(answer).toMatchObject({ version: 2, settings: { coldStorage: { days: { value: 30, own: 30 } } } });
    await change(a, { settings: { ...cold(60), quotas: { seats: null } } }, 2);
    expect(await see(a, 'quotas.seats')).toMatchObject({ value: -1, own: null, from: 'default' });
    expect(await see(a, 'quotas.bytes')).toMatchObject({ value: -1, own: -1 });
    expect((await readOrganization(storage.database, { tenant, organization: a })).version).toBe(3);
    expect((await readOrganization(storage.database, { tenant, organization: top })).version).toBe(1);
    expect((await acts('settings.change')).slice(-2)).toMatchObject([
      { target: `organization ${a}`, organization: a },
      { organization: a },
    ]);
    const told = (await acts('settings.change')).map(({ details }) => details);
    expect(told).toEqual(
      expect.arrayContaining([
        { setting: 'coldStorage.days', from: { value: 30, locked: false }, to: { value: 60, locked: false } },
        { setting: 'quotas.seats', from: { value: 5, locked: false }, to: null },
      ]),
    );
  });

  test('what is so already is no change', async () => {
    const { a, change, acts } = await world();
    const policy = { ...defaultRetention, keepNewest: 2 };
    await change(a, { settings: { retention: { policy } } });
    // jsonb keeps members in an order of its own.
    const again = { ...Object.fromEntries(Object.entries(policy).reverse()) };
    expect(await change(a, { settings: { ...cold(null), retention: { policy: again } } }, 2)).toMatchObject({
      version: 2,
    });
    expect(await acts('settings.change')).toHaveLength(1);
  });

  test('is made from the version that was seen; of two from one, the second is refused', async () => {
    const { a, change } = await world();
    const done = await Promise.allSettled([
      change(a, { settings: cold(1) }, 1),
      change(a, { settings: { quotas: { seats: 1 } } }, 1),
    ]);
    expect(done.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    await expect(change(a, { settings: cold(2) }, 1)).rejects.toMatchObject({
      code: 'precondition_failed',
      extras: { version: 2 },
    });
  });

  test('a value out of bounds is named, all of them are told, and nothing is stored', async () => {
    const { a, change, read } = await world();
    const windows = defaultRetention.windows.map((window) => ({ ...window }));
    windows[1]!.everyMinutes = 1;
    const changes = { ...cold(10), quotas: { seats: -2 }, retention: { policy: { ...defaultRetention, windows } } };
    await expect(change(a, { settings: changes })).rejects.toMatchObject({
      code: 'out_of_bounds',
      extras: {
        field: 'settings.retention.policy.windows.1.everyMinutes',
        faults: [{ field: 'settings.retention.policy.windows.1.everyMinutes' }, { field: 'settings.quotas.seats' }],
      },
    });
    expect((await read(a)).settings.coldStorage!.days).toMatchObject({ own: null });
  });

  test.each([
    [{ settings: { quotas: { chairs: 1 } } }],
    [{ settings: { later: { setting: 1 } } }],
    [{ settings: { quotas: 5 } }],
    [{ settings: {} }],
    [{ settings: { quotas: {} } }],
    [{ locked: { quotas: { seats: true } } }],
    [{ locked: { coldStorage: { days: null } } }],
    [{ settings: cold(1), more: 1 }],
    [{}],
  ])('%j is no change of settings', (changes) => {
    expect(ChangeSettingsRequest.safeParse(changes).success).toBe(false);
  });

  test.each([
    ['a NUL', '/a\0b'],
    ['half a character', '/\ud800'],
  ])('a path with %s is not stored', async (_, path) => {
    const { a, change } = await world();
    await expect(change(a, { settings: { backupDefaults: { include: [path] } } })).rejects.toMatchObject({
      code: 'out_of_bounds',
      extras: { field: 'settings.backupDefaults.include.0' },
    });
  });

  test('a value too large for an act is stored, and the act says so', async () => {
    const { a, change, see, acts } = await world();
    const exclude = Array.from({ length: 1_000 }, (_, i) => `/${i}/${'x'.repeat(500)}`);
    await change(a, { settings: { backupDefaults: { exclude } } });
    expect((await see(a, 'backupDefaults.exclude')).value).toEqual(exclude);
    const [act] = await acts('settings.change');
    expect(act!.details).toMatchObject({ setting: 'backupDefaults.exclude', from: null, to: { leftOut: true } });
  });
});

describe('locks', () => {
  test('bind those below, who are told who locked it', async () => {
    const { top, a, b, change, see } = await world();
    await change(b, { settings: cold(7) });
    await change(top, { settings: cold(30), locked: { coldStorage: { days: true } } });
    const lockedBy = { id: top, name: 'top' };
    expect(await see(b, 'coldStorage.days')).toMatchObject({ value: 30, own: 7, lockedBy, overridden: true });
    expect(await see(top, 'coldStorage.days')).toMatchObject({ locks: true, lockedBy: null });
    for (const changes of [
      { settings: cold(1) },
      { settings: cold(null) },
      { locked: { coldStorage: { days: true } } },
    ])
      await expect(change(a, changes)).rejects.toMatchObject({
        code: 'conflict',
        extras: { field: 'settings.coldStorage.days', lockedBy },
      });
    // Others are not bound by it.
    await change(a, { settings: { backupDefaults: { everyMinutes: 60 } } });

    await change(top, { locked: { coldStorage: { days: false } } });
    expect(await see(b, 'coldStorage.days')).toMatchObject({ value: 7, lockedBy: null, overridden: false });
    expect(await see(a, 'coldStorage.days')).toMatchObject({ value: 30 });
    expect(await see(top, 'coldStorage.days')).toMatchObject({ locks: false, own: 30 });
  });

  test('stay when only the value changes, and go with the value', async () => {
    const { a, b, change, see } = await world();
    await change(a, { settings: cold(30), locked: { coldStorage: { days: true } } });
    await change(a, { settings: cold(60) });
    expect(await see(b, 'coldStorage.days')).toMatchObject({ value: 60, lockedBy: { id: a } });
    await expect(change(a, { settings: cold(null), locked: { coldStorage: { days: true } } })).rejects.toMatchObject({
      code: 'out_of_bounds',
      extras: { field: 'locked.coldStorage.days' },
    });
    await change(a, { settings: cold(null) });
    expect(await see(b, 'coldStorage.days')).toMatchObject({ value: 365, lockedBy: null });
  });

  test('of what is inherited keep what was seen then', async () => {
    const { top, a, b, change, see } = await world();
    await change(top, { settings: cold(30) });
    await change(a, { locked: { coldStorage: { days: true } } });
    await change(top, { settings: cold(90) });
    expect(await see(b, 'coldStorage.days')).toMatchObject({ value: 30, lockedBy: { id: a } });
  });

  test('are not of what cannot be read; unlocking what is not locked changes nothing', async () => {
    const { top, a, change, storeRaw } = await world();
    expect(await change(a, { locked: { coldStorage: { days: false } } })).toMatchObject({ version: 1 });
    await storeRaw(top, 'coldStorage.days', 'a year');
    await expect(change(a, { locked: { coldStorage: { days: true } } })).rejects.toMatchObject({
      code: 'conflict',
      extras: { field: 'locked.coldStorage.days' },
    });
  });
});

describe('a push', () => {
  test('makes those below inherit again, and nobody else', async () => {
    const { top, a, b, tenant, change, push, see, acts, chain } = await world();
    const [beside] = (await chain(null, 'beside')) as [number];
    for (const organization of [top, a, b, beside])
      await change(organization, { settings: { ...cold((organization % 1000) + 1), quotas: { bytesPerUser: 9 } } });
    await change(b, { locked: { coldStorage: { days: true } } });

    const answer = await push(a, ['coldStorage.days'], 2);
    expect(PushedSettings.parse(answer)).toEqual({
      pushed: [{ setting: 'coldStorage.days', organizations: 1, devices: 0 }],
    });
    expect(await see(b, 'coldStorage.days')).toMatchObject({ own: null, from: { organization: { id: a } } });
    expect(await see(b, 'quotas.bytesPerUser')).toMatchObject({ own: 9 });
    for (const organization of [top, a, beside])
      expect((await see(organization, 'coldStorage.days')).own).toBe((organization % 1000) + 1);
    const versionOf = async (organization: number) =>
      (await readOrganization(storage.database, { tenant, organization })).version;
    expect(await Promise.all([a, b].map(versionOf))).toEqual([2, 4]);
    expect(await acts('settings.push')).toMatchObject([
      { organization: a, details: { setting: 'coldStorage.days', organizations: 1, devices: 0 } },
    ]);
    await expect(push(a, ['coldStorage.days'], 1)).rejects.toMatchObject({ code: 'precondition_failed' });
    expect(await push(a, ['coldStorage.days'])).toMatchObject({ pushed: [{ organizations: 0 }] });
  });

  test('of the retention policy reaches devices, an archive counted once', async () => {
    const its = await world();
    const { top, a, b, tenant, change, push } = its;
    const policy = { ...defaultRetention, keepNewest: 4 };
    await change(b, { settings: { retention: { policy } } });
    const device = async (organization: number, guid: number, state = 'active', of = guid) => {
      const user = await its.user(organization, `user of ${tenant} ${guid}`);
      await storage.rows(
        `INSERT INTO devices (tenant_id, user_id, guid, name, platform, agent_version, token_sha256, vault_id, archive_id, state, retention)
         VALUES ($1, $2, $3, 'laptop', 'linux', '1', sha256($4::bytea), $5, $5, $6, $7::jsonb)`,
        [tenant, user, guid, `${tenant}/${guid}`, of, state, JSON.stringify(policy)],
      );
    };
    const base = tenant * 100;
    await device(top, base + 1);
    await device(a, base + 2);
    await device(b, base + 3);
    await device(b, base + 4, 'replaced', base + 3);

    expect(await push(a, ['retention.policy', 'coldStorage.days'])).toEqual({
      pushed: [
        { setting: 'retention.policy', organizations: 1, devices: 2 },
        { setting: 'coldStorage.days', organizations: 0, devices: 0 },
      ],
    });
    const left = await storage.rows(
      'SELECT guid, version FROM devices WHERE tenant_id = $1 AND retention IS NOT NULL',
      [tenant],
    );
    expect(left).toEqual([{ guid: base + 1, version: 1 }]);
    const versions = await storage.rows('SELECT version FROM devices WHERE tenant_id = $1 AND guid > $2', [
      tenant,
      base + 1,
    ]);
    expect(versions).toEqual([{ version: 2 }, { version: 2 }, { version: 2 }]);
  });

  test('and a change below meet one after the other', async () => {
    const { a, b, change, push, see } = await world();
    await change(b, { settings: cold(7) });
    const [pushed] = await Promise.all([push(a, ['coldStorage.days']), change(b, { settings: cold(8) })]);
    // Whichever was last: the push took away what was there then, or the change came after it.
    const own = (await see(b, 'coldStorage.days')).own;
    expect(pushed.pushed[0]!.organizations).toBe(1);
    expect([null, 8]).toContain(own);
  });

  test.each([
    [{ settings: [] }],
    [{ settings: ['quotas.seats'] }],
    [{ settings: ['coldStorage.days', 'coldStorage.days'] }],
    [{ settings: ['retention'] }],
  ])('%j is no push', (request) => {
    expect(PushSettingsRequest.safeParse(request).success).toBe(false);
    expect(PushSettingsRequest.safeParse({ settings: ['coldStorage.days'] }).success).toBe(true);
  });
});
