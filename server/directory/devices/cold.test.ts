import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { changeOrganizationState } from '../organizations/states.ts';
import { deactivateUser, reactivateUser } from '../users/states.ts';
import { actingAs, type PeopleWorld, peopleWorld, type TestDevice, told } from '../users/testing.ts';
import { deactivateDevice, reactivateDevice } from './changes.ts';
import { setColdUntil } from './cold.ts';
import { ColdUntilRequest } from './shapes.ts';

let world: PeopleWorld;
let tenant: number;
let top: number;
let below: number;
let ann: number;
let laptop: TestDevice;
let desktop: TestDevice;

beforeAll(async () => {
  world = await peopleWorld();
});
afterAll(() => world?.close());
beforeEach(async () => {
  ({ tenant, organization: top } = await world.tenant());
  below = await world.organization(tenant, top);
  await world.user({ tenant, organization: top }, 'administrator', true);
  ann = await world.user({ tenant, organization: below });
  laptop = await world.device({ tenant, user: ann });
  desktop = await world.device({ tenant, user: ann });
});

const dayMs = 86_400_000;
const device = (verb: typeof deactivateDevice, of = laptop) =>
  world.change((tx) => verb(tx, actingAs(tenant), { tenant, guid: of.guid, expected: null }));
const user = (verb: typeof deactivateUser, id = ann) =>
  world.change((tx) => verb(tx, actingAs(tenant), { tenant, user: id, expected: null }));
const organization = (change: 'deactivate' | 'reactivate', id = below) =>
  world.change((tx) =>
    changeOrganizationState(tx, actingAs(tenant), { tenant, organization: id, change, expected: null }),
  );
const setUntil = (until: Date, of = laptop) =>
  world.change((tx) => setColdUntil(tx, actingAs(tenant), { tenant, guid: of.guid, until }));
const days = (value: unknown, id: number) =>
  world.sql(
    `INSERT INTO organization_settings (tenant_id, organization_id, name, value) VALUES ($1, $2, 'coldStorage.days', $3)`,
    [tenant, id, JSON.stringify(value)],
  );
/** State, and days until it expires. */
async function archive(of = laptop): Promise<[string, number | null]> {
  const [row] = await world.sql<{ state: string; days: number | null }>(
    `SELECT state, round(extract(epoch FROM cold_until - now()) / 86400)::int AS days FROM archives WHERE archive_id = $1`,
    [of.archive],
  );
  return [row!.state, row!.days];
}

describe('archives go cold', () => {
  test('with their device alone, for as long as the setting says, and come back with it', async () => {
    await device(deactivateDevice);
    expect([await archive(), await archive(desktop)]).toEqual([
      ['cold', 365],
      ['active', null],
    ]);
    await device(reactivateDevice);
    expect(await archive()).toEqual(['active', null]);
    expect(await world.actions(tenant)).toEqual([
      'archive.cool',
      'device.deactivate',
      'archive.warm',
      'device.reactivate',
    ]);
  });

  test('with their user, and with an organization above; each for the days that hold where they are', async () => {
    await days(30, top);
    await days(10, below);
    const bob = await world.user({ tenant, organization: top });
    const other = await world.device({ tenant, user: bob });
    await user(deactivateUser);
    await user(deactivateUser, bob);
    expect([await archive(), await archive(desktop), await archive(other)]).toEqual([
      ['cold', 10],
      ['cold', 10],
      ['cold', 30],
    ]);
    await user(reactivateUser);
    expect(await archive()).toEqual(['active', null]);
    await organization('deactivate');
    expect([await archive(), await archive(other)]).toEqual([
      ['cold', 10],
      ['cold', 30],
    ]);
    await organization('reactivate');
    expect([await archive(), await archive(other)]).toEqual([
      ['active', null],
      ['cold', 30],
    ]);
  });

  test('and stay so until the last of what keeps them is reactivated, with the first date', async () => {
    await days(10, below);
    await device(deactivateDevice);
    await world.sql('DELETE FROM organization_settings WHERE organization_id = $1', [below]);
    await user(deactivateUser);
    await organization('deactivate');
    expect([await archive(), await archive(desktop)]).toEqual([
      ['cold', 10],
      ['cold', 365],
    ]);
    await device(reactivateDevice);
    await organization('reactivate');
    expect((await archive())[0]).toBe('cold');
    await user(reactivateUser);
    expect([await archive(), await archive(desktop)]).toEqual([
      ['active', null],
      ['active', null],
    ]);
  });

  test('not while nobody can say for how long: then nothing is deactivated', async () => {
    await days('a year', below);
    expect(await told(device(deactivateDevice))).toBe('conflict');
    expect(await archive()).toEqual(['active', null]);
    expect(await world.sql('SELECT state FROM devices WHERE device_id = $1', [laptop.deviceId])).toEqual([
      { state: 'active' },
    ]);
  });

  test('a user and a device that are reactivated at once leave nothing in the cold', async () => {
    for (let round = 0; round < 5; round++) {
      await device(deactivateDevice);
      await user(deactivateUser);
      await Promise.all([device(reactivateDevice), user(reactivateUser)]);
      expect(await archive()).toEqual(['active', null]);
    }
  });

  test('a device that is reactivated while its organization is deactivated ends in the cold', async () => {
    for (let round = 0; round < 5; round++) {
      await device(deactivateDevice);
      await Promise.all([device(reactivateDevice), organization('deactivate')]);
      expect((await archive())[0]).toBe('cold');
      await organization('reactivate');
      expect((await archive())[0]).toBe('active');
    }
  });
});

