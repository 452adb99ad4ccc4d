import { describe, expect, test } from '@jest/globals';
import { addUsage } from '../../../storage/catalog/usage.ts';
import { newArchive, storageForFile } from '../../../tests/helpers/storage.ts';
import { createOrganization } from '../organizations/creating.ts';
import { readOrganization } from '../organizations/reading.ts';
import { newRegistrationKey } from '../organizations/registration-key.ts';
import { operator, testTenant } from '../organizations/testing.ts';
import { changeSettings } from '../settings/changing.ts';
import { createTenant, renameTenant, resumeTenant, suspendTenant } from './changing.ts';
import { type ExportLine, exportLines, noteTenantExport } from './export.ts';
import { beginOffboarding, lockTenantForHold } from './offboarding.ts';
import { listTenants, readTenant } from './reading.ts';
import { CreatedTenant, ListTenantsQuery, OffboardTenantRequest, TenantPage } from './shapes.ts';
import { vaultsOfTenant } from './vaults-of-tenant.ts';

const storage = storageForFile();

const make = (name: string, key = newRegistrationKey()) =>
  storage.database.transaction((tx) =>
    createTenant(tx, operator, { name, registrationKey: key, administrator: { name: 'ada', passwordHash: '$hash' } }),
  );
const suspend = (tenant: number, expected: number | null = null) =>
  storage.database.transaction((tx) => suspendTenant(tx, operator, { tenant, expected }));
const resume = (tenant: number, expected: number | null = null) =>
  storage.database.transaction((tx) => resumeTenant(tx, operator, { tenant, expected }));
const offboard = (tenant: number, { delayDays = 30, expected = null as number | null } = {}) =>
  storage.database.transaction((tx) => beginOffboarding(tx, operator, { tenant, delayDays, expected }));

type ActRow = { action: string; partyKind: string; details: Record<string, unknown> };
const acts = (tenant: number, about: number): Promise<ActRow[]> =>
  storage.rows(
    `SELECT action, party_kind AS "partyKind", details FROM acts
      WHERE tenant_id = $1 AND target_kind = 'tenant' AND target_id = $2 ORDER BY number`,
    [tenant, String(about)],
  );
const serverLog = 0;

/** A user with one device and its archive. @returns the vault */
async function userWithVault(its: { tenant: number; organization: number }, name: string): Promise<number> {
  const { vault, archive } = await newArchive(storage);
  await storage.rows(
    `WITH made AS (INSERT INTO users (tenant_id, organization_id, name) VALUES ($1, $2, $3) RETURNING user_id)
     INSERT INTO devices (tenant_id, user_id, guid, name, platform, agent_version, token_sha256, vault_id, archive_id)
     SELECT $1, user_id, $4::bigint, 'laptop', 'linux', '1', sha256($5::bytea), $4::bigint, $6 FROM made`,
    [its.tenant, its.organization, name, vault, `token ${vault}`, archive],
  );
  return vault;
}

describe('a tenant that is made', () => {
  test('has an organization with a registration key, and an administrator', async () => {
    const key = newRegistrationKey();
    const made = await make('Acme', key);
    expect(CreatedTenant.parse(made)).toEqual(made);
    const { tenant, organization, administrator } = made;
    expect(tenant).toMatchObject({
      name: 'Acme',
      state: 'active',
      organizations: 1,
      users: 1,
      activeUsers: 1,
      devices: 0,
    });
    expect(await readOrganization(storage.database, { tenant: tenant.id, organization })).toMatchObject({
      name: 'Acme',
      parent: null,
      registrationKey: key,
    });
    const [role] = await storage.rows('SELECT role, scope FROM user_roles WHERE user_id = $1', [administrator]);
    expect(role).toEqual({ role: 'Customer Cloud Admin', scope: 'all' });
    const [password] = await storage.rows(
      `SELECT password_hash AS hash, round(extract(epoch FROM password_once_until - now()) / 86400)::int AS "onceForDays"
         FROM users WHERE user_id = $1`,
      [administrator],
    );
    expect(password).toEqual({ hash: '$hash', onceForDays: 7 });
    for (const log of [serverLog, tenant.id])
      expect(await acts(log, tenant.id)).toEqual([
        { action: 'tenant.create', partyKind: 'operator', details: { organization, administrator } },
      ]);
  });
});

