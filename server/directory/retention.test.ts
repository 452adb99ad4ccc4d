import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { RegisterRequest } from '../../protocol/messages.ts';
import { PolicyUnreadable } from '../../storage/archive/retention/policy-unreadable.ts';
import { pruneArchive } from '../../storage/archive/retention/prune.ts';
import { defaultRetention, type RetentionPolicy } from '../../storage/archive/retention/retention.ts';
import { listAlerts } from '../../storage/catalog/checking/alerts.ts';
import { seededRandom } from '../../tests/helpers/random.ts';
import {
  commit,
  deletion,
  newArchive,
  newRun,
  type TestStorage,
  testStorage,
  version,
} from '../../tests/helpers/storage.ts';
import type { By } from './audit/act.ts';
import { RetentionView, readDeviceRetention, setDeviceRetention } from './device-retention.ts';
import { createPlan, deletePlan, updatePlan } from './devices/plans/plans.ts';
import { registerDevice } from './devices/register.ts';
import { type Directory, openDirectory } from './directory.ts';
import { localKeyService } from './keys/local-keys.ts';
import { insertOrganization, insertTenant } from './organizations/inserting.ts';
import { newRegistrationKey } from './organizations/registration-key.ts';
import { findPolicyOfArchive, pruneDeps, readEffectiveRetention } from './retention.ts';
import { readPolicyDocument } from './retention-document.ts';
import { changeSettings } from './settings/changing.ts';
import { ChangeSettingsRequest } from './settings/shapes.ts';
import { effectiveSettingsOf } from './settings/stored.ts';
import { insertUser } from './users/people.ts';

let storage: TestStorage;
let directory: Directory;
const held = { assertHeld: async () => {}, assertStillHeld: () => {} };

beforeAll(async () => {
  storage = await testStorage();
  const keys = localKeyService([randomBytes(32)]);
  directory = openDirectory({ database: storage.database, keys, passwordHashesMax: 2, signInsPerMinute: 1_000 });
});
afterAll(() => storage?.close());

const daily = (deletedAfterDays: number | null): RetentionPolicy => ({ ...defaultRetention, deletedAfterDays });

const by = (tenant: number): By => ({ tenant, party: { kind: 'server', id: null, name: 'test' }, address: null });

/** A tree root > middle > leaf with a user in the leaf, and a device of theirs. */
async function world() {
  const keys = [1, 2, 3].map(() => newRegistrationKey());
  const passwordHash = await directory.passwords.hash('secret');
  const made = await storage.database.transaction(async (tx) => {
    const tenantId = await insertTenant(tx, 'tenant');
    const add = (name: string, parentId: number | null, i: number): Promise<number> =>
      insertOrganization(tx, { tenantId, parentId, name, registrationKey: keys[i]! });
    const root = await add('root', null, 0);
    const middle = await add('middle', root, 1);
    const leaf = await add('leaf', middle, 2);
    await insertUser(tx, { tenantId, organizationId: leaf, name: 'ann', passwordHash });
    return { tenantId, root, middle, leaf };
  });
  const register = (replace?: string) =>
    registerDevice(
      directory,
      RegisterRequest.parse({
        registrationKey: keys[2],
        userName: 'ann',
        password: 'secret',
        device: { name: 'laptop', platform: 'linux', agentVersion: '1' },
        vaultKey: { level: 'standard' },
        ...(replace ? { replace } : {}),
      }),
      '192.0.2.1',
    );
  const device = await register();
  const ref = { vault: device.vault, archive: device.archive };
  const tenant = made.tenantId;
  const setOf = async (organization: number, policy: RetentionPolicy | null, locked?: boolean): Promise<void> => {
    const changes = { settings: { retention: { policy } }, locked: { retention: { policy: locked } } };
    const request = { tenant, organization, changes: ChangeSettingsRequest.parse(changes), expected: null };
    await storage.database.transaction((tx) => changeSettings(tx, by(tenant), request));
  };
  const setOwn = (guid: string, policy: unknown, expected: number | null = null) =>
    storage.database.transaction((tx) => setDeviceRetention(tx, by(tenant), { tenant, guid, policy, expected }));
  const effective = async () => {
    const { policies, from } = await readEffectiveRetention(storage.database, ref);
    return { policy: policies.policy, from };
  };
  return { ...made, device, ref, register, setOf, setOwn, effective };
}

