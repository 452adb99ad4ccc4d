/**
 * What is there for devices with an agent, asked of a repository of restic: restores, plans, other devices' reading, taking its
 * place. Each says what to do instead, or does not see it at all. And no licence is taken for one.
 */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { archivesReadableBy, mayReadArchive } from '../../server/directory/devices/access.ts';
import { lockDeviceByGuid } from '../../server/directory/devices/devices.ts';
import { listLicences } from '../../server/directory/licences/reading.ts';
import { commitPlain } from '../../storage/archive/plain-files/commit-plain.ts';
import { ApiWorld, type Holder } from './world.ts';

let world: ApiWorld;
let chief: Holder;
let own: Holder;
let repository: { vault: number; archive: number };

beforeAll(async () => {
  world = await ApiWorld.open();
  chief = await world.person('Customer Cloud Admin', { name: 'head' });
  own = await world.person('Desktop User', { name: 'desktop' });
  const [row] = await world.storage.rows<typeof repository>(
    'SELECT vault_id AS vault, archive_id AS archive FROM devices WHERE guid = $1',
    [own.repository],
  );
  repository = row!;
  const content = { size: 0, blocks: Buffer.alloc(0) };
  const file = { folder: 'snapshots', name: 'e3'.repeat(32) };
  await world.storage.database.transaction((tx) => commitPlain(tx, repository, [{ file, content }]));
}, 60_000);
afterAll(() => world?.close());

const slash = Buffer.from('/').toString('base64url');

describe('refused, and said why:', () => {
  test.each([
    ['to a browser, as zip', { format: 'zip' }],
    ['as tar', { format: 'tar' }],
    ['staged', { format: 'zip', kind: 'staged' }],
    ['as a sealed export', { format: 'export', kind: 'staged' }],
  ])('a restore %s', async (_, more) => {
    const body = { device: own.repository, paths: [slash], ...more };
    for (const [token, reason] of [
      [own.token, undefined],
      [chief.token, 'somebody asked'],
    ] as const) {
      const refused = await world.ask('POST', '/v1/restores', { token, body: { ...body, ...(reason && { reason }) } });
      expect([refused.status, refused.json.code]).toEqual([409, 'conflict']);
      expect(refused.json.detail).toContain('use restic');
    }
  });

  test('a plan of it', async () => {
    const body = {
      device: own.repository,
      name: 'daily',
      include: ['/home'],
      exclude: [],
      everyMinutes: 60,
      windows: [],
    };
    const refused = await world.ask('POST', '/v1/plans', { token: chief.token, body });
    expect([refused.status, refused.json.code]).toEqual([409, 'conflict']);
    const taken = await world.ask('POST', '/v1/plans', { token: chief.token, body: { ...body, device: own.guid } });
    expect(taken.status).toBe(201);
  });
});

test('the names in it may be looked at', async () => {
  const seen = await world.ask('GET', `/v1/devices/${own.repository}/tree`, { token: chief.token });
  expect([seen.status, seen.text.includes('snapshots')]).toEqual([200, true]);
});

test('an agent of its user neither sees it, nor reads it, nor takes its place', async () => {
  const [device] = await world.storage.rows<Parameters<typeof archivesReadableBy>[1]>(
    `SELECT d.device_id AS "deviceId", d.guid::text AS guid, d.name AS "deviceName", d.tenant_id AS "tenantId", d.user_id AS "userId",
            u.name AS "userName", u.organization_id AS "organizationId", d.vault_id AS vault, d.archive_id AS archive, true AS "mayRestore"
       FROM devices d JOIN users u USING (user_id) WHERE d.guid = $1`,
    [own.guid],
  );
  expect((await archivesReadableBy(world.directory, device!)).map(({ guid }) => guid)).toEqual([own.guid]);
  expect(await mayReadArchive(world.directory, device!, repository.archive)).toBe(false);
  const { database } = world.storage;
  expect(await database.transaction((tx) => lockDeviceByGuid(tx, own.user, own.repository))).toBeNull();
  expect(await database.transaction((tx) => lockDeviceByGuid(tx, own.user, own.guid))).not.toBeNull();
});

test('no licence is taken for it, deactivated and brought back or not', async () => {
  const devices = async () =>
    (
      await listLicences(world.storage.database, { tenant: world.tenant, within: { user: own.user }, limit: 10 })
    ).items.map((each) => each.devices);
  const before = await devices();
  for (const state of ['deactivated', 'active']) {
    await world.storage.rows('UPDATE devices SET state = $2 WHERE guid = $1', [own.repository, state]);
    expect(await devices()).toEqual(before);
  }
  expect(before).toEqual([0]);
  expect(await world.storage.rows('SELECT 1 FROM licence_history WHERE guid = $1', [own.repository])).toEqual([]);
});
