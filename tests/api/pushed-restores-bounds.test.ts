/** What a device that says what it likes comes to, and what waits for one: nothing of it is without a bound. */
import { randomUUID } from 'node:crypto';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { CommandEndRequest, CommandProgressRequest } from '../../protocol/commands.ts';
import { limits } from '../../protocol/limits.ts';
import { insertCommand } from '../../server/directory/devices/commands/rows.ts';
import { attemptsMax, attemptsTold } from '../../server/directory/restores/pushing/attempts.ts';
import { keepMomentsOfPushed, lapsePushed } from '../../server/directory/restores/pushing/lapsing.ts';
import { charge } from '../../server/directory/restores/thresholds/charging.ts';
import { heldMomentsMax } from '../../server/directory/restores/thresholds/moments.ts';
import { until } from '../../server/http/testing.ts';
import { rawRequest } from '../helpers/raw-http.ts';
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
} from './pushing.ts';
import { actsOf, closeWorld, engine, holder, openWorld, world } from './restoring.ts';
import type { Holder } from './world.ts';

const signal = new AbortController().signal;
const { restoredFilesMax: filesMax, restoredBytesMax: bytesMax } = limits;

beforeAll(async () => {
  await openWorld();
  await openPushing();
}, 60_000);
afterAll(closeWorld);
afterEach(endFollowing);

const rows = <T>(sql: string, values: unknown[] = []): Promise<T[]> => world.storage.rows<T>(sql, values);

const metered = async ({ user }: Holder): Promise<number> => {
  const [row] = await rows<{ hours: { bytes: number }[] }>('SELECT hours FROM restore_meters WHERE asker_id = $1', [
    user,
  ]);
  return row?.hours.reduce((sum, { bytes }) => sum + bytes, 0) ?? 0;
};

describe('the largest numbers that a device may say', () => {
  const most = { ...noCounts, filesRestored: filesMax, filesIdentical: filesMax, bytesRestored: bytesMax };

  test('are shown, listed, added up and exported; one more is refused', async () => {
    const { id, follower, command, attempt } = await running();
    for (const more of [{ filesRestored: filesMax + 1 }, { bytesRestored: bytesMax + 1 }, { problems: 2 ** 53 }])
      expect((await follower.end(command, attempt, { counts: { ...noCounts, ...more } })).status).toBe(400);
    const progress = { attempt, filesSeen: filesMax, filesDone: filesMax, bytesSeen: 0, bytesDone: 0, bytesFetched: 0 };
    expect(CommandProgressRequest.safeParse(progress).success).toBe(true);
    for (const more of [{ filesDone: filesMax + 1 }, { bytesFetched: bytesMax + 1 }, { bytesDone: 2 ** 53 - 1 }])
      expect((await follower.say(command, 'progress', { ...progress, ...more })).status).toBe(400);
    expect((await follower.end(command, attempt, { counts: most })).status).toBe(200);
    expect(await shown(id)).toMatchObject({ state: 'completed', done: { files: 2 * filesMax, bytes: bytesMax } });
    // Many such rows, and more than can be counted.
    const other = await running();
    await other.follower.end(other.command, other.attempt, { counts: most });
    await rows('UPDATE restore_requests SET done_files = $2, done_bytes = $2 WHERE restore_id = $1', [
      other.id,
      Number.MAX_SAFE_INTEGER,
    ]);
    const admin = await world.person('Customer Cloud Admin', { name: 'reads all of it' });
    const since = new Date(Date.now() - 3_600_000).toISOString();
    const until = new Date(Date.now() + 3_600_000).toISOString();
    const get = (path: string) => world.ask('GET', path, { token: admin.token });
    const totals = await get(`/v1/restores/totals?since=${since}&until=${until}`);
    const listed = [
      await get('/v1/restores?limit=1000'),
      await get('/v1/pushed-restores'),
      await get(`/v1/restores/${id}`),
    ];
    expect([totals.status, ...listed.map(({ status }) => status)]).toEqual([200, 200, 200, 200]);
    expect((totals.json.items as { bytes: number; files: number }[])[0]).toMatchObject({
      bytes: Number.MAX_SAFE_INTEGER,
      files: Number.MAX_SAFE_INTEGER,
    });
    const { text } = await get('/v1/restores/export?format=jsonl');
    expect(text).toContain(`"bytes":${bytesMax}`);
    await rows('DELETE FROM device_commands WHERE restore_id = ANY ($1)', [[id, other.id]]);
    await rows('DELETE FROM restore_requests WHERE restore_id = ANY ($1)', [[id, other.id]]);
  });

  test('count for whoever asked as what was planned, and no more, however it ends', async () => {
    const admin = await world.person('Push Restore', { name: 'is not stopped by a device' });
    const first = await running({ reason: 'r' }, { who: admin });
    const planned = await metered(admin);
    expect(planned).toBeGreaterThan(0);
    await first.follower.end(first.command, first.attempt, { counts: most });
    expect(await metered(admin)).toBe(planned);

    const silent = await running({ reason: 'r' }, { who: admin });
    const huge = { filesSeen: 0, filesDone: 0, bytesSeen: 0, bytesDone: bytesMax, bytesFetched: 0 };
    await silent.follower.say(silent.command, 'progress', { attempt: silent.attempt, ...huge });
    await rows('UPDATE device_commands SET expires_at = now() WHERE command_id = $1', [silent.command]);
    await lapsePushed(world.storage.database, { signal });
    expect((await shown(silent.id, admin)).state).toBe('lapsed');
    expect(await metered(admin)).toBe(2 * planned);

    const cancelled = await running({ reason: 'r' }, { who: admin });
    await cancelled.follower.say(cancelled.command, 'progress', { attempt: cancelled.attempt, ...huge });
    await world.ask('POST', `/v1/pushed-restores/${cancelled.id}/cancel`, { token: admin.token });
    await rows('UPDATE device_commands SET expires_at = now() WHERE command_id = $1', [cancelled.command]);
    await lapsePushed(world.storage.database, { signal });
    expect((await commandOf(cancelled.id)).state).toBe('ended');
    expect(await metered(admin)).toBe(3 * planned);
  });
});

