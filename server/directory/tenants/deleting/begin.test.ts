import { beforeEach, describe, expect, test } from '@jest/globals';
import { newArchive, storageForFile } from '../../../../tests/helpers/storage.ts';
import { createOrganization } from '../../organizations/creating.ts';
import { newRegistrationKey } from '../../organizations/registration-key.ts';
import { operator, type TestTenant, testTenant } from '../../organizations/testing.ts';
import { findUserAccount } from '../../sign-in/accounts.ts';
import { lockActiveUser } from '../../users/people.ts';
import { renameTenant, resumeTenant, suspendTenant } from '../changing.ts';
import { beginOffboarding, lockTenantForHold } from '../offboarding.ts';
import { listTenants, readTenant } from '../reading.ts';
import { DeleteTenantRequest, ListTenantsQuery } from '../shapes.ts';
import { beginDeleting } from './begin.ts';
import { begin, leave } from './testing.ts';

const storage = storageForFile();
let its: TestTenant;
beforeEach(async () => {
  its = await testTenant(storage.database);
});

const inTx = storage as { database: typeof storage.database };
const change = <T>(verb: (tx: never, by: typeof operator, request: never) => Promise<T>, more: object = {}) =>
  inTx.database.transaction((tx) =>
    verb(tx as never, operator, { tenant: its.tenant, expected: null, ...more } as never),
  );
const stateOf = async (tenant = its.tenant) => (await readTenant(storage.database, tenant)).state;

/** A device of the administrator's. @returns the vault */
async function vaultOf(tenant: number, user: number): Promise<number> {
  const { vault, archive } = await newArchive(storage);
  await storage.rows(
    `INSERT INTO devices (tenant_id, user_id, guid, name, platform, agent_version, token_sha256, vault_id, archive_id)
     VALUES ($1, $2, $3::bigint, 'laptop', 'linux', '1', sha256($4::bytea), $3::bigint, $5)`,
    [tenant, user, vault, `token ${vault}`, archive],
  );
  return vault;
}

