/** What a channel to a device takes up, and what becomes of it when the database fails it or a row is none. */
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { ChannelFrame } from '../../protocol/commands.ts';
import { decodeMessage } from '../../protocol/wire.ts';
import { DeviceChannels } from '../../server/channels/hub.ts';
import {
  closeChannels,
  hearChannels,
  newChannel,
  openChannel,
  readChannel,
} from '../../server/directory/devices/commands/channels.ts';
import { tell } from '../../server/directory/devices/commands/tell.ts';
import { h2, type TestServer, until } from '../../server/http/testing.ts';
import { newDevice, startReplica, type TestDevice, TestFollower } from './pushing.ts';
import { closeWorld, engine, holder, openWorld, world } from './restoring.ts';

let target: TestDevice;
const followers: TestFollower[] = [];
const servers: TestServer[] = [];

beforeAll(async () => {
  await openWorld();
  target = await newDevice(holder);
}, 60_000);
afterAll(closeWorld);
afterEach(async () => {
  for (const follower of followers.splice(0)) follower.close();
  for (const server of servers.splice(0)) await server.shutDown({ leaveMs: 0, drainMs: 100 });
  await world.storage.rows("DELETE FROM device_commands WHERE state <> 'ended'");
});

const settings = { max: 10, heartbeatMs: 3_600_000, lookEveryMs: 3_600_000, hearEveryMs: 3_600_000 };
/** As its agent is known when it asks. */
const deviceOf = async ({ guid }: TestDevice) => {
  const [row] = await world.storage.rows<{ deviceId: number }>(
    'SELECT device_id AS "deviceId" FROM devices WHERE guid = $1',
    [guid],
  );
  return { ...row!, tenantId: world.tenant, userId: holder.user, guid };
};

async function replica(more: object): Promise<TestServer> {
  const server = await startReplica(more);
  servers.push(server);
  return server;
}
async function follow(server: TestServer, device: TestDevice, query = ''): Promise<TestFollower> {
  const follower = await TestFollower.connect(server, device, query);
  followers.push(follower);
  return follower;
}

/** @param after base64url of where its page begins */
async function browse(after: string | null = null, device = target): Promise<number> {
  const [row] = await world.storage.rows<{ id: number }>(
    `INSERT INTO device_commands (tenant_id, user_id, guid, kind, body, expires_at)
     VALUES ($1, $2, $3, 'browse', jsonb_build_object('path', null, 'after', $4::text, 'limit', 1), now() + interval '1 hour')
     RETURNING command_id AS id`,
    [world.tenant, holder.user, device.guid, after],
  );
  return row!.id;
}

/** What a generator gives, frame by frame as it is asked. */
function framesOf(source: AsyncGenerator<Buffer>) {
  return async (): Promise<ChannelFrame | null> => {
    const { value, done } = await source.next();
    return done ? null : decodeMessage(ChannelFrame, (value as Buffer).subarray(4));
  };
}

test.each(['open', 'once'] as const)(
  '%s: a command is read when it is its turn: one that ended while another was being sent is not told',
  async (how) => {
    const faults: unknown[] = [];
    const channels = new DeviceChannels(world.storage.database, settings, (error) => faults.push(error));
    const stop = new AbortController();
    const source =
      how === 'open' ? channels.open(await deviceOf(target), stop.signal) : channels.once(await deviceOf(target));
    const next = framesOf(source);
    const [first, second, third] = [await browse(), await browse(), await browse()];
    expect(await next()).toMatchObject({ type: 'hello' });
    expect(await next()).toMatchObject({ type: 'command', command: { id: first } });
    await world.storage.rows("UPDATE device_commands SET state = 'ended', ended_at = now() WHERE command_id = $1", [
      second,
    ]);
    expect(await next()).toMatchObject({ type: 'command', command: { id: third } });
    if (how === 'once') expect(await next()).toBeNull();
    stop.abort();
    await source.return(undefined);
    await channels.close();
    expect(faults).toEqual([]);
  },
);