describe('a device that begins anew and anew', () => {
  const begins = async (id: number) => (await actsOf(id)).filter(({ action }) => action === 'restore.begin').length;

  test('is told of in the log so often, and then once it was silent for a while', async () => {
    const { id, follower, command } = await running();
    for (let i = 1; i < attemptsTold + 3; i++) expect(await follower.progress(command, newAttempt())).toBe('on');
    expect(await begins(id)).toBe(attemptsTold);
    await rows("UPDATE restore_requests SET seen_at = now() - interval '61 seconds' WHERE restore_id = $1", [id]);
    await follower.progress(command, newAttempt());
    await follower.progress(command, newAttempt());
    expect(await begins(id)).toBe(attemptsTold + 1);
    expect(await shown(id)).toMatchObject({ state: 'running', tries: attemptsTold + 5 });
  });

  test('comes to an end at last', async () => {
    const { id, follower, command } = await running();
    await rows('UPDATE restore_requests SET attempts = $2 WHERE restore_id = $1', [id, attemptsMax - 1]);
    const last = newAttempt();
    expect([await follower.progress(command, last), await follower.progress(command, last)]).toEqual(['on', 'on']);
    expect(await follower.progress(command, newAttempt())).toBe('gone');
    expect(await shown(id)).toMatchObject({ state: 'broken', why: expect.stringContaining(`${attemptsMax} times`) });
    expect((await commandOf(id)).state).toBe('ended');
    expect((await actsOf(id)).at(-1)).toMatchObject({ action: 'restore.end', details: { tries: attemptsMax } });
  });

  test('or goes on for ever: not after sixty days', async () => {
    const { id, follower, command, attempt } = await running();
    const leftHours = async () => {
      const [row] = await rows<{ command: number; restore: number }>(
        `SELECT extract(epoch FROM c.expires_at - now())::float8 / 3600 AS command,
                extract(epoch FROM r.lapses_at - now())::float8 / 3600 AS restore
           FROM device_commands c JOIN restore_requests r USING (restore_id) WHERE command_id = $1`,
        [command],
      );
      return row!;
    };
    const begunDaysAgo = (days: number) =>
      rows(
        `UPDATE device_commands SET created_at = now() - $2 * interval '1 day', expires_at = now() + interval '1 minute' WHERE command_id = $1`,
        [command, days],
      );
    await begunDaysAgo(50);
    await follower.progress(command, attempt);
    for (const hours of Object.values(await leftHours())) expect(hours).toBeCloseTo(7 * 24, 0);
    await begunDaysAgo(59);
    await follower.progress(command, attempt);
    for (const hours of Object.values(await leftHours())) expect(hours).toBeCloseTo(24, 0);
    await begunDaysAgo(61);
    expect(await follower.progress(command, attempt)).toBe('on');
    expect((await leftHours()).command).toBeLessThan(0.1);
    await rows('UPDATE device_commands SET expires_at = now() WHERE command_id = $1', [command]);
    expect(await follower.progress(command, attempt)).toBe('gone');
    await lapsePushed(world.storage.database, { signal });
    expect((await shown(id)).state).toBe('lapsed');
  });
});

