import { describe, expect, test } from '@jest/globals';
import { newArchive, storageForFile } from '../../../tests/helpers/storage.ts';
import { findUserAccount } from '../sign-in/accounts.ts';
import { renameOrganization, rotateRegistrationKey } from './changing.ts';
import { createOrganization, deleteOrganization } from './creating.ts';
import { listOrganizations, readOrganization } from './reading.ts';
import { isRegistrationKey, newRegistrationKey } from './registration-key.ts';
import { CreateOrganizationRequest, ListOrganizationsQuery, OrganizationDetail, OrganizationPage } from './shapes.ts';
import { type TestTenant, testTenant } from './testing.ts';

const storage = storageForFile();
const world = (): Promise<TestTenant> => testTenant(storage.database);
const read = ({ tenant }: TestTenant, organization: number) =>
  readOrganization(storage.database, { tenant, organization });
const remove = ({ tenant, by }: TestTenant, organization: number, expected: number | null = null) =>
  storage.database.transaction((tx) => deleteOrganization(tx, by, { tenant, organization, expected }));

describe('an organization that is made', () => {
  test('is below its parent, inherits everything, and is in the log', async () => {
    const its = await world();
    const [a, b] = await its.chain(its.top, 'a', 'b');
    const found = await read(its, b!);
    expect(OrganizationDetail.parse(found)).toEqual(found);
    expect(found).toMatchObject({
      id: b,
      parent: a,
      path: [its.top, a, b],
      state: 'active',
      effective: { state: 'active' },
      children: 0,
      users: 0,
      version: 1,
    });
    expect(isRegistrationKey(found.registrationKey)).toBe(true);
    expect((await read(its, its.top)).children).toBe(1);
    expect((await read(its, its.top)).users).toBe(1);
    expect((await its.acts('organization.create'))[1]).toMatchObject({
      target: `organization ${b}`,
      organization: b,
      details: { parent: a },
    });
  });

  test('may be at the top of the tenant, beside others', async () => {
    const its = await world();
    const [other] = await its.chain(null, 'another');
    expect(await read(its, other!)).toMatchObject({ parent: null, path: [other] });
  });

  test('is at most the sixteenth level', async () => {
    const its = await world();
    const names = Array.from({ length: 15 }, (_, i) => `level ${i + 2}`);
    const deepest = (await its.chain(its.top, ...names)).at(-1)!;
    expect((await read(its, deepest)).path).toHaveLength(16);
    await expect(its.chain(deepest, 'level 17')).rejects.toMatchObject({
      code: 'conflict',
      extras: { field: 'parent', levels: 17, levelsMax: 16 },
    });
  });

  test("is below nothing deactivated, and nothing of another tenant's", async () => {
    const [its, other] = [await world(), await world()];
    const [a, b] = await its.chain(its.top, 'a', 'b');
    await its.change('deactivate', a!);
    await expect(its.chain(b!, 'c')).rejects.toMatchObject({
      code: 'conflict',
      extras: { field: 'parent', deactivated: { id: a, name: 'a' } },
    });
    for (const parent of [other.top, 2 ** 40])
      await expect(its.chain(parent, 'c')).rejects.toMatchObject({ code: 'not_found', extras: { field: 'parent' } });
  });

  test('is not made in a tenant that is leaving', async () => {
    const its = await world();
    await storage.rows(`UPDATE tenants SET state = 'offboarding', delete_after = now() WHERE tenant_id = $1`, [
      its.tenant,
    ]);
    await expect(its.chain(its.top, 'a')).rejects.toMatchObject({ code: 'conflict' });
  });

  test.each([
    ['', false],
    ['   ', false],
    ['x'.repeat(255), true],
    ['x'.repeat(256), false],
    ['a\0b', false],
    ['two\nlines', false],
    ['\ud800', false],
    ['Vertrieb \u{1f680} & Söhne', true],
  ])('has a name, and %j is one: %s', (name, isName) => {
    expect(CreateOrganizationRequest.safeParse({ name, parent: null }).success).toBe(isName);
  });
});

