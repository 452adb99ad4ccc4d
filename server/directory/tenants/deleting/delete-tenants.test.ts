import { beforeEach, describe, expect, test } from '@jest/globals';
import { DeletingStopped, type Fence } from '../../../../storage/archive/checking/fence.ts';
import { lockArchive } from '../../../../storage/catalog/writing/commits.ts';
import { MemoryStore } from '../../../../storage/objects/memory-store.ts';
import {
  commit,
  newHeldFence,
  newRun,
  storageForEachTest,
  upload,
  version,
} from '../../../../tests/helpers/storage.ts';
import { insertOrganization } from '../../organizations/inserting.ts';
import { pruneDeps } from '../../retention.ts';
import { insertUser } from '../../users/people.ts';
import { readTenant } from '../reading.ts';
import { TenantView } from '../shapes.ts';
import { deleteTenants } from './delete-tenants.ts';
import {
  begin,
  expectNothingLeftOf,
  type FullTenant,
  fullTenant,
  leave,
  rowsOf,
  runEngineJobs,
  staying,
} from './testing.ts';

let memory: MemoryStore;
// Nothing waits: what takes days is due at once.
const settings = { claimWindowMs: 0, freedMarginMs: 0, objectDeleteDelayMs: 0 };
const storage = storageForEachTest(() => {
  memory = new MemoryStore();
  return { objects: memory, settings };
});
let fence: Fence;
let its: FullTenant;
let other: FullTenant;

beforeEach(async () => {
  fence = await newHeldFence(storage);
  other = await fullTenant(storage);
  its = await fullTenant(storage);
});

const run = (options: Parameters<typeof deleteTenants>[2] = {}) => deleteTenants(storage, pruneDeps(fence), options);

const engineJobs = () => runEngineJobs(storage, fence);

async function untilDeleted(): Promise<void> {
  for (let i = 0; i < 3; i++) {
    await run();
    await engineJobs();
  }
  await run();
}

const late = Buffer.alloc(700, 'late');
const keysInStore = async (): Promise<string[]> =>
  (await memory.list(`${storage.catalogId}/blocks/`, { limit: 1_000 })).objects.map(({ key }) => key).sort();
const objectsOf = async ({ archives }: FullTenant): Promise<string[]> => {
  const vaults = archives.map(({ vault }) => vault);
  const rows = await storage.rows<{ key: string }>(
    `SELECT key FROM objects WHERE vault_id = ANY ($1::bigint[]) AND state <> 'dead' ORDER BY key COLLATE "C"`,
    [vaults],
  );
  return rows.map(({ key }) => key);
};
const see = async (tenant = its.tenant) => TenantView.parse(await readTenant(storage.database, tenant));
const lastAct = async (tenant: number) =>
  (
    await storage.rows<{ action: string; partyKind: string; details: Record<string, unknown> }>(
      `SELECT action, party_kind AS "partyKind", details FROM acts WHERE tenant_id = $1 ORDER BY number DESC LIMIT 1`,
      [tenant],
    )
  )[0];

const expectNothingLeft = () => expectNothingLeftOf(storage, its);

test('the tenants of this file have something in every table', async () => {
  const empty = [...(await rowsOf(storage, its))].filter(([table, n]) => n === 0 && !staying.has(table));
  expect(empty).toEqual([]);
});

test('a tenant that has left loses all it has, and another one nothing', async () => {
  const before = await rowsOf(storage, other);
  expect(await keysInStore()).toEqual([...its.keys, ...other.keys].sort());
  await leave(storage, its.tenant);
  await begin(storage, its.tenant);
  await untilDeleted();
  await expectNothingLeft();

  const otherAfter = await rowsOf(storage, other);
  // Of its own accord: what nobody committed is reclaimed, and lists of what was freed are looked through.
  for (const table of ['freed', 'freed_lists', 'usage_deltas', 'blocks', 'objects'])
    for (const each of [before, otherAfter]) each.delete(table);
  expect(otherAfter).toEqual(before);
  expect(await see(other.tenant)).toMatchObject({ state: 'active', users: 3, deletion: null });
  expect(await keysInStore()).toEqual(await objectsOf(other));
});

