/** Nothing goes before a tenant's day, of one that a clock which ran ahead let begin. */
import { beforeEach, expect, test } from '@jest/globals';
import type { Fence } from '../../../../storage/archive/checking/fence.ts';
import { newHeldFence, storageForEachTest } from '../../../../tests/helpers/storage.ts';
import { pruneDeps } from '../../retention.ts';
import { readTenant } from '../reading.ts';
import { deleteTenants } from './delete-tenants.ts';
import { begin, expectNothingLeftOf, type FullTenant, fullTenant, leave, rowsOf, runEngineJobs } from './testing.ts';

// Nothing waits: what takes days is due at once.
const settings = { claimWindowMs: 0, freedMarginMs: 0, objectDeleteDelayMs: 0 };
const storage = storageForEachTest(() => ({ settings }));
let fence: Fence;
let its: FullTenant;

beforeEach(async () => {
  fence = await newHeldFence(storage);
  its = await fullTenant(storage);
  await leave(storage, its.tenant);
  await begin(storage, its.tenant);
});

const run = () => deleteTenants(storage, pruneDeps(fence));
const see = () => readTenant(storage.database, its.tenant);
const setDay = (away: string) =>
  storage.rows('UPDATE tenants SET delete_after = now() + $2::interval WHERE tenant_id = $1', [its.tenant, away]);

/** A run for which the day is off from its nth transaction on. @returns whether it came to that */
async function runCutByClock(nth: number): Promise<boolean> {
  let asked = 0;
  let before: Map<string, number> | undefined;
  const assertMayDelete = async (): Promise<void> => {
    await fence.assertHeld();
    if (++asked !== nth) return;
    await setDay('1 hour');
    before = await rowsOf(storage, its);
  };
  await deleteTenants(storage, { ...pruneDeps(fence), assertMayDelete });
  if (before) expect(await rowsOf(storage, its)).toEqual(before);
  await setDay('-1 second');
  return before !== undefined;
}

test('nothing goes, and the operator sees that it waits for the day', async () => {
  await setDay('1 hour');
  const before = await rowsOf(storage, its);
  expect(await run()).toMatchObject({ tenants: 0 });
  expect(await rowsOf(storage, its)).toEqual(before);
  expect(await see()).toMatchObject({ state: 'deleting', deletion: { waitsFor: 'day', left: { vaults: 2 } } });
  await storage.rows(`INSERT INTO holds (vault_id, policy) VALUES ($1, '{}')`, [its.archives[0]!.vault]);
  expect((await see()).deletion).toMatchObject({ waitsFor: 'day', holds: 1 });
  await setDay('-1 second');
  expect((await see()).deletion).toMatchObject({ waitsFor: 'holds' });
  expect(await run()).toMatchObject({ tenants: 1 });
});

test.each<[when: string, away: string, goes: boolean]>([
  ['a microsecond before its day', '1 microsecond', false],
  ['at its day', '0', true],
])('%s, by the time of each transaction', async (_, away, goes) => {
  const before = await rowsOf(storage, its);
  // The day of each transaction that deletes is so far from its own time, which stands still in it.
  const transaction: typeof storage.database.transaction = (work) =>
    storage.database.transaction(async (tx) => {
      const text = `UPDATE tenants SET delete_after = now() + '${away}' WHERE tenant_id = ${its.tenant}`;
      await tx.query({ name: '', text });
      return work(tx);
    });
  const atEdge = { ...storage, database: { ...storage.database, transaction } };
  await setDay('-1 second'); // it is listed
  const sum = await deleteTenants(atEdge, pruneDeps(fence));
  expect(sum).toMatchObject(goes ? { versions: 10, archives: 2, users: 1 } : { tenants: 1, versions: 0, users: 0 });
  if (!goes) expect(await rowsOf(storage, its)).toEqual(before);
});

test('none of its transactions takes anything, whichever is the first that comes before it', async () => {
  let nth = 1;
  for (; (await see()).state !== 'deleted'; nth++) {
    await runCutByClock(nth);
    if (nth % 8 === 0) await runEngineJobs(storage, fence);
    expect(nth).toBeLessThan(100);
  }
  expect(nth).toBeGreaterThan(8);
  await expectNothingLeftOf(storage, its);
});

test('not even the last, of which only the row is left', async () => {
  for (let i = 0; (await see()).state !== 'deleted'; i++) {
    await run();
    await runEngineJobs(storage, fence);
    expect(i).toBeLessThan(10);
  }
  let nth = 1;
  for (let wasCut = true; wasCut; nth++) {
    await storage.rows(`UPDATE tenants SET state = 'deleting', deleted_at = null WHERE tenant_id = $1`, [its.tenant]);
    wasCut = await runCutByClock(nth);
    expect((await see()).state).toBe(wasCut ? 'deleting' : 'deleted');
  }
  expect(nth).toBeGreaterThan(5);
});
