import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { RegisterRequest } from '../../protocol/messages.ts';
import { PolicyUnreadable } from '../../storage/archive/retention/policy-unreadable.ts';
import { pruneArchive } from '../../storage/archive/retention/prune.ts';
import { defaultRetention, type RetentionPolicy } from '../../storage/archive/retention/retention.ts';
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
import { setDeviceRetention } from './device-retention.ts';
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
  const effective = () => readEffectiveRetention(storage.database, ref);
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
