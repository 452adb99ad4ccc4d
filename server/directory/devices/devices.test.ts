import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { actingAs, type PeopleWorld, peopleWorld, type TestDevice, told } from '../users/testing.ts';
import {
  blockDevice,
  deactivateDevice,
  deauthorizeDevice,
  reactivateDevice,
  renameDevice,
  unblockDevice,
} from './changes.ts';
import { healthOf } from './health.ts';
import { listBounds, listDevices, listSkippedFiles, readDevice } from './read.ts';
import {
  DeviceDetails,
  DevicePage,
  Guid,
  ListDevicesQuery,
  ListSkippedQuery,
  RenameDeviceRequest,
  SkippedPage,
} from './shapes.ts';
import { insertTestRun } from './testing.ts';

let world: PeopleWorld;
let tenant: number;
let top: number;
let ann: number;
let laptop: TestDevice;

beforeAll(async () => {
  world = await peopleWorld();
});
afterAll(() => world?.close());
beforeEach(async () => {
  ({ tenant, organization: top } = await world.tenant());
  ann = await world.user({ tenant, organization: top }, 'ann');
  laptop = await world.device({ tenant, user: ann }, { name: 'Laptop' });
});

const read = (device = laptop, judgedFor: 'user' | 'administrator' = 'administrator') =>
  readDevice(world.database, { tenant, guid: device.guid }, judgedFor);
const list = (more: object = {}, within: Parameters<typeof listDevices>[1]['within'] = { all: true }) =>
  listDevices(world.database, { tenant, within }, ListDevicesQuery.parse(more));
const namesOf = async (page: Promise<{ items: { name: string }[] }>) => (await page).items.map(({ name }) => name);
const change = (verb: typeof blockDevice, expected: number | null = null, device = laptop) =>
  world.change((tx) => verb(tx, actingAs(tenant), { tenant, guid: device.guid, expected }));
const setting = (name: string, value: unknown, organization = top) =>
  world.sql('INSERT INTO organization_settings (tenant_id, organization_id, name, value) VALUES ($1, $2, $3, $4)', [
    tenant,
    organization,
    name,
    JSON.stringify(value),
  ]);

describe('health', () => {
  const now = new Date('2026-01-31T00:00:00Z');
  const bounds = { warningDays: 3, criticalDays: 5 };
  test.each([
    [0, 'ok'],
    [3 * 86_400_000 - 1, 'ok'],
    [3 * 86_400_000, 'warning'],
    [5 * 86_400_000 - 1, 'warning'],
    [5 * 86_400_000, 'critical'],
    [-1_000, 'ok'],
  ])('%s ms after the last completed run: %s', (ms, health) => {
    expect(healthOf({ since: new Date(now.getTime() - ms), now }, bounds)).toBe(health);
  });

  test('is by the last run that completed, whatever ran since', async () => {
    await insertTestRun(world, laptop, { outcome: 'completed', daysAgo: 8, counts: { bytesSeen: 5_000 } });
    await insertTestRun(world, laptop, { outcome: 'failed', daysAgo: 1, reason: 'no space' });
    await insertTestRun(world, laptop, { outcome: null, daysAgo: 0 });
    const found = await read();
    expect(DeviceDetails.parse(found)).toEqual(found);
    expect(found).toMatchObject({
      health: 'warning',
      lastRun: { outcome: null, finishedAt: null, counts: null },
      lastCompletedRun: { outcome: 'completed' },
      archive: { bytesSelected: 5_000, state: 'active', coldUntil: null },
    });
    expect(found.lastCompletedAt).toBe(found.lastCompletedRun!.finishedAt);
    expect(Date.parse(found.lastActivityAt!)).toBeGreaterThan(Date.parse(found.lastCompletedAt!));
    expect((await read(laptop, 'user')).health).toBe('critical');
  });

  test('of one that never completed a run is by when it was registered', async () => {
    await insertTestRun(world, laptop, { outcome: 'failed', daysAgo: 0 });
    expect((await read()).health).toBe('ok');
    await world.sql(`UPDATE devices SET created_at = now() - interval '14 days' WHERE device_id = $1`, [
      laptop.deviceId,
    ]);
    expect(await read()).toMatchObject({ health: 'critical', lastCompletedAt: null, lastCompletedRun: null });
  });

  test('follows the settings of the organization; one that cannot be read is not guessed', async () => {
    const below = await world.organization(tenant, top);
    const bob = await world.device({ tenant, user: await world.user({ tenant, organization: below }) });
    for (const device of [laptop, bob]) await insertTestRun(world, device, { outcome: 'completed', daysAgo: 2 });
    await setting('alerts.administratorWarningDays', 2);
    expect([(await read()).health, (await read(bob)).health]).toEqual(['warning', 'warning']);
    await setting('alerts.administratorWarningDays', 3, below);
    expect([(await read()).health, (await read(bob)).health]).toEqual(['warning', 'ok']);
    await setting('alerts.administratorCriticalDays', 'soon', below);
    expect([(await read()).health, (await read(bob)).health]).toEqual(['warning', null]);
  });

  test('is asked of no device that is to back up no more', async () => {
    await change(deauthorizeDevice);
    expect((await read()).health).toBeNull();
    await change(deactivateDevice);
    expect((await read()).health).toBeNull();
  });
});

