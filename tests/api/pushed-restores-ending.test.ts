/** Restores that are pushed to devices: what a device may read meanwhile, what it may say, and every way in which they end. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { CommandEndRequest } from '../../protocol/commands.ts';
import { limits } from '../../protocol/limits.ts';
import type { Problem } from '../../protocol/problems.ts';
import { pushEnded } from '../../server/directory/restores/pushing/attempts.ts';
import { keepMomentsOfPushed, lapsePushed } from '../../server/directory/restores/pushing/lapsing.ts';
import { cancel as cancelRestore } from '../../server/directory/restores/requests.ts';
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
  type TestDevice,
  target,
  told,
} from './pushing.ts';
import { actsOf, closeWorld, engine, holder, openWorld, world } from './restoring.ts';

const signal = new AbortController().signal;

beforeAll(async () => {
  await openWorld();
  await openPushing();
}, 60_000);
afterAll(closeWorld);
afterEach(endFollowing);

/** What a device is answered of an archive. */
const reads = async (device: TestDevice, archive = engine.ref.archive): Promise<number> => {
  const { session } = await follow(device);
  const headers = { ':path': `/v1/archives/${archive}/versions`, authorization: `Bearer ${device.token}` };
  return (await rawRequest(session, headers)).status;
};

test('goes on in another attempt after its agent was killed, and what the first one says late is gone', async () => {
  const id = await pushed();
  const { follower, command } = await told();
  const [first, second] = [newAttempt(), newAttempt()];
  expect(await follower.progress(command, first, 1)).toBe('on');
  const again = await follow();
  expect((await again.restore()).id).toBe(command);
  expect(await again.progress(command, second, 1)).toBe('on');
  expect(await again.progress(command, first, 3)).toBe('gone');
  expect((await again.end(command, first, { outcome: 'failed' })).status).toBe(200);
  expect(await shown(id)).toMatchObject({ state: 'running', tries: 2, done: { files: 1 } });
  expect((await again.end(command, second)).status).toBe(200);
  expect(await shown(id)).toMatchObject({ state: 'completed', tries: 2 });
});

test('of which the device says its end and nothing before was begun, and is in what was restored', async () => {
  const id = await pushed();
  const { follower, command } = await told();
  const counts = { ...noCounts, filesRestored: 3, bytesRestored: 70 };
  expect((await follower.end(command, newAttempt(), { counts })).status).toBe(200);
  const row = (await shown(id)) as unknown as Record<'begunAt' | 'createdAt' | 'endedAt', string>;
  expect(row).toMatchObject({ state: 'completed', done: { files: 3, bytes: 70 }, begunAt: row.endedAt });
  expect(row.begunAt).not.toBeNull();
  const since = encodeURIComponent(row.createdAt);
  const path = `/v1/restores/totals?since=${since}&until=${new Date(Date.now() + 60_000).toISOString()}`;
  const { items } = (await world.ask('GET', path, { token: holder.token })).json as { items: object[] };
  expect(items).toEqual([expect.objectContaining({ restores: 1, files: 3, bytes: 70 })]);
});

describe('the device may read the archive that is pushed to it', () => {
  beforeAll(async () => {
    await world.storage.rows(
      `INSERT INTO organization_settings (tenant_id, organization_id, name, value) VALUES ($1, $2, 'devices.readOthers', 'false')`,
      [world.tenant, world.top],
    );
  });
  afterAll(() => world.storage.rows("DELETE FROM organization_settings WHERE name = 'devices.readOthers'"));

  test('while the command is open, and neither before nor after', async () => {
    expect(await reads(target)).toBe(404);
    const id = await pushed();
    expect(await reads(target)).toBe(200);
    const other = await newDevice(holder);
    expect(await reads(other)).toBe(404);
    expect(await reads(target, other.archive)).toBe(404);
    const { follower, command } = await told();
    const attempt = newAttempt();
    await follower.progress(command, attempt);
    expect(await reads(target)).toBe(200);
    await follower.end(command, attempt);
    expect(await shown(id)).toMatchObject({ state: 'completed' });
    expect(await reads(target)).toBe(404);
  });

  test('not when it is cancelled, though it has not heard of it', async () => {
    const id = await pushed();
    const { follower, command } = await told();
    await follower.progress(command, newAttempt());
    await cancel(id);
    expect((await commandOf(id)).state).toBe('cancelling');
    expect(await reads(target)).toBe(404);
  });

  test('not when it has expired, though nobody has looked', async () => {
    const id = await pushed();
    await world.storage.rows('UPDATE device_commands SET expires_at = now() WHERE restore_id = $1', [id]);
    expect(await reads(target)).toBe(404);
  });

  test('not while it is blocked; one that is deactivated is read for an administrator who pushes', async () => {
    await pushed();
    const state = (value: string, guid: string) =>
      world.storage.rows('UPDATE devices SET state = $2 WHERE guid = $1', [guid, value]);
    await state('blocked', target.guid);
    try {
      expect(await reads(target)).toBe(404);
    } finally {
      await state('active', target.guid);
    }
    await state('deactivated', holder.guid);
    try {
      expect(await reads(target)).toBe(200);
    } finally {
      await state('active', holder.guid);
    }
  });
});