test.each(['completed', 'lapsed', 'cancelled', 'cancelled while it runs'])(
  'one that is %s holds its moment as long as that is kept, and no longer',
  async (how) => {
    const { vault, archive } = engine.ref;
    const { id, follower, command, attempt } = await running();
    const heldHours = async () => {
      const [row] = await rows<{ hours: number }>(
        'SELECT extract(epoch FROM lapses_at - now())::float8 / 3600 AS hours FROM restore_requests WHERE restore_id = $1',
        [id],
      );
      return row!.hours;
    };
    await rows("UPDATE restores SET lease_until = now() + interval '5 hours' WHERE vault_id = $1 AND archive_id = $2", [
      vault,
      archive,
    ]);
    expect(await heldHours()).toBeGreaterThan(100);
    if (how === 'completed') await follower.end(command, attempt);
    else if (how === 'lapsed') {
      await rows('UPDATE device_commands SET expires_at = now() WHERE command_id = $1', [command]);
      await lapsePushed(world.storage.database, { signal });
    } else {
      if (how === 'cancelled')
        await rows("UPDATE device_commands SET state = 'queued' WHERE command_id = $1", [command]);
      await cancel(id);
    }
    expect(await heldHours()).toBeCloseTo(5, 1);
  },
);

test('as many moments as one may hold were pushed and are over: the next is planned', async () => {
  const { vault, archive } = engine.ref;
  for (let seq = 0; seq < heldMomentsMax; seq++) {
    const { id, follower, command, attempt } = await running();
    // As if of moments of their own, which are kept no more.
    await rows('UPDATE restore_requests SET seq = $2 WHERE restore_id = $1', [id, 900_000 + seq]);
    await follower.end(command, attempt);
    follower.close();
  }
  await rows('DELETE FROM restores WHERE vault_id = $1 AND archive_id = $2', [vault, archive]);
  // Those of earlier tests.
  await rows('UPDATE restore_requests SET lapses_at = now() WHERE seq < 900000');
  expect((await push()).status).toBe(201);
}, 30_000);

