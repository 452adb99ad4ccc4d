import { randomBytes } from 'node:crypto';
import { beforeEach, describe, expect, test } from '@jest/globals';
import { createArchive, findVaultOfUser } from '../../../storage/catalog/vaults.ts';
import { commit, newRun, storageForFile, version } from '../../../tests/helpers/storage.ts';
import { QuotaWorld } from '../quotas/test-quotas.ts';
import { licencesCsv, statementCsv } from './csv.ts';
import { eachLicences, listLicences, readLicenceStatement } from './reading.ts';
import { readMonth } from './shapes.ts';

const storage = storageForFile();
let world: QuotaWorld;
let top: number;
let guid = 1_000;

beforeEach(async () => {
  world = await QuotaWorld.create(storage);
  top = await world.organization(null, 'Top');
});

/** A device as registering makes it. @returns its GUID */
async function addDevice(user: number, options: { backsUp?: boolean } = {}): Promise<string> {
  const its = String(++guid);
  const ref = await storage.database.transaction(async (tx) => {
    const vault = (await findVaultOfUser(tx, user))!;
    return { vault, archive: await createArchive(tx, { vault, deviceId: guid }) };
  });
  await storage.rows(
    `INSERT INTO devices (device_id, tenant_id, user_id, guid, name, platform, agent_version, token_sha256, vault_id, archive_id)
     VALUES ($1, $2, $3, $1, 'laptop', 'linux', '1', $4, $5, $6)`,
    [its, world.tenant, user, randomBytes(32), ref.vault, ref.archive],
  );
  if (options.backsUp ?? true) await commit(storage, ref, await newRun(storage, ref), [version('/a')]);
  return its;
}

/** As if it had all happened so much earlier. */
const shift = (user: number, interval: string): Promise<unknown> =>
  storage.rows(
    `WITH h AS (UPDATE licence_history SET at = at - $2::interval WHERE user_id = $1)
     UPDATE archives SET first_committed_at = first_committed_at - $2::interval
      WHERE vault_id = (SELECT vault_id FROM vaults WHERE user_id = $1)`,
    [user, interval],
  );

const all = async (within: Parameters<typeof listLicences>[1]['within'] = { path: top }) =>
  (await listLicences(storage.database, { tenant: world.tenant, within, limit: 100 })).items;
const summary = async (within?: Parameters<typeof listLicences>[1]['within']) =>
  (await all(within)).map(({ user, devices, licences }) => [user, devices, licences.map(({ needed }) => needed)]);

describe('what is taken follows what happens', () => {
  test('users from the day they are made, devices from their first backup, replaced ones once', async () => {
    const { user } = await world.user(top);
    for (let i = 0; i < 4; i++) await addDevice(user);
    await addDevice(user, { backsUp: false });
    expect(await summary()).toEqual([[user, 4, [true]]]);
    const fifth = await addDevice(user);
    expect(await summary()).toEqual([[user, 5, [true, true]]]);
    await storage.rows(
      `WITH old AS (UPDATE devices SET state = 'replaced' WHERE guid = $1 RETURNING *)
       SELECT 1 FROM old`,
      [fifth],
    );
    await storage.rows(
      `INSERT INTO devices (tenant_id, user_id, guid, name, platform, agent_version, token_sha256, vault_id, archive_id)
       SELECT tenant_id, user_id, guid, 'new', platform, '2', $2, vault_id, archive_id FROM devices WHERE guid = $1`,
      [fifth, randomBytes(32)],
    );
    expect(await summary()).toEqual([[user, 5, [true, true]]]);
  });

  test('who is blocked counts; who is deactivated, or below what is, does not, until they are back', async () => {
    const child = await world.organization(top);
    const { user } = await world.user(child);
    const state = (table: string, key: string, id: number, to: string): Promise<unknown> =>
      storage.rows(`UPDATE ${table} SET state = $2 WHERE ${key} = $1`, [id, to]);
    const history = async (): Promise<boolean[]> =>
      (
        await storage.rows<{ counts: boolean }>(
          'SELECT counts FROM licence_history WHERE user_id = $1 ORDER BY history_id',
          [user],
        )
      ).map(({ counts }) => counts);
    await state('users', 'user_id', user, 'blocked');
    await state('organizations', 'organization_id', top, 'blocked');
    expect(await history()).toEqual([true]);
    await state('users', 'user_id', user, 'deactivated');
    expect(await summary()).toEqual([[user, 0, [false]]]);
    await state('organizations', 'organization_id', top, 'deactivated');
    await state('users', 'user_id', user, 'active');
    expect(await history()).toEqual([true, false]);
    await state('organizations', 'organization_id', top, 'active');
    expect(await history()).toEqual([true, false, true]);
    expect(await summary()).toEqual([[user, 0, [true]]]);
    await state('organizations', 'organization_id', top, 'deactivated');
    await storage.rows('UPDATE users SET organization_id = $2 WHERE user_id = $1', [
      user,
      await world.organization(null),
    ]);
    expect(await history()).toEqual([true, false, true, false, true]);
  });

  test('a deactivated device', async () => {
    const { user } = await world.user(top);
    const guids: string[] = [];
    for (let i = 0; i < 5; i++) guids.push(await addDevice(user));
    const state = (to: string): Promise<unknown> =>
      storage.rows('UPDATE devices SET state = $2 WHERE guid = $1', [guids[1], to]);
    await state('blocked');
    await state('deauthorized');
    expect(await summary()).toEqual([[user, 5, [true, true]]]);
    await state('deactivated');
    expect(await summary()).toEqual([[user, 4, [true, false]]]);
    await state('active');
    expect(await summary()).toEqual([[user, 5, [true, true]]]);
  });

  test('a second commit leaves the first backup where it was', async () => {
    const { user } = await world.user(top);
    await addDevice(user);
    await shift(user, '2 years');
    const before = await storage.rows(
      'SELECT first_committed_at FROM archives a JOIN vaults v USING (vault_id) WHERE v.user_id = $1',
      [user],
    );
    const [ref] = await storage.rows<{ vault: number; archive: number }>(
      'SELECT vault_id AS vault, archive_id AS archive FROM archives a JOIN vaults v USING (vault_id) WHERE v.user_id = $1',
      [user],
    );
    await commit(storage, ref!, await newRun(storage, ref!), [version('/b')]);
    expect(
      await storage.rows(
        'SELECT first_committed_at FROM archives a JOIN vaults v USING (vault_id) WHERE v.user_id = $1',
        [user],
      ),
    ).toEqual(before);
  });
});