const run = (text: string, values: unknown[]): Promise<unknown[]> => storage.database.query({ name: '', text }, values);

describe('the policy of an archive', () => {
  test("is the device's own, else that of the nearest organization, else the default", async () => {
    const { root, middle, leaf, device, setOf, setOwn, effective } = await world();
    expect(await effective()).toEqual({ from: 'default', policy: defaultRetention });

    await setOf(root, daily(1));
    expect(await effective()).toEqual({ from: { organization: { id: root, name: 'root' } }, policy: daily(1) });
    await setOf(middle, daily(2));
    expect(await effective()).toEqual({ from: { organization: { id: middle, name: 'middle' } }, policy: daily(2) });
    await setOf(leaf, daily(3));
    expect((await effective()).policy).toEqual(daily(3));

    const { guid } = device;
    expect(await setOwn(guid, daily(4))).toMatchObject({ policy: daily(4), version: 2 });
    expect(await effective()).toEqual({ from: { device: { guid, name: device.deviceName } }, policy: daily(4) });

    await setOwn(guid, null);
    await setOf(leaf, null);
    expect((await effective()).policy).toEqual(daily(2));
  });

  test('goes on with the device that takes its place', async () => {
    const { device, ref, register, setOwn, effective } = await world();
    await setOwn(device.guid, daily(7));
    const next = await register(device.guid);
    expect({ vault: next.vault, archive: next.archive }).toEqual(ref);
    expect((await effective()).policy).toEqual(daily(7));
    // Taken back on the new one, the old one's does not come through.
    await setOwn(next.guid, null);
    expect((await effective()).from).toBe('default');
  });

  test('is not set, nor read, across tenants', async () => {
    const [mine, other] = [await world(), await world()];
    await expect(mine.setOwn(other.device.guid, daily(0))).rejects.toMatchObject({ code: 'not_found' });
    expect((await other.effective()).from).toBe('default');
  });

  test('of a device is an act, with what it was and what it is; from a version that is gone it is not set', async () => {
    const { tenantId, device, leaf, setOwn } = await world();
    const { guid } = device;
    await setOwn(guid, daily(1), 1);
    expect((await setOwn(guid, daily(1))).version).toBe(2); // as it is already
    await expect(setOwn(guid, daily(2), 1)).rejects.toMatchObject({ code: 'precondition_failed' });
    await setOwn(guid, null, 2);
    const acts = await run(
      `SELECT organization_id AS organization, target_id AS target, details::jsonb - 'user' AS details FROM acts
        WHERE tenant_id = $1 AND action = 'device.retention' ORDER BY number`,
      [tenantId],
    );
    expect(acts).toEqual([
      { organization: leaf, target: guid, details: { from: null, to: daily(1) } },
      { organization: leaf, target: guid, details: { from: daily(1), to: null } },
    ]);
  });

  test('of a device is not set where an organization has locked its own, which wins', async () => {
    const { root, device, setOf, setOwn, effective } = await world();
    await setOwn(device.guid, daily(1));
    await setOf(root, daily(2), true);
    expect(await effective()).toEqual({ from: { organization: { id: root, name: 'root' } }, policy: daily(2) });
    for (const policy of [daily(3), null])
      await expect(setOwn(device.guid, policy)).rejects.toMatchObject({
        code: 'conflict',
        extras: { lockedBy: { id: root, name: 'root' } },
      });
    await setOf(root, daily(2), false);
    expect((await effective()).policy).toEqual(daily(1));
  });

  test('of a device is set by one after the other: whoever comes second sees what the first set', async () => {
    const { device, setOwn } = await world();
    const set = await Promise.allSettled([setOwn(device.guid, daily(1), 1), setOwn(device.guid, daily(2), 1)]);
    expect(set.map(({ status }) => status).toSorted()).toEqual(['fulfilled', 'rejected']);
    const refused = set.find(({ status }) => status === 'rejected') as PromiseRejectedResult;
    expect(refused.reason).toMatchObject({ code: 'precondition_failed', extras: { version: 2 } });
  });
});