describe('what no device comes for', () => {
  test('lapses in its time, and its row says so', async () => {
    const id = await pushed();
    await lapsePushed(world.storage.database, { signal });
    expect(await shown(id)).toMatchObject({ state: 'planned' });
    await world.storage.rows('UPDATE device_commands SET expires_at = now() WHERE restore_id = $1', [id]);
    const follower = await follow(target, '?once=1');
    await until(() => follower.ended !== null);
    expect(follower.commands).toEqual([]);
    expect(await lapsePushed(world.storage.database, { signal })).toMatchObject({ lapsed: 1 });
    expect(await shown(id)).toMatchObject({ state: 'lapsed', why: 'the device was not heard of in time' });
    expect((await actsOf(id)).map(({ action, result }) => [action, result])).toEqual([
      ['restore.plan', 'done'],
      ['restore.end', 'failed'],
    ]);
    expect(await lapsePushed(world.storage.database, { signal })).toMatchObject({ lapsed: 0 });
  });

  test('while it is silent half-way it runs, until it lapses; what its device says after all is how it ended', async () => {
    const { id, follower, command, attempt } = await running({}, { done: 1 });
    await world.storage.rows("UPDATE restore_requests SET seen_at = now() - interval '1 day' WHERE restore_id = $1", [
      id,
    ]);
    expect(await shown(id)).toMatchObject({ state: 'running' });
    await world.storage.rows('UPDATE device_commands SET expires_at = now() WHERE command_id = $1', [command]);
    expect(await follower.progress(command, attempt, 2)).toBe('gone');
    await lapsePushed(world.storage.database, { signal });
    expect(await shown(id)).toMatchObject({ state: 'lapsed', why: 'the device was not heard of any more in time' });
    await follower.end(command, attempt, { outcome: 'completed', counts: { ...noCounts, filesRestored: 3 } });
    const ended = await shown(id);
    expect(ended).toMatchObject({ state: 'completed', done: { files: 3 } });
    await follower.end(command, attempt, { outcome: 'failed' });
    expect(await shown(id)).toEqual(ended);
  });

  test('its moment is kept while it is open, and a restore whose moment was not kept does not begin', async () => {
    const id = await pushed();
    const { rows } = world.storage;
    const lease = async () => {
      const { vault, archive } = engine.ref;
      const [row] = await rows<{ hours: number }>(
        `SELECT extract(epoch FROM max(lease_until) - now()) / 3600 AS hours FROM restores WHERE vault_id = $1 AND archive_id = $2`,
        [vault, archive],
      );
      return Number(row!.hours);
    };
    await rows("UPDATE restores SET lease_until = now() + interval '1 hour' WHERE vault_id = $1", [engine.ref.vault]);
    expect(await lease()).toBeLessThan(2);
    const { restoreLeaseMs: leaseMs } = world.storage.settings;
    expect(await keepMomentsOfPushed(world.storage.database, { leaseMs, signal })).toEqual({
      kept: 1,
      refused: 0,
    });
    expect(await lease()).toBeGreaterThan(2);
    await rows('UPDATE restores SET lease_until = now() WHERE vault_id = $1', [engine.ref.vault]);
    const { follower, command } = await told();
    expect(await follower.progress(command, newAttempt())).toBe('gone');
    expect(await shown(id)).toMatchObject({ state: 'lapsed', why: 'its moment was not kept: plan it again' });
    await cancel(id);
    expect(await keepMomentsOfPushed(world.storage.database, { leaseMs, signal })).toEqual({
      kept: 0,
      refused: 0,
    });
  });
});

test('its end, its cancelling and a word of it at once: one of the two is how it ended, and both rows agree', async () => {
  const follower = await follow();
  for (let round = 0; round < 12; round++) {
    const id = await pushed();
    const { id: command } = await commandOf(id);
    const attempt = newAttempt();
    expect(await follower.progress(command, attempt)).toBe('on');
    const { database } = world.storage;
    const of = { tenant: world.tenant, guid: target.guid, command };
    const byDevice = {
      tenant: world.tenant,
      party: { kind: 'device', id: target.guid, name: 'target' },
      address: null,
    } as const;
    const byUser = { ...byDevice, party: { kind: 'user', id: holder.user, name: 'holder' } } as const;
    const ending = CommandEndRequest.parse({ attempt, outcome: 'completed', counts: noCounts });
    const steps = [
      () =>
        database
          .transaction((tx) =>
            cancelRestore(tx, byUser, { tenant: world.tenant, restore: id, expected: null, leaseMs: 60_000 }),
          )
          .catch((error: Problem) => expect(error.code).toBe('conflict')),
      () => database.transaction((tx) => pushEnded(tx, byDevice, of, ending)),
      () => follower.progress(command, attempt, 1),
      () => lapsePushed(database, { signal }),
    ];
    const turned = [...steps.slice(round % 4), ...steps.slice(0, round % 4)];
    // Each in turn has a small start.
    const first = turned[0]!();
    await world.storage.rows('SELECT 1');
    await Promise.all([first, ...turned.slice(1).map((step) => step())]);
    const { state } = await shown(id);
    expect(['completed', 'cancelled']).toContain(state);
    const acts = (await actsOf(id)).map(({ action }) => action);
    const told = state === 'completed' ? ['restore.end'] : ['restore.cancel', 'restore.end'];
    expect(acts).toEqual(['restore.plan', 'restore.begin', ...told]);
    // An end that was first is the end; one that came to a cancelled one is its last word.
    expect((await commandOf(id)).state).toBe('ended');
  }
});

