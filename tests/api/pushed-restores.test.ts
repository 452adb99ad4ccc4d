/** Restores that are pushed to devices: who may, to which device and folder, and that they can be taken back. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { until } from '../../server/http/testing.ts';
import {
  cancel,
  commandOf,
  endFollowing,
  follow,
  newAttempt,
  newDevice,
  noCounts,
  openPushing,
  push,
  pushed,
  running,
  shown,
  target,
  told,
} from './pushing.ts';
import { actsOf, big, closeWorld, engine, holder, openWorld, text, world } from './restoring.ts';
import type { Holder } from './world.ts';

beforeAll(async () => {
  await openWorld();
  await openPushing();
}, 60_000);
afterAll(closeWorld);
afterEach(endFollowing);

test('is queued while the device is away, told when it comes, and in the history and the log to its end', async () => {
  const id = await pushed({ existing: 'overwrite', permissions: 'current', deleted: true });
  const bytes = text('small').length + text('umlaut').length + text('no text').length;
  expect(await shown(id)).toMatchObject({
    kind: 'pushed',
    state: 'planned',
    format: null,
    permission: 'pushrestore.personal',
    planned: { files: 3, folders: 1, bytes },
    device: { guid: holder.guid },
    pushed: {
      device: { guid: target.guid, name: 'target' },
      folder: { path: '/restored' },
      existing: 'overwrite',
      permissions: 'current',
      end: null,
    },
  });
  const follower = await follow();
  const command = await follower.restore();
  expect(follower.frames[0]).toEqual({ type: 'hello', heartbeatSeconds: 20 });
  expect(command).toMatchObject({
    restore: id,
    archive: engine.ref.archive,
    sourceGuid: holder.guid,
    sourcePlatform: 'linux',
    paths: [Buffer.from('/d')],
    deleted: true,
    target: { folder: Buffer.from('/restored') },
    existing: 'overwrite',
    permissions: 'current',
    files: 3,
    bytes,
  });
  await until(async () => (await commandOf(id)).state === 'sent');
  const attempt = newAttempt();
  expect(await follower.progress(command.id, attempt, 1)).toBe('on');
  expect(await shown(id)).toMatchObject({ state: 'running', tries: 1, done: { files: 1, bytes: 1, sentBytes: 1 } });
  const counts = { ...noCounts, filesRestored: 2, filesIdentical: 1, bytesRestored: 7, bytesFetched: 5, problems: 1 };
  const problems = [{ path: Buffer.from('/d/small'), reason: 'block_damaged', detail: 'a block' }];
  const ending = { outcome: 'incomplete', counts, problems } as const;
  expect((await follower.end(command.id, attempt, ending)).status).toBe(200);
  const ended = await shown(id);
  expect(ended).toMatchObject({
    state: 'completed',
    done: { files: 3, bytes: 7, sentBytes: 5, leftOut: 1 },
    leftOutFirst: [{ path: '/d/small', reason: 'block_damaged' }],
    pushed: { end: { outcome: 'incomplete', counts } },
  });
  // Said again, it changes nothing, and neither does what comes late.
  expect((await follower.end(command.id, attempt, { outcome: 'failed' })).status).toBe(200);
  expect(await follower.progress(command.id, attempt, 9)).toBe('gone');
  expect(await shown(id)).toEqual(ended);
  expect((await actsOf(id)).map(({ action, result }) => [action, result])).toEqual([
    ['restore.plan', 'done'],
    ['restore.begin', 'done'],
    ['restore.end', 'done'],
  ]);
  expect((await actsOf(id))[0]!.details).toMatchObject({
    kind: 'pushed',
    to: { device: target.guid, folder: '/restored' },
  });
  const fetch = await world.ask('GET', `/v1/restores/${id}/content`, { token: holder.token });
  expect([fetch.status, fetch.json.kind]).toEqual([409, 'pushed']);
});

describe('cancelled', () => {
  test('before its device was told, it is over', async () => {
    const id = await pushed();
    expect((await cancel(id)).json).toMatchObject({ state: 'cancelled' });
    expect((await commandOf(id)).state).toBe('ended');
    const follower = await follow(target, '?once=1');
    await until(() => follower.ended !== null);
    expect([follower.ended, follower.frames.map(({ type }) => type)]).toEqual(['in order', ['hello']]);
  });

  test('while it runs, its device is told on the channel and with its next word', async () => {
    const { id, follower, command, attempt } = await running({}, { done: 1 });
    await cancel(id);
    await until(() => follower.cancelled.includes(command));
    expect(follower.cancelled).toEqual([command]);
    expect(await follower.progress(command, attempt, 2)).toBe('cancelled');
    // One that comes back is told so, and not of the command.
    const again = await follow();
    await until(() => again.cancelled.includes(command));
    expect(again.commands).toEqual([]);
    const counts = { ...noCounts, filesRestored: 2 };
    await again.end(command, attempt, { outcome: 'completed', counts });
    expect(await shown(id)).toMatchObject({ state: 'cancelled', done: { files: 2 } });
    expect((await commandOf(id)).state).toBe('ended');
    expect((await actsOf(id)).map(({ action }) => action)).toEqual([
      'restore.plan',
      'restore.begin',
      'restore.cancel',
      'restore.end',
    ]);
    expect((await cancel(id)).status).toBe(200);
  });

  test('after its end there is nothing to cancel', async () => {
    const id = await pushed();
    const { follower, command } = await told();
    await follower.end(command, newAttempt(), { outcome: 'failed', why: 'no room' });
    expect(await shown(id)).toMatchObject({ state: 'broken', why: 'no room' });
    expect((await cancel(id)).status).toBe(409);
  });
});

describe('where to', () => {
  test("another user's device is refused, in words, to those who may know of it", async () => {
    const other = await world.person('Desktop User', { name: 'somebody else' });
    const theirs = await newDevice(other);
    const to = { device: theirs.guid, folder: '/x' };
    const unknown = await push({ to: { device: '1234', folder: '/x' } });
    const mine = await push({ to });
    expect([mine.status, unknown.status]).toEqual([404, 404]);
    expect(mine.json.detail).toBe(unknown.json.detail);
    const limited = await world.person('Cross Org Help Desk');
    expect((await push({ to, reason: 'asked for' }, limited)).status).toBe(403);
    const all = await world.person('Customer Cloud Admin', { name: 'may all' });
    const { status, json } = await push({ to, reason: 'asked for' }, all);
    expect([status, json.code, json.field]).toEqual([409, 'conflict', 'to.device']);
    expect(json.detail).toMatch(/browser/);
  });

  test("another tenant's device does not exist", async () => {
    const { user, tenant } = world.places['other tenant'];
    const theirs = await newDevice({ user, tenant });
    const all = await world.person('Customer Cloud Admin', { name: 'may all here' });
    expect((await push({ to: { device: theirs.guid, folder: '/x' }, reason: 'r' }, all)).status).toBe(404);
  });

  test.each(['blocked', 'deauthorized', 'deactivated'])('a %s device is refused', async (state) => {
    const device = await newDevice(holder);
    await world.storage.rows('UPDATE devices SET state = $2 WHERE guid = $1', [device.guid, state]);
    const { status, json } = await push({ to: { device: device.guid, folder: '/x' } });
    expect([status, json.state]).toEqual([409, state]);
  });

  test('the original places are those of the same system', async () => {
    const windows = await newDevice(holder, { platform: 'win32' });
    const { status, json } = await push({ to: { device: windows.guid, original: true } });
    expect([status, json.field]).toEqual([409, 'to.original']);
    const id = await pushed({ to: { device: target.guid, original: true } });
    expect(await shown(id)).toMatchObject({ pushed: { folder: null } });
    expect((await (await follow()).restore()).target).toEqual({ original: true });
  });

  test.each<[text: string, path: string]>([
    ['c:\\Users\\Ann\\', '/C:/Users/Ann'],
    ['D:/x', '/D:/x'],
    ['E:', '/E:'],
    ['\\\\server\\share\\a', '/UNC/server/share/a'],
    ['/C:/as/archives/have/it', '/C:/as/archives/have/it'],
  ])('a folder of Windows: %s', async (folder, path) => {
    const windows = await newDevice(holder, { platform: 'win32' });
    await pushed({ to: { device: windows.guid, folder } });
    expect((await (await follow(windows)).restore()).target).toEqual({ folder: Buffer.from(path) });
  });

  test.each<[to: object, code: string]>([
    [{ folder: 'relative' }, 'path_invalid'],
    [{ folder: '/a/../b' }, 'path_invalid'],
    [{ folderBytes: Buffer.from('/a\0b').toString('base64url') }, 'path_invalid'],
    [{ folderBytes: '***' }, 'malformed_request'],
    [{ folder: '/a', original: true }, 'malformed_request'],
    [{}, 'malformed_request'],
  ])('%j is no place', async (to, code) => {
    const { status, json } = await push({ to: { device: target.guid, ...to } });
    expect([status, json.code]).toEqual([400, code]);
  });

  test('a folder whose name is no text goes as its bytes', async () => {
    const folder = Buffer.from([0x2f, 0xff, 0xfe]);
    const id = await pushed({ to: { device: target.guid, folderBytes: folder.toString('base64url') } });
    expect(await shown(id)).toMatchObject({
      pushed: { folder: { path: null, pathBytes: folder.toString('base64url') } },
    });
    expect((await (await follow()).restore()).target).toEqual({ folder });
  });
});

describe('who', () => {
  test("somebody else's files need a reason, and a permission that reaches them", async () => {
    const helper = await world.person('Cross Org Help Desk', { name: 'helper' });
    const none = await push({}, helper);
    expect([none.status, none.json.field]).toEqual([400, 'reason']);
    const id = await pushed({ reason: 'asked for by phone' }, helper);
    expect(await shown(id, helper)).toMatchObject({ permission: 'pushrestore.limited', reason: 'asked for by phone' });
    // Theirs alone, as far as its user is concerned: it is in the audit log.
    expect((await world.ask('GET', `/v1/pushed-restores/${id}`, { token: holder.token })).status).toBe(404);
    const browser = await world.ask('POST', '/v1/restores', {
      token: helper.token,
      body: { device: holder.guid, paths: ['/d'], reason: 'r' },
    });
    expect(browser.status).toBe(403);
  });

  test('has no limit in bytes', async () => {
    await world.storage.rows(
      `INSERT INTO organization_settings (tenant_id, organization_id, name, value) VALUES ($1, $2, 'webRestore.userBytesMax', '1')`,
      [world.tenant, world.top],
    );
    try {
      const id = await pushed({ paths: ['/big'] });
      expect(await shown(id)).toMatchObject({ planned: { bytes: big.length } });
    } finally {
      await world.storage.rows("DELETE FROM organization_settings WHERE name = 'webRestore.userBytesMax'");
    }
  });

  test('who pushes sees what was pushed, and nothing else', async () => {
    const id = await pushed();
    const helper = await world.person('Cross Org Help Desk', { name: 'lists' });
    const list = async (who: Holder) =>
      (await world.ask('GET', '/v1/pushed-restores?limit=1000', { token: who.token })).json.items as {
        id: number;
        kind: string;
      }[];
    const [all, own] = [await list(helper), await list(holder)];
    expect(all.map((each) => each.id)).toContain(id);
    expect(new Set(all.map(({ kind }) => kind))).toEqual(new Set(['pushed']));
    expect(own.map((each) => each.id)).toContain(id);
    expect(own.length).toBeLessThan(all.length);
    const stranger = await world.person('Cross Org Manager', { name: 'lists their own' });
    expect((await list(stranger)).map((each) => each.id)).toEqual([stranger.pushed]);
  });

  test('a restore to a browser is no pushed one', async () => {
    const admin = await world.person('Customer Cloud Admin', { name: 'looks at all' });
    expect((await shown(holder.restore, admin)).code).toBe('not_found');
    const { json } = await world.ask('GET', `/v1/restores?device=${holder.guid}`, { token: admin.token });
    expect((json.items as { kind: string }[]).map(({ kind }) => kind)).toContain('pushed');
  });
});

describe('what it counts towards', () => {
  const charged = async (id: number) =>
    (await world.storage.rows<{ bytes: number }>('SELECT bytes FROM restore_charges WHERE restore_id = $1', [id])).map(
      ({ bytes }) => bytes,
    );
  const metered = async ({ user }: Holder) => {
    const [row] = await world.storage.rows<{ hours: { bytes: number }[] }>(
      'SELECT hours FROM restore_meters WHERE asker_id = $1',
      [user],
    );
    return row?.hours.reduce((sum, { bytes }) => sum + bytes, 0);
  };

  test("others' files count from when they are planned, and in the end as what was written", async () => {
    const admin = await world.person('Push Restore', { name: 'counted' });
    const id = await pushed({ reason: 'r' }, admin);
    const bytes = text('small').length + text('umlaut').length + text('no text').length;
    expect([await charged(id), await metered(admin)]).toEqual([[bytes], bytes]);
    const { follower, command } = await told();
    const attempt = newAttempt();
    await follower.progress(command, attempt);
    await follower.end(command, attempt, { counts: { ...noCounts, bytesRestored: 5 } });
    expect([await charged(id), await metered(admin)]).toEqual([[], 5]);
    const away = await newDevice(holder);
    const unseen = await pushed({ reason: 'r', to: { device: away.guid, folder: '/x' } }, admin);
    expect(await charged(unseen)).toEqual([bytes]);
    expect((await world.ask('POST', `/v1/pushed-restores/${unseen}/cancel`, { token: admin.token })).status).toBe(200);
    expect([await charged(unseen), await metered(admin)]).toEqual([[], 5]);
  });

  test('whoever would come to too much is refused, and nothing is queued', async () => {
    await world.storage.rows(
      `INSERT INTO organization_settings (tenant_id, organization_id, name, value) VALUES ($1, $2, 'restoreAlerts.bytesPerDay', '10')`,
      [world.tenant, world.top],
    );
    try {
      const admin = await world.person('Push Restore', { name: 'too much' });
      const { json } = await push({ reason: 'r' }, admin);
      expect(json.code).toBe('restores_blocked');
      const rows = await world.storage.rows(
        'SELECT 1 FROM restore_requests WHERE asker_id = $1 AND kind = $2 AND reason IS NOT NULL',
        [admin.user, 'pushed'],
      );
      expect(rows).toEqual([]);
      expect((await push()).status).toBe(201); // one's own
    } finally {
      await world.storage.rows("DELETE FROM organization_settings WHERE name = 'restoreAlerts.bytesPerDay'");
    }
  });
});
