/** What goes wrong while restores are staged: two workers that meet, tries that end early, and room that was not enough. */
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { deleteStaged } from '../../server/directory/restores/staging/delete-staged.ts';
import { freeBytesOf, reservedFor } from '../../server/directory/restores/staging/room.ts';
import { endOldStaged } from '../../server/directory/restores/staging/rows.ts';
import type { StagingParts } from '../../server/directory/restores/staging/stage.ts';
import { stageOne, startDue } from '../../server/directory/restores/staging/stage-due.ts';
import { until } from '../../server/http/testing.ts';
import { jobDefinitions } from '../../server/jobs/definitions.ts';
import { DeletingStopped } from '../../storage/archive/checking/fence.ts';
import type { ObjectStore } from '../../storage/objects/object-store.ts';
import { big, closeWorld, holder, show, world } from './restoring.ts';
import {
  clean,
  expectNoFaults,
  fence,
  never,
  objectsOf,
  openStagingWorld,
  parts,
  sql,
  stageAll,
  staged,
  stagedRows,
  stagePlanned,
} from './staging.ts';
import type { Holder } from './world.ts';

beforeAll(openStagingWorld, 60_000);
afterAll(closeWorld);
expectNoFaults();

/** The same store, but for some of its calls. */
function storeWith(changes: Partial<ObjectStore>): StagingParts['storage'] {
  const { objects } = world.storage;
  const changed = new Proxy(objects, {
    get(target, name) {
      const value = (changes as Record<PropertyKey, unknown>)[name] ?? Reflect.get(target, name);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
  return Object.create(world.storage, { objects: { value: changed } }) as StagingParts['storage'];
}
const dueNow = (id: number) => sql('UPDATE restore_requests SET stage_after = now() WHERE restore_id = $1', [id]);
async function triesOf(id: number): Promise<{ tries: number; why: string | null }> {
  const rows = await sql<{ tries: number; why: string | null }>(
    'SELECT stage_tries AS tries, why FROM restore_requests WHERE restore_id = $1',
    [id],
  );
  return rows[0]!;
}
const meterOf = async (who: Holder): Promise<number> => {
  const [row] = await sql<{ hours: { bytes: number }[] | [number, number][] }>(
    `SELECT hours FROM restore_meters WHERE asker_kind = 'user' AND asker_id = $1`,
    [who.user],
  );
  return (row?.hours ?? []).reduce((sum, hour) => sum + (Array.isArray(hour) ? hour[1]! : hour.bytes), 0);
};

test('a worker that comes too late writes nothing about the try of the other, which may break and be made again', async () => {
  const id = await stagePlanned(['/d']);
  const { tries } = await triesOf(id);
  const { promise: mayGo, resolve: go } = Promise.withResolvers<void>();
  const { promise: isHeld, resolve: held } = Promise.withResolvers<void>();
  // What the late one reads after it has found the restore due waits until another has begun it.
  const begins = world.storage.database.transaction(async (tx) => {
    const run = (text: string, values: unknown[] = []) => tx.query({ name: '', text }, values);
    await run('LOCK TABLE staged_archives IN ACCESS EXCLUSIVE MODE');
    held();
    await mayGo;
    await run(
      `UPDATE restore_requests SET state = 'running', attempt = gen_random_uuid(), attempts = attempts + 1, seen_at = now() WHERE restore_id = $1`,
      [id],
    );
  });
  await isHeld;
  const late = stageOne(parts, id, never);
  await until(async () => {
    const waits = `SELECT 1 FROM pg_locks WHERE relation = 'staged_archives'::regclass AND NOT granted`;
    return (await sql(waits)).length > 0;
  });
  go();
  await begins;
  expect(await late).toMatchObject({ staged: 0, waiting: 1 });
  expect(await triesOf(id)).toEqual({ tries, why: null });
  await sql(`UPDATE restore_requests SET seen_at = now() - interval '61 s' WHERE restore_id = $1`, [id]);
  expect(await stageOne(parts, id, never)).toMatchObject({ staged: 1 });
});

describe('a try that ends before its end', () => {
  const broken = () =>
    storeWith({
      put: async () => {
        throw new Error('the store is away');
      },
    });

  test('is told to whoever looks after the worker, and counts nothing for whoever asked', async () => {
    const admin = await world.person('Admin Restore', { name: 'unlucky' });
    const id = await stagePlanned(['/big'], { reason: 'a test' }, admin);
    const told: unknown[] = [];
    const onFault = (error: unknown): void => void told.push((error as Error).message);
    expect(await stageOne({ ...parts, storage: broken(), onFault }, id, never)).toMatchObject({ broken: 1 });
    expect(told).toEqual(['the store is away']);
    expect(await show(id, admin)).toMatchObject({ state: 'broken' });
    expect((await show(id, admin)).done.bytes).toBeGreaterThan(0);
    expect(await meterOf(admin)).toBe(0);
    await dueNow(id);
    expect(await stageOne(parts, id, never)).toMatchObject({ staged: 1 });
    expect(await meterOf(admin)).toBe(big.byteLength);
  });

  test('with its process counts nothing either when it is begun anew', async () => {
    const admin = await world.person('Admin Restore', { name: 'unluckier' });
    const id = await stagePlanned(['/big'], { reason: 'a test' }, admin);
    const { promise: mayGo, resolve: go } = Promise.withResolvers<void>();
    const { promise: isHeld, resolve: held } = Promise.withResolvers<void>();
    const slow = storeWith({
      async put() {
        held();
        await mayGo;
        throw new Error('its process is gone');
      },
    });
    const first = stageOne({ ...parts, storage: slow, onFault: () => {} }, id, never);
    await isHeld;
    await until(async () => (await show(id, admin)).done.bytes > 0);
    // Not heard of, for so long that another begins it.
    const loses = sql(
      `UPDATE restore_requests SET seen_at = now() - interval '61 s', attempt = gen_random_uuid() WHERE restore_id = $1`,
      [id],
    );
    await loses;
    expect(await stageOne(parts, id, never)).toMatchObject({ staged: 1 });
    expect(await meterOf(admin)).toBe(big.byteLength);
    go();
    await first;
    expect(await meterOf(admin)).toBe(big.byteLength);
  });
});

describe('an archive beyond its plan', () => {
  const within = (bounds: Partial<StagingParts['settings']>): StagingParts => ({
    ...parts,
    settings: { ...parts.settings, ...bounds },
  });
  const planLies = async (who = holder): Promise<number> => {
    const id = await stagePlanned(['/big'], who === holder ? {} : { reason: 'a test' }, who);
    await sql('UPDATE restore_requests SET planned_bytes = 1 WHERE restore_id = $1', [id]);
    return id;
  };

  test('and beyond what one may come to is made once, and not again', async () => {
    const id = await planLies();
    const small = within({ personBytesMax: 5_000_000 });
    await sql('UPDATE staged_archives SET reserved_bytes = 0');
    expect(await stageOne(small, id, never)).toMatchObject({ broken: 1 });
    expect(await triesOf(id)).toEqual({ tries: 0, why: expect.stringMatching(/5000000 at most/) });
    await dueNow(id);
    expect(await stageOne(small, id, never)).toEqual({ staged: 0, broken: 0, waiting: 0 });
    expect(await show(id)).toMatchObject({ staged: { waitsFor: 'request' } });
  });

  test('that finds no room for more waits until there is room for what it came to', async () => {
    const person = await world.person('Admin Restore', { name: 'crowded' });
    const other = await stagePlanned(['/big'], { reason: 'a test' }, person);
    expect(await stageOne(parts, other, never)).toMatchObject({ staged: 1 });
    const id = await planLies(person);
    const { reserved } = (await stagedRows(other))[0]!;
    const plan = { plannedBytes: 1, plannedFiles: 1, plannedFolders: 0, plannedLinks: 0 };
    // Enough to begin by its plan, and for all of it when it is alone.
    const short = within({ personBytesMax: Number(reserved) + reservedFor(plan) + 3_000_000 });
    expect(await stageOne(short, id, never)).toMatchObject({ broken: 1 });
    expect((await triesOf(id)).tries).toBe(4);
    await dueNow(id);
    expect(await stageOne(short, id, never)).toMatchObject({ waiting: 1 });
    expect((await show(id, person)) as object).toMatchObject({ tries: 1 });
    expect((await triesOf(id)).tries).toBe(4);
    await world.ask('POST', `/v1/restores/${other}/cancel`, { token: person.token });
    await clean();
    await dueNow(id);
    expect(await stageOne(short, id, never)).toMatchObject({ staged: 1 });
  });
});

describe('room', () => {
  test('what a person has by an API client counts for them, and for their tenant', async () => {
    const maker = await world.person('Customer Cloud Admin', { name: 'maker of clients' });
    const client = await clientOf(maker, ['restore.all', 'restore.limited']);
    const id = await stagePlanned(['/d'], { reason: 'a test' }, client);
    expect(await stageOne(parts, id, never)).toMatchObject({ staged: 1 });
    const [row] = await sql(
      'SELECT asker_kind AS kind, asker_id::int AS id FROM staged_archives WHERE restore_id = $1',
      [id],
    );
    expect(row).toEqual({ kind: 'user', id: maker.user });
    // The next by another of their clients: exactly what is left, and one byte less.
    const second = await clientOf(maker, ['restore.all', 'restore.limited']);
    const next = await stagePlanned(['/d'], { reason: 'a test' }, second);
    const { files, folders, links, bytes } = (await show(next, second)).planned as unknown as Record<string, number>;
    const needed = reservedFor({
      plannedBytes: bytes!,
      plannedFiles: files!,
      plannedFolders: folders!,
      plannedLinks: links!,
    });
    const sum = async (where: string, value: number): Promise<number> =>
      Number(
        (
          await sql<{ n: number }>(`SELECT sum(reserved_bytes)::int AS n FROM staged_archives WHERE ${where} = $1`, [
            value,
          ])
        )[0]!.n,
      );
    const own = (await sum('asker_id', maker.user)) + needed;
    const ofTenant = (await sum('tenant_id', world.tenant)) + needed;
    expect(own).toBeLessThan(ofTenant);
    const tryWithin = async (bounds: Partial<StagingParts['settings']>) => {
      await dueNow(next);
      return stageOne({ ...parts, settings: { ...parts.settings, ...bounds } }, next, never);
    };
    expect(await tryWithin({ personBytesMax: own - 1 })).toMatchObject({ waiting: 1 });
    expect(await tryWithin({ tenantBytesMax: ofTenant - 1 })).toMatchObject({ waiting: 1 });
    expect(await tryWithin({ personBytesMax: own, tenantBytesMax: ofTenant })).toMatchObject({ staged: 1 });
  });
});

/** An API client whose secret somebody was shown, signed in. */
async function clientOf(maker: Holder, permissions: string[]): Promise<Holder> {
  const body = {
    name: `program ${randomUUID()}`,
    organization: world.places.own.organization,
    permissions,
    scope: 'tree',
    expiresAt: new Date(Date.now() + 86_400_000).toISOString(),
  };
  const { json, text } = await world.ask('POST', '/v1/clients', { token: maker.token, body });
  if (typeof json.clientSecret !== 'string') throw new Error(text);
  const signIn = { grant_type: 'client_credentials', client_id: json.clientId, client_secret: json.clientSecret };
  const signed = await world.ask('POST', '/v1/clients/token', { body: signIn });
  return { ...maker, token: signed.json.access_token as string };
}

test('a store that does not tell how much is free is asked once', async () => {
  let asked = 0;
  const told = (more: object) => ({
    inspect: async () => {
      asked++;
      return { kind: 'memory' as const, ...more };
    },
  });
  const [silent, disk] = [told({}), told({ freeBytes: 7 })];
  expect([await freeBytesOf(silent), await freeBytesOf(silent), asked]).toEqual([null, null, 1]);
  expect([await freeBytesOf(disk), await freeBytesOf(disk), asked]).toEqual([7, 7, 3]);
});

describe('the sweep', () => {
  test('has what is due begun, waits for none of it, and is in no queue with it', async () => {
    await stageAll();
    const ids = [await stagePlanned(['/d']), await stagePlanned(['/d'])];
    const started: number[] = [];
    const start = async (restore: number): Promise<void> => void started.push(restore);
    expect(await startDue(world.storage.database, start)).toEqual({ started: 2 });
    expect(started.toSorted()).toEqual(ids.toSorted());
    const { restore, 'stage-restores': sweep } = jobDefinitions;
    expect(sweep.queue).not.toBe(restore.queue);
    expect(await stageAll()).toMatchObject({ staged: 2 });
    expect(await startDue(world.storage.database, start)).toEqual({ started: 0 });
  });
});

describe('cleaning', () => {
  const cancelled = async (): Promise<number> => {
    const id = await staged(['/d']);
    await world.ask('POST', `/v1/restores/${id}/cancel`, { token: holder.token });
    return id;
  };

  test('what cannot be deleted keeps nothing else, and is told', async () => {
    await clean();
    const stuck = await cancelled();
    const free = await cancelled();
    const [bad] = await objectsOf(stuck);
    const store = storeWith({
      async delete(key: string) {
        if (key === bad) throw new Error('it stays');
        await world.storage.objects.delete(key);
      },
    });
    await expect(deleteStaged(store, fence, { lateMs: 0 })).rejects.toThrow(`1 staged objects of restore ${stuck}`);
    expect([await objectsOf(stuck), await objectsOf(free)]).toEqual([[bad], []]);
    expect([(await stagedRows(stuck)).length, (await stagedRows(free)).length]).toEqual([1, 0]);
    await clean();
    expect([await objectsOf(stuck), await stagedRows(stuck)]).toEqual([[], []]);
  });

  test('a fence that does not hold ends it at once', async () => {
    const id = await cancelled();
    let asked = 0;
    const stopped = {
      async assertHeld() {
        asked++;
        throw new DeletingStopped('contested', 'a test');
      },
      assertStillHeld: () => {},
    };
    await expect(deleteStaged(world.storage, stopped, { lateMs: 0 })).rejects.toThrow(DeletingStopped);
    expect([asked, (await objectsOf(id)).length > 0]).toEqual([1, true]);
    await clean();
  });

  test('a try that becomes whole while it is taken for dead stays', async () => {
    const id = await staged(['/d']);
    const change = (state: string, restore: string) => [
      `UPDATE staged_archives SET state = '${state}' WHERE restore_id = ${id}`,
      `UPDATE restore_requests SET state = '${restore}', attempt = (SELECT attempt FROM staged_archives s WHERE s.restore_id = ${id}), seen_at = now() - interval '61 s' WHERE restore_id = ${id}`,
    ];
    for (const text of change('staging', 'running')) await sql(text);
    const { promise: mayGo, resolve: go } = Promise.withResolvers<void>();
    const { promise: isHeld, resolve: held } = Promise.withResolvers<void>();
    const completes = world.storage.database.transaction(async (tx) => {
      for (const text of change('ready', 'completed')) await tx.query({ name: '', text }, []);
      held();
      await mayGo;
    });
    await isHeld;
    const ending = world.storage.database.transaction(endOldStaged);
    await until(async () => {
      const waits = `SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`;
      return (await sql(waits)).length > 0;
    });
    go();
    await completes;
    expect(await ending).toBe(0);
    expect(await stagedRows(id)).toMatchObject([{ state: 'ready', hasKey: true }]);
  });
});
