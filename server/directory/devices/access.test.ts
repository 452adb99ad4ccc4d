import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { Directory } from '../directory.ts';
import { newToken, tokenHash } from '../sign-in/tokens.ts';
import { type PeopleWorld, peopleWorld, type TestDevice } from '../users/testing.ts';
import { archivesReadableBy, authenticateDevice, mayReadArchive } from './access.ts';
import { vaultHasArchive } from './devices.ts';

let world: PeopleWorld;
let directory: Directory;
let tenant: number;
let top: number;
let organization: number;
let user: number;
let device: TestDevice;
let token: string;

beforeAll(async () => {
  world = await peopleWorld();
  directory = { database: world.database } as Directory;
});
afterAll(() => world?.close());
beforeEach(async () => {
  ({ tenant, organization: top } = await world.tenant());
  organization = await world.organization(tenant, await world.organization(tenant, top));
  user = await world.user({ tenant, organization });
  device = await world.device({ tenant, user });
  token = newToken();
  await world.sql('UPDATE devices SET token_sha256 = $2 WHERE device_id = $1', [device.deviceId, tokenHash(token)]);
});

/** `all`, `backs up`, or the state that a 401 tells. */
async function access(): Promise<string> {
  try {
    const found = await authenticateDevice(directory, token);
    if (!found) return 'nobody';
    return found.mayRestore ? 'all' : 'backs up';
  } catch (error) {
    const { code, extras } = error as { code: string; extras: { state: string } };
    expect(code).toBe('device_deauthorized');
    return extras.state;
  }
}

interface States {
  device?: string;
  user?: string;
  organization?: string;
  above?: string;
  tenant?: string;
}

async function put(states: States): Promise<void> {
  const { sql } = world;
  if (states.device) await sql('UPDATE devices SET state = $2 WHERE device_id = $1', [device.deviceId, states.device]);
  if (states.user) await sql('UPDATE users SET state = $2 WHERE user_id = $1', [user, states.user]);
  const ofOrganization = 'UPDATE organizations SET state = $2 WHERE organization_id = $1';
  if (states.organization) await sql(ofOrganization, [organization, states.organization]);
  if (states.above) await sql(ofOrganization, [top, states.above]);
  if (states.tenant)
    await sql(
      `UPDATE tenants SET state = $2, delete_after = CASE $2 WHEN 'offboarding' THEN now() END WHERE tenant_id = $1`,
      [tenant, states.tenant],
    );
}

describe('what a token is good for follows from every state on the way up', () => {
  test.each<[States, string]>([
    [{}, 'all'],
    [{ device: 'blocked' }, 'backs up'],
    [{ user: 'blocked' }, 'backs up'],
    [{ organization: 'blocked' }, 'backs up'],
    [{ above: 'blocked' }, 'backs up'],
    [{ tenant: 'suspended' }, 'backs up'],
    [{ device: 'blocked', tenant: 'suspended' }, 'backs up'],
    [{ device: 'deauthorized' }, 'deauthorized'],
    [{ device: 'deauthorized', user: 'blocked' }, 'deauthorized'],
    [{ device: 'deactivated' }, 'deactivated'],
    [{ user: 'deactivated' }, 'deactivated'],
    [{ organization: 'deactivated' }, 'deactivated'],
    [{ above: 'deactivated' }, 'deactivated'],
    [{ device: 'blocked', above: 'deactivated' }, 'deactivated'],
    [{ device: 'deauthorized', user: 'deactivated' }, 'deactivated'],
    [{ tenant: 'offboarding' }, 'deactivated'],
    [{ device: 'replaced' }, 'replaced'],
    [{ device: 'replaced', user: 'deactivated' }, 'replaced'],
  ])('%j: %s', async (states, expected) => {
    await put(states);
    expect(await access()).toBe(expected);
  });

  test('a state that this server does not know lets nobody in', async () => {
    await world.sql('ALTER TABLE devices DROP CONSTRAINT devices_state_check');
    await put({ device: 'quarantined' });
    expect(await access()).toBe('deactivated');
  });

  test('lifting one lifts exactly what it did', async () => {
    await put({ device: 'blocked', above: 'deactivated' });
    await put({ above: 'active' });
    expect(await access()).toBe('backs up');
    await put({ device: 'active' });
    expect(await access()).toBe('all');
  });
});

describe('archives in reach', () => {
  const reach = async (): Promise<number[]> => {
    const found = (await authenticateDevice(directory, token))!;
    return (await archivesReadableBy(directory, found)).map(({ archive }) => archive).sort((a, b) => a - b);
  };

  test("are those of the user's other devices, without deactivated ones", async () => {
    const [blocked, out] = [await world.device({ tenant, user }), await world.device({ tenant, user })];
    await world.sql(`UPDATE devices SET state = 'blocked' WHERE device_id = $1`, [blocked.deviceId]);
    await world.sql(`UPDATE devices SET state = 'deactivated' WHERE device_id = $1`, [out.deviceId]);
    expect(await reach()).toEqual([device.archive, blocked.archive]);
    expect(await vaultHasArchive(world.database, blocked)).toBe(true);
    expect(await vaultHasArchive(world.database, out)).toBe(false);
  });

  test.each([
    [true, true],
    [false, false],
    ['perhaps', false],
  ])('follow devices.readOthers: %j', async (value, others) => {
    const sibling = await world.device({ tenant, user });
    await world.sql(
      `INSERT INTO organization_settings (tenant_id, organization_id, name, value) VALUES ($1, $2, 'devices.readOthers', $3)`,
      [tenant, top, JSON.stringify(value)],
    );
    expect(await reach()).toEqual(others ? [device.archive, sibling.archive] : [device.archive]);
    const found = (await authenticateDevice(directory, token))!;
    expect(await mayReadArchive(directory, found, sibling.archive)).toBe(others);
  });

  test('of one that may not restore are its own', async () => {
    const sibling = await world.device({ tenant, user });
    await put({ user: 'blocked' });
    expect(await reach()).toEqual([device.archive]);
    const found = (await authenticateDevice(directory, token))!;
    expect(await mayReadArchive(directory, found, sibling.archive)).toBe(false);
  });
});
