import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { createUser, moveUser, updateUser } from './change.ts';
import { listUsers, readUser } from './read.ts';
import { giveRole, listRoles, takeRole } from './roles.ts';
import {
  CreateUserRequest,
  ListUsersQuery,
  MovedUser,
  RoleList,
  UpdateUserRequest,
  UserPage,
  UserView,
} from './shapes.ts';
import { blockUser, deactivateUser, reactivateUser, unblockUser } from './states.ts';
import { actingAs, type PeopleWorld, peopleWorld, told } from './testing.ts';

let world: PeopleWorld;
let tenant: number;
let top: number;
let other: { tenant: number; organization: number };

beforeAll(async () => {
  world = await peopleWorld();
  other = await world.tenant();
});
afterAll(() => world?.close());
beforeEach(async () => {
  ({ tenant, organization: top } = await world.tenant());
});

const create = (request: Partial<CreateUserRequestInput> & { passwordHash?: string | null }) =>
  world.change((tx) => {
    const { passwordHash = null, ...body } = request;
    return createUser(tx, actingAs(tenant), {
      ...CreateUserRequest.parse({ organization: top, name: 'ann', ...body }),
      tenant,
      passwordHash,
    });
  });
type CreateUserRequestInput = { organization: number; name: string; displayName: string | null; email: string | null };
const of = (user: number, expected: number | null = null) => ({ tenant, user, expected });
const query = (more: object = {}) => ListUsersQuery.parse(more);
const list = (more: object = {}, within: Parameters<typeof listUsers>[1]['within'] = { all: true }) =>
  listUsers(world.database, { tenant, within }, query(more));
const namesOf = async (page: Promise<{ items: { name: string }[] }>) => (await page).items.map(({ name }) => name);

describe('creating', () => {
  test('gives a user that reads back as it was answered', async () => {
    const made = await create({ displayName: 'Ann', email: 'Ann@example.org', passwordHash: 'hash' });
    expect(UserView.parse(made)).toEqual(made);
    expect(made).toMatchObject({ name: 'ann', state: 'active', hasPassword: true, devices: 0, roles: [], version: 1 });
    expect(made.effective).toEqual({ state: 'active', from: { kind: 'user', id: made.id, name: 'ann' } });
    expect(await readUser(world.database, { tenant, user: made.id })).toEqual(made);
    expect(await told(readUser(world.database, { tenant: other.tenant, user: made.id }))).toBe('not_found');
    expect(await create({ name: 'bea' })).toMatchObject({ hasPassword: false });
    expect(await world.actions(tenant)).toEqual(['user.create', 'user.invite']);
  });

  test('takes a name and a mail address once in a tenant, whatever their case', async () => {
    await create({ email: 'ann@example.org' });
    expect(await told(create({ name: 'ANN' }))).toBe('conflict name');
    expect(await told(create({ name: 'bea', email: 'ANN@example.org' }))).toBe('conflict email');
    expect(await told(create({ name: 'bea', organization: other.organization }))).toBe('not_found organization');
    expect(await world.actions(tenant)).toEqual(['user.invite']);
    tenant = other.tenant;
    expect(await told(create({ organization: other.organization, email: 'ann@example.org' }))).toBe('done');
  });

  test('of two at once with one name, one is told', async () => {
    const ends = await Promise.all([told(create({ name: 'twin' })), told(create({ name: 'Twin' }))]);
    expect(ends.sort()).toEqual(['conflict name', 'done']);
  });

  test.each([
    [{ name: 'x'.repeat(254) }, true],
    [{ name: 'x'.repeat(255) }, false],
    [{ name: '' }, false],
    [{ name: '  ' }, false],
    [{ name: 'a\0b' }, false],
    [{ name: 'a\nb' }, false],
    [{ name: '\ud800' }, false],
    [{ name: 'a', displayName: 'x'.repeat(255) }, true],
    [{ name: 'a', displayName: 'x'.repeat(256) }, false],
    [{ name: 'a', email: 'nobody' }, false],
    [{ name: 'a', email: null }, true],
    [{ name: 'a', administrator: true }, false],
  ])('%j may be asked: %s', (body, accepted) => {
    expect(CreateUserRequest.safeParse({ organization: 1, ...body }).success).toBe(accepted);
  });

  test('not in a deactivated organization, or below one', async () => {
    const below = await world.organization(tenant, top);
    await world.sql(`UPDATE organizations SET state = 'deactivated' WHERE organization_id = $1`, [top]);
    expect(await told(create({ organization: below }))).toBe('conflict organization');
  });
});