test('what is left is its row, with figures and dates, and the last act of its log and the server’s', async () => {
  await leave(storage, its.tenant);
  await begin(storage, its.tenant);
  await untilDeleted();
  const had = {
    ...{ organizations: 2, users: 3, activeUsers: 3, devices: 2, archives: 2, versions: 10 },
    storedBytes: expect.any(Number),
  };
  const seen = await see();
  expect(seen).toMatchObject({ name: 'tenant', state: 'deleted', users: 0, storedBytes: 0 });
  expect(seen.deletion).toEqual({
    ...{ begunAt: expect.any(String), begunBy: 'operator 1', finishedAt: expect.any(String), had },
    ...{ left: { vaults: 0, archives: 0, versions: 0, keys: 0 }, waitsFor: null, holds: 0, heldUsers: 0 },
  });
  const { begunAt, finishedAt } = seen.deletion!;
  for (const log of [its.tenant, 0])
    expect(await lastAct(log)).toMatchObject({
      ...{ action: 'tenant.deleted', partyKind: 'server' },
      details: { had, begunBy: 'operator 1', begunAt, deletedAt: finishedAt, deleteAfter: seen.deleteAfter },
    });
  const [row] = await storage.rows('SELECT acts_days AS days FROM tenants WHERE tenant_id = $1', [its.tenant]);
  expect(row).toEqual({ days: 400 });
  expect(await run()).toMatchObject({ tenants: 0 });
});

test('the operator sees what it waits for; the keys go before the bytes, and the vault after them', async () => {
  await leave(storage, its.tenant);
  await begin(storage, its.tenant);
  expect((await see()).deletion).toMatchObject({
    ...{ waitsFor: 'versions', finishedAt: null, left: { vaults: 2, archives: 2, versions: 10, keys: 2 } },
  });
  expect(await run()).toMatchObject({
    tenants: 1,
    archives: 2,
    versions: 10,
    keys: 4,
    vaults: 0,
    users: 1,
    finished: 0,
  });
  const seen = await see();
  expect(seen).toMatchObject({ state: 'deleting', users: 2, organizations: 2 });
  expect(seen.storedBytes).toBeGreaterThan(0);
  expect(seen.deletion).toMatchObject({ waitsFor: 'bytes', left: { vaults: 2, archives: 0, versions: 0, keys: 0 } });
  await engineJobs();
  expect(await run()).toMatchObject({ vaults: 2, users: 2, finished: 1 });
});

describe('a hold', () => {
  const held = { paths: ['/a/gone'] };
  const place = (policy: object = held) =>
    storage.rows('INSERT INTO holds (vault_id, policy) VALUES ($1, $2)', [its.archives[0]!.vault, policy]);

  test('that is there all the same keeps what it covers, with its keys and its user, and is seen', async () => {
    await leave(storage, its.tenant);
    await begin(storage, its.tenant);
    await place();
    await untilDeleted();
    const left = await storage.rows('SELECT deleted FROM versions WHERE vault_id = $1 ORDER BY seq', [
      its.archives[0]!.vault,
    ]);
    expect(left).toEqual([{ deleted: false }, { deleted: true }]);
    expect(await see()).toMatchObject({ state: 'deleting', users: 1, devices: 1 });
    expect((await see()).deletion).toMatchObject({
      ...{ waitsFor: 'holds', holds: 1, heldUsers: 1, finishedAt: null },
      left: { vaults: 1, archives: 1, versions: 2, keys: 1 },
    });
    expect(await keysInStore()).toEqual(expect.arrayContaining(await objectsOf(its)));
    expect((await objectsOf(its)).length).toBeGreaterThan(0);

    await storage.rows('UPDATE holds SET release_effective_at = now()');
    await untilDeleted();
    await expectNothingLeft();
    expect(await see()).toMatchObject({ state: 'deleted' });
  });

  test('that covers nothing any more keeps the keys and the vault until it is released', async () => {
    await leave(storage, its.tenant);
    await begin(storage, its.tenant);
    await place({ paths: ['/nothing/here'] });
    await untilDeleted();
    expect((await see()).deletion).toMatchObject({ waitsFor: 'holds', left: { vaults: 1, archives: 0, keys: 1 } });
  });
});

test('a reader’s lease keeps what it looks at, and the archive, until it ends', async () => {
  const { vault, archive } = its.archives[0]!;
  await leave(storage, its.tenant);
  await begin(storage, its.tenant);
  await storage.rows(`INSERT INTO restores VALUES ($1, $2, 3, now() + interval '1 hour')`, [vault, archive]);
  await untilDeleted();
  expect((await see()).deletion).toMatchObject({ waitsFor: 'versions', left: { vaults: 1, archives: 1, keys: 1 } });
  await storage.rows('UPDATE restores SET lease_until = now()');
  await untilDeleted();
  expect(await see()).toMatchObject({ state: 'deleted' });
});