describe('listing', () => {
  test('in pages, without replaced ones and those of other tenants', async () => {
    const other = await world.tenant();
    await world.device({ tenant: other.tenant, user: await world.user(other) });
    const old = await world.device({ tenant, user: ann }, { name: 'old' });
    await world.sql(`UPDATE devices SET state = 'replaced' WHERE device_id = $1`, [old.deviceId]);
    for (const name of ['b', 'c']) await world.device({ tenant, user: ann }, { name });
    const first = await list({ limit: 2 });
    expect(DevicePage.parse(first)).toEqual(first);
    expect(first.items.map(({ name }) => name)).toEqual(['Laptop', 'b']);
    const second = await list({ limit: 2, after: first.next });
    expect(second).toMatchObject({ items: [{ name: 'c' }], next: null });
    expect((await list({ limit: 3 })).next).toBeNull();
  });

  test('by whose, where, state, name, platform and when it connected', async () => {
    const below = await world.organization(tenant, top);
    const bob = await world.user({ tenant, organization: below });
    const desktop = await world.device({ tenant, user: bob }, { name: 'Desktop', platform: 'win32' });
    await world.sql(`UPDATE devices SET last_seen_at = now() - interval '2 days' WHERE device_id = $1`, [
      desktop.deviceId,
    ]);
    await world.sql(`UPDATE users SET state = 'blocked' WHERE user_id = $1`, [bob]);
    expect(await namesOf(list({ user: bob }))).toEqual(['Desktop']);
    expect(await namesOf(list({ organization: top }))).toEqual(['Laptop']);
    expect(await namesOf(list({ below: top }))).toEqual(['Laptop', 'Desktop']);
    expect(await namesOf(list({ below }))).toEqual(['Desktop']);
    expect(await namesOf(list({ state: 'blocked' }))).toEqual(['Desktop']);
    expect(await namesOf(list({ state: 'active' }))).toEqual(['Laptop']);
    expect(await namesOf(list({ search: 'desk' }))).toEqual(['Desktop']);
    expect(await namesOf(list({ platform: 'linux' }))).toEqual(['Laptop']);
    const yesterday = new Date(Date.now() - 86_400_000).toISOString();
    expect(await namesOf(list({ connectedBefore: yesterday }))).toEqual(['Desktop']);
    expect(await namesOf(list({}, { path: below }))).toEqual(['Desktop']);
    expect(await namesOf(list({}, { user: ann }))).toEqual(['Laptop']);
    expect(await namesOf(list({ user: bob }, { user: ann }))).toEqual([]);
  });

  test('by what became of its runs, though only a part is looked at for one page', async () => {
    const devices = [laptop];
    for (const name of ['b', 'c', 'd', 'e']) devices.push(await world.device({ tenant, user: ann }, { name }));
    for (const [i, device] of devices.entries())
      await insertTestRun(world, device, { outcome: i === 1 ? 'failed' : 'completed', daysAgo: i === 4 ? 20 : 1 });
    const lately = new Date(Date.now() - 5 * 86_400_000).toISOString();
    expect(await namesOf(list({ completedBefore: lately }))).toEqual(['b', 'e']);
    expect(await namesOf(list({ health: 'critical' }))).toEqual(['e']);
    expect(await namesOf(list({ health: 'ok', limit: 3 }))).toEqual(['Laptop', 'b', 'c']);
    const whole = { ...listBounds };
    Object.assign(listBounds, { devicesLookedAtMax: 2, batch: 1 });
    try {
      const found: string[] = [];
      let pages = 0;
      for (let after: string | null | undefined; after !== null; pages++) {
        const page = await list({ health: 'critical', ...(after && { after }) });
        found.push(...page.items.map(({ name }) => name));
        after = page.next;
      }
      expect({ found, pages }).toEqual({ found: ['e'], pages: 3 });
    } finally {
      Object.assign(listBounds, whole);
    }
  });

  test.each([
    [{ connectedBefore: 'yesterday' }, false],
    [{ connectedBefore: '2026-01-01T00:00:00Z' }, true],
    [{ platform: 'amiga' }, false],
    [{ limit: 1000 }, true],
    [{ limit: 1001 }, false],
    [{ search: 'a\0' }, false],
  ])('%j may be asked: %s', (query, accepted) => {
    expect(ListDevicesQuery.safeParse(query).success).toBe(accepted);
  });
});