describe('updating', () => {
  const update = (user: number, change: object, expected: number | null = null) =>
    world.change((tx) =>
      updateUser(tx, actingAs(tenant), { ...of(user, expected), change: UpdateUserRequest.parse(change) }),
    );

  test('changes what is named and nothing else', async () => {
    const made = await create({ displayName: 'Ann', email: 'ann@example.org' });
    const changed = await update(made.id, { displayName: null });
    expect(changed).toEqual({ ...made, displayName: null, version: 2 });
    expect(await update(made.id, { displayName: null })).toEqual(changed);
    expect(await world.actions(tenant)).toEqual(['user.invite', 'user.update']);
    const [act] = await world.sql<{ details: unknown }>(
      `SELECT details FROM acts WHERE tenant_id = $1 AND action = 'user.update'`,
      [tenant],
    );
    expect(act!.details).toEqual({ displayName: { from: 'Ann', to: null } });
  });

  test('asks the version it was made from, and refuses what is taken', async () => {
    const made = await create({});
    await create({ name: 'bea', email: 'bea@example.org' });
    expect(await told(update(made.id, { name: 'Ann!' }, 2))).toBe('precondition_failed');
    expect(await told(update(made.id, { name: 'BEA' }, 1))).toBe('conflict name');
    expect(await told(update(made.id, { email: 'BEA@example.org' }, 1))).toBe('conflict email');
    expect(await told(update(made.id, { name: 'ANN' }, 1))).toBe('done');
    tenant = other.tenant;
    expect(await told(update(made.id, { name: 'x' }))).toBe('not_found');
  });

  test('nothing is no update', () => {
    expect(UpdateUserRequest.safeParse({}).success).toBe(false);
    expect(UpdateUserRequest.safeParse({ name: undefined }).success).toBe(false);
  });
});

describe('listing', () => {
  test('in pages, each user once, in the order of ids', async () => {
    for (const name of ['a', 'b', 'c']) await world.user({ tenant, organization: top }, name);
    await world.user(other, 'stranger');
    const first = await list({ limit: 2 });
    expect(UserPage.parse(first)).toEqual(first);
    expect(first.items.map(({ name }) => name)).toEqual(['a', 'b']);
    const second = await list({ limit: '2', after: first.next! });
    expect(second.items.map(({ name }) => name)).toEqual(['c']);
    expect(second.next).toBeNull();
    expect((await list({ limit: 3 })).next).toBeNull();
    expect(await told(list({ after: 'x' }))).toBe('out_of_bounds after');
    expect(await told(list({ after: Buffer.from('{"after":-1}').toString('base64url') }))).toBe('out_of_bounds after');
  });

  test.each([0, 1001, 1.5, 'x'])('a page of %s is none', (limit) => {
    expect(ListUsersQuery.safeParse({ limit }).success).toBe(false);
  });

  test('by organization, subtree, state, beginning and role, as far as the reader reaches', async () => {
    const left = await world.organization(tenant, top);
    const leaf = await world.organization(tenant, left);
    const right = await world.organization(tenant, top);
    await world.user({ tenant, organization: top }, 'Adam', true);
    const lea = await world.user({ tenant, organization: left }, 'lea');
    await world.user({ tenant, organization: leaf }, 'leaf_1');
    await world.user({ tenant, organization: right }, 'ria');
    await world.sql(`UPDATE users SET email = 'Zoe@example.org' WHERE user_id = $1`, [lea]);
    await world.sql(`UPDATE organizations SET state = 'blocked' WHERE organization_id = $1`, [left]);
    expect(await namesOf(list({ organization: left }))).toEqual(['lea']);
    expect(await namesOf(list({ below: String(left) }))).toEqual(['lea', 'leaf_1']);
    expect(await namesOf(list({ state: 'blocked' }))).toEqual(['lea', 'leaf_1']);
    expect(await namesOf(list({ state: 'active' }))).toEqual(['Adam', 'ria']);
    expect(await namesOf(list({ search: 'LE' }))).toEqual(['lea', 'leaf_1']);
    expect(await namesOf(list({ search: 'leaf_' }))).toEqual(['leaf_1']);
    expect(await namesOf(list({ search: 'e%' }))).toEqual([]);
    expect(await namesOf(list({ search: 'zoe@' }))).toEqual(['lea']);
    expect(await namesOf(list({ role: 'Customer Cloud Admin' }))).toEqual(['Adam']);
    expect(await namesOf(list({}, { path: left }))).toEqual(['lea', 'leaf_1']);
    expect(await namesOf(list({ below: right }, { path: left }))).toEqual([]);
    expect(await namesOf(list({}, { user: lea }))).toEqual(['lea']);
    const [held] = (await list({ search: 'leaf' })).items;
    expect(held).toMatchObject({
      state: 'active',
      effective: { state: 'blocked', from: { kind: 'organization', id: left } },
    });
  });
});