describe('cut in the middle it goes on to the end', () => {
  /** Runs it, each time until `cutter` cuts it; the engine's jobs come now and then. @returns how often it was cut */
  async function runCut(cutter: (stop: AbortController, runs: number) => { onAsked(): void; onProgress(): void }) {
    await leave(storage, its.tenant);
    await begin(storage, its.tenant);
    let cuts = 0;
    for (let runs = 1; (await see()).state !== 'deleted'; runs++) {
      const stop = new AbortController();
      const { onAsked, onProgress } = cutter(stop, runs);
      const deps = { ...pruneDeps(fence), assertMayDelete: () => fence.assertHeld().then(onAsked) };
      await deleteTenants(storage, deps, { signal: stop.signal, onProgress }).catch((error: Error) => {
        expect(error.name).toBe('AbortError');
        cuts++;
      });
      // As if all that waits were due.
      if (runs % 8 === 0) await engineJobs();
      expect(runs).toBeLessThan(100);
    }
    await expectNothingLeft();
    expect(await lastAct(its.tenant)).toMatchObject({ action: 'tenant.deleted' });
    return cuts;
  }

  test('after its first transaction, its second, and so on', async () => {
    const cuts = await runCut((stop, runs) => {
      let asked = 0;
      return { onAsked: () => void (++asked === runs && stop.abort()), onProgress: () => {} };
    });
    expect(cuts).toBeGreaterThan(5);
  });

  test('after each one that takes something away', async () => {
    let told: string[] = [];
    const cuts = await runCut((stop) => ({
      onAsked: () => {},
      onProgress(...args: unknown[]) {
        const soFar = args[0] as Record<string, number>;
        const took = Object.keys(soFar).filter((name) => soFar[name]! > 0 && name !== 'tenants');
        if (took.length > 0) stop.abort();
        told = [...told, ...took];
      },
    }));
    expect(new Set(told)).toEqual(new Set(['versions', 'bytes', 'archives', 'keys', 'vaults', 'users', 'finished']));
    expect(cuts).toBeGreaterThan(8);
  });
});

test('two workers at once do it once', async () => {
  await leave(storage, its.tenant);
  await begin(storage, its.tenant);
  const sums: Record<string, number>[] = [];
  for (let i = 0; i < 3; i++) {
    sums.push(...(await Promise.all([run(), run()])));
    await engineJobs();
  }
  const sum = (name: string): number => sums.reduce((all, each) => all + each[name]!, 0);
  expect({ versions: sum('versions'), keys: sum('keys'), users: sum('users'), vaults: sum('vaults') }).toEqual({
    ...{ versions: 10, keys: 4, users: 3, vaults: 2 },
  });
  expect(sum('finished')).toBe(1);
  await expectNothingLeft();
  const ends = await storage.rows(`SELECT 1 FROM acts WHERE tenant_id = $1 AND action = 'tenant.deleted'`, [
    its.tenant,
  ]);
  expect(ends.length).toBe(1);
});

test('nothing goes of a tenant that only leaves, and nothing while deleting is stopped', async () => {
  await leave(storage, its.tenant);
  const before = await rowsOf(storage, its);
  expect(await run()).toMatchObject({ tenants: 0 });
  expect(await rowsOf(storage, its)).toEqual(before);

  await begin(storage, its.tenant);
  const begun = await rowsOf(storage, its);
  const stopped = new DeletingStopped('stale', 'stopped');
  const looksGood = { assertMayDelete: async () => {}, assertStillHeld: () => {} };
  for (const deps of [
    { ...looksGood, assertMayDelete: () => Promise.reject(stopped) },
    {
      ...looksGood,
      assertStillHeld: () => {
        throw stopped;
      },
    },
  ])
    await expect(deleteTenants(storage, deps)).rejects.toBe(stopped);
  expect(await rowsOf(storage, its)).toEqual(begun);
});