test('an installation that may no more while it is being told hears none of the rest', async () => {
  const { database, rows } = world.storage;
  const device = await newDevice(holder);
  const channels = new DeviceChannels(database, settings, (error) => expect(error).toBeUndefined());
  const stop = new AbortController();
  const source = channels.open(await deviceOf(device), stop.signal);
  const next = framesOf(source);
  const first = await browse(null, device);
  await browse(null, device);
  expect(await next()).toMatchObject({ type: 'hello' });
  expect(await next()).toMatchObject({ type: 'command', command: { id: first } });
  await rows("UPDATE devices SET state = 'deauthorized' WHERE guid = $1", [device.guid]);
  // Told again until its connection for hearing is there; what is told last is heard last.
  let isHeard = false;
  void channels.answered(first, 60_000, stop.signal).then(() => {
    isHeard = true;
  });
  await until(async () => {
    await database.transaction(async (tx) => {
      await tell(tx, { device: device.guid });
      await tell(tx, { answer: first });
    });
    return isHeard;
  });
  expect(await next()).toBeNull();
  await channels.close();
});

test('a command that its device would not understand is not told; the others are, and the log has it', async () => {
  const faults: Error[] = [];
  const channels = new DeviceChannels(world.storage.database, settings, (error) => faults.push(error as Error));
  const stop = new AbortController();
  const [bad, good] = [await browse(''), await browse('YQ')];
  const source = channels.open(await deviceOf(target), stop.signal);
  const next = framesOf(source);
  expect(await next()).toMatchObject({ type: 'hello' });
  expect(await next()).toMatchObject({ type: 'command', command: { id: good, after: Buffer.from('a') } });
  expect(faults.map(({ message }) => message)).toEqual([`the command ${bad} cannot be told`]);
  stop.abort();
  await source.return(undefined);
  await channels.close();
});

test('a heartbeat says that all has been told: there is none while that has failed', async () => {
  const server = await replica({ commandHeartbeatMs: 20, commandLookMs: 3_600_000 });
  const id = await browse();
  const { rows } = world.storage;
  await rows('ALTER TABLE device_commands RENAME TO device_commands_away');
  let follower: TestFollower;
  try {
    follower = await follow(server, target);
    await until(() => follower.frames.length > 0);
    // Many heartbeats long.
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(follower.frames.map(({ type }) => type)).toEqual(['hello']);
  } finally {
    await rows('ALTER TABLE device_commands_away RENAME TO device_commands');
  }
  await until(() => follower.frames.length > 2, 10_000);
  expect(follower.frames.slice(0, 3)).toMatchObject([
    { type: 'hello' },
    { type: 'command', command: { id } },
    { type: 'heartbeat' },
  ]);
});

test('an answer of what waits takes the place of a channel, while it lasts', async () => {
  const server = await replica({ commandChannelsMax: 1, writeStallMs: 60_000 });
  const [one, two] = [await newDevice(holder), await newDevice(holder)];
  const follower = await follow(server, one);
  expect([follower.status, (await follow(server, two, '?once=1')).status]).toEqual([200, 503]);
  follower.close();
  await until(async () => (await follow(server, two, '?once=1')).status === 200);

  // One whose reader takes nothing.
  const path = `/${Array.from({ length: 13 }, () => 'n'.repeat(2_000)).join('/')}`;
  const admin = await world.person('Customer Cloud Admin', { name: 'admin' });
  const paths = Array.from({ length: 35 }, (_, at) => `/${at}${path}`);
  await engine.back(...paths.map((each) => ({ path: each }))); // what is nowhere in the archive is not planned
  for (let i = 0; i < 3; i++) {
    const body = { device: holder.guid, paths, reason: 'r', to: { device: two.guid, folder: '/x' } };
    expect((await world.ask('POST', '/v1/pushed-restores', { token: admin.token, body })).status).toBe(201);
  }
  const session = await h2(server);
  const stream = session.request({ ':path': '/v1/self/commands?once=1', authorization: `Bearer ${two.token}` });
  stream.on('error', () => {});
  let status = 0;
  stream.on('response', (headers) => {
    status = Number(headers[':status']);
  });
  stream.pause();
  await until(() => status === 200);
  expect((await follow(server, one)).status).toBe(503);
  expect((await follow(server, one, '?once=1')).status).toBe(503);
  session.destroy();
  await until(async () => (await follow(server, one)).status === 200);
});

test('a channel that was closed is not open again because its process wrote that it is there a moment later', async () => {
  const { database } = world.storage;
  const device = await newDevice(holder);
  const held = { guid: device.guid, channel: newChannel() };
  const of = { tenant: world.tenant, guid: device.guid };
  const asked = await deviceOf(device);
  await database.transaction((tx) => openChannel(tx, asked, held.channel));
  expect(await readChannel(database, of)).toMatchObject({ isOpen: true });
  await closeChannels(database, [held]);
  await hearChannels(database, [held]);
  expect(await readChannel(database, of)).toMatchObject({ isOpen: false });
});