describe('what holds', () => {
  test.each([
    ['active', 'active', 'active', 'active', 'user'],
    ['active', 'active', 'suspended', 'suspended', 'tenant'],
    ['blocked', 'active', 'suspended', 'blocked', 'user'],
    ['active', 'blocked', 'suspended', 'blocked', 'organization'],
    ['blocked', 'blocked', 'active', 'blocked', 'user'],
    ['blocked', 'deactivated', 'active', 'deactivated', 'organization'],
    ['deactivated', 'deactivated', 'active', 'deactivated', 'user'],
    ['deactivated', 'active', 'offboarding', 'offboarding', 'tenant'],
  ])('user %s, organization above %s, tenant %s: %s, from the %s', async (user, organization, of, state, kind) => {
    const below = await world.organization(tenant, top);
    const id = await world.user({ tenant, organization: below });
    await world.sql('UPDATE users SET state = $2 WHERE user_id = $1', [id, user]);
    await world.sql('UPDATE organizations SET state = $2 WHERE organization_id = $1', [top, organization]);
    const leaves = of === 'offboarding' ? 'now()' : 'NULL';
    await world.sql(`UPDATE tenants SET state = $2, delete_after = ${leaves} WHERE tenant_id = $1`, [tenant, of]);
    expect((await readUser(world.database, { tenant, user: id })).effective).toMatchObject({ state, from: { kind } });
  });
});

describe('roles', () => {
  const give = (user: number, request: { role: string; scope?: 'self' | 'tree' | 'all'; organization?: number }) =>
    world.change((tx) => giveRole(tx, actingAs(tenant), { ...of(user), ...request }));
  const take = (user: number, role: string, organization?: number) =>
    world.change((tx) =>
      takeRole(tx, actingAs(tenant), { ...of(user), role, ...(organization !== undefined && { organization }) }),
    );

  test('all 31, with what they may do', () => {
    const found = listRoles();
    expect(RoleList.parse(found)).toEqual(found);
    expect(found.items).toHaveLength(31);
    const everything = found.items.find(({ name }) => name === 'Customer Cloud Admin');
    expect(everything!.permissions).toHaveLength(76);
  });

  test('are given and taken, and each is an act', async () => {
    const ann = await world.user({ tenant, organization: top });
    const given = await give(ann, { role: 'Org Admin' });
    expect(given.roles).toMatchObject([{ role: 'Org Admin', scope: 'tree', organization: { id: top }, inForce: true }]);
    expect(given.version).toBe(2);
    expect(await give(ann, { role: 'Org Admin' })).toEqual(given);
    expect(await told(give(ann, { role: 'Org Admin', scope: 'self' }))).toBe('conflict scope');
    expect((await give(ann, { role: 'Cross Org Admin', scope: 'tree' })).roles).toHaveLength(2);
    expect((await take(ann, 'Org Admin')).roles.map(({ role }) => role)).toEqual(['Cross Org Admin']);
    expect(await told(take(ann, 'Org Admin'))).toBe('not_found role');
    expect(await world.actions(tenant)).toEqual(['role.give', 'role.give', 'role.take']);
  });

  test('that make no sense are refused', async () => {
    const ann = await world.user({ tenant, organization: top });
    const below = await world.organization(tenant, top);
    expect(await told(give(ann, { role: 'Emperor' }))).toBe('out_of_bounds role');
    expect(await told(give(ann, { role: 'toString' }))).toBe('out_of_bounds role');
    expect(await told(give(ann, { role: 'Org Admin', scope: 'all' }))).toBe('out_of_bounds scope');
    expect(await told(give(ann, { role: 'Desktop User', scope: 'tree' }))).toBe('out_of_bounds scope');
    expect(await told(give(ann, { role: 'Org Admin', organization: below }))).toBe('conflict organization');
    expect(await told(give(ann, { role: 'Audit Log Viewer', organization: other.organization }))).toBe(
      'not_found organization',
    );
    expect(await told(give(ann, { role: 'Audit Log Viewer', organization: below }))).toBe('done');
    tenant = other.tenant;
    expect(await told(give(ann, { role: 'Org Admin' }))).toBe('not_found');
  });

  test('the last Customer Cloud Admin keeps it, however two are taken at once', async () => {
    const ann = await world.user({ tenant, organization: top }, 'ann', true);
    expect(await told(take(ann, 'Customer Cloud Admin'))).toBe('conflict');
    const bob = await world.user({ tenant, organization: top }, 'bob', true);
    const ends = await Promise.all([
      told(take(ann, 'Customer Cloud Admin')),
      told(world.change((tx) => deactivateUser(tx, actingAs(tenant), of(bob)))),
    ]);
    expect(ends.sort()).toEqual(['conflict', 'done']);
    const left = (await list({ role: 'Customer Cloud Admin', state: 'active' })).items;
    expect(left).toHaveLength(1);
  });
});