describe('what waits for one device', () => {
  const names = Array.from({ length: 13 }, () => 'n'.repeat(2_000)).join('/');
  /** @param count of 26,015 bytes each */
  const paths = (count: number): string[] => Array.from({ length: count }, (_, i) => `/${10 + i}/${names}`);
  const pathBytes = Buffer.byteLength(paths(1)[0]!);

  test('is bounded in bytes, not only in number', async () => {
    const device = await newDevice(holder);
    const to = { device: device.guid, folder: '/x' };
    const all = Math.floor(limits.devicePathBytesMax / pathBytes);
    const room = limits.devicePathBytesMax - all * pathBytes;
    const exactly = (bytes: number): string =>
      Array.from({ length: bytes }, (_, i) => (i % 1_000 === 0 && i < bytes - 1 ? '/' : 'r')).join('');
    // What is nowhere in the archive is not planned.
    await engine.back(...[...paths(40), exactly(room), exactly(room + 1)].map((path) => ({ path })));
    let left = all;
    for (; left > 0; left -= 40) await pushed({ paths: paths(Math.min(left, 40)), to });
    const { status, json } = await push({ paths: paths(1), to });
    expect([status, json.code, json.detail]).toEqual([
      429,
      'too_many_requests',
      expect.stringContaining(`${all * pathBytes} bytes`),
    ]);
    // To the last byte, and one more.
    expect((await push({ paths: [exactly(room + 1)], to })).status).toBe(429);
    expect((await push({ paths: [exactly(room)], to })).status).toBe(201);
    // Nothing of it stands in the way of another, or of a look into a folder.
    expect((await push({ paths: ['/d'] })).status).toBe(201);
    const { tenant } = world;
    const { user } = holder;
    const browse = { path: null, after: null, limit: 1 };
    await world.storage.database.transaction((tx) =>
      insertCommand(tx, { tenant, user, guid: device.guid, of: { browse }, expiresMs: 1_000 }),
    );
  }, 60_000);

  test('is counted by one at a time', async () => {
    const device = await newDevice(holder);
    const { tenant } = world;
    const { user } = holder;
    await rows(
      `INSERT INTO device_commands (tenant_id, user_id, guid, kind, body, expires_at)
       SELECT $1, $2, $3, 'browse', '{"path":null,"after":null,"limit":1}', now() + interval '1 hour' FROM generate_series(1, $4)`,
      [tenant, user, device.guid, limits.deviceCommandsMax - 1],
    );
    const queued = Promise.withResolvers<void>();
    const mayEnd = Promise.withResolvers<void>();
    const insert = (after: () => Promise<void> = async () => {}) =>
      world.storage.database.transaction(async (tx) => {
        const of = { browse: { path: null, after: null, limit: 1 } };
        await insertCommand(tx, { tenant, user, guid: device.guid, of, expiresMs: 60_000 });
        await after();
      });
    const first = insert(() => {
      queued.resolve();
      return mayEnd.promise;
    });
    await queued.promise;
    const second = insert().then(
      () => 'queued',
      (error: { code: string }) => error.code,
    );
    const waits = async () =>
      (await rows("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")).length > 0;
    let isOver = false;
    void second.then(() => {
      isOver = true;
    });
    await until(async () => isOver || (await waits()));
    mayEnd.resolve();
    await first;
    expect(await second).toBe('too_many_requests');
  });
});

test('a device that reads and never says so reads no more, once whoever asked may not push any more', async () => {
  await rows(
    `INSERT INTO organization_settings (tenant_id, organization_id, name, value) VALUES ($1, $2, 'devices.readOthers', 'false')`,
    [world.tenant, world.top],
  );
  try {
    const admin = await world.person('Push Restore', { name: 'leaves' });
    const [id, own] = [
      await pushed({ reason: 'r' }, admin),
      await pushed({ to: { device: target.guid, folder: '/o' } }),
    ];
    const { session } = await follow();
    const reads = async (): Promise<number> => {
      const headers = {
        ':path': `/v1/archives/${engine.ref.archive}/versions`,
        authorization: `Bearer ${target.token}`,
      };
      return (await rawRequest(session, headers)).status;
    };
    const { restoreLeaseMs: leaseMs } = world.storage.settings;
    const keep = () => keepMomentsOfPushed(world.storage.database, { leaseMs, signal });
    expect(await keep()).toEqual({ kept: 2, refused: 0 });
    expect(await reads()).toBe(200);
    await rows("UPDATE users SET state = 'blocked' WHERE user_id = $1", [admin.user]);
    expect(await keep()).toEqual({ kept: 1, refused: 1 });
    const [row] = await rows('SELECT state FROM restore_requests WHERE restore_id = $1', [id]);
    expect(row).toEqual({ state: 'refused' });
    expect((await commandOf(id)).state).toBe('ended');
    expect((await actsOf(id)).at(-1)).toMatchObject({ action: 'restore.end', result: 'failed' });
    await cancel(own);
    expect(await reads()).toBe(404);
  } finally {
    await rows("DELETE FROM organization_settings WHERE name = 'devices.readOthers'");
  }
});