describe('the date of a cold archive', () => {
  const from = (ms: number) => new Date(Date.now() + ms);

  test('is set later or earlier, and that is an act', async () => {
    await device(deactivateDevice);
    await setUntil(from(800 * dayMs));
    expect(await archive()).toEqual(['cold', 800]);
    await setUntil(from(2 * dayMs));
    expect(await archive()).toEqual(['cold', 2]);
    const [act] = await world.sql<{ details: Record<string, string> }>(
      `SELECT details FROM acts WHERE tenant_id = $1 AND action = 'archive.set_cold_until' ORDER BY number LIMIT 1`,
      [tenant],
    );
    expect(act!.details).toMatchObject({ device: laptop.guid, state: 'cold' });
  });

  test.each([
    [60_000, 'done'],
    [-60_000, 'out_of_bounds until'],
    [36_500 * dayMs - 60_000, 'done'],
    [36_500 * dayMs + 60_000, 'out_of_bounds until'],
    [Number.NaN, 'out_of_bounds until'],
  ])('%s ms from now: %s', async (ms, expected) => {
    await device(deactivateDevice);
    expect(await told(setUntil(from(ms)))).toBe(expected);
  });

  test('recovers an archive that has expired, while it has versions', async () => {
    await device(deactivateDevice);
    const expired = `UPDATE archives SET state = 'expired', expired_at = now(), version_count = $2 WHERE archive_id = $1`;
    await world.sql(expired, [laptop.archive, 1]);
    await setUntil(from(3 * dayMs));
    expect(await archive()).toEqual(['cold', 3]);
    await world.sql(expired, [laptop.archive, 0]);
    expect(await told(setUntil(from(3 * dayMs)))).toBe('conflict');
  });

  test('is nothing that an archive in use has, or a device of another tenant', async () => {
    expect(await told(setUntil(from(dayMs)))).toBe('conflict');
    const other = await world.tenant();
    const theirs = await world.device({ tenant: other.tenant, user: await world.user(other) });
    expect(await told(setUntil(from(dayMs), theirs))).toBe('not_found');
    expect(await told(setUntil(from(dayMs), { ...theirs, guid: 'none' }))).toBe('not_found');
  });

  test.each([
    ['2026-01-31T00:00:00Z', true],
    ['2026-01-31T00:00:00+02:00', true],
    ['2026-01-31', false],
    ['tomorrow', false],
    [1_700_000_000_000, false],
  ])('%j may be asked: %s', (until, accepted) => {
    expect(ColdUntilRequest.safeParse({ until }).success).toBe(accepted);
  });
});

test('an archive that somebody else has just changed goes cold all the same, and of many each its own', async () => {
  const others = await Promise.all(
    [1, 2, 3].map(async () => world.device({ tenant, user: await world.user({ tenant, organization: below }) })),
  );
  let done: Promise<unknown> | null = null;
  // As a commit does: it has the row when the organization is deactivated, and leaves another version of it.
  await world.change(async (tx) => {
    const text = 'UPDATE archives SET next_seq = next_seq + 1 WHERE archive_id = $1';
    await tx.query({ name: '', text }, [laptop.archive]);
    done = organization('deactivate');
    while ((await world.sql('SELECT 1 FROM pg_locks WHERE NOT granted')).length === 0);
  });
  await done;
  for (const each of [laptop, desktop, ...others]) expect(await archive(each)).toEqual(['cold', 365]);
  await organization('reactivate');
  for (const each of [laptop, desktop, ...others]) expect(await archive(each)).toEqual(['active', null]);
});
