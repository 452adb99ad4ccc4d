/**
 * How long files are kept is decided by whoever may set retention, and not by whoever may change plans: over HTTP, as
 * somebody with every permission of plans and neither of those, and as somebody with one of them more.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { ApiWorld, type Holder } from './world.ts';

let world: ApiWorld;
let legal: Holder;
let admin: Holder;
/** As `legal`, and may change devices. */
let alsoDevices: Holder;

beforeAll(async () => {
  world = await ApiWorld.open();
  legal = await world.person('Org Legal Admin');
  admin = await world.person('Org Admin');
  alsoDevices = await world.person('Org Legal Admin', { name: 'legal and devices' });
  await world.storage.rows(
    `INSERT INTO user_roles (tenant_id, user_id, role, scope, organization_id) VALUES ($1, $2, 'Org Computer Modify', 'all', $3)`,
    [world.tenant, alsoDevices.user, world.places.own.organization],
  );
}, 60_000);
afterAll(() => world?.close());
beforeEach(() => world.storage.rows('DELETE FROM plans'));

const days = [7, 90, 365, null];
const windows = days.map((untilDays) => ({ untilDays, everyMinutes: 0 }));
const retention = { windows, deletedAfterDays: null, keepNewest: 0, keepWithinDays: 0 };
const content = { include: ['/home'], exclude: [], everyMinutes: 15, windows: [] };

type Owner = 'own' | 'child' | 'device';
/** The device is in `child`, which is below `own`. */
const ownerOf = (owner: Owner) =>
  owner === 'device' ? { device: world.places.child.guid } : { organization: world.places[owner].organization };

async function insert(owner: Owner, name: string, keeps: object | null): Promise<string> {
  const { organization = null, device = null } = ownerOf(owner) as { organization?: number; device?: string };
  const [row] = await world.storage.rows<{ id: number }>(
    'INSERT INTO plans (tenant_id, organization_id, guid, name, content) VALUES ($1, $2, $3, $4, $5) RETURNING plan_id AS id',
    [world.tenant, organization, device, name, { ...content, retention: keeps }],
  );
  return `/v1/plans/${row!.id}`;
}
const stored = () => world.storage.rows('SELECT name, content, version FROM plans ORDER BY plan_id');

interface Case {
  /** The plan that there is above, by its owner; and whether it has a retention. */
  above?: [Owner, boolean];
  /** The plan it is about, likewise. None: one is made. */
  plan?: boolean;
  method: 'POST' | 'PATCH' | 'DELETE';
  body?: object;
}

/** As every case goes for a plan of an organization, and of a device. @returns how it is asked */
async function prepare(owner: Owner, { above, plan, method, body }: Case) {
  if (above) await insert(above[0], 'Above', above[1] ? retention : null);
  const path = plan === undefined ? '/v1/plans' : await insert(owner, 'above', plan ? retention : null);
  const asked = method === 'POST' ? { ...ownerOf(owner), name: 'above', ...content, ...body } : body;
  return (who: Holder) => world.ask(method, path, { token: who.token, ...(asked && { body: asked }) });
}

const above: Case['above'] = ['own', true];
const plainAbove: Case['above'] = ['own', false];
const deciding: [string, Case][] = [
  ['making one with a retention', { method: 'POST', body: { retention } }],
  ['making one in the place of one with a retention', { above, method: 'POST' }],
  ['giving one a retention', { plan: false, method: 'PATCH', body: { retention } }],
  ['taking it away', { plan: true, method: 'PATCH', body: { retention: null } }],
  ['changing it', { plan: true, method: 'PATCH', body: { retention: { ...retention, deletedAfterDays: 0 } } }],
  ['changing the folders of one with a retention', { plan: true, method: 'PATCH', body: { include: ['/home/ann'] } }],
  ['renaming one with a retention', { plan: true, method: 'PATCH', body: { name: 'other' } }],
  [
    'renaming one that had the place of one with a retention',
    { above, plan: false, method: 'PATCH', body: { name: 'other' } },
  ],
  ['deleting one with a retention', { plan: true, method: 'DELETE' }],
  ['deleting one that had the place of one with a retention', { above, plan: false, method: 'DELETE' }],
];
const harmless: [string, Case][] = [
  ['making one without', { above: plainAbove, method: 'POST' }],
  [
    'changing what else one with a retention says',
    { plan: true, method: 'PATCH', body: { everyMinutes: 60, include: ['/home'] } },
  ],
  ['changing the folders of one without', { above, plan: false, method: 'PATCH', body: { include: ['/home/ann'] } }],
  ['renaming one without', { above: plainAbove, plan: false, method: 'PATCH', body: { name: 'other' } }],
  ['deleting one without', { above: plainAbove, plan: false, method: 'DELETE' }],
];
const owners: [Owner, string][] = [
  ['child', 'org.update_deactivate'],
  ['device', 'computer.update'],
];
const each = <Row extends unknown[]>(cases: Row[]) =>
  owners.flatMap((owner) => cases.map((row) => [...owner, ...row] as const));

describe('who may change plans, and not set retention', () => {
  test.each(each(deciding))('of a %s (%s): is refused %s', async (owner, permission, _, asked) => {
    const ask = await prepare(owner, asked);
    const before = await stored();
    const refused = await ask(legal);
    expect([refused.status, refused.json.code]).toEqual([403, 'forbidden']);
    expect(refused.json.detail).toContain(permission);
    expect(await stored()).toEqual(before);
    // Whoever may change devices may for those, and for them alone.
    expect((await ask(alsoDevices)).status).toBe(owner === 'device' ? (asked.method === 'POST' ? 201 : 200) : 403);
  });

  test.each(each(harmless))('of a %s (%s): may be %s', async (owner, _permission, _, asked) => {
    const ask = await prepare(owner, asked);
    expect((await ask(legal)).status).toBe(asked.method === 'POST' ? 201 : 200);
  });
});

test.each(each(deciding))('of a %s (%s): who may set retention may be %s', async (owner, _permission, _, asked) => {
  const ask = await prepare(owner, asked);
  expect((await ask(admin)).status).toBe(asked.method === 'POST' ? 201 : 200);
});

test('a refusal is in the log, with the permission that was missing', async () => {
  const ask = await prepare('device', { plan: true, method: 'DELETE' });
  // Somebody whose refusals are not counted together with others' yet.
  expect((await ask(await world.person('Org Legal Admin', { name: 'noted' }))).status).toBe(403);
  const [act] = await world.storage.rows<{ details: object }>(
    `SELECT details FROM acts WHERE tenant_id = $1 AND action = 'request.refused' ORDER BY number DESC LIMIT 1`,
    [world.tenant],
  );
  expect(act!.details).toMatchObject({ method: 'DELETE', permission: 'computer.update' });
});