test('what is in force is what the settings of the organization say, whoever has which value and which locks', async () => {
  const seed = Number(process.env.HOLDFAST_TEST_SEED ?? 4);
  const random = seededRandom(seed);
  const { tenantId, root, middle, leaf, ref } = await world();
  const path = [root, middle, leaf];
  for (let round = 0; round < 40; round++) {
    await run(`DELETE FROM organization_settings WHERE tenant_id = $1`, [tenantId]);
    for (const organization of path.filter(() => random.chance(0.6)))
      await run(
        `INSERT INTO organization_settings (tenant_id, organization_id, name, value, locked) VALUES ($1, $2, 'retention.policy', $3::jsonb, $4)`,
        [tenantId, organization, JSON.stringify(random.chance(0.2) ? {} : daily(organization)), random.chance(0.3)],
      );
    const told = await findPolicyOfArchive(storage.database, ref);
    const settings = await effectiveSettingsOf(storage.database, tenantId, leaf, ['retention.policy']);
    const { value: policy, from } = settings['retention.policy'];
    expect({ seed, round, policy: told!.policy, from: told!.from }).toEqual({ seed, round, policy, from });
  }
});

describe('a policy that cannot be read', () => {
  const unreadable: [string, unknown][] = [
    ['nothing', null],
    ['an empty object', {}],
    ['a key that a later version may know', { ...defaultRetention, keepHourly: 3 }],
    ['windows out of order', { ...defaultRetention, windows: [...defaultRetention.windows].reverse() }],
    ['text for a number', { ...defaultRetention, deletedAfterDays: '7' }],
    ['a number out of bounds', { ...defaultRetention, deletedAfterDays: -1 }],
  ];

  test.each(unreadable)('%s: nothing is deleted, neither by the default nor by the policy above', async (_, stored) => {
    const { root, leaf, ref, setOf } = await world();
    await setOf(root, daily(0));
    const runId = await newRun(storage, ref);
    await commit(storage, ref, runId, [version('/gone')]);
    await commit(storage, ref, runId, [deletion('/gone')]);
    await run(
      `INSERT INTO organization_settings (tenant_id, organization_id, name, value)
       SELECT tenant_id, organization_id, 'retention.policy', $2::jsonb FROM organizations WHERE organization_id = $1`,
      [leaf, JSON.stringify(stored)],
    );
    await expect(pruneArchive(storage, ref, pruneDeps(held))).rejects.toThrow(PolicyUnreadable);
    const count = () => run('SELECT seq FROM versions WHERE vault_id = $1', [ref.vault]);
    expect(await count()).toHaveLength(2);
    // Put right, it prunes: the policy above ends the deleted file.
    await setOf(leaf, null);
    expect((await pruneArchive(storage, ref, pruneDeps(held))).versions).toBe(2);
    expect(await count()).toHaveLength(0);
  });

  test('an archive that is no device has no policy', async () => {
    const { ref: of } = await world();
    const ref = await newArchive(storage, of.vault);
    await expect(readEffectiveRetention(storage.database, ref)).rejects.toThrow('no device');
  });

  test('is not stored', async () => {
    const { device, setOwn } = await world();
    await expect(setOwn(device.guid, { ...defaultRetention, keepNewest: 0.5 })).rejects.toThrow('keepNewest');
  });
});

