import { describe, expect, test } from '@jest/globals';
import { seededRandom } from '../../../tests/helpers/random.ts';
import { storageForFile } from '../../../tests/helpers/storage.ts';
import { readOrganization } from './reading.ts';
import { type TestTenant, testTenant } from './testing.ts';

const storage = storageForFile();
const pathOf = async ({ tenant }: TestTenant, organization: number): Promise<number[]> =>
  (await readOrganization(storage.database, { tenant, organization })).path;

describe('a move', () => {
  test('takes everything below along, and says so in the log', async () => {
    const its = await testTenant(storage.database);
    const [a, b, c] = await its.chain(its.top, 'a', 'b', 'c');
    const [x] = await its.chain(its.top, 'x');
    const user = await its.user(b!, 'bob');
    await storage.rows(
      `INSERT INTO user_roles (tenant_id, user_id, role, scope, organization_id) VALUES ($1, $2, 'Org Admin', 'tree', $3)`,
      [its.tenant, user, b],
    );
    expect(await its.move(b!, x!, 1)).toMatchObject({ parent: x, path: [its.top, x, b], version: 2 });
    expect(await pathOf(its, c!)).toEqual([its.top, x, b, c]);
    expect(await pathOf(its, a!)).toEqual([its.top, a]);
    expect(await storage.rows('SELECT organization_id FROM user_roles WHERE user_id = $1', [user])).toEqual([
      { organization_id: b },
    ]);
    expect(await its.acts('organization.move')).toMatchObject([
      { target: `organization ${b}`, organization: b, details: { from: a, to: x, organizations: 2 } },
    ]);
  });

  test('goes to the top and back', async () => {
    const its = await testTenant(storage.database);
    const [a, b] = await its.chain(its.top, 'a', 'b');
    expect(await its.move(a!, null)).toMatchObject({ parent: null, path: [a] });
    expect(await pathOf(its, b!)).toEqual([a, b]);
    await its.move(a!, its.top);
    expect(await pathOf(its, b!)).toEqual([its.top, a, b]);
  });

  test('to where it is writes nothing, but asks for the version', async () => {
    const its = await testTenant(storage.database);
    const [a] = await its.chain(its.top, 'a');
    expect(await its.move(a!, its.top)).toMatchObject({ version: 1 });
    expect(await its.acts('organization.move')).toEqual([]);
    await expect(its.move(a!, its.top, 2)).rejects.toMatchObject({ code: 'precondition_failed' });
  });

  test('does not go below itself, nor below another tenant', async () => {
    const [its, other] = [await testTenant(storage.database), await testTenant(storage.database)];
    const [a, b] = await its.chain(its.top, 'a', 'b');
    for (const parent of [a!, b!])
      await expect(its.move(a!, parent)).rejects.toMatchObject({ code: 'conflict', extras: { field: 'parent' } });
    await expect(its.move(a!, other.top)).rejects.toMatchObject({ code: 'not_found', extras: { field: 'parent' } });
    expect(await pathOf(its, b!)).toEqual([its.top, a, b]);
  });

  test('goes as deep as the tree may be, counted with what it takes along', async () => {
    const its = await testTenant(storage.database);
    const levels = await its.chain(its.top, ...Array.from({ length: 14 }, (_, i) => `level ${i + 2}`));
    const [a, b] = await its.chain(null, 'a', 'b');
    await expect(its.move(a!, levels.at(-1)!)).rejects.toMatchObject({
      code: 'conflict',
      extras: { field: 'parent', levels: 17 },
    });
    expect(await its.move(a!, levels.at(-2)!)).toMatchObject({ id: a });
    expect(await pathOf(its, b!)).toHaveLength(16);
  });

  test('neither into nor out of what is deactivated; one that is deactivated itself may move', async () => {
    const its = await testTenant(storage.database);
    const [a, b] = await its.chain(its.top, 'a', 'b');
    const [x] = await its.chain(its.top, 'x');
    await its.change('deactivate', a!);
    await expect(its.move(x!, b!)).rejects.toMatchObject({
      code: 'conflict',
      extras: { field: 'parent', deactivated: { id: a, name: 'a' } },
    });
    await expect(its.move(b!, x!)).rejects.toMatchObject({ code: 'conflict', extras: { deactivated: { id: a } } });
    await its.move(a!, x!);
    expect(await pathOf(its, b!)).toEqual([its.top, x, a, b]);
  });

  test('needs as many seats as it has users, where it was not counted before', async () => {
    const its = await testTenant(storage.database);
    const [a] = await its.chain(its.top, 'a');
    const [x, y] = await its.chain(its.top, 'x', 'y');
    for (const name of ['bob', 'eve']) await its.user(a!, name);
    const seats = (organization: number, seats: number) =>
      storage.rows(
        `INSERT INTO organization_settings (tenant_id, organization_id, name, value) VALUES ($1, $2, 'quotas.seats', $3::jsonb)
             ON CONFLICT (organization_id, name) DO UPDATE SET value = EXCLUDED.value`,
        [its.tenant, organization, String(seats)],
      );
    await seats(its.top, 1); // too few for who is there, but nobody comes into it
    await seats(x!, 1);
    await expect(its.move(a!, y!)).rejects.toMatchObject({ code: 'quota_exceeded' });
    expect(await pathOf(its, a!)).toEqual([its.top, a]);
    await seats(x!, 2);
    expect(await its.move(a!, y!)).toMatchObject({ path: [its.top, x, y, a] });
  });

  test('of two that are right alone and would make a circle together, one is refused', async () => {
    const its = await testTenant(storage.database);
    for (let round = 0; round < 10; round++) {
      const [a] = await its.chain(its.top, 'a');
      const [b] = await its.chain(its.top, 'b');
      const done = await Promise.allSettled([its.move(a!, b!), its.move(b!, a!)]);
      expect(done.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    }
    await expectTree(its);
  });
});

/** Asks parents alone, which cannot lie about themselves: every way up ends at the top, and is what the path says. */
async function expectTree({ tenant }: TestTenant): Promise<void> {
  type Row = { id: number; parent: number | null; path: number[] };
  const rows = await storage.rows<Row>(
    'SELECT organization_id AS id, parent_id AS parent, path FROM organizations WHERE tenant_id = $1',
    [tenant],
  );
  const parents = new Map(rows.map(({ id, parent }) => [id, parent]));
  for (const { id, path } of rows) {
    const way: number[] = [];
    for (let at: number | null = id; at !== null && way.length <= rows.length; at = parents.get(at)!) way.unshift(at);
    expect({ id, path }).toEqual({ id, path: way });
  }
}

test('six who move at random never make a circle, and every path stays the way up', async () => {
  const seed = Number(process.env.HOLDFAST_TEST_SEED ?? 20261122);
  const its = await testTenant(storage.database);
  const all = [its.top];
  for (const name of 'abcdefghijkl') all.push((await its.chain(its.top, name))[0]!);

  const done = { moved: 0, refused: 0 };
  const work = async (worker: number): Promise<void> => {
    const random = seededRandom(seed + worker);
    for (let move = 0; move < 35; move++) {
      const [organization, to] = [random.pick(all), random.pick([...all, null])];
      try {
        await its.move(organization, to);
        done.moved++;
      } catch (error) {
        if ((error as { code?: string }).code !== 'conflict') throw error;
        done.refused++;
      }
    }
  };
  await Promise.all([1, 2, 3, 4, 5, 6].map(work));
  try {
    expect(done.moved + done.refused).toBe(210);
    expect(done.moved).toBeGreaterThan(50);
    await expectTree(its);
  } catch (error) {
    throw new Error(`with seed ${seed}`, { cause: error });
  }
}, 60_000);