describe('what a run left out', () => {
  test('is listed by reason and in pages', async () => {
    const run = await insertTestRun(world, laptop, { outcome: 'completed', daysAgo: 0 });
    await world.sql(
      `INSERT INTO run_skipped SELECT $1, $2, $3, sha256(n::text::bytea), ('/home/' || n)::bytea, CASE WHEN n < 3 THEN 'unreadable' ELSE 'vanished' END, ''
         FROM generate_series(1, 5) n`,
      [laptop.vault, laptop.archive, run],
    );
    expect((await read()).skipped).toEqual([
      { reason: 'unreadable', files: 2 },
      { reason: 'vanished', files: 3 },
    ]);
    const paths: string[] = [];
    for (let after: string | null | undefined; after !== null; ) {
      const page = await listSkippedFiles(
        world.database,
        { tenant, guid: laptop.guid },
        ListSkippedQuery.parse({ limit: 2, ...(after && { after }) }),
      );
      expect(SkippedPage.parse(page)).toEqual(page);
      paths.push(...page.items.map(({ path }) => path));
      after = page.next;
    }
    expect(paths.sort()).toEqual(['/home/1', '/home/2', '/home/3', '/home/4', '/home/5']);
    const some = await listSkippedFiles(
      world.database,
      { tenant, guid: laptop.guid },
      ListSkippedQuery.parse({ reason: 'unreadable' }),
    );
    expect(some.items).toHaveLength(2);
  });

  test('is nothing where nothing ran', async () => {
    const found = await listSkippedFiles(world.database, { tenant, guid: laptop.guid }, ListSkippedQuery.parse({}));
    expect(found).toEqual({ run: null, items: [], next: null });
  });
});

describe('changing', () => {
  const rename = (name: string, expected: number | null = null) =>
    world.change((tx) =>
      renameDevice(tx, actingAs(tenant), {
        tenant,
        guid: laptop.guid,
        expected,
        ...RenameDeviceRequest.parse({ name }),
      }),
    );

  test('a name', async () => {
    expect(await rename('Old laptop')).toMatchObject({ name: 'Old laptop', version: 2 });
    expect(await rename('Old laptop')).toMatchObject({ version: 2 });
    expect(await told(rename('x', 1))).toBe('precondition_failed');
    expect(await world.actions(tenant)).toEqual(['device.rename']);
    expect(RenameDeviceRequest.safeParse({ name: 'x'.repeat(255) }).success).toBe(true);
    expect(RenameDeviceRequest.safeParse({ name: 'x'.repeat(256) }).success).toBe(false);
  });

  test('a state, and back; to the same is no change', async () => {
    expect(await change(blockDevice)).toMatchObject({ state: 'blocked', effective: { from: { id: laptop.guid } } });
    expect(await change(blockDevice)).toMatchObject({ state: 'blocked', version: 2 });
    expect(await told(change(deauthorizeDevice))).toBe('conflict');
    expect(await told(change(reactivateDevice))).toBe('conflict');
    expect(await change(unblockDevice)).toMatchObject({ state: 'active' });
    expect(await change(deauthorizeDevice)).toMatchObject({ state: 'deauthorized' });
    expect(await told(change(unblockDevice))).toBe('conflict');
    expect(await told(change(blockDevice))).toBe('conflict');
    expect(await world.actions(tenant)).toEqual(['device.block', 'device.unblock', 'device.deauthorize']);
  });

  test.each(['active', 'blocked', 'deauthorized'])('reactivating gives back what it was: %s', async (device) => {
    await world.sql('UPDATE devices SET state = $2 WHERE device_id = $1', [laptop.deviceId, device]);
    expect(await change(deactivateDevice)).toMatchObject({ state: 'deactivated', archive: { state: 'cold' } });
    expect(await change(reactivateDevice)).toMatchObject({
      state: device,
      archive: { state: 'active', coldUntil: null },
    });
  });

  test('nothing of another tenant, of no GUID, or of a replaced device', async () => {
    await world.sql(`UPDATE devices SET state = 'replaced' WHERE device_id = $1`, [laptop.deviceId]);
    expect(await told(change(blockDevice))).toBe('not_found');
    const other = await world.tenant();
    const theirs = await world.device({ tenant: other.tenant, user: await world.user(other) });
    expect(await told(change(blockDevice, null, theirs))).toBe('not_found');
    expect(await told(change(blockDevice, null, { ...theirs, guid: '9223372036854775808' }))).toBe('not_found');
    expect(await told(change(blockDevice, null, { ...theirs, guid: "1' OR '1" }))).toBe('not_found');
    expect(Guid.safeParse('9223372036854775807').success).toBe(true);
    expect(Guid.safeParse('9223372036854775808').success).toBe(false);
    expect(await told(read(theirs))).toBe('not_found');
  });
});