describe('moving', () => {
  const move = (user: number, organization: number, treeGrants: 'rewrite' | 'leave') =>
    world.change((tx) => moveUser(tx, actingAs(tenant), { ...of(user), organization, treeGrants }));
  const give = (user: number, role: string, scope?: 'self' | 'tree') =>
    world.change((tx) => giveRole(tx, actingAs(tenant), { ...of(user), role, ...(scope && { scope }) }));

  test('leaves roles of the old organization without force, or rewrites them; and says which', async () => {
    const to = await world.organization(tenant, top);
    const ann = await world.user({ tenant, organization: top });
    await give(ann, 'Org Admin');
    await give(ann, 'Desktop User');
    const left = await move(ann, to, 'leave');
    expect(MovedUser.parse(left)).toEqual(left);
    expect(left).toMatchObject({ rewritten: [], withoutForce: ['Org Admin'] });
    expect(left.user.roles.map(({ role, inForce }) => [role, inForce])).toEqual([
      ['Desktop User', true],
      ['Org Admin', false],
    ]);
    await move(ann, top, 'leave');
    const rewritten = await move(ann, to, 'rewrite');
    expect(rewritten).toMatchObject({ rewritten: ['Org Admin'], withoutForce: [] });
    expect(rewritten.user.roles.find(({ role }) => role === 'Org Admin')).toMatchObject({
      organization: { id: to },
      inForce: true,
    });
    expect(await world.actions(tenant)).toEqual(['role.give', 'role.give', 'user.move', 'user.move', 'user.move']);
  });

  test('rewriting onto a role that was left there is one role, with the wider scope', async () => {
    const to = await world.organization(tenant, top);
    const ann = await world.user({ tenant, organization: to });
    await give(ann, 'Org Admin', 'self');
    await move(ann, top, 'leave');
    await give(ann, 'Org Admin');
    const { user } = await move(ann, to, 'rewrite');
    expect(user.roles).toMatchObject([{ role: 'Org Admin', scope: 'tree', organization: { id: to }, inForce: true }]);
  });

  test('to where they are changes nothing; to another tenant or a deactivated organization is refused', async () => {
    const ann = await world.user({ tenant, organization: top });
    const out = await world.organization(tenant, top);
    await world.sql(`UPDATE organizations SET state = 'deactivated' WHERE organization_id = $1`, [out]);
    expect((await move(ann, top, 'leave')).user.version).toBe(1);
    expect(await told(move(ann, other.organization, 'leave'))).toBe('not_found organization');
    expect(await told(move(ann, out, 'leave'))).toBe('conflict organization');
    expect(await world.actions(tenant)).toEqual([]);
  });

  test('out of a deactivated organization warms what nothing else keeps cold', async () => {
    const out = await world.organization(tenant, top);
    const ann = await world.user({ tenant, organization: out });
    const device = await world.device({ tenant, user: ann });
    await world.sql(`UPDATE organizations SET state = 'deactivated' WHERE organization_id = $1`, [out]);
    await world.sql(`UPDATE archives SET state = 'cold', cold_until = now() WHERE vault_id = $1`, [device.vault]);
    await move(ann, top, 'leave');
    const [archive] = await world.sql('SELECT state FROM archives WHERE vault_id = $1', [device.vault]);
    expect(archive).toEqual({ state: 'active' });
  });
});