describe('deleting begins', () => {
  test.each([
    ['a second before its day', `now() + interval '1 second'`, false],
    ['a microsecond before its day', `now() + interval '1 microsecond'`, false],
    ['at its day', 'now()', true],
  ])('%s: %s', async (_, day, begins) => {
    await leave(storage, its.tenant);
    // By the database's clock, which stands still within a transaction.
    const begun = storage.database.transaction(async (tx) => {
      const text = `UPDATE tenants SET delete_after = ${day} WHERE tenant_id = ${its.tenant}`;
      await tx.query({ name: '', text });
      return beginDeleting(tx, operator, { tenant: its.tenant, name: 'tenant', expected: null });
    });
    if (begins) expect(await begun).toMatchObject({ state: 'deleting' });
    else
      await expect(begun).rejects.toMatchObject({
        ...{ code: 'conflict', extras: { state: 'offboarding', deleteAfter: expect.any(String) } },
      });
    expect(await stateOf()).toBe(begins ? 'deleting' : 'offboarding');
  });

  test('of a tenant that is leaving only, and only when it is named', async () => {
    await expect(begin(storage, its.tenant)).rejects.toMatchObject({ code: 'conflict', extras: { state: 'active' } });
    await change(suspendTenant);
    await expect(begin(storage, its.tenant)).rejects.toMatchObject({ extras: { state: 'suspended' } });
    await leave(storage, its.tenant);
    for (const name of ['Tenant', 'tenant ', 'other'])
      await expect(begin(storage, its.tenant, name)).rejects.toMatchObject({ code: 'out_of_bounds' });
    await expect(begin(storage, 2 ** 40)).rejects.toMatchObject({ code: 'not_found' });
    expect(await stateOf()).toBe('offboarding');
    expect(DeleteTenantRequest.safeParse({}).success).toBe(false);
  });

  test('from the version that was looked at, once, and tells both logs what there was', async () => {
    await leave(storage, its.tenant);
    const { version } = await readTenant(storage.database, its.tenant);
    const named = { name: 'tenant' };
    await expect(change(beginDeleting, { ...named, expected: version - 1 })).rejects.toMatchObject({
      code: 'precondition_failed',
    });
    const begun = await change(beginDeleting, { ...named, expected: version });
    expect(begun).toMatchObject({ state: 'deleting', version: version + 1 });
    expect(await change(beginDeleting, named)).toEqual(begun);
    const had = { organizations: 1, users: 1, activeUsers: 1, devices: 0, archives: 0, versions: 0, storedBytes: 0 };
    expect(begun.deletion).toMatchObject({ had, begunBy: 'operator 1', waitsFor: 'directory' });
    for (const log of [its.tenant, 0]) {
      const acts = await storage.rows(
        `SELECT party_kind AS party, details FROM acts WHERE tenant_id = $1 AND action = 'tenant.delete' AND target_id = $2`,
        [log, String(its.tenant)],
      );
      expect(acts).toMatchObject([{ party: 'operator', details: { from: 'offboarding', to: 'deleting', had } }]);
    }
  });

  test('and keeps how long acts are kept, or that nobody knows', async () => {
    const daysAfter = async (value: string | null): Promise<unknown> => {
      its = await testTenant(storage.database);
      if (value !== null)
        await storage.rows(
          `INSERT INTO organization_settings (tenant_id, organization_id, name, value) VALUES ($1, $2, 'auditLog.days', $3)`,
          [its.tenant, its.top, value],
        );
      await leave(storage, its.tenant);
      await begin(storage, its.tenant);
      const [row] = await storage.rows<{ days: unknown }>(
        'SELECT acts_days AS days FROM tenants WHERE tenant_id = $1',
        [its.tenant],
      );
      return row!.days;
    };
    expect(await daysAfter('500')).toBe(500);
    expect(await daysAfter('"for ever"')).toBeNull();
    expect(await daysAfter(null)).toEqual(expect.any(Number));
  });
});

describe('from then on', () => {
  beforeEach(async () => {
    await leave(storage, its.tenant);
    await begin(storage, its.tenant);
  });

  test.each(['deleting', 'deleted'])('nothing takes it back, and nothing is made: %s', async (state) => {
    if (state === 'deleted')
      await storage.rows(`UPDATE tenants SET state = 'deleted', deleted_at = now() WHERE tenant_id = $1`, [its.tenant]);
    const conflict = { code: 'conflict', extras: { state } };
    await expect(change(resumeTenant)).rejects.toMatchObject(conflict);
    await expect(change(suspendTenant)).rejects.toMatchObject(conflict);
    await expect(change(beginOffboarding, { delayDays: 1 })).rejects.toMatchObject(conflict);
    const hold = storage.database.transaction((tx) => lockTenantForHold(tx, its.tenant));
    await expect(hold).rejects.toMatchObject(conflict);
    const organization = { parent: its.top, name: 'late', registrationKey: newRegistrationKey() };
    await expect(change(createOrganization, organization)).rejects.toMatchObject({ code: 'conflict' });
    expect(await stateOf()).toBe(state);
    const listed = await listTenants(
      storage.database,
      ListTenantsQuery.parse({ state, limit: '100', search: 'tenant' }),
    );
    expect(listed.items.map(({ id }) => id)).toContain(its.tenant);
  });

  test('it is renamed while something is left of it, and not after', async () => {
    expect(await change(renameTenant, { name: 'gone soon' })).toMatchObject({ name: 'gone soon' });
    await storage.rows(`UPDATE tenants SET state = 'deleted', deleted_at = now() WHERE tenant_id = $1`, [its.tenant]);
    await expect(change(renameTenant, { name: 'other' })).rejects.toMatchObject({ code: 'conflict' });
    expect(await change(renameTenant, { name: 'gone soon' })).toMatchObject({ name: 'gone soon' });
  });

  test('nobody registers a device, and nobody is found to sign in', async () => {
    const active = await storage.database.transaction((tx) => lockActiveUser(tx, its.administrator));
    expect(active).toBe(false);
    const found = await findUserAccount(storage.database, { id: its.tenant }, 'ada');
    expect(found).toMatchObject({ kind: 'none', tenant: null });
  });

  test('its name is free for another, whose people are found by it', async () => {
    const name = `name ${its.tenant}`;
    await storage.rows('UPDATE tenants SET name = $2 WHERE tenant_id = $1', [its.tenant, name]);
    const next = await testTenant(storage.database);
    await storage.rows('UPDATE tenants SET name = $2 WHERE tenant_id = $1', [next.tenant, name]);
    expect(await findUserAccount(storage.database, { name }, 'ada')).toMatchObject({
      ...{ kind: 'user', tenant: next.tenant },
    });
  });
});

