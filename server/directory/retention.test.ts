import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { RegisterRequest } from '../../protocol/messages.ts';
import { PolicyUnreadable } from '../../storage/archive/retention/policy-unreadable.ts';
import { pruneArchive } from '../../storage/archive/retention/prune.ts';
import { defaultRetention, type RetentionPolicy } from '../../storage/archive/retention/retention.ts';
import {
  commit,
  deletion,
  newArchive,
  newRun,
  type TestStorage,
  testStorage,
  version,
} from '../../tests/helpers/storage.ts';
import { type Directory, openDirectory } from './directory.ts';
import { newRegistrationKey } from './first-tenant.ts';
import { localKeyService } from './key-service.ts';
import { insertOrganization, insertTenant, insertUser } from './people.ts';
import { registerDevice } from './register.ts';
import {
  findPolicyOfOrganization,
  pruneDeps,
  readEffectiveRetention,
  setDeviceRetention,
  setOrganizationRetention,
} from './retention.ts';
import { readPolicyDocument } from './retention-document.ts';

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
  const setOf = (organizationId: number, policy: RetentionPolicy | null): Promise<boolean> =>
    setOrganizationRetention(storage.database, { tenantId: made.tenantId, organizationId }, policy);
  const effective = () => readEffectiveRetention(storage.database, ref);
  return { ...made, device, ref, register, setOf, effective };
}

const run = (text: string, values: unknown[]): Promise<unknown[]> => storage.database.query({ name: '', text }, values);

describe('the policy of an archive', () => {
  test("is the device's own, else that of the nearest organization, else the default", async () => {
    const { tenantId, root, middle, leaf, device, setOf, effective } = await world();
    expect(await effective()).toEqual({ from: 'default', policy: defaultRetention });

    await setOf(root, daily(1));
    expect(await effective()).toEqual({ from: { organization: { id: root, name: 'root' } }, policy: daily(1) });
    await setOf(middle, daily(2));
    expect(await effective()).toEqual({ from: { organization: { id: middle, name: 'middle' } }, policy: daily(2) });
    await setOf(leaf, daily(3));
    expect((await effective()).policy).toEqual(daily(3));

    const { guid } = device;
    expect(await setDeviceRetention(storage.database, { tenantId, guid }, daily(4))).toBe(true);
    expect(await effective()).toEqual({ from: { device: { guid, name: device.deviceName } }, policy: daily(4) });

    await setDeviceRetention(storage.database, { tenantId, guid }, null);
    await setOf(leaf, null);
    expect((await effective()).policy).toEqual(daily(2));
    const of = { tenantId, organizationId: leaf };
    expect((await findPolicyOfOrganization(storage.database, of))?.policy).toEqual(daily(2));
  });

  test('goes on with the device that takes its place', async () => {
    const { tenantId, device, ref, register, effective } = await world();
    await setDeviceRetention(storage.database, { tenantId, guid: device.guid }, daily(7));
    const next = await register(device.guid);
    expect({ vault: next.vault, archive: next.archive }).toEqual(ref);
    expect((await effective()).policy).toEqual(daily(7));
    // Taken back on the new one, the old one's does not come through.
    await setDeviceRetention(storage.database, { tenantId, guid: next.guid }, null);
    expect((await effective()).from).toBe('default');
  });

  test('is not set, nor read, across tenants', async () => {
    const [mine, other] = [await world(), await world()];
    const of = { tenantId: mine.tenantId, organizationId: other.leaf };
    expect(await setOrganizationRetention(storage.database, of, daily(0))).toBe(false);
    const device = { tenantId: mine.tenantId, guid: other.device.guid };
    expect(await setDeviceRetention(storage.database, device, daily(0))).toBe(false);
    expect(await findPolicyOfOrganization(storage.database, of)).toBeNull();
    expect((await other.effective()).from).toBe('default');
  });
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
    const { root, setOf } = await world();
    await expect(setOf(root, { ...defaultRetention, keepNewest: 0.5 })).rejects.toThrow('keepNewest');
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
