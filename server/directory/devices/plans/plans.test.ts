import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { actingAs, type PeopleWorld, peopleWorld, type TestDevice, told } from '../../users/testing.ts';
import { createPlan, deletePlan, effectivePlans, findPlanPlace, listPlans, readPlan, updatePlan } from './plans.ts';
import {
  CreatePlanRequest,
  EffectivePlans,
  ListPlansQuery,
  PlanPage,
  PlanView,
  PlanWindow,
  UpdatePlanRequest,
} from './shapes.ts';

let world: PeopleWorld;
let tenant: number;
let top: number;
let below: number;
let ann: number;
let laptop: TestDevice;
let other: { tenant: number; organization: number };

beforeAll(async () => {
  world = await peopleWorld();
  other = await world.tenant();
});
afterAll(() => world?.close());
beforeEach(async () => {
  ({ tenant, organization: top } = await world.tenant());
  below = await world.organization(tenant, top);
  ann = await world.user({ tenant, organization: below });
  laptop = await world.device({ tenant, user: ann }, { name: 'laptop' });
});

const content = { include: ['/home'], exclude: ['*.tmp'], everyMinutes: 30, windows: [] };
const create = (of: { organization?: number; device?: string }, name = 'documents', more: object = {}) =>
  world.change((tx) =>
    createPlan(tx, actingAs(tenant), { ...CreatePlanRequest.parse({ ...of, name, ...content, ...more }), tenant }),
  );
const update = (plan: number, change: object, expected: number | null = null) =>
  world.change((tx) =>
    updatePlan(tx, actingAs(tenant), { tenant, plan, expected, change: UpdatePlanRequest.parse(change) }),
  );
const remove = (plan: number, expected: number | null = null) =>
  world.change((tx) => deletePlan(tx, actingAs(tenant), { tenant, plan, expected }));
const effective = (device = laptop) => effectivePlans(world.database, { tenant, guid: device.guid });

describe('a plan', () => {
  test('is made, changed and deleted, and each is an act', async () => {
    const made = await create({ organization: top });
    expect(PlanView.parse(made)).toEqual(made);
    expect(await readPlan(world.database, { tenant, plan: made.id })).toEqual(made);
    const changed = await update(made.id, { everyMinutes: 60 }, 1);
    expect(changed).toEqual({ ...made, everyMinutes: 60, version: 2 });
    expect(await told(update(made.id, { name: 'x' }, 1))).toBe('precondition_failed');
    expect(await told(remove(made.id, 1))).toBe('precondition_failed');
    await remove(made.id, 2);
    expect(await told(readPlan(world.database, { tenant, plan: made.id }))).toBe('not_found');
    expect(await told(remove(made.id))).toBe('not_found');
    expect(await world.actions(tenant)).toEqual(['plan.create', 'plan.update', 'plan.delete']);
  });

  test('has a name that its owner has once', async () => {
    const made = await create({ organization: top });
    expect(await told(create({ organization: top }, 'DOCUMENTS'))).toBe('conflict name');
    expect(await told(create({ organization: below }))).toBe('done');
    expect(await told(create({ device: laptop.guid }))).toBe('done');
    expect(await told(create({ device: laptop.guid }, 'Documents'))).toBe('conflict name');
    await create({ organization: top }, 'pictures');
    expect(await told(update(made.id, { name: 'PICTURES' }))).toBe('conflict name');
  });

  test('is of something in its tenant, and seen from nowhere else', async () => {
    const theirs = await world.device({ tenant: other.tenant, user: await world.user(other) });
    expect(await told(create({ organization: other.organization }))).toBe('not_found organization');
    expect(await told(create({ device: theirs.guid }))).toBe('not_found');
    const made = await create({ device: laptop.guid });
    expect(await findPlanPlace(world.database, { tenant, plan: made.id })).toEqual({
      organization: below,
      user: ann,
      name: 'documents',
    });
    tenant = other.tenant;
    expect(await told(update(made.id, { name: 'x' }))).toBe('not_found');
    expect(await told(remove(made.id))).toBe('not_found');
    expect(await told(effective())).toBe('not_found');
  });

  test.each<[object, boolean]>([
    [{ organization: 1 }, true],
    [{}, false],
    [{ organization: 1, device: '5' }, false],
    [{ organization: 1, everyMinutes: 0 }, false],
    [{ organization: 1, everyMinutes: 525_600 }, true],
    [{ organization: 1, everyMinutes: 525_601 }, false],
    [{ organization: 1, include: ['x'.repeat(4_096)] }, true],
    [{ organization: 1, include: ['x'.repeat(4_097)] }, false],
    [{ organization: 1, exclude: ['a\0'] }, false],
    [{ organization: 1, exclude: Array.from({ length: 1_001 }, () => 'x') }, false],
    [{ organization: 1, retention: null }, false],
  ])('%j may be asked: %s', (more, accepted) => {
    expect(CreatePlanRequest.safeParse({ name: 'a', ...content, ...more }).success).toBe(accepted);
  });

  test.each<[number[], number, number, boolean]>([
    [[1, 7], 0, 1_440, true],
    [[1], 600, 600, false],
    [[1], 0, 1_441, false],
    [[], 0, 60, false],
    [[0], 0, 60, false],
    [[8], 0, 60, false],
    [[1, 1], 0, 60, false],
  ])('a window on days %j from %s until %s: %s', (days, fromMinute, untilMinute, accepted) => {
    expect(PlanWindow.safeParse({ days, fromMinute, untilMinute }).success).toBe(accepted);
  });
});