describe('whoever asked for it', () => {
  test.each<[what: string, take: string]>([
    ['has lost the role', "DELETE FROM user_roles WHERE user_id = $1 AND role <> 'PROe User'"],
    ['is blocked', "UPDATE users SET state = 'blocked' WHERE user_id = $1"],
  ])('%s by the time its device begins, or while it goes on: it is refused, and read no more', async (_, take) => {
    for (const hasBegun of [false, true]) {
      const admin = await world.person('Push Restore', { name: `pushes ${take} ${hasBegun}` });
      const id = await pushed({ reason: 'r' }, admin);
      const { follower, command } = await told();
      const attempt = newAttempt();
      if (hasBegun) expect(await follower.progress(command, attempt)).toBe('on');
      await world.storage.rows(take, [admin.user]);
      expect(await follower.progress(command, attempt)).toBe('gone');
      const [row] = await world.storage.rows<{ state: string; why: string }>(
        'SELECT state, why FROM restore_requests WHERE restore_id = $1',
        [id],
      );
      expect(row!.state).toBe('refused');
      expect((await actsOf(id)).at(-1)).toMatchObject({ action: 'restore.end', result: 'failed' });
      expect((await commandOf(id)).state).toBe('ended');
      await follower.end(command, attempt, { outcome: 'cancelled' });
      follower.close();
    }
  });
});

describe('a device that says what it should not', () => {
  test("has no part in another's command", async () => {
    const id = await pushed();
    const { id: command } = await commandOf(id);
    for (const stranger of [
      await newDevice(holder),
      await newDevice(await world.person('Desktop User', { name: 'x' })),
    ]) {
      const follower = await follow(stranger);
      expect(await follower.progress(command, newAttempt(), 1)).toBe('gone');
      expect((await follower.end(command, newAttempt())).status).toBe(404);
      expect((await follower.say(command, 'answer', { fault: { code: 'failed', detail: '' } })).status).toBe(404);
    }
    expect(await shown(id)).toMatchObject({ state: 'planned', tries: 0 });
    const follower = await follow();
    expect((await follower.say(command, 'answer', { fault: { code: 'failed', detail: '' } })).status).toBe(404);
  });

  test('is held to the bounds of what it says, at their edges', async () => {
    const { id, follower, command, attempt } = await running();
    const problem = { path: Buffer.alloc(10, 'a'), reason: 'block_damaged', detail: 'd'.repeat(limits.textMax) };
    const problems = Array.from({ length: limits.commandProblemsMax }, () => problem);
    const refused = [
      { problems: [...problems, problem] },
      { why: 'w'.repeat(limits.textMax + 1) },
      { problems: [{ ...problem, detail: 'd'.repeat(limits.textMax + 1) }] },
      { problems: [{ ...problem, reason: 'no word' }] },
      { counts: { ...noCounts, bytesRestored: -1 } },
      { why: 'with a \0' },
    ];
    for (const more of refused) expect((await follower.end(command, attempt, more)).status).toBe(400);
    expect(await shown(id)).toMatchObject({ state: 'running' });
    expect((await follower.end(command, attempt, { problems, why: 'w'.repeat(limits.textMax) })).status).toBe(200);
    expect(((await shown(id)) as unknown as { leftOutFirst: unknown[] }).leftOutFirst).toHaveLength(100);
    expect(
      CommandEndRequest.safeParse({ attempt: Buffer.alloc(15), outcome: 'completed', counts: noCounts }).success,
    ).toBe(false);
  });

  test('as many commands wait for a device as may, and no more', async () => {
    const device = await newDevice(holder);
    await world.storage.rows(
      `INSERT INTO device_commands (tenant_id, user_id, guid, kind, body, expires_at)
       SELECT $1, $2, $3, 'browse', '{"path":null,"after":null,"limit":1}', now() + interval '1 hour' FROM generate_series(1, $4)`,
      [world.tenant, holder.user, device.guid, limits.deviceCommandsMax - 1],
    );
    await pushed({ to: { device: device.guid, folder: '/x' } });
    const { status, json } = await push({ to: { device: device.guid, folder: '/x' } });
    expect([status, json.code]).toEqual([429, 'too_many_requests']);
  });
});