describe('seats', () => {
  const seats = (count: number, organization: number) =>
    world.sql(
      `INSERT INTO organization_settings (tenant_id, organization_id, name, value) VALUES ($1, $2, 'quotas.seats', $3)`,
      [tenant, organization, count],
    );

  test('are asked for when a user is made, moved there or brought back', async () => {
    const small = await world.organization(tenant, top);
    await seats(1, small);
    const first = await create({ name: 'first', organization: small });
    expect(await told(create({ name: 'second', organization: small }))).toBe('quota_exceeded');
    const ann = await create({ name: 'ann' });
    const move = () =>
      world.change((tx) => moveUser(tx, actingAs(tenant), { ...of(ann.id), organization: small, treeGrants: 'leave' }));
    expect(await told(move())).toBe('quota_exceeded');
    await world.change((tx) => deactivateUser(tx, actingAs(tenant), of(first.id)));
    expect(await told(move())).toBe('done');
    expect(await told(world.change((tx) => reactivateUser(tx, actingAs(tenant), of(first.id))))).toBe('quota_exceeded');
  });

  test('of two who would take the last one, one gets it', async () => {
    await seats(1, top);
    const ends = await Promise.all([told(create({ name: 'one' })), told(create({ name: 'two' }))]);
    expect(ends.sort()).toEqual(['done', 'quota_exceeded']);
  });
});

describe('states', () => {
  const change = (verb: typeof blockUser, user: number, by: number | null = null, expected: number | null = null) =>
    world.change((tx) => verb(tx, actingAs(tenant, by), of(user, expected)));

  test('blocked and back, deactivated and back; each change is an act, and no change is none', async () => {
    const ann = await world.user({ tenant, organization: top });
    expect(await change(blockUser, ann)).toMatchObject({ state: 'blocked', version: 2 });
    expect(await change(blockUser, ann)).toMatchObject({ state: 'blocked', version: 2 });
    expect(await told(change(reactivateUser, ann))).toBe('conflict');
    expect(await change(unblockUser, ann)).toMatchObject({ state: 'active' });
    expect(await change(deactivateUser, ann)).toMatchObject({ state: 'deactivated' });
    expect(await told(change(unblockUser, ann))).toBe('conflict');
    expect(await told(change(blockUser, ann))).toBe('conflict');
    expect(await told(change(reactivateUser, ann, null, 3))).toBe('precondition_failed');
    expect(await change(reactivateUser, ann, null, 4)).toMatchObject({ state: 'active', version: 5 });
    expect(await world.actions(tenant)).toEqual(['user.block', 'user.unblock', 'user.deactivate', 'user.reactivate']);
  });

  test('reactivated, somebody who was blocked is blocked', async () => {
    const ann = await world.user({ tenant, organization: top });
    await change(blockUser, ann);
    await change(deactivateUser, ann);
    expect(await change(reactivateUser, ann)).toMatchObject({ state: 'blocked' });
    await change(unblockUser, ann);
    await change(deactivateUser, ann);
    expect(await change(reactivateUser, ann)).toMatchObject({ state: 'active' });
  });

  test('nobody blocks or deactivates themselves, or the last administrator', async () => {
    const ann = await world.user({ tenant, organization: top }, 'ann', true);
    const bob = await world.user({ tenant, organization: top }, 'bob', true);
    expect(await told(change(deactivateUser, ann, ann))).toBe('conflict');
    expect(await told(change(blockUser, ann, ann))).toBe('conflict');
    expect(await told(change(deactivateUser, ann, bob))).toBe('done');
    expect(await told(change(deactivateUser, bob))).toBe('conflict');
    expect(await told(change(blockUser, bob))).toBe('conflict');
    expect(await readUser(world.database, { tenant, user: bob })).toMatchObject({ state: 'active', version: 1 });
  });

  test('an administrator in a blocked organization is none that is left', async () => {
    const away = await world.organization(tenant, top);
    const ann = await world.user({ tenant, organization: top }, 'ann', true);
    await world.user({ tenant, organization: away }, 'bob', true);
    await world.sql(`UPDATE organizations SET state = 'blocked' WHERE organization_id = $1`, [away]);
    expect(await told(change(deactivateUser, ann))).toBe('conflict');
  });

  test('of two administrators deactivated at once, one stays', async () => {
    const ann = await world.user({ tenant, organization: top }, 'ann', true);
    const bob = await world.user({ tenant, organization: top }, 'bob', true);
    const ends = await Promise.all([told(change(deactivateUser, ann)), told(change(deactivateUser, bob))]);
    expect(ends.sort()).toEqual(['conflict', 'done']);
  });
});