describe('what the operator sees', () => {
  test('are figures, and no name of a user, a device or an organization', async () => {
    const { tenant, organization } = await make('Figures');
    const its = { tenant: tenant.id, organization };
    const vaults = [await userWithVault(its, 'secret person'), await userWithVault(its, 'another person')];
    for (const vault of vaults) await storage.database.transaction((tx) => addUsage(tx, vault, { objectBytes: 1_000 }));
    await storage.rows('INSERT INTO vault_usage VALUES ($1, 0, 0, 0, 5, 0)', [vaults[0]]);
    await storage.rows(`UPDATE users SET state = 'blocked' WHERE tenant_id = $1 AND name = 'another person'`, [
      tenant.id,
    ]);

    const found = await readTenant(storage.database, tenant.id);
    expect(found).toMatchObject({ organizations: 1, users: 3, activeUsers: 2, devices: 2, storedBytes: 2_005 });
    const page = await listTenants(storage.database, ListTenantsQuery.parse({ search: 'figures' }));
    expect(TenantPage.parse(page)).toEqual({ items: [found], next: null });
    expect(JSON.stringify(page)).not.toMatch(/person|laptop|ada/);
  });

  test('comes in pages, by name and by state', async () => {
    const names = ['Page 1', 'Page 2', 'Page 3'];
    const ids: number[] = [];
    for (const name of names) ids.push((await make(name)).tenant.id);
    await suspend(ids[1]!);
    const list = (query: object) => listTenants(storage.database, ListTenantsQuery.parse(query));
    const first = await list({ search: 'PAGE', limit: '2' });
    expect(first.items.map(({ id }) => id)).toEqual(ids.slice(0, 2));
    const second = await list({ search: 'PAGE', limit: '2', after: first.next! });
    expect(second).toMatchObject({ items: [{ id: ids[2] }], next: null });
    expect((await list({ search: 'page', state: 'suspended' })).items.map(({ id }) => id)).toEqual([ids[1]]);
    expect(ListTenantsQuery.safeParse({ limit: '100' }).success).toBe(true);
    expect(ListTenantsQuery.safeParse({ limit: '101' }).success).toBe(false);
  });

  test('vaults of a tenant come in batches, those without devices left out', async () => {
    const { tenant, organization } = await make('Vaults');
    const vault = await userWithVault({ tenant: tenant.id, organization }, 'one');
    expect(await Array.fromAsync(vaultsOfTenant(storage.database, tenant.id))).toEqual([[vault]]);
    const { tenant: none } = await make('None');
    expect(await Array.fromAsync(vaultsOfTenant(storage.database, none.id))).toEqual([]);
  });
});

describe('changing one', () => {
  test('name and state, each with its version, in both logs', async () => {
    const { tenant } = await make('Before');
    const renamed = await storage.database.transaction((tx) =>
      renameTenant(tx, operator, { tenant: tenant.id, name: 'After', expected: 1 }),
    );
    expect(renamed).toMatchObject({ name: 'After', version: 2 });
    await expect(suspend(tenant.id, 1)).rejects.toMatchObject({ code: 'precondition_failed' });
    expect(await suspend(tenant.id, 2)).toMatchObject({ state: 'suspended', version: 3 });
    expect(await suspend(tenant.id)).toMatchObject({ version: 3 });
    expect(await resume(tenant.id, 3)).toMatchObject({ state: 'active', version: 4 });
    for (const log of [serverLog, tenant.id])
      expect((await acts(log, tenant.id)).map(({ action }) => action)).toEqual([
        'tenant.create',
        'tenant.rename',
        'tenant.suspend',
        'tenant.resume',
      ]);
  });

  test('one that is not there', async () => {
    for (const change of [suspend, resume, offboard])
      await expect(change(2 ** 40)).rejects.toMatchObject({ code: 'not_found' });
    await expect(readTenant(storage.database, 2 ** 40)).rejects.toMatchObject({ code: 'not_found' });
  });
});