test('two who begin restores again that counted for each other before do not wait for one another', async () => {
  const { tenant } = world;
  const { database } = world.storage;
  const [ann, ben] = [
    await world.person('Push Restore', { name: 'shown first' }),
    await world.person('Push Restore', { name: 'shown second' }),
  ];
  const client = async (shownTo: Holder): Promise<number> => {
    const [row] = await rows<{ id: number }>(
      `INSERT INTO api_clients (tenant_id, organization_id, name, client_key, secret_sha256, permissions, scope, expires_at, made_by, secret_shown_to)
       SELECT tenant_id, organization_id, 'c', $3, sha256('x'), '{restore.all}', 'all', now() + interval '1 day', 'test', user_id
         FROM users WHERE tenant_id = $1 AND user_id = $2 RETURNING client_id AS id`,
      [tenant, shownTo.user, randomUUID()],
    );
    return row!.id;
  };
  const shownTo = (id: number, { user }: Holder) =>
    rows('UPDATE api_clients SET secret_shown_to = $2 WHERE client_id = $1', [id, user]);
  const one = { by: await client(ann), restore: await pushed({ to: { device: target.guid, folder: '/1' } }) };
  const two = { by: await client(ben), restore: await pushed({ to: { device: target.guid, folder: '/2' } }) };
  const begin = ({ by, restore }: typeof one, between: () => Promise<void> = async () => {}) =>
    database.transaction(async (tx) => {
      await between();
      const party = { kind: 'client', id: by, name: 'c' } as const;
      const { organization } = world.places.own;
      const of = { tenant, id: restore, user: holder.user, organization, plannedBytes: 1, doneBytes: 0 };
      await charge(tx, { tenant, party, address: null }, of as unknown as Parameters<typeof charge>[2]);
    });
  await begin(one);
  await begin(two);
  await shownTo(one.by, ben);
  await shownTo(two.by, ann);
  const [before] = await rows<{ n: number }>(
    'SELECT deadlocks::int AS n FROM pg_stat_database WHERE datname = current_database()',
  );
  for (let round = 0; round < 20; round++) {
    await Promise.all([begin(one), begin(two)]);
    await shownTo(one.by, round % 2 === 0 ? ann : ben);
    await shownTo(two.by, round % 2 === 0 ? ben : ann);
  }
  await rows('SELECT pg_stat_force_next_flush()');
  const [after] = await rows<{ n: number }>(
    'SELECT deadlocks::int AS n FROM pg_stat_database WHERE datname = current_database()',
  );
  expect(after!.n).toBe(before!.n);
}, 60_000);

test.each([
  ['after', 'A', 400],
  ['pathBytes', 'A', 400],
  ['pathBytes', 'LzQ', 409], // a path, and its device is not there
])('a look into a folder with %s %j', async (field, value, expected) => {
  const admin = await world.person('Customer Cloud Admin', { name: `looks ${field} ${value}` });
  const body = { [field]: value };
  const { status, json } = await world.ask('POST', `/v1/devices/${target.guid}/browse`, { token: admin.token, body });
  expect([status, json.field]).toEqual([expected, expected === 400 ? field : undefined]);
});

test('an end says no more than the bounds allow', () => {
  const attempt = newAttempt();
  const end = (more: object) =>
    CommandEndRequest.safeParse({ attempt, outcome: 'completed', counts: { ...noCounts, ...more } }).success;
  for (const name of ['filesRestored', 'filesIdentical', 'folders', 'symlinks', 'problems', 'notices'])
    expect([end({ [name]: filesMax }), end({ [name]: filesMax + 1 })]).toEqual([true, false]);
  for (const name of ['bytesRestored', 'bytesResumed', 'bytesFetched'])
    expect([end({ [name]: bytesMax }), end({ [name]: bytesMax + 1 })]).toEqual([true, false]);
});
