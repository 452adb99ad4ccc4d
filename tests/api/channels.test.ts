/** Channels to devices: through whichever server holds one, and whatever is lost on the way. And folders that devices show. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { limits } from '../../protocol/limits.ts';
import { readBrowseAnswer } from '../../server/directory/devices/commands/browsing.ts';
import { hearChannels } from '../../server/directory/devices/commands/channels.ts';
import { lapsePushed } from '../../server/directory/restores/pushing/lapsing.ts';
import { h2, type TestServer, type TestServerOptions, until } from '../../server/http/testing.ts';
import { newAttempt, newDevice, startReplica, type TestDevice, TestFollower } from './pushing.ts';
import { closeWorld, engine, holder, openWorld, world } from './restoring.ts';
import type { Holder } from './world.ts';

const hour = 3_600_000;
/** Nothing is found by looking: what comes was heard. */
const onlyHearing = { commandLookMs: hour };

let target: TestDevice;
let admin: Holder;
const followers: TestFollower[] = [];
const servers: TestServer[] = [];

beforeAll(async () => {
  await openWorld();
  target = await newDevice(holder);
  admin = await world.person('Customer Cloud Admin', { name: 'admin' });
}, 60_000);
afterAll(closeWorld);
afterEach(async () => {
  for (const follower of followers.splice(0)) follower.close();
  for (const server of servers.splice(0)) await server.shutDown({ leaveMs: 0, drainMs: 100 });
  await world.storage.rows("DELETE FROM device_commands WHERE state <> 'ended'");
});

async function replica(settings: TestServerOptions['settings'] = onlyHearing): Promise<TestServer> {
  const server = await startReplica(settings);
  servers.push(server);
  return server;
}
async function follow(server: { origin: string }, device = target): Promise<TestFollower> {
  const follower = await TestFollower.connect(server, device);
  followers.push(follower);
  return follower;
}
/** On the first server. */
async function pushed(more: object = {}, device = target): Promise<number> {
  const body = { device: holder.guid, paths: ['/d'], reason: 'r', to: { device: device.guid, folder: '/x' }, ...more };
  const { status, json, text } = await world.ask('POST', '/v1/pushed-restores', { token: admin.token, body });
  if (status !== 201) throw new Error(`${status} ${text}`);
  return json.id as number;
}
const cancel = (id: number) => world.ask('POST', `/v1/pushed-restores/${id}/cancel`, { token: admin.token });
const deviceView = async (guid = target.guid) =>
  (await world.ask('GET', `/v1/devices/${guid}`, { token: admin.token })).json as {
    channel: null | { isOpen: boolean };
  };