describe('changing one', () => {
  test('a new name is a new version, and the same name is not', async () => {
    const its = await world();
    const [a] = await its.chain(its.top, 'a');
    const rename = (name: string, expected: number | null) =>
      storage.database.transaction((tx) =>
        renameOrganization(tx, its.by, { tenant: its.tenant, organization: a!, name, expected }),
      );
    expect(await rename('b', 1)).toMatchObject({ name: 'b', version: 2 });
    expect(await rename('b', 2)).toMatchObject({ name: 'b', version: 2 });
    await expect(rename('c', 1)).rejects.toMatchObject({ code: 'precondition_failed', extras: { version: 2 } });
    expect(await its.acts('organization.rename')).toMatchObject([{ details: { from: 'a', to: 'b' } }]);
  });

  test('of two changes made from one version, the second is refused', async () => {
    const its = await world();
    const [a] = await its.chain(its.top, 'a');
    const rename = (name: string) =>
      storage.database.transaction((tx) =>
        renameOrganization(tx, its.by, { tenant: its.tenant, organization: a!, name, expected: 1 }),
      );
    const done = await Promise.allSettled([rename('left'), rename('right')]);
    expect(done.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    expect(await its.acts('organization.rename')).toHaveLength(1);
  });

  test('another registration key: the one before it opens nothing at once, and the log knows neither', async () => {
    const its = await world();
    const before = (await read(its, its.top)).registrationKey;
    const registrationKey = newRegistrationKey();
    const request = { tenant: its.tenant, organization: its.top, registrationKey, expected: 1 };
    await storage.database.transaction((tx) => rotateRegistrationKey(tx, its.by, request));
    const ada = (key: string) => findUserAccount(storage.database, { registrationKey: key }, 'ada');
    expect(await ada(before)).toMatchObject({ kind: 'none', tenant: null });
    expect(await ada(registrationKey)).toMatchObject({ kind: 'user', id: its.administrator });
    const acts = await its.acts('organization.rotate_key');
    expect(acts).toHaveLength(1);
    expect(JSON.stringify(acts)).not.toContain(registrationKey);
    await expect(
      storage.database.transaction((tx) =>
        rotateRegistrationKey(tx, its.by, { ...request, registrationKey: 'AAAA', expected: null }),
      ),
    ).rejects.toThrow('some other way');
  });
});

describe('listing', () => {
  const list = async (
    { tenant }: TestTenant,
    query: object,
    within: Parameters<typeof listOrganizations>[1]['within'] = { all: true },
  ) => {
    const page = await listOrganizations(storage.database, { tenant, within }, ListOrganizationsQuery.parse(query));
    expect(OrganizationPage.parse(page)).toEqual(page);
    return { names: page.items.map(({ name }) => name), next: page.next };
  };

  test('a subtree, direct children, the top, by name, by what holds', async () => {
    const its = await world();
    const [a, b] = await its.chain(its.top, 'Alpha', 'Beta');
    await its.chain(b!, 'Gamma 100%');
    await its.chain(its.top, 'Delta');
    await its.change('block', a!);
    expect((await list(its, {})).names).toEqual(['top', 'Alpha', 'Beta', 'Gamma 100%', 'Delta']);
    expect((await list(its, { below: String(a) })).names).toEqual(['Alpha', 'Beta', 'Gamma 100%']);
    expect((await list(its, { parent: String(its.top) })).names).toEqual(['Alpha', 'Delta']);
    expect((await list(its, { parent: 'none' })).names).toEqual(['top']);
    expect((await list(its, { search: 'ET' })).names).toEqual(['Beta']);
    expect((await list(its, { search: '0%' })).names).toEqual(['Gamma 100%']);
    expect((await list(its, { search: '_' })).names).toEqual([]);
    expect((await list(its, { state: 'blocked' })).names).toEqual(['Alpha', 'Beta', 'Gamma 100%']);
    expect((await list(its, { below: String(b), search: 'a' })).names).toEqual(['Beta', 'Gamma 100%']);
  });

  test('goes as far as the reader reaches', async () => {
    const [its, other] = [await world(), await world()];
    const [a] = await its.chain(its.top, 'a', 'b');
    await its.chain(its.top, 'c');
    expect((await list(its, {}, { path: a! })).names).toEqual(['a', 'b']);
    expect((await list(its, { below: String(its.top) }, { path: a! })).names).toEqual(['a', 'b']);
    expect((await list(its, {}, { path: other.top })).names).toEqual([]);
    expect((await list(its, {}, { user: its.administrator })).names).toEqual([]);
    expect((await list(its, { below: String(other.top) })).names).toEqual([]);
    await expect(read(its, other.top)).rejects.toMatchObject({ code: 'not_found' });
  });

  test('comes in pages that together are all of it', async () => {
    const its = await world();
    await its.chain(its.top, 'a', 'b', 'c', 'd');
    const names: string[] = [];
    for (let after: string | undefined; ; ) {
      const page = await list(its, { limit: '2', ...(after && { after }) });
      expect(page.names.length).toBeLessThanOrEqual(2);
      names.push(...page.names);
      if (page.next === null) break;
      after = page.next;
    }
    expect(names).toEqual(['top', 'a', 'b', 'c', 'd']);
  });

  test.each(['0', '1001', 'x', '-1', '1.5'])('limit=%s is out of bounds', (limit) => {
    expect(ListOrganizationsQuery.safeParse({ limit }).success).toBe(false);
    expect(ListOrganizationsQuery.safeParse({ limit: '1' }).success).toBe(true);
    expect(ListOrganizationsQuery.safeParse({ limit: '1000' }).success).toBe(true);
  });
});

describe('states', () => {
  test('hold for all below, are nobody else\u2019s, and lifting one lifts what it did', async () => {
    const its = await world();
    const [a, b, c] = await its.chain(its.top, 'a', 'b', 'c');
    const effective = async (id: number) => (await read(its, id)).effective;
    await its.change('block', b!);
    await its.change('deactivate', a!);
    expect(await effective(c!)).toEqual({ state: 'deactivated', from: { kind: 'organization', id: a, name: 'a' } });
    expect(await effective(b!)).toMatchObject({ state: 'deactivated', from: { id: a } });
    expect(await read(its, b!)).toMatchObject({ state: 'blocked' });
    expect(await effective(its.top)).toMatchObject({ state: 'active' });

    await its.change('reactivate', a!);
    expect(await effective(c!)).toEqual({ state: 'blocked', from: { kind: 'organization', id: b, name: 'b' } });
    await its.change('unblock', b!);
    expect(await effective(c!)).toMatchObject({ state: 'active' });

    await storage.rows(`UPDATE tenants SET state = 'suspended' WHERE tenant_id = $1`, [its.tenant]);
    expect(await effective(c!)).toMatchObject({ state: 'suspended', from: { kind: 'tenant' } });
  });

  test('each change has its act and its version, and what is so already is no change', async () => {
    const its = await world();
    const [a] = await its.chain(its.top, 'a');
    expect(await its.change('block', a!, 1)).toMatchObject({ state: 'blocked', version: 2 });
    expect(await its.change('block', a!, 2)).toMatchObject({ version: 2 });
    await expect(its.change('unblock', a!, 1)).rejects.toMatchObject({ code: 'precondition_failed' });
    expect(await its.change('deactivate', a!)).toMatchObject({ state: 'deactivated', version: 3 });
    for (const change of ['block', 'unblock'] as const)
      await expect(its.change(change, a!)).rejects.toMatchObject({
        code: 'conflict',
        extras: { state: 'deactivated' },
      });
    expect(await its.change('reactivate', a!)).toMatchObject({ state: 'blocked', version: 4 });
    await expect(its.change('reactivate', a!)).rejects.toMatchObject({
      code: 'conflict',
      extras: { state: 'blocked' },
    });
    expect(await its.change('unblock', a!)).toMatchObject({ state: 'active', version: 5 });
    for (const change of ['unblock', 'reactivate'] as const)
      expect(await its.change(change, a!)).toMatchObject({ state: 'active', version: 5 });
    expect(await its.acts('organization.block')).toMatchObject([{ details: { from: 'active', to: 'blocked' } }]);
    expect(await its.acts('organization.deactivate')).toMatchObject([{ details: { from: 'blocked' } }]);
    expect(await its.acts('organization.reactivate')).toHaveLength(1);
  });

  test('archives of what is deactivated go cold, and come back when nothing above keeps them so', async () => {
    const its = await world();
    const [a, b] = (await its.chain(its.top, 'a', 'b')) as [number, number];
    const { vault, archive } = await newArchive(storage);
    await storage.rows(
      `INSERT INTO devices (tenant_id, user_id, guid, name, platform, agent_version, token_sha256, vault_id, archive_id)
       VALUES ($1, $2, $3, 'laptop', 'linux', '1', sha256($4::bytea), $3, $5)`,
      [its.tenant, await its.user(b, 'bob'), vault, `token ${vault}`, archive],
    );
    const stateOfArchive = async () =>
      (await storage.rows<{ state: string }>('SELECT state FROM archives WHERE vault_id = $1', [vault]))[0]!.state;
    await its.change('block', a);
    expect(await stateOfArchive()).toBe('active');
    await its.change('deactivate', a);
    expect(await stateOfArchive()).toBe('cold');
    await its.change('deactivate', b);
    await its.change('reactivate', a);
    expect(await stateOfArchive()).toBe('cold');
    await its.change('reactivate', b);
    expect(await stateOfArchive()).toBe('active');
  });

  test.each(['block', 'deactivate'] as const)('nobody locks themselves out with %s', async (change) => {
    const its = await world();
    await expect(its.change(change, its.top)).rejects.toMatchObject({ code: 'conflict' });
    expect(await read(its, its.top)).toMatchObject({ state: 'active', version: 1 });
  });

  test('the last administrator is not locked out by a program either', async () => {
    const its = await world();
    its.by.party.kind = 'client';
    await expect(its.change('block', its.top)).rejects.toMatchObject({ code: 'conflict' });
    expect(await read(its, its.top)).toMatchObject({ state: 'active', version: 1 });
    expect(await its.acts('organization.block')).toEqual([]);
  });

  test('are not changed across tenants', async () => {
    const [its, other] = [await world(), await world()];
    await expect(its.change('block', other.top)).rejects.toMatchObject({ code: 'not_found' });
    await expect(its.move(other.top, null)).rejects.toMatchObject({ code: 'not_found' });
    await expect(remove(its, other.top)).rejects.toMatchObject({ code: 'not_found' });
  });
});

describe('deleting', () => {
  test('only what is deactivated and empty; what is in the way is said', async () => {
    const its = await world();
    const [a, b] = await its.chain(its.top, 'a', 'b');
    await expect(remove(its, b!)).rejects.toMatchObject({ code: 'conflict', extras: { state: 'active' } });
    const user = await its.user(a!, 'bob');
    await its.change('deactivate', a!);
    await expect(remove(its, a!)).rejects.toMatchObject({
      code: 'conflict',
      message: expect.stringContaining('1 users in it'),
      extras: { inTheWay: { organizations: 1, users: 1, grants: 0 } },
    });
    await its.change('deactivate', b!);
    expect(await remove(its, b!)).toEqual({ deleted: b });
    await storage.rows('UPDATE users SET organization_id = $2 WHERE user_id = $1', [user, its.top]);
    // Given there, one role counts wherever its holder is, and one nowhere else.
    for (const [role, scope] of [
      ['Cross Org Admin', 'all'],
      ['Org Admin', 'tree'],
    ])
      await storage.rows(
        'INSERT INTO user_roles (tenant_id, user_id, role, scope, organization_id) VALUES ($1, $2, $3, $4, $5)',
        [its.tenant, user, role, scope, a],
      );
    await expect(remove(its, a!)).rejects.toMatchObject({ extras: { inTheWay: { grants: 1 } } });
    await storage.rows(`DELETE FROM user_roles WHERE user_id = $1 AND scope = 'all'`, [user]);
    await storage.rows(
      `INSERT INTO organization_settings (tenant_id, organization_id, name, value) VALUES ($1, $2, 'quotas.seats', '5')`,
      [its.tenant, a],
    );
    await expect(remove(its, a!, 1)).rejects.toMatchObject({ code: 'precondition_failed' });
    expect(await remove(its, a!)).toEqual({ deleted: a });
    await expect(read(its, a!)).rejects.toMatchObject({ code: 'not_found' });
    expect(await storage.rows('SELECT 1 FROM user_roles WHERE user_id = $1', [user])).toEqual([]);
    expect((await its.acts('organization.delete'))[1]).toMatchObject({
      target: `organization ${a}`,
      organization: its.top,
      details: { parent: its.top, grants: 1 },
    });
  });

  test('what else refers to it is in the way too', async () => {
    const its = await world();
    const [a] = await its.chain(its.top, 'a');
    await its.change('deactivate', a!);
    await storage.rows(
      `INSERT INTO api_clients (tenant_id, organization_id, name, client_key, secret_sha256, permissions, scope, expires_at, made_by)
       VALUES ($1, $2, 'script', 'key of a', sha256('x'), '{org.read}', 'tree', now(), 'ada')`,
      [its.tenant, a],
    );
    await expect(remove(its, a!)).rejects.toMatchObject({
      code: 'conflict',
      extras: { inTheWay: { api_clients: true } },
    });
  });

  test('meets a user who is just being made in it: it waits, and finds them', async () => {
    const its = await world();
    const [a] = await its.chain(its.top, 'a');
    await its.change('deactivate', a!);
    let deleted: Promise<unknown> | undefined;
    await storage.database.transaction(async (tx) => {
      await tx.query(
        { name: '', text: `INSERT INTO users (tenant_id, organization_id, name) VALUES ($1, $2, 'bob')` },
        [its.tenant, a],
      );
      deleted = remove(its, a!).catch((error) => error);
      for (let waiting = 0; waiting === 0; ) {
        const [row] = await storage.rows<{ n: number }>(
          `SELECT count(*)::int AS n FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`,
        );
        waiting = row!.n;
      }
    });
    expect(await deleted).toMatchObject({ code: 'conflict', extras: { inTheWay: { users: 1 } } });
  });
});

test('the tree is changed by one at a time: what is made below an organization moves with it', async () => {
  const its = await world();
  const [a, b] = await its.chain(its.top, 'a', 'b');
  const [c] = await its.chain(its.top, 'c');
  const create = (name: string) =>
    storage.database.transaction((tx) =>
      createOrganization(tx, its.by, { tenant: its.tenant, parent: b!, name, registrationKey: newRegistrationKey() }),
    );
  const made = await Promise.all([create('1'), its.move(a!, c!), create('2'), create('3')]);
  for (const { id } of made) {
    if (id === a) continue;
    expect((await read(its, id)).path).toEqual([its.top, c, a, b, id]);
  }
});
