/** Channels of installations that may no more, or whose place another has taken: they end, and nothing is told on them. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { RegisterRequest } from '../../protocol/messages.ts';
import { newChannel, openChannel, readChannel } from '../../server/directory/devices/commands/channels.ts';
import { tell } from '../../server/directory/devices/commands/tell.ts';
import { registerDevice } from '../../server/directory/devices/register.ts';
import { type TestServer, type TestServerOptions, until } from '../../server/http/testing.ts';
import { newDevice, startReplica, type TestDevice, TestFollower } from './pushing.ts';
import { closeWorld, holder, openWorld, world } from './restoring.ts';
import type { Holder } from './world.ts';

/** Nothing is found by looking: what comes was heard. */
const onlyHearing = { commandLookMs: 3_600_000 };

let admin: Holder;
const followers: TestFollower[] = [];
const servers: TestServer[] = [];

beforeAll(async () => {
  await openWorld();
  admin = await world.person('Customer Cloud Admin', { name: 'admin', organization: world.top });
}, 60_000);
afterAll(closeWorld);
afterEach(async () => {
  for (const follower of followers.splice(0)) follower.close();
  for (const server of servers.splice(0)) await server.shutDown({ leaveMs: 0, drainMs: 100 });
});

/** On a server of its own, when it has been told all there is. */
async function follow(device: TestDevice, settings: TestServerOptions['settings']): Promise<TestFollower> {
  const server = await startReplica({ commandHeartbeatMs: 20, ...settings });
  servers.push(server);
  const follower = await TestFollower.connect(server, device);
  followers.push(follower);
  await until(() => follower.frames.some(({ type }) => type === 'heartbeat'));
  return follower;
}

/** As somebody does with another machine. */
async function takePlaceOf({ guid }: { guid: string }): Promise<string> {
  const made = await world.ask('POST', `/v1/users/${holder.user}/registration-codes`, { token: admin.token, body: {} });
  expect(made.status).toBe(201);
  const request = RegisterRequest.parse({
    registrationCode: made.json.code,
    device: { name: 'new', platform: 'linux', agentVersion: '1' },
    vaultKey: { level: 'standard' },
    replace: guid,
  });
  return (await registerDevice(world.directory, request, '192.0.2.1')).token;
}
const change = async (path: string) => {
  const { status, text } = await world.ask('POST', path, { token: admin.token });
  if (status !== 200) throw new Error(`${status} ${text}`);
};
const browseOf = ({ guid }: TestDevice) =>
  world.storage.rows(
    `INSERT INTO device_commands (tenant_id, user_id, guid, kind, body, expires_at)
     VALUES ($1, $2, $3, 'browse', '{"path":null,"after":null,"limit":1}', now() + interval '1 hour')`,
    [world.tenant, holder.user, guid],
  );
const idOf = async (device: TestDevice): Promise<number> =>
  (
    await world.storage.rows<{ id: number }>(
      "SELECT device_id AS id FROM devices WHERE guid = $1 AND state <> 'replaced'",
      [device.guid],
    )
  )[0]!.id;

describe('an installation whose place another has taken', () => {
  test('hears no more from that moment on, though the GUID is the same; the new one does', async () => {
    const device = await newDevice(holder);
    const old = await follow(device, onlyHearing);
    const token = await takePlaceOf(device);
    await until(() => old.ended !== null);
    expect(old.ended).toBe('in order');
    await browseOf(device);
    const heir = await follow({ ...device, token }, onlyHearing);
    expect([heir.commands.length, old.commands.length]).toEqual([1, 0]);
    expect((await TestFollower.connect(world.server, device)).status).toBe(401);
  });

  test('is told nothing by a process that did not hear of it, and ends when that looks', async () => {
    const device = await newDevice(holder);
    const old = await follow(device, { commandLookMs: 50 });
    await world.storage.rows(`DO $$ BEGIN
      UPDATE devices SET state = 'replaced' WHERE guid = ${device.guid};
      INSERT INTO devices (tenant_id, user_id, guid, name, platform, agent_version, token_sha256, vault_id, archive_id)
      SELECT tenant_id, user_id, guid, name, platform, agent_version, sha256('new'), vault_id, archive_id
        FROM devices WHERE guid = ${device.guid};
    END $$`);
    await browseOf(device);
    await until(() => old.ended !== null);
    expect([old.ended, old.commands]).toEqual(['in order', []]);
  });

  test('does not take the place of the new one by a channel that it asked for before', async () => {
    const device = await newDevice(holder);
    const before = { deviceId: await idOf(device), tenantId: world.tenant, userId: holder.user, guid: device.guid };
    const token = await takePlaceOf(device);
    const heir = await follow({ ...device, token }, onlyHearing);
    const { database } = world.storage;
    await database.transaction((tx) => openChannel(tx, before, newChannel()));
    await browseOf(device);
    await database.transaction((tx) => tell(tx, { device: device.guid }));
    await until(() => heir.commands.length === 1);
    expect(heir.ended).toBeNull();
    expect(await readChannel(database, { tenant: world.tenant, guid: device.guid })).toMatchObject({ isOpen: true });
  });
});

describe('a device that may no more', () => {
  test.each(['deauthorize', 'deactivate'])('by %s ends its channel as soon as that is heard', async (how) => {
    const device = await newDevice(holder);
    const follower = await follow(device, onlyHearing);
    await change(`/v1/devices/${device.guid}/${how}`);
    await until(() => follower.ended !== null);
    expect(follower.ended).toBe('in order');
    expect((await TestFollower.connect(world.server, device)).status).toBe(401);
  });

  test.each([
    ['its user', 'deactivated', async ({ user }: Holder) => change(`/v1/users/${user}/deactivate`)],
    [
      'the organization',
      'deactivated',
      async (_: Holder, organization: number) => change(`/v1/organizations/${organization}/deactivate`),
    ],
    [
      'the tenant',
      'offboarding',
      async () =>
        void (await world.storage.rows(
          "UPDATE tenants SET state = 'offboarding', delete_after = now() + interval '1 day' WHERE name = 'ours'",
        )),
    ],
  ])('because %s is %s ends its channel when that is looked at, and is told nothing', async (what, _, stop) => {
    const { organization } = world.places.sibling;
    const person = await world.person('Desktop User', { name: `without ${what}`, organization });
    const device = await newDevice(person);
    const follower = await follow(device, { commandLookMs: 50 });
    try {
      await stop(person, organization);
      await browseOf(device);
      await until(() => follower.ended !== null);
    } finally {
      await world.storage.rows("UPDATE tenants SET state = 'active', delete_after = NULL WHERE name = 'ours'");
      await world.storage.rows(
        "UPDATE organizations SET state = 'active', state_before = NULL WHERE state <> 'active'",
      );
    }
    expect([follower.ended, follower.commands]).toEqual(['in order', []]);
  });

  test('restore, but may back up, keeps it: a block takes no token away', async () => {
    const device = await newDevice(holder);
    const follower = await follow(device, onlyHearing);
    await change(`/v1/devices/${device.guid}/block`);
    const { frames } = follower;
    const before = frames.length;
    await until(() => frames.length > before + 1);
    expect(follower.ended).toBeNull();
  });
});