test('plans are listed as far as the reader reaches, in pages', async () => {
  const list = async (more: object = {}, within: Parameters<typeof listPlans>[1]['within'] = { all: true }) => {
    const page = await listPlans(world.database, { tenant, within }, ListPlansQuery.parse(more));
    expect(PlanPage.parse(page)).toEqual(page);
    return page;
  };
  await create({ organization: top }, 'a');
  await create({ organization: below }, 'b');
  await create({ device: laptop.guid }, 'c');
  const names = async (page: ReturnType<typeof list>) => (await page).items.map(({ name }) => name);
  expect(await names(list())).toEqual(['a', 'b', 'c']);
  expect(await names(list({}, { path: below }))).toEqual(['b', 'c']);
  expect(await names(list({}, { user: ann }))).toEqual(['c']);
  expect(await names(list({ organization: below }))).toEqual(['b']);
  expect(await names(list({ device: laptop.guid }))).toEqual(['c']);
  const first = await list({ limit: 2 });
  expect(await names(list({ after: first.next }))).toEqual(['c']);
});

describe('the plans of a device', () => {
  test('are its own and those from above, the nearer of one name', async () => {
    await create({ organization: top }, 'Documents', { everyMinutes: 1 });
    await create({ organization: top }, 'pictures', { everyMinutes: 2 });
    await create({ organization: below }, 'documents', { everyMinutes: 3 });
    await create({ device: laptop.guid }, 'mail', { everyMinutes: 4 });
    const aside = await world.organization(tenant, top);
    await create({ organization: aside }, 'nobody', { everyMinutes: 5 });
    const found = await effective();
    expect(EffectivePlans.parse(found)).toEqual(found);
    expect(found.plans.map(({ name, everyMinutes }) => [name, everyMinutes])).toEqual([
      ['mail', 4],
      ['documents', 3],
      ['pictures', 2],
    ]);
    expect(found.plans.map(({ from }) => from)).toMatchObject([
      { device: { guid: laptop.guid } },
      { organization: { id: below } },
      { organization: { id: top } },
    ]);
  });

  test('go on with the installation that takes its place', async () => {
    await create({ device: laptop.guid }, 'mail');
    await world.sql(`UPDATE devices SET state = 'replaced' WHERE device_id = $1`, [laptop.deviceId]);
    await world.sql(
      `INSERT INTO devices (tenant_id, user_id, guid, name, platform, agent_version, token_sha256, vault_id, archive_id)
       SELECT tenant_id, user_id, guid, name, platform, agent_version, sha256(token_sha256), vault_id, archive_id FROM devices WHERE device_id = $1`,
      [laptop.deviceId],
    );
    expect((await effective()).plans.map(({ name }) => name)).toEqual(['mail']);
  });

  test('without any are what the settings say, or nothing where those cannot be read', async () => {
    const set = (name: string, value: unknown) =>
      world.sql('INSERT INTO organization_settings (tenant_id, organization_id, name, value) VALUES ($1, $2, $3, $4)', [
        tenant,
        top,
        name,
        JSON.stringify(value),
      ]);
    await set('backupDefaults.exclude', ['*.iso']);
    expect((await effective()).plans).toEqual([
      { name: 'default', include: [], exclude: ['*.iso'], everyMinutes: 15, windows: [], from: 'settings' },
    ]);
    await set('backupDefaults.everyMinutes', 'often');
    expect((await effective()).plans).toEqual([]);
  });
});