test('a catalog in which it is not deleting (after a failover onto an older state) loses nothing in the middle of a run', async () => {
  await leave(storage, its.tenant);
  await begin(storage, its.tenant);
  let asked = 0;
  // As the catalog was before: seen by the first transaction of the deleter.
  const older = async () =>
    storage.rows(
      `UPDATE tenants SET state = 'offboarding', deleting_at = null, deleting_by = null, had = null WHERE tenant_id = $1`,
      [its.tenant],
    );
  const deps = {
    ...pruneDeps(fence),
    assertMayDelete: async () => {
      await fence.assertHeld();
      if (++asked === 3) await older();
    },
  };
  expect(await deleteTenants(storage, deps)).toMatchObject({
    versions: 0,
    archives: 0,
    keys: 0,
    users: 0,
    finished: 0,
  });
  expect(await see()).toMatchObject({ state: 'offboarding', users: 3 });
});

describe('what comes late', () => {
  beforeEach(async () => {
    await leave(storage, its.tenant);
    await begin(storage, its.tenant);
  });

  test('a commit under way is waited for, and goes with the rest', async () => {
    const ref = its.archives[0]!;
    const runId = await newRun(storage, ref);
    await upload(storage, ref.vault, [late]);
    let deleting: Promise<unknown> | undefined;
    await storage.database.transaction(async (tx) => {
      await lockArchive(tx, ref);
      deleting = run();
      await isWaiting();
      // What a commit does under that lock; the deleter finds it after.
      const row = `INSERT INTO files VALUES (${ref.vault}, ${ref.archive}, 1000, 0, 'late', false, false, 9)`;
      await tx.query({ name: '', text: row });
    });
    expect(await deleting).toMatchObject({ archives: 2 });
    await expect(commit(storage, ref, runId, [version('/late', [late])])).rejects.toMatchObject({ code: 'not_found' });
  });

  test('an upload after the last archive is gone keeps the vault until its object is gone too', async () => {
    await run();
    const { vault } = its.archives[0]!;
    await engineJobs();
    await upload(storage, vault, [late]);
    expect(await run()).toMatchObject({ vaults: 1, finished: 0 });
    expect((await see()).deletion).toMatchObject({ waitsFor: 'bytes', left: { vaults: 1 } });
    await untilDeleted();
    await expectNothingLeft();
    expect(await keysInStore()).toEqual(await objectsOf(other));
  });

  test('a user who was just being made is found by the next run', async () => {
    await untilDeleted();
    await storage.rows(`UPDATE tenants SET state = 'deleting', deleted_at = null WHERE tenant_id = $1`, [its.tenant]);
    await storage.database.transaction(async (tx) => {
      const organization = { tenantId: its.tenant, parentId: null, name: 'late', registrationKey: 'late' };
      const organizationId = await insertOrganization(tx, organization);
      await insertUser(tx, {
        tenantId: its.tenant,
        organizationId,
        name: 'late',
        passwordHash: '-',
        administrator: true,
      });
    });
    expect(await run()).toMatchObject({ users: 1, finished: 1 });
    await expectNothingLeft();
  });

  async function isWaiting(): Promise<void> {
    for (let waiting = 0; waiting === 0; ) {
      const [row] = await storage.rows<{ n: number }>(
        `SELECT count(*)::int AS n FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`,
      );
      waiting = row!.n;
    }
  }
});

test('refused acts that are not told yet are told before the last one', async () => {
  await leave(storage, its.tenant);
  await begin(storage, its.tenant);
  await storage.rows(
    `INSERT INTO act_repeats (tenant_id, action, party, minute, party_kind, party_name) VALUES ($1, 'x', 'y', now(), 'server', 'z')`,
    [its.tenant],
  );
  await untilDeleted();
  expect(await see()).toMatchObject({ state: 'deleting', organizations: 0, deletion: { waitsFor: 'directory' } });
  await storage.rows('DELETE FROM act_repeats');
  await run();
  expect(await see()).toMatchObject({ state: 'deleted' });
});

test('a vault with a fault keeps no other from its turn, and is told', async () => {
  await leave(storage, its.tenant);
  await begin(storage, its.tenant);
  await storage.rows('UPDATE blocks SET refs = 0 WHERE vault_id = $1', [its.archives[0]!.vault]);
  await expect(run()).rejects.toThrow();
  expect((await see()).deletion).toMatchObject({ left: { archives: 1, versions: 5, keys: 1 } });
  const alerts = await storage.rows('SELECT vault_id AS vault FROM alerts WHERE kind = $1', ['refs_drift']);
  expect(alerts).toEqual([{ vault: its.archives[0]!.vault }]);
});
