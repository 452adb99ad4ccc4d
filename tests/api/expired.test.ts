/** An archive that has expired is shown to nobody: every route that tells of what is in one refuses, and says how it is recovered. */
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { apiRoutes } from '../../server/http/api/routes.ts';
import { apiCalls } from './calls.ts';
import { ApiWorld, type Place } from './world.ts';

let world: ApiWorld;
let place: Place;
let token: string;

beforeAll(async () => {
  world = await ApiWorld.open();
  place = world.places.own;
  token = (await world.person('Customer Cloud Admin', { name: 'all there is' })).token;
  await world.storage.rows(`UPDATE devices SET state = 'deactivated' WHERE guid = $1`, [place.guid]);
}, 60_000);
afterAll(() => world?.close());

const put = (state: 'cold' | 'expired') =>
  world.storage.rows(
    `UPDATE archives SET state = $2::text, cold_until = now() - interval '1 day', version_count = 1,
            expired_at = CASE WHEN $2 = 'expired' THEN now() END WHERE archive_id = $1`,
    [place.archive, state],
  );

/** What tells of a device and not of what is in its archive. Whatever is added to the API and is not here has to refuse. */
const notOfContent = new Set([
  'GET /v1/devices/:guid',
  'GET /v1/devices/:guid/plans',
  'GET /v1/devices/:guid/retention',
]);
const readers = apiRoutes
  .filter(({ kind, path }) => kind !== 'change' && path.startsWith('/v1/devices/:guid'))
  .map(({ method, path }) => `${method} ${path}`);

test.each(readers)('%s', async (name) => {
  const call = apiCalls[name]!;
  const about = { ...place, elsewhere: place.organization };
  const ask = () =>
    world.ask(name.split(' ')[0]!, call.path(about), { token, ...(call.body && { body: call.body(about) }) });
  await put('cold');
  expect((await ask()).status).toBe(200);
  await put('expired');
  const { status, json } = await ask();
  if (notOfContent.has(name)) expect(status).toBe(200);
  else {
    expect([status, json.code, json.state]).toEqual([409, 'conflict', 'expired']);
    expect(json.detail).toMatch(/has expired.*cold-until/);
  }
});

test('with a later date it is read again', async () => {
  await put('expired');
  const path = `/v1/devices/${place.guid}`;
  const until = new Date(Date.now() + 86_400_000).toISOString();
  expect((await world.ask('PUT', `${path}/cold-until`, { token, body: { until } })).status).toBe(200);
  expect((await world.ask('GET', `${path}/manifest`, { token })).status).toBe(200);
});
