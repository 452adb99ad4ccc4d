/**
 * Every route of the JSON API with every token that is not enough: never a success, never a failure of the server, and
 * never a word about whether the thing exists.
 */
import { createHash, randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { ApiRoute } from '../../server/http/api/route.ts';
import { apiRoutes } from '../../server/http/api/routes.ts';
import { type About, apiCalls } from './calls.ts';
import { ApiWorld, type Place } from './world.ts';

let world: ApiWorld;
let about: About;
const tokens = new Map<string, string | undefined>();
let foreigner: string;

const sha256 = (token: string): Buffer => createHash('sha256').update(Buffer.from(token, 'base64url')).digest();

beforeAll(async () => {
  world = await ApiWorld.open();
  about = { ...world.places.own, elsewhere: world.places.own.organization };
  const { rows } = world.storage;
  const chief = async (name: string) => world.person('Customer Cloud Admin', { name });

  tokens.set('none', undefined);
  tokens.set('no token at all', 'not a token');
  tokens.set('of nobody', randomBytes(32).toString('base64url').slice(0, 43));

  const expired = await chief('expired');
  await rows(`UPDATE access_tokens SET expires_at = now() - interval '1 second' WHERE token_sha256 = $1`, [
    sha256(expired.token),
  ]);
  tokens.set('expired', expired.token);

  const revoked = await chief('revoked');
  await rows('UPDATE sessions SET ended_at = now() WHERE user_id = $1', [revoked.user]);
  tokens.set('of a session that was ended', revoked.token);

  for (const state of ['blocked', 'deactivated']) {
    const person = await chief(state);
    await rows('UPDATE users SET state = $2 WHERE user_id = $1', [person.user, state]);
    tokens.set(`of somebody ${state}`, person.token);
  }

  // A device's token, where a person's is needed.
  const device = randomBytes(32).toString('base64url');
  await rows('UPDATE devices SET token_sha256 = $2 WHERE guid = $1', [about.guid, sha256(device)]);
  tokens.set("a device's", device);

  const { tenant, organization } = world.places['other tenant'];
  foreigner = (await world.person('Customer Cloud Admin', { name: 'foreign', tenant, organization })).token;
}, 60_000);

afterAll(() => world?.close());

const nameOf = ({ method, path }: ApiRoute): string => `${method} ${path}`;
const signedIn = apiRoutes.filter((route) => !('anyone' in route.may));

/** A path of the route with these in the place of its parameters. */
function pathOf(route: ApiRoute, place: Pick<Place, 'organization' | 'user' | 'guid' | 'client'>): string {
  const call = apiCalls[nameOf(route)];
  if (call) return call.path({ ...about, ...place });
  return route.path.replaceAll(/:\w+/g, '1');
}

describe('a token that is not enough', () => {
  test.each(signedIn.map((route) => [nameOf(route), route] as const))('%s', async (name, route) => {
    const wrong: string[] = [];
    const body = apiCalls[name]?.body?.(about);
    for (const [kind, token] of tokens) {
      const answer = await world.ask(route.method, pathOf(route, about), {
        ...(token !== undefined && { token }),
        ...(body !== undefined && { body }),
      });
      if (answer.status !== 401) wrong.push(`${kind}: ${answer.status} ${answer.text.slice(0, 200)}`);
      else if (JSON.stringify(answer.json).match(/ann|own|laptop/)) wrong.push(`${kind}: tells ${answer.text}`);
    }
    expect(wrong).toEqual([]);
  });
});

describe("another tenant's administrator learns nothing", () => {
  const withTarget = signedIn.filter((route) => 'permission' in route.may && route.path.includes(':'));

  test.each(withTarget.map((route) => [nameOf(route), route] as const))('%s', async (name, route) => {
    const body = apiCalls[name]?.body?.(about);
    const ask = async (place: Pick<Place, 'organization' | 'user' | 'guid' | 'vault' | 'client'>) => {
      const { status, json } = await world.ask(route.method, pathOf(route, place), {
        token: foreigner,
        ...(body !== undefined && { body }),
      });
      return { status, json };
    };
    const nothing = {
      organization: 999_999_999,
      user: 999_999_999,
      guid: '999999999999',
      vault: 999_999_999,
      client: 999_999_999,
    };
    const existing = await ask(about);
    expect(existing).toEqual(await ask(nothing));
    expect(existing.status).toBe(404);
  });
});

test('whoever signs in with roles that do not let them is told so, and nothing else', async () => {
  const person = await world.person('Audit Log Viewer', { name: 'watcher' });
  await world.storage.rows(`DELETE FROM user_roles WHERE user_id = $1 AND role = 'PROe User'`, [person.user]);
  const answer = await world.ask('GET', '/v1/me', { token: person.token });
  expect([answer.status, answer.json.code]).toEqual([403, 'forbidden']);
});
