import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { ApiWorld } from '../../../tests/api/world.ts';
import { authenticateDevice } from '../../directory/devices/access.ts';
import { createOperator } from '../../directory/sign-in/operators/operators.ts';
import { createSession } from '../../directory/sign-in/sessions/sessions.ts';
import { drawTokens } from '../../directory/sign-in/sessions/tokens-of-session.ts';
import { newToken, tokenHash } from '../../directory/sign-in/tokens.ts';

let world: ApiWorld;
let token: string;

beforeAll(async () => {
  world = await ApiWorld.open();
  const by = { tenant: null, party: { kind: 'server' as const, id: null, name: 'test' }, address: null };
  token = await world.storage.database.transaction(async (tx) => {
    const { id } = await createOperator(tx, by, 'olga', '-');
    const made = { owner: { operator: id }, limited: false, provider: null, address: null, program: null };
    return (await createSession(tx, made, drawTokens())).accessToken;
  });
}, 60_000);
afterAll(() => world?.close());

test('the operator deletes the data of a tenant that has left; its people are let in nowhere', async () => {
  const { tenant, user, guid } = world.places['other tenant'];
  const user_ = await world.signIn(tenant, user);
  const device = newToken();
  await world.storage.rows('UPDATE devices SET token_sha256 = $2 WHERE guid = $1', [guid, tokenHash(device)]);
  const path = `/v1/tenants/${tenant}`;
  const ask = (what: string, body?: object, headers = {}) =>
    world.ask(body || what ? 'POST' : 'GET', `${path}${what}`, { token, ...(body && { body }), headers });

  expect((await world.ask('POST', `${path}/delete`, { token: user_, body: { name: 'theirs' } })).status).toBe(403);
  expect((await ask('/delete', { name: 'theirs' })).json).toMatchObject({ code: 'conflict', state: 'active' });
  expect((await ask('/offboard', { delayDays: 1 })).json).toMatchObject({ state: 'offboarding', deletion: null });
  const early = await ask('/delete', { name: 'theirs' });
  expect(early.json).toMatchObject({ code: 'conflict', deleteAfter: expect.any(String) });
  await world.storage.rows('UPDATE tenants SET delete_after = now() WHERE tenant_id = $1', [tenant]);
  expect((await ask('/delete', {})).json).toMatchObject({ status: 400, field: 'name' });
  expect((await ask('/delete', { name: 'ours' })).json).toMatchObject({ code: 'out_of_bounds', field: 'name' });
  const seen = await ask('');
  const stale = await ask('/delete', { name: 'theirs' }, { 'if-match': '"1"' });
  expect(stale.json).toMatchObject({ code: 'precondition_failed' });
  const headers = { 'if-match': seen.headers.get('etag') ?? '' };
  expect((await ask('/delete', { name: 'theirs' }, headers)).json).toMatchObject({
    ...{ state: 'deleting', deletion: { waitsFor: 'versions', finishedAt: null } },
  });

  expect((await ask('/resume')).json).toMatchObject({ code: 'conflict', state: 'deleting' });
  const listed = await world.ask('GET', '/v1/tenants?state=deleting', { token });
  expect(listed.json.items).toMatchObject([{ id: tenant }]);
  expect((await world.ask('GET', '/v1/me', { token: user_ })).status).toBe(401);
  await expect(authenticateDevice(world.directory, device)).rejects.toMatchObject({
    ...{ code: 'device_deauthorized', extras: { state: 'deactivated' } },
  });
});