describe('offboarding', () => {
  test('names a day, stops what is made, and can be called back', async () => {
    const { tenant, organization } = await make('Leaving');
    const left = await offboard(tenant.id, { delayDays: 3, expected: 1 });
    expect(left).toMatchObject({ state: 'offboarding', version: 2 });
    const [row] = await storage.rows<{ days: number }>(
      `SELECT extract(epoch FROM delete_after - now()) / 86400 AS days FROM tenants WHERE tenant_id = $1`,
      [tenant.id],
    );
    expect(Math.ceil(Number(row!.days))).toBe(3);
    // Again: the day stays.
    expect(await offboard(tenant.id, { delayDays: 300 })).toEqual(left);
    await expect(suspend(tenant.id)).rejects.toMatchObject({ code: 'conflict', extras: { state: 'offboarding' } });
    const request = { tenant: tenant.id, parent: organization, name: 'late', registrationKey: newRegistrationKey() };
    await expect(storage.database.transaction((tx) => createOrganization(tx, operator, request))).rejects.toMatchObject(
      { code: 'conflict' },
    );

    expect(await resume(tenant.id)).toMatchObject({ state: 'active', deleteAfter: null });
    expect((await acts(tenant.id, tenant.id)).slice(1)).toMatchObject([
      { action: 'tenant.offboard', details: { from: 'active', deleteAfter: left.deleteAfter } },
      { action: 'tenant.resume', details: { from: 'offboarding' } },
    ]);
  });

  test.each([
    [1, true],
    [365, true],
    [0, false],
    [366, false],
    [1.5, false],
  ])('%s days are a delay: %s', (delayDays, is) => {
    expect(OffboardTenantRequest.safeParse({ delayDays }).success).toBe(is);
    expect(OffboardTenantRequest.parse({})).toEqual({ delayDays: 30 });
  });

  test('is kept from beginning by every hold in force, and says how many', async () => {
    const { tenant, organization } = await make('Held');
    const its = { tenant: tenant.id, organization };
    const [a, b, c] = [await userWithVault(its, 'a'), await userWithVault(its, 'b'), await userWithVault(its, 'c')];
    const hold = (vault: number, release: string | null) =>
      storage.rows(
        `INSERT INTO holds (vault_id, policy, release_effective_at) VALUES ($1, '{}', now() + $2::interval)`,
        [vault, release],
      );
    await hold(a, null);
    await hold(a, '7 days'); // released, but not in effect yet
    await hold(b, null);
    await hold(c, '-1 second');
    await storage.rows(`UPDATE users SET state = 'deactivated' WHERE tenant_id = $1 AND name = 'b'`, [tenant.id]);
    await expect(offboard(tenant.id)).rejects.toMatchObject({ code: 'conflict', extras: { holds: 3, heldUsers: 2 } });
    expect(await readTenant(storage.database, tenant.id)).toMatchObject({ state: 'active', version: 1 });

    await storage.rows(`UPDATE holds SET release_effective_at = now() WHERE vault_id = ANY ($1::bigint[])`, [[a, b]]);
    expect(await offboard(tenant.id)).toMatchObject({ state: 'offboarding' });
  });

  const isWaiting = async (): Promise<void> => {
    for (let waiting = 0; waiting === 0; ) {
      const [row] = await storage.rows<{ n: number }>(
        `SELECT count(*)::int AS n FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`,
      );
      waiting = row!.n;
    }
  };

  test('waits for a hold that is just being placed, and sees it', async () => {
    const { tenant, organization } = await make('Held meanwhile');
    const vault = await userWithVault({ tenant: tenant.id, organization }, 'a');
    let left: Promise<unknown> | undefined;
    await storage.database.transaction(async (tx) => {
      await lockTenantForHold(tx, tenant.id);
      left = offboard(tenant.id).catch((error) => error);
      await isWaiting();
      await tx.query({ name: '', text: `INSERT INTO holds (vault_id, policy) VALUES ($1, '{}')` }, [vault]);
    });
    expect(await left).toMatchObject({ code: 'conflict', extras: { holds: 1, heldUsers: 1 } });
  });

  test('that is just beginning is waited for by a hold, which is then refused', async () => {
    const { tenant } = await make('Leaves meanwhile');
    let placed: Promise<unknown> | undefined;
    await storage.database.transaction(async (tx) => {
      await beginOffboarding(tx, operator, { tenant: tenant.id, delayDays: 1, expected: null });
      placed = storage.database.transaction((other) => lockTenantForHold(other, tenant.id)).catch((error) => error);
      await isWaiting();
    });
    expect(await placed).toMatchObject({ code: 'conflict' });
    await resume(tenant.id);
    await storage.database.transaction((tx) => lockTenantForHold(tx, tenant.id));
  });
});