describe('the policies of backup plans', () => {
  const plan = { exclude: [], everyMinutes: 15, windows: [] };
  type Made = Awaited<ReturnType<typeof world>>;
  const make = (
    { tenantId: tenant }: Made,
    of: { organization: number } | { device: string },
    content: { name?: string; include?: string[]; retention?: RetentionPolicy | null },
  ) =>
    storage.database.transaction((tx) =>
      createPlan(tx, by(tenant), {
        name: 'documents',
        include: ['/data'],
        retention: null,
        ...plan,
        ...of,
        ...content,
        tenant,
      }),
    );
  const store = (id: number, content: unknown) =>
    run('UPDATE plans SET content = $2::jsonb WHERE plan_id = $1', [id, JSON.stringify(content)]);
  const inForce = async ({ ref }: Made) => {
    const { policies } = await readEffectiveRetention(storage.database, ref);
    return policies.folders.map(({ name, folders, policy }) => [
      name.replaceAll(/\d+/g, 'N'),
      folders.map(({ path }) => path.toString()),
      policy.deletedAfterDays,
    ]);
  };
  /** A file of each path that is gone for a while. */
  const backUp = async ({ ref }: Made, paths: string[]): Promise<void> => {
    const runId = await newRun(storage, ref);
    await commit(
      storage,
      ref,
      runId,
      paths.map((path) => version(path)),
    );
    await commit(storage, ref, runId, paths.map(deletion));
  };
  const left = async ({ ref }: Made): Promise<number> =>
    (await run('SELECT 1 FROM versions WHERE vault_id = $1', [ref.vault])).length;
  const prune = ({ ref }: Made) => pruneArchive(storage, ref, pruneDeps(held));

  test('are those of the device and of every organization above, the nearer of one name', async () => {
    const made = await world();
    await make(made, { organization: made.root }, { name: 'Documents', retention: daily(1) });
    await make(
      made,
      { organization: made.root },
      { name: 'mail', include: ['/mail', 'C:\\Mail'], retention: daily(2) },
    );
    await make(made, { organization: made.leaf }, { name: 'documents', retention: daily(3) });
    await make(made, { organization: made.middle }, { name: 'without', include: ['/x'] });
    const other = await world();
    await make(other, { organization: other.leaf }, { name: 'theirs', retention: daily(9) });
    expect(await inForce(made)).toEqual([
      ['plan documents (N) of organization leaf (N)', ['/data'], 3],
      ['plan mail (N) of organization root (N)', ['/mail', '/C:/Mail'], 2],
    ]);
    // The device's own takes the place of both; that it says nothing of retention is said, too.
    const own = await make(made, { device: made.device.guid }, { name: 'DOCUMENTS', retention: daily(4) });
    expect((await inForce(made))[0]).toEqual(['plan DOCUMENTS (N) of device laptop (N)', ['/data'], 4]);
    await storage.database.transaction((tx) =>
      updatePlan(tx, by(made.tenantId), {
        tenant: made.tenantId,
        plan: own.id,
        expected: null,
        change: { retention: null },
      }),
    );
    expect((await inForce(made)).map(([, , days]) => days)).toEqual([2]);
  });

  test('go on with the device that takes its place', async () => {
    const made = await world();
    await make(made, { device: made.device.guid }, { retention: daily(4) });
    await made.register(made.device.guid);
    expect((await inForce(made)).map(([, , days]) => days)).toEqual([4]);
  });

  test('are for what lies in their folders, until the plan is deleted', async () => {
    const made = await world();
    await made.setOf(made.root, daily(0));
    const { id } = await make(made, { organization: made.root }, { retention: daily(null) });
    await backUp(made, ['/data/a', '/database/b']);
    expect((await prune(made)).versions).toBe(2);
    expect((await prune(made)).versions).toBe(0);
    await storage.database.transaction((tx) =>
      deletePlan(tx, by(made.tenantId), { tenant: made.tenantId, plan: id, expected: null }),
    );
    expect((await prune(made)).versions).toBe(2);
  });

  test('give way to a policy that an organization above has locked, also where a plan cannot be read', async () => {
    const made = await world();
    const { id } = await make(made, { device: made.device.guid }, { retention: daily(null) });
    await backUp(made, ['/data/a']);
    await made.setOf(made.root, daily(0), true);
    expect(await inForce(made)).toEqual([]);
    await store(id, { include: 'everything' });
    expect((await prune(made)).versions).toBe(2);
  });

  test.each<[string, unknown]>([
    ['nothing', null],
    ['a key that a later version may know', { ...plan, include: ['/data'], retention: null, keep: 1 }],
    ['a retention that is none', { ...plan, include: ['/data'], retention: { ...daily(0), keepNewest: -1 } }],
    ['a retention in text', { ...plan, include: ['/data'], retention: 'daily' }],
    ['a folder that is none', { ...plan, include: ['/data', '~/x'], retention: daily(0) }],
    ['no folder', { ...plan, include: [], retention: daily(0) }],
  ])(
    'that cannot be read (%s): nothing of the archive is deleted, and whoever asks is told which plan',
    async (_, content) => {
      const made = await world();
      await made.setOf(made.root, daily(0));
      const { id } = await make(made, { organization: made.middle }, {});
      await backUp(made, ['/data/a', '/b']);
      await store(id, content);
      const name = `plan documents (${id}) of organization middle (${made.middle})`;
      await expect(prune(made)).rejects.toThrow(`the backup ${name}`);
      expect(await left(made)).toBe(4);
      const alerts = await listAlerts(storage.database, made.ref.vault, { reviewed: false, limit: 10 });
      expect(alerts).toMatchObject([{ kind: 'retention_unreadable', details: { why: expect.stringContaining(name) } }]);
      const { tenantId: tenant, device } = made;
      const shown = await readDeviceRetention(storage.database, { tenant, guid: device.guid });
      expect(RetentionView.parse(shown)).toEqual(shown);
      expect(shown.effective).toMatchObject({ policy: daily(0), plans: [{ id, name: 'documents', policy: null }] });
      expect(shown.faults).toMatchObject([{ field: expect.stringContaining(`plans.${id}`) }]);
      // One of the same name that is nearer is what counts, and then there is nothing to be read.
      await make(made, { device: device.guid }, {});
      expect((await prune(made)).versions).toBe(4);
      expect(await listAlerts(storage.database, made.ref.vault, { reviewed: false, limit: 10 })).toEqual([]);
    },
  );

  test('are shown with the policy of the device', async () => {
    const made = await world();
    const { tenantId: tenant, device, root } = made;
    const { id } = await make(made, { organization: root }, { include: ['C:\\Data'], retention: daily(5) });
    const shown = await readDeviceRetention(storage.database, { tenant, guid: device.guid });
    expect(RetentionView.parse(shown)).toEqual(shown);
    expect(shown.effective).toEqual({
      policy: defaultRetention,
      from: 'default',
      locked: false,
      plans: [
        {
          id,
          name: 'documents',
          of: { organization: { id: root, name: 'root' } },
          folders: ['C:\\Data'],
          policy: daily(5),
        },
      ],
    });
  });

  test('are read with that of the archive in one statement, so as both were at one moment', async () => {
    const made = await world();
    await make(made, { device: made.device.guid }, { retention: daily(4) });
    await storage.database.transaction(async (tx) => {
      let asked = 0;
      const query = ((...args) => {
        asked++;
        return tx.query(...args);
      }) as typeof tx.query;
      const counting = { query } as typeof tx;
      const { policies } = await readEffectiveRetention(counting, made.ref);
      expect([policies.folders.length, asked]).toEqual([1, 1]);
    });
  });

  test('that change while a prune is under way are not carried out half: it begins anew', async () => {
    const made = await world();
    await made.setOf(made.root, daily(0));
    const { id } = await make(made, { organization: made.root }, { retention: daily(0) });
    await backUp(made, ['/data/a']);
    let asked = 0;
    const deps = pruneDeps(held);
    const change = { include: ['/data'], ...plan, retention: daily(null) };
    const result = await pruneArchive(storage, made.ref, {
      ...deps,
      async readPolicies(tx, ref) {
        // The third time is in the batch, under its locks: whoever changes a plan does not wait for these.
        if (++asked === 3) await store(id, change);
        return deps.readPolicies(tx, ref);
      },
    });
    expect([asked, result.versions, await left(made)]).toEqual([3, 0, 2]);
    expect((await prune(made)).versions).toBe(0);
  });
});

test('every fault of a policy is named by its field', () => {
  const read = (change: object) =>
    readPolicyDocument({ ...defaultRetention, ...change }).faults?.map(({ field }) => field);
  expect(read({})).toBeUndefined();
  expect(read({ keepNewest: -1, keepWithinDays: 40_000 })).toEqual(['keepNewest', 'keepWithinDays']);
  expect(read({ windows: [] })).toEqual(['windows']);
  const [a, b, c, d] = defaultRetention.windows;
  expect(read({ windows: [a, { ...b, untilDays: '90' }, c, d] })).toEqual(['windows.1.untilDays']);
  expect(read({ windows: [a, { ...b, everyMinutes: 1 }, c, d] })).toEqual(['windows.1.everyMinutes']);
  expect(readPolicyDocument('daily').faults).toHaveLength(1);
});

test('the fence is asked before anything is deleted', async () => {
  const { ref } = await world();
  const stopped = { assertHeld: () => Promise.reject(new Error('stopped')), assertStillHeld: () => {} };
  await expect(pruneArchive(storage, ref, pruneDeps(stopped))).rejects.toThrow('stopped');
});