describe('what meets the beginning', () => {
  const isWaiting = async (): Promise<void> => {
    for (let waiting = 0; waiting === 0; ) {
      const [row] = await storage.rows<{ n: number }>(
        `SELECT count(*)::int AS n FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`,
      );
      waiting = row!.n;
    }
  };
  const caught = <T>(work: Promise<T>): Promise<unknown> => work.catch((error: unknown) => error);
  beforeEach(() => leave(storage, its.tenant));

  test('a hold that is just being placed is waited for, and in the way', async () => {
    const vault = await vaultOf(its.tenant, its.administrator);
    let begun: Promise<unknown> | undefined;
    await storage.database.transaction(async (tx) => {
      // As whoever places it: the tenant's row first. (It would be refused here, for the tenant leaves.)
      await tx.query({ name: '', text: `SELECT 1 FROM tenants WHERE tenant_id = ${its.tenant} FOR NO KEY UPDATE` });
      begun = caught(begin(storage, its.tenant));
      await isWaiting();
      await tx.query({ name: '', text: `INSERT INTO holds (vault_id, policy) VALUES (${vault}, '{}')` });
    });
    expect(await begun).toMatchObject({ code: 'conflict', extras: { holds: 1, heldUsers: 1 } });
    expect(await stateOf()).toBe('offboarding');
  });

  test('a hold that comes second is refused', async () => {
    let placed: Promise<unknown> | undefined;
    await storage.database.transaction(async (tx) => {
      await beginDeleting(tx, operator, { tenant: its.tenant, name: 'tenant', expected: null });
      placed = caught(storage.database.transaction((other) => lockTenantForHold(other, its.tenant)));
      await isWaiting();
    });
    expect(await placed).toMatchObject({ code: 'conflict', extras: { state: 'deleting' } });
  });

  test('calling it back first leaves nothing to begin; second it is refused', async () => {
    let second: Promise<unknown> | undefined;
    await storage.database.transaction(async (tx) => {
      await resumeTenant(tx, operator, { tenant: its.tenant, expected: null });
      second = caught(begin(storage, its.tenant));
      await isWaiting();
    });
    expect(await second).toMatchObject({ code: 'conflict', extras: { state: 'active' } });

    await leave(storage, its.tenant);
    await storage.database.transaction(async (tx) => {
      await beginDeleting(tx, operator, { tenant: its.tenant, name: 'tenant', expected: null });
      second = caught(change(resumeTenant));
      await isWaiting();
    });
    expect(await second).toMatchObject({ code: 'conflict', extras: { state: 'deleting' } });
    expect(await stateOf()).toBe('deleting');
  });

  test('a registration waits for it, and finds nobody active', async () => {
    let active: Promise<unknown> | undefined;
    await storage.database.transaction(async (tx) => {
      await beginDeleting(tx, operator, { tenant: its.tenant, name: 'tenant', expected: null });
      active = caught(storage.database.transaction((other) => lockActiveUser(other, its.administrator)));
      await isWaiting();
    });
    expect(await active).toBe(false);
  });
});