describe('an export', () => {
  test('has everything that is no secret, each once, and counts itself at its end', async () => {
    const its = await testTenant(storage.database);
    const { tenant, by, top } = its;
    const [a] = (await its.chain(top, 'a')) as [number];
    await userWithVault({ tenant, organization: a }, 'bob');
    const changes = { settings: { quotas: { seats: 5 }, coldStorage: { days: 9 } }, locked: {} };
    await storage.database.transaction((tx) =>
      changeSettings(tx, by, { tenant, organization: a, changes, expected: null }),
    );
    await storage.rows(
      `INSERT INTO restore_requests (tenant_id, user_id, guid, vault_id, archive_id, asker_kind, asker_id, asker_name, kind, format,
              selection, seq, permission, planned_files, planned_folders, planned_links, planned_bytes, planned_damaged, planned_gone,
              planned_missing, lapses_at)
       SELECT tenant_id, user_id, guid, vault_id, archive_id, 'user', user_id, 'bob', 'streamed', 'zip', '{"paths":["Lw"],"deleted":false}',
              1, 'restore.personal', 1, 0, 0, 7, 0, 0, 0, now() FROM devices WHERE tenant_id = $1`,
      [tenant],
    );
    const other = await make('Other');

    await storage.database.transaction((tx) => noteTenantExport(tx, by, tenant));
    const lines = await Array.fromAsync(exportLines(storage.database, tenant));
    const of = (kind: ExportLine['kind']) => lines.filter((line) => line.kind === kind);
    expect(of('tenant')).toMatchObject([{ id: tenant, name: 'tenant', state: 'active' }]);
    expect(of('organization')).toMatchObject([
      { id: top, parent: null, name: 'top' },
      { id: a, parent: top, name: 'a' },
    ]);
    expect(of('setting')).toEqual([
      { kind: 'setting', organization: a, name: 'coldStorage.days', value: 9, locked: false },
      { kind: 'setting', organization: a, name: 'quotas.seats', value: 5, locked: false },
    ]);
    expect(of('user')).toMatchObject([
      { name: 'ada', organization: top, roles: [{ role: 'Customer Cloud Admin', scope: 'all', organization: top }] },
      { name: 'bob', organization: a, roles: [] },
    ]);
    expect(of('device')).toMatchObject([{ name: 'laptop', guid: expect.any(String) }]);
    expect(of('restore')).toMatchObject([{ way: 'streamed', askerName: 'bob', plannedBytes: 7, state: 'planned' }]);
    expect(lines.at(-1)).toEqual({ kind: 'end', organizations: 2, settings: 2, users: 2, devices: 1, restores: 1 });
    expect(await acts(tenant, tenant)).toMatchObject([{ action: 'tenant.export' }]);

    const text = lines.map((line) => JSON.stringify(line)).join('\n');
    expect(text).not.toMatch(/password|hash|token|registration|"-"/i);
    const { registrationKey } = await readOrganization(storage.database, { tenant, organization: top });
    expect(text).not.toContain(registrationKey);
    expect(text).not.toContain(`"organization":${other.organization},`);
  });

  test('goes over many pages', async () => {
    const { tenant, organization } = await make('Large');
    await storage.rows(
      `INSERT INTO users (tenant_id, organization_id, name) SELECT $1, $2, 'user ' || n FROM generate_series(1, 1101) n`,
      [tenant.id, organization],
    );
    const child = (name: string) =>
      storage.database.transaction((tx) =>
        createOrganization(tx, operator, {
          tenant: tenant.id,
          parent: organization,
          name,
          registrationKey: newRegistrationKey(),
        }),
      );
    for (let i = 0; i < 17; i++) {
      const { id } = await child(`child ${i}`);
      await storage.rows(
        `INSERT INTO organization_settings (tenant_id, organization_id, name, value) SELECT $1, $2, 'setting ' || n, '1' FROM generate_series(1, 3) n`,
        [tenant.id, id],
      );
    }
    const lines = await Array.fromAsync(exportLines(storage.database, tenant.id));
    expect(new Set(lines.filter(({ kind }) => kind === 'user').map(({ id }) => id)).size).toBe(1_102);
    expect(lines.at(-1)).toEqual({
      kind: 'end',
      organizations: 18,
      settings: 51,
      users: 1_102,
      devices: 0,
      restores: 0,
    });
  });
});
