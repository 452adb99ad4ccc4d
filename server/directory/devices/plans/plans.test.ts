import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { defaultRetention } from '../../../../storage/archive/retention/retention.ts';
import { actingAs, type PeopleWorld, peopleWorld, type TestDevice, told } from '../../users/testing.ts';
import { createPlan, deletePlan, effectivePlans, findPlanPlace, listPlans, readPlan, updatePlan } from './plans.ts';
import {
  CreatePlanRequest,
  EffectivePlans,
  ListPlansQuery,
  PlanContent,
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

  test('a pattern that would keep devices busy is refused by its place', () => {
    const asked = { exclude: ['x', '*a*a*a*b'] };
    for (const read of [
      CreatePlanRequest.safeParse({ name: 'a', ...content, organization: 1, ...asked }),
      UpdatePlanRequest.safeParse(asked),
    ])
      expect(read.error?.issues).toMatchObject([{ path: ['exclude', 1], message: expect.stringMatching('wildcards') }]);
    expect(PlanContent.safeParse({ ...content, ...asked }).success).toBe(true); // stored before
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
    [{ organization: 1, exclude: ['*a*a*a.iso'] }, true],
    [{ organization: 1, exclude: ['x', '*a*a*a*.iso'] }, false],
    [{ organization: 1, exclude: ['C:\\x\\*a*a*a*.iso'] }, false],
    [{ organization: 1, retention: null }, true],
    [{ organization: 1, retention: defaultRetention }, true],
    [{ organization: 1, retention: { ...defaultRetention, keepNewest: 10_000 } }, true],
    [{ organization: 1, retention: { ...defaultRetention, keepNewest: 10_001 } }, false],
    [{ organization: 1, retention: { ...defaultRetention, keepHourly: 1 } }, false],
    [{ organization: 1, retention: { ...defaultRetention, windows: defaultRetention.windows.toReversed() } }, false],
    [{ organization: 1, retention: 'daily' }, false],
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

describe('how long a plan keeps', () => {
  const retention = { ...defaultRetention, deletedAfterDays: 30 };
  const detailsOf = async (): Promise<unknown[]> =>
    (await world.sql('SELECT details FROM acts WHERE tenant_id = $1 ORDER BY number', [tenant])).map(
      ({ details }) => details,
    );

  test('is stored and shown, told in the log, and taken back', async () => {
    const made = await create({ device: laptop.guid }, 'documents', { include: ['/home', 'C:\\Users'], retention });
    expect(made.retention).toEqual(retention);
    expect(await readPlan(world.database, { tenant, plan: made.id })).toEqual(made);
    expect((await update(made.id, { everyMinutes: 60 })).retention).toEqual(retention);
    expect((await update(made.id, { retention: null })).retention).toBeNull();
    expect((await update(made.id, { retention })).retention).toEqual(retention);
    await remove(made.id);
    expect(await detailsOf()).toMatchObject([
      { retention: { from: null, to: retention }, device: laptop.guid },
      { changed: ['everyMinutes'] },
      { changed: ['retention'], retention: { from: retention, to: null } },
      { changed: ['retention'], retention: { from: null, to: retention } },
      { retention: { from: retention, to: null } },
    ]);
    expect((await detailsOf())[1]).not.toHaveProperty('retention');
  });

  test('is nothing that agents are told', async () => {
    await create({ device: laptop.guid }, 'documents', { retention });
    expect((await effective()).plans.map((plan) => Object.keys(plan))).toEqual([
      ['name', 'include', 'exclude', 'everyMinutes', 'windows', 'from'],
    ]);
  });

  test('is nothing in a plan from before there was such a thing', async () => {
    const made = await create({ organization: top });
    await world.sql(`UPDATE plans SET content = content - 'retention' WHERE plan_id = $1`, [made.id]);
    expect(await readPlan(world.database, { tenant, plan: made.id })).toEqual(made);
  });

  test.each<[include: string[], says: string]>([
    [[], 'malformed_request include'],
    [['~/Documents'], 'malformed_request include.0'],
    [['/home', 'Documents'], 'malformed_request include.1'],
    [['/home/*'], 'malformed_request include.0'],
    [['/home', 'C:\\Users', '\\\\server\\share'], 'done'],
  ])('is refused where it is not known of which files: %j: %s', async (include, says) => {
    expect(await told(create({ organization: top }, 'a', { include, retention }))).toBe(says);
    const without = await create({ organization: top }, 'b', { include });
    expect(await told(update(without.id, { retention }))).toBe(says);
    const named = await create({ organization: top }, 'c', { include: ['/home'], retention });
    expect(await told(update(named.id, { include }))).toBe(says);
    expect((await update(named.id, { include, retention: null })).include).toEqual(include);
  });
});

describe('a plan that cannot be read', () => {
  let broken: number;
  beforeEach(async () => {
    await create({ organization: top }, 'first');
    broken = (await create({ organization: below }, 'broken')).id;
    await create({ device: laptop.guid }, 'last');
    await world.sql(`UPDATE plans SET content = '{"include": "/home", "mistake": 1}' WHERE plan_id = $1`, [broken]);
  });
  const whole = { ...content, retention: null };
  const none = { include: null, exclude: null, everyMinutes: null, windows: null, retention: null };

  test('is shown for what it is, and the list with the others is not lost', async () => {
    const page = await listPlans(world.database, { tenant, within: { all: true } }, ListPlansQuery.parse({}));
    expect(PlanPage.parse(page)).toEqual(page);
    expect(page.items.map(({ name, unreadable }) => [name, unreadable])).toEqual([
      ['first', false],
      ['broken', true],
      ['last', false],
    ]);
    expect(page.items[1]).toMatchObject({ id: broken, of: { organization: { id: below } }, version: 1, ...none });
    expect(await readPlan(world.database, { tenant, plan: broken })).toEqual(page.items[1]);
  });

  test('is deleted', async () => {
    await remove(broken, 1);
    expect(await told(readPlan(world.database, { tenant, plan: broken }))).toBe('not_found');
    expect((await effective()).plans.map(({ name }) => name)).toEqual(['last', 'first']);
  });

  test('is replaced whole, and then read again', async () => {
    const made = await update(broken, whole, 1);
    expect(made).toMatchObject({ name: 'broken', unreadable: false, version: 2, ...whole });
    expect(await readPlan(world.database, { tenant, plan: broken })).toEqual(made);
    const [act] = await world.sql(`SELECT details FROM acts WHERE tenant_id = $1 AND action = 'plan.update'`, [tenant]);
    expect(act!.details).toMatchObject({ from: 'broken', unreadable: true });
  });

  test.each(['include', 'exclude', 'everyMinutes', 'windows', 'retention'] as const)(
    'is not changed without its %s: that would be a guess',
    async (field) => {
      const { [field]: _, ...rest } = whole;
      expect(await told(update(broken, rest))).toBe(`conflict ${field}`);
      expect(await told(update(broken, { ...rest, [field]: undefined }))).toBe(`conflict ${field}`);
      expect((await readPlan(world.database, { tenant, plan: broken })).version).toBe(1);
    },
  );

  test('is not left out of what a device is told: it is told nothing, and goes on with what it has', async () => {
    await expect(effective()).rejects.toMatchObject({ code: 'internal', status: 500, extras: { plan: broken } });
    await create({ device: laptop.guid }, 'Broken'); // the nearer of that name counts, and can be read
    expect((await effective()).plans.map(({ name }) => name)).toEqual(['Broken', 'last', 'first']);
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