describe('a device that follows on one server', () => {
  test('is told what was asked for on another, and that it was cancelled there', async () => {
    const follower = await follow(await replica());
    const id = await pushed();
    const command = await follower.restore();
    expect(await follower.progress(command.id, newAttempt())).toBe('on');
    await cancel(id);
    await until(() => follower.cancelled.includes(command.id));
    await follower.end(command.id, newAttempt(), { outcome: 'cancelled' });
    const next = await pushed();
    await until(() => follower.commands.length === 2);
    // Each once.
    expect([follower.commands.length, follower.cancelled.length]).toEqual([2, 1]);
    await cancel(next);
  });

  test('and then on another, or on the same once more, has the newer channel only', async () => {
    const [first, second] = [await replica(), await replica()];
    const oldest = await follow(first);
    const older = await follow(second);
    await until(() => oldest.ended !== null);
    const newest = await follow(second);
    await until(() => older.ended !== null);
    expect([oldest.ended, older.ended, newest.ended]).toEqual(['in order', 'in order', null]);
    await pushed();
    await newest.restore();
    expect([oldest.commands, older.commands]).toEqual([[], []]);
    expect(await deviceView()).toMatchObject({ channel: { isOpen: true } });
    newest.close();
    await until(async () => !(await deviceView()).channel?.isOpen);
  });

  test('is told after a restart of the server what was asked for before and meanwhile', async () => {
    const first = await replica();
    const follower = await follow(first);
    await pushed();
    const before = await follower.restore();
    const { cut, ms } = await first.shutDown({ leaveMs: 0, drainMs: 10_000 });
    // Nobody was waited for.
    expect([cut, ms < 5_000]).toEqual([0, true]);
    await until(() => follower.ended !== null);
    expect(follower.ended).toBe('in order');
    expect(await deviceView()).toMatchObject({ channel: { isOpen: false } });
    await pushed();
    const again = await follow(await replica());
    await until(() => again.commands.length === 2);
    expect(again.commands[0]).toEqual(before);
  });

  test('is told though the connection that hears of it was ended', async () => {
    const follower = await follow(await replica());
    await pushed();
    await follower.restore();
    const { rows } = world.storage;
    const ended = await rows(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE '% listening'`,
    );
    expect(ended.length).toBeGreaterThan(0);
    await pushed();
    await until(() => follower.commands.length === 2, 15_000);
    expect(follower.ended).toBeNull();
    // It hears again.
    await pushed();
    await until(() => follower.commands.length === 3, 15_000);
  });

  test('is told what nobody was told of, by looking', async () => {
    const follower = await follow(await replica({ commandLookMs: 100 }));
    await until(() => follower.frames.length > 0);
    await world.storage.rows(
      `INSERT INTO device_commands (tenant_id, user_id, guid, kind, body, expires_at)
       VALUES ($1, $2, $3, 'browse', '{"path":null,"after":null,"limit":1}', now() + interval '1 hour')`,
      [world.tenant, holder.user, target.guid],
    );
    await until(() => follower.commands.length === 1);
    expect(follower.commands[0]).toMatchObject({ kind: 'browse', path: null, after: null, limit: 1 });
  });

  test('hears heartbeats while there is nothing to do', async () => {
    const follower = await follow(await replica({ commandHeartbeatMs: 20 }));
    await until(() => follower.frames.length > 4);
    expect(follower.frames.map(({ type }) => type).slice(0, 4)).toEqual([
      'hello',
      'heartbeat',
      'heartbeat',
      'heartbeat',
    ]);
  });

  test('is cut off once it is signed out', async () => {
    const device = await newDevice(holder);
    const follower = await follow(await replica({ commandLookMs: 50 }), device);
    await until(() => follower.frames.length > 0);
    await world.storage.rows("UPDATE devices SET state = 'deauthorized' WHERE guid = $1", [device.guid]);
    await until(() => follower.ended !== null);
    expect(follower.ended).toBe('in order');
    const { status } = await TestFollower.connect(world.server, device);
    expect(status).toBe(401);
  });

  test('and takes nothing of what it is told is cut, holds up nobody, and loses nothing', async () => {
    const server = await replica({ writeStallMs: 300 });
    const slow = await newDevice(holder);
    // Three of nearly a megabyte each: more than what waits in a socket.
    const names = Array.from({ length: 13 }, () => 'n'.repeat(2_000)).join('/');
    const paths = Array.from({ length: 35 }, (_, i) => `/none${i}/${names}`);
    await engine.back(...paths.map((path) => ({ path }))); // what is nowhere in the archive is not planned
    for (let i = 0; i < 3; i++) await pushed({ paths }, slow);
    const session = await h2(server);
    const stream = session.request({ ':path': '/v1/self/commands', authorization: `Bearer ${slow.token}` });
    stream.on('error', () => {});
    stream.pause();
    await until(async () => (await deviceView(slow.guid)).channel?.isOpen === true);
    const other = await follow(server);
    await pushed();
    await other.restore();
    await until(() => stream.closed || stream.destroyed, 15_000);
    session.destroy();
    const again = await follow(server, slow);
    await until(() => again.commands.length === 3, 10_000);
    expect(again.commands.map((each) => (each.kind === 'restore' ? each.paths.length : 0))).toEqual([35, 35, 35]);
  });
});

test('a process holds as many channels as it may, and one that comes again is none more', async () => {
  const server = await replica({ ...onlyHearing, commandChannelsMax: 2 });
  const devices = await Promise.all([newDevice(holder), newDevice(holder), newDevice(holder)]);
  for (const device of devices.slice(0, 2)) expect((await follow(server, device)).status).toBe(200);
  expect((await follow(server, devices[2]!)).status).toBe(503);
  expect((await follow(server, devices[1]!)).status).toBe(200);
  const text = await server.metrics.render();
  expect(text).toMatch(/^holdfast_command_channels 2$/m);
});

test('a device whose process died with its channel is there no more after a while', async () => {
  const device = await newDevice(holder);
  expect(await deviceView(device.guid)).toMatchObject({ channel: null });
  const channel = '6b2d3f0e-8d0a-4b9e-9d5b-0e6f0c1d2e3f';
  await world.storage.rows(
    `INSERT INTO device_channels (guid, tenant_id, user_id, channel, is_open, heard_at)
     VALUES ($1, $2, $3, $4, true, now() - interval '3 minutes')`,
    [device.guid, world.tenant, holder.user, channel],
  );
  expect(await deviceView(device.guid)).toMatchObject({ channel: { isOpen: false } });
  await hearChannels(world.storage.database, [{ guid: device.guid, channel }]);
  expect(await deviceView(device.guid)).toMatchObject({ channel: { isOpen: true } });
});

describe('a folder of a device', () => {
  const browse = (body: object = { path: '/home' }, device = target, who = admin, headers = {}) =>
    world.ask('POST', `/v1/devices/${device.guid}/browse`, { token: who.token, body, headers });
  const entry = (name: string | Buffer) => ({ name: Buffer.from(name), kind: 'directory', size: 0, mtime: 1_000 });
  const leftRows = async () =>
    (
      await world.storage.rows<{ n: number }>("SELECT count(*)::int AS n FROM device_commands WHERE kind = 'browse'")
    )[0]!.n;

  test('is shown through whichever server, once, and the log has that it was', async () => {
    const follower = await follow(await replica());
    const before = await leftRows();
    const asked = browse({ path: '/home', after: Buffer.from('a').toString('base64url'), limit: 2 });
    await until(() => follower.commands.length === 1);
    const [command] = follower.commands;
    expect(command).toMatchObject({ kind: 'browse', path: Buffer.from('/home'), after: Buffer.from('a'), limit: 2 });
    const notText = Buffer.from([0x66, 0xff]);
    const told = {
      path: Buffer.from('/home'),
      entries: [{ ...entry('ärger'), readOnly: true }, entry(notText)],
      next: notText,
    };
    expect((await follower.say(command!.id, 'answer', told)).status).toBe(200);
    const { status, json } = await asked;
    expect(status).toBe(200);
    const modifiedAt = new Date(1_000).toISOString();
    expect(json).toEqual({
      entries: [
        { name: 'ärger', kind: 'directory', bytes: 0, modifiedAt, readOnly: true },
        { name: null, nameBytes: notText.toString('base64url'), kind: 'directory', bytes: 0, modifiedAt },
      ],
      next: notText.toString('base64url'),
      fault: null,
    });
    expect(await leftRows()).toBe(before);
    const [act] = await world.storage.rows<{ details: object; result: string }>(
      "SELECT details, result FROM acts WHERE action = 'device.browse' ORDER BY number DESC LIMIT 1",
    );
    expect(act).toEqual({ result: 'done', details: { user: holder.user, path: '/home', entries: 2 } });
    expect(JSON.stringify(act)).not.toContain('ärger');
    expect((await follower.say(command!.id, 'answer', told)).status).toBe(404);
  });

  test('is not asked for again with the request repeated, which says that it was shown', async () => {
    const follower = await follow(world.server);
    const once = { 'idempotency-key': 'a-folder' };
    const asked = browse(undefined, target, admin, once);
    await until(() => follower.commands.length === 1);
    await follower.say(follower.commands[0]!.id, 'answer', {
      path: Buffer.from('/home'),
      entries: [entry('a')],
      next: null,
    });
    expect((await asked).json).toMatchObject({ entries: [{ name: 'a' }], fault: null });
    const again = await browse(undefined, target, admin, once);
    expect([again.status, again.headers.get('idempotency-replayed')]).toEqual([200, 'true']);
    expect(again.json).toEqual({ entries: [], next: null, fault: expect.objectContaining({ code: 'shown_once' }) });
    expect(follower.commands.length).toBe(1);
  });

  test('that a device does not show says why, and is in the log', async () => {
    const follower = await follow(world.server);
    const asked = browse();
    await until(() => follower.commands.length === 1);
    const fault = { code: 'not_allowed', detail: 'permission denied' };
    await follower.say(follower.commands[0]!.id, 'answer', { fault });
    expect((await asked).json).toEqual({ entries: [], next: null, fault });
    const [act] = await world.storage.rows<{ result: string }>(
      "SELECT result FROM acts WHERE action = 'device.browse' ORDER BY number DESC LIMIT 1",
    );
    expect(act!.result).toBe('failed');
  });

  test('the first answer counts, and answers are bounded', async () => {
    const follower = await follow(world.server);
    const asked = browse({ limit: limits.pageEntriesMax });
    await until(() => follower.commands.length === 1);
    const { id } = follower.commands[0]!;
    const entries = Array.from({ length: limits.pageEntriesMax }, (_, i) => entry(`${i}`));
    const answer = (more: object) =>
      follower.say(id, 'answer', { path: Buffer.from('/'), entries, next: null, ...more });
    expect((await answer({ entries: [...entries, entry('x')] })).status).toBe(400);
    expect((await answer({ entries: [{ ...entry('x'), content: Buffer.from('no') }] })).status).toBe(400);
    const large = Buffer.alloc(limits.pathBytesMax, 'a');
    expect((await answer({ entries: entries.map((each) => ({ ...each, name: large })) })).status).toBe(413);
    expect((await answer({})).status).toBe(200);
    await answer({ entries: [] });
    expect(((await asked).json.entries as unknown[]).length).toBe(limits.pageEntriesMax);
  });

  test('said twice it is what was said first', async () => {
    const follower = await follow(world.server);
    await until(() => follower.frames.length > 0);
    // Nobody has come to read it.
    const [row] = await world.storage.rows<{ id: number }>(
      `INSERT INTO device_commands (tenant_id, user_id, guid, kind, body, expires_at)
       VALUES ($1, $2, $3, 'browse', '{"path":null,"after":null,"limit":9}', now() + interval '1 hour') RETURNING command_id AS id`,
      [world.tenant, holder.user, target.guid],
    );
    const answer = (name: string) =>
      follower.say(row!.id, 'answer', { path: Buffer.from('/'), entries: [entry(name)], next: null });
    expect((await answer('first')).status).toBe(200);
    expect((await answer('second')).status).toBe(200);
    expect(await readBrowseAnswer(world.storage.database, row!.id)).toMatchObject({
      entries: [{ name: Buffer.from('first') }],
    });
    await world.storage.rows(
      "UPDATE device_commands SET ended_at = now() - interval '2 minutes' WHERE command_id = $1",
      [row!.id],
    );
    await lapsePushed(world.storage.database, { signal: new AbortController().signal });
    expect(await readBrowseAnswer(world.storage.database, row!.id)).toBeNull();
  });

  test('needs the device to be there, and to answer', async () => {
    const away = await newDevice(holder);
    const { status, json } = await browse({}, away);
    expect([status, json.code, json.lastConnectedAt]).toEqual([409, 'device_away', null]);
    const silent = await replica({ browseWaitMs: 200 });
    await follow(silent, away);
    const before = await leftRows();
    const answer = await fetch(`${silent.origin}/v1/devices/${away.guid}/browse`, {
      method: 'POST',
      headers: { authorization: `Bearer ${admin.token}`, 'content-type': 'application/json' },
      body: '{}',
    });
    expect([answer.status, ((await answer.json()) as { detail: string }).detail]).toEqual([
      409,
      'the device did not answer within 0.2 s',
    ]);
    expect(await leftRows()).toBe(before);
  });

  test("of one's own devices, by select.personal; of others' by none that does not reach them", async () => {
    const follower = await follow(world.server);
    const asked = browse({}, target, holder);
    await until(() => follower.commands.length === 1);
    await follower.say(follower.commands[0]!.id, 'answer', { path: Buffer.from('/'), entries: [], next: null });
    expect((await asked).status).toBe(200);
    const stranger = await world.person('Desktop User', { name: 'stranger' });
    expect((await browse({}, target, stranger)).status).toBe(404);
    const helper = await world.person('Cross Org Help Desk - No Restore', { name: 'helper' });
    expect((await browse({}, target, helper)).status).toBe(403);
  });

  test.each([
    [{ path: 'relative' }],
    [{ path: '/a', pathBytes: 'L2E' }],
    [{ pathBytes: '*' }],
    [{ limit: 0 }],
    [{ limit: 1_001 }],
  ])('%j is no folder', async (body) => {
    expect((await browse(body)).status).toBe(400);
  });
});