describe('the report', () => {
  test('reaches as far as the reader does, page by page', async () => {
    const child = await world.organization(top);
    const [ann, bob, carl] = [await world.user(top), await world.user(child), await world.user(child)];
    const other = await QuotaWorld.create(storage);
    const stranger = await other.user(await other.organization(null));
    const users = async (within: Parameters<typeof listLicences>[1]['within']) =>
      (await all(within)).map(({ user }) => user);
    expect(await users({ all: true })).toEqual([ann.user, bob.user, carl.user]);
    expect(await users({ path: child })).toEqual([bob.user, carl.user]);
    expect(await users({ user: bob.user })).toEqual([bob.user]);
    expect(await users({ user: stranger.user })).toEqual([]);

    const seen: number[] = [];
    let pages = 0;
    for (let after: string | undefined; pages < 10; ) {
      const page = await listLicences(storage.database, {
        tenant: world.tenant,
        within: { all: true },
        limit: 2,
        after,
      });
      seen.push(...page.items.map(({ user }) => user));
      pages++;
      if (page.next === null) break;
      after = page.next;
    }
    expect([pages, seen]).toEqual([2, [ann.user, bob.user, carl.user]]);
    await expect(
      listLicences(storage.database, { tenant: world.tenant, within: { all: true }, limit: 2, after: 'no cursor' }),
    ).rejects.toMatchObject({ code: 'out_of_bounds', extras: { field: 'after' } });
  });

  test('a statement of a month, as JSON and as CSV that no spreadsheet takes for formulas', async () => {
    const child = await world.organization(top, '=HYPERLINK("http://x")');
    const { user } = await world.user(child);
    const gone = await world.user(top);
    await storage.rows(`UPDATE users SET name = '@sum, "quoted"' WHERE user_id = $1`, [user]);
    await storage.rows("UPDATE users SET state = 'deactivated' WHERE user_id = $1", [gone.user]);
    const [taken] = await storage.rows<{ next: string; day: string }>(
      `SELECT to_char(now() AT TIME ZONE 'UTC' + interval '1 year', 'YYYY-MM') AS next, to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS day`,
    );
    const month = taken!.next;
    const statement = await readLicenceStatement(storage.database, { tenant: world.tenant, organization: top, month });
    expect(statement).toMatchObject({
      organization: { id: top, name: 'Top' },
      month,
      totals: { renewing: 1, ending: 1 },
      lines: [
        { organization: child, user, number: 1, takenOn: taken!.day, renews: true, settled: false },
        { organization: top, user: gone.user, renews: false },
      ],
    });
    const csv = statementCsv(statement).split('\n');
    expect(csv[0]).toBe('organization,organizationName,user,userName,number,takenOn,renewsOn,renews,settled');
    const { renewsOn } = statement.lines[0]!;
    expect(csv[1]).toBe(
      `${child},"'=HYPERLINK(""http://x"")",${user},"'@sum, ""quoted""",1,${taken!.day},${renewsOn},yes,no`,
    );
    expect(csv).toHaveLength(4);

    const chunks = await Array.fromAsync(
      licencesCsv(eachLicences(storage.database, { tenant: world.tenant, within: { path: child } })),
    );
    expect(chunks.join('')).toBe(
      'organization,organizationName,user,userName,devices,number,takenOn,renewsOn,needed\n' +
        `${child},"'=HYPERLINK(""http://x"")",${user},"'@sum, ""quoted""",0,1,${taken!.day},${renewsOn},yes\n`,
    );
  });

  test('an organization of another tenant is not there', async () => {
    const other = await QuotaWorld.create(storage);
    await expect(
      readLicenceStatement(storage.database, { tenant: other.tenant, organization: top, month: '2026-11' }),
    ).rejects.toMatchObject({ code: 'not_found' });
  });
});

test.each([
  ['2000-01', true],
  ['1999-12', false],
  ['2036-11', true],
  ['2036-12', false],
  ['2026-13', false],
  ['2026-00', false],
  ['2026-1', false],
  ['', false],
])('the month %j: %s', (month, isOne) => {
  const now = new Date('2026-11-22T00:00:00Z');
  if (isOne) expect(readMonth(month, now).from.toISOString()).toBe(`${month}-01T00:00:00.000Z`);
  else expect(() => readMonth(month, now)).toThrow(expect.objectContaining({ code: 'out_of_bounds' }));
});
