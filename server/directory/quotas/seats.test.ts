import { beforeEach, describe, expect, test } from '@jest/globals';
import type { Transaction } from '../../../storage/catalog/database.ts';
import { storageForFile } from '../../../tests/helpers/storage.ts';
import { insertUser } from '../users/people.ts';
import { readOrganizationQuotas, readUserQuota } from './reading.ts';
import { assertSeatFor, type Coming } from './seats.ts';
import { newBlock, QuotaWorld, someoneWaits, uploadInto } from './test-quotas.ts';

const storage = storageForFile();
let world: QuotaWorld;
let top: number;
let child: number;

beforeEach(async () => {
  world = await QuotaWorld.create(storage);
  top = await world.organization(null, 'Top');
  child = await world.organization(top, 'Child');
});

const ask = (path: number[], coming?: Coming): Promise<void> =>
  storage.database.transaction((tx) => assertSeatFor(tx, world.tenant, path, coming));
const setState = (user: number, state: string): Promise<unknown> =>
  storage.rows('UPDATE users SET state = $2 WHERE user_id = $1', [user, state]);
const refused = (id: number, limitSeats: number, usedSeats: number) => ({
  code: 'quota_exceeded',
  extras: { quota: 'seats', organization: { id }, limitSeats, usedSeats },
});

describe('seats', () => {
  test('are asked of every organization above that has a quota', async () => {
    await ask([top, child]);
    await world.set(top, 'quotas.seats', 2);
    await world.set(child, 'quotas.seats', 1);
    await ask([top, child]);
    await world.user(child);
    await expect(ask([top, child])).rejects.toMatchObject(refused(child, 1, 1));
    await ask([top]);
    await world.user(top);
    await expect(ask([top])).rejects.toMatchObject(refused(top, 2, 2));
    await world.set(top, 'quotas.seats', -1);
    await ask([top]);
    await world.set(top, 'quotas.seats', 0);
    await expect(ask([top])).rejects.toMatchObject(refused(top, 0, 2));
  });

  test('are taken by blocked users, and not by deactivated ones', async () => {
    const { user } = await world.user(child);
    await world.set(top, 'quotas.seats', 1);
    await setState(user, 'blocked');
    await expect(ask([top])).rejects.toMatchObject(refused(top, 1, 1));
    await setState(user, 'deactivated');
    await ask([top]);
    await ask([top, child], { user });
    await world.user(top);
    await expect(ask([top, child], { user })).rejects.toMatchObject(refused(top, 1, 1));
  });

  test('are needed by a user who comes from outside, not by one who moves within, however full it is', async () => {
    const outside = await world.organization(null);
    const [inside, stranger] = [await world.user(top), await world.user(outside)];
    await world.set(top, 'quotas.seats', 1);
    await ask([top, child], { user: inside.user });
    await expect(ask([top, child], { user: stranger.user })).rejects.toMatchObject(refused(top, 1, 1));
    await world.set(top, 'quotas.seats', 0);
    await ask([top, child], { user: inside.user });
  });

  test('are needed by all users of an organization that moves', async () => {
    const moving = await world.organization(null);
    const below = await world.organization(moving);
    for (const place of [moving, below, child]) await world.user(place);
    await setState((await world.user(below)).user, 'deactivated');
    await world.set(top, 'quotas.seats', 2);
    await expect(ask([top], { organization: moving })).rejects.toMatchObject(refused(top, 2, 1));
    await world.set(top, 'quotas.seats', 3);
    await ask([top], { organization: moving });
    await ask([top], { organization: child });
  });

  test('the last seat and two that come: the second waits for the first, and then there is none', async () => {
    await world.set(top, 'quotas.seats', 1);
    const come = async (tx: Transaction, name: string): Promise<void> => {
      await tx.query({ name: '', text: 'SELECT 1 FROM tenants WHERE tenant_id = $1 FOR SHARE' }, [world.tenant]);
      await assertSeatFor(tx, world.tenant, [top, child]);
      await insertUser(tx, { tenantId: world.tenant, organizationId: child, name, passwordHash: 'none' });
    };
    let second: Promise<unknown> | undefined;
    await storage.database.transaction(async (tx) => {
      await come(tx, 'ann');
      let isAnswered = false;
      second = storage.database
        .transaction((other) => come(other, 'ben'))
        .catch((error: unknown) => error)
        .finally(() => {
          isAnswered = true;
        });
      await someoneWaits(storage, () => isAnswered);
      expect(isAnswered).toBe(false);
    });
    expect(await second).toMatchObject(refused(top, 1, 1));
  });
});

test('what is used of each quota', async () => {
  await world.set(top, 'quotas.seats', 5);
  await world.set(top, 'quotas.bytesPerUser', 900);
  await world.set(child, 'quotas.bytes', 1_000);
  const [ann, ben] = [await world.user(top), await world.user(child)];
  await uploadInto(storage, ann.vault, newBlock(300));
  await uploadInto(storage, ben.vault, newBlock(200));
  const { tenant } = world;
  expect(await readOrganizationQuotas(storage.database, { tenant, organization: top })).toEqual({
    organization: top,
    seats: { limit: 5, used: 2 },
    bytes: { limit: null, used: 500, hidden: 0 },
    bytesPerUser: { limit: 900 },
  });
  expect(await readOrganizationQuotas(storage.database, { tenant, organization: child })).toEqual({
    organization: child,
    seats: { limit: null, used: 1 },
    bytes: { limit: 1_000, used: 200, hidden: 0 },
    bytesPerUser: { limit: 900 },
  });
  expect(await readUserQuota(storage.database, { tenant, user: ben.user })).toEqual({
    user: ben.user,
    bytes: { limit: 900, used: 200, hidden: 0 },
  });
  const other = await QuotaWorld.create(storage);
  for (const read of [
    () => readOrganizationQuotas(storage.database, { tenant: other.tenant, organization: top }),
    () => readUserQuota(storage.database, { tenant: other.tenant, user: ben.user }),
  ])
    await expect(read()).rejects.toMatchObject({ code: 'not_found' });
});
