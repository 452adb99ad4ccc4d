/** What becomes of sessions that there are when an organization begins to want a second factor. */
import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals';
import { Secret } from 'otpauth';
import { pushSettings } from '../../settings/pushing.ts';
import { loadActor } from '../sessions/actor.ts';
import { refreshSession } from '../sessions/refresh.ts';
import { createSession, type SessionTokens } from '../sessions/sessions.ts';
import { drawTokens } from '../sessions/tokens-of-session.ts';
import { home, signInWorld, type World } from '../test-world.ts';
import { generator } from './codes.ts';
import { beginSecondFactor, confirmSecondFactor, drawSecondFactor } from './second-factor.ts';

let world: World;
let name: string;
let of: { tenant: number; user: number };
let tokens: SessionTokens;
let made = 0;

beforeAll(async () => {
  world = await signInWorld();
});
afterAll(() => world?.close());
beforeEach(async () => {
  await world.query('DELETE FROM organization_settings');
  name = `user${++made}`;
  of = { tenant: world.tenant, user: await world.addUser(name) };
  tokens = await world.signIn(name);
});

const set = (organization: number, value: unknown, locked = false) =>
  world.query(
    `INSERT INTO organization_settings (tenant_id, organization_id, name, value, locked) VALUES ($1, $2, 'signIn.twoFactor', $3, $4)
         ON CONFLICT (organization_id, name) DO UPDATE SET value = $3, locked = $4`,
    [world.tenant, organization, JSON.stringify(value), locked],
  );
const limited = async (of = tokens) => {
  const loaded = await loadActor(world.database, of.accessToken);
  return loaded.refused ?? loaded.limited;
};
const refresh = async (of = tokens) => {
  tokens = await refreshSession(world.directory, of.refreshToken, drawTokens(), home.address);
  return tokens.limited;
};
async function enrol(): Promise<void> {
  const drawn = await drawSecondFactor(world.directory, of, name);
  await world.database.transaction((tx) => beginSecondFactor(tx, world.by, of, drawn));
  const secret = Buffer.from(Secret.fromBase32(drawn.shown.secret).bytes);
  const code = generator(secret).generate({ timestamp: Date.now() });
  await confirmSecondFactor(world.directory, world.by, { of, session: tokens.session, code }, home.address);
}

test.each<[what: string, settings: () => Promise<unknown>, limited: boolean]>([
  ['nobody wants one', async () => {}, false],
  ['it does itself', () => set(world.child, true), true],
  ['one above does', () => set(world.root, true), true],
  ['one above does, and it does not', () => set(world.root, true).then(() => set(world.child, false)), false],
  [
    'one above has locked it, whatever it says',
    () => set(world.root, true, true).then(() => set(world.child, false)),
    true,
  ],
  ['what it says cannot be read', () => set(world.child, 'perhaps'), true],
])('a session from before, where %s: limited %p', async (_what, settings, expected) => {
  expect(await limited()).toBe(false);
  await settings();
  expect(await limited()).toBe(expected);
  expect([await refresh(), await limited()]).toEqual([expected, expected]);
});

test('a push asks those whose organization did not want one', async () => {
  await set(world.root, true);
  await set(world.child, false);
  expect(await limited()).toBe(false);
  await world.database.transaction((tx) =>
    pushSettings(tx, world.by, {
      tenant: world.tenant,
      organization: world.root,
      settings: ['signIn.twoFactor'],
      expected: null,
    }),
  );
  expect(await limited()).toBe(true);
});

test('a session goes on when one is not wanted any more: at its next refresh, if it has heard of it', async () => {
  await set(world.child, true);
  expect([await limited(), await refresh()]).toEqual([true, true]);
  await set(world.child, false);
  expect(await limited()).toBe(true);
  expect([await refresh(), await limited()]).toEqual([false, false]);
});

test('setting one up in a session from before opens it, and ends the others: they have shown no code', async () => {
  const other = await world.signIn(name);
  await set(world.child, true);
  expect([await limited(), await limited(other)]).toEqual([true, true]);
  await enrol();
  expect([await limited(), await limited(other)]).toEqual([false, 'revoked']);
});

test('whoever has one, and whoever came by an identity provider, is not asked', async () => {
  const [row] = await world.query<{ provider: number }>(
    `INSERT INTO identity_providers (tenant_id, name, issuer, openid_client, document)
     VALUES ($1, 'p', $2, 'c', '{}') RETURNING provider_id AS provider`,
    [world.tenant, `https://${name}.example`],
  );
  const from = { limited: false, provider: row!.provider, address: null, program: null };
  const byProvider = await world.database.transaction((tx) => createSession(tx, { owner: of, ...from }, drawTokens()));
  await set(world.child, true);
  expect([await limited(byProvider), await limited()]).toEqual([false, true]);
  await enrol();
  expect([await limited(byProvider), await limited()]).toEqual([false, false]);
  expect([await refresh(byProvider), await limited()]).toEqual([false, false]);
});
