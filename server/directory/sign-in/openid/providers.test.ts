import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { loadActor } from '../sessions/actor.ts';
import { ending, password, problemOf } from '../test-world.ts';
import { newToken } from '../tokens.ts';
import { providerSignOut } from './provider-sign-in.ts';
import { listProviders, listProvidersForSignIn, readProvider, sealSecret } from './providers.ts';
import { CreateProviderRequest } from './shapes.ts';
import {
  begin,
  begun,
  change,
  close,
  connect,
  directory,
  finish,
  lastWhy,
  made,
  open,
  provider,
  settings,
  signIn,
  there,
  userOf,
  world,
} from './test-sign-in.ts';

beforeAll(open);
afterAll(close);
beforeEach(begun);

describe('a provider', () => {
  const now = (): number => Math.floor(Date.now() / 1_000);
  type Claims = Record<string, unknown>;
  test.each<[what: string, alter: (claims: Claims) => Claims, why: string | undefined]>([
    ['nothing else', (claims) => claims, undefined],
    ['a clock a little behind', (claims) => ({ ...claims, exp: now() - 20 }), undefined],
    ['a token that is over', (claims) => ({ ...claims, exp: now() - 60 }), 'OAUTH_JWT_TIMESTAMP_CHECK_FAILED'],
    ['a token of tomorrow', (claims) => ({ ...claims, nbf: now() + 86_400 }), 'OAUTH_JWT_TIMESTAMP_CHECK_FAILED'],
    ['a token without an end', ({ exp: _, ...claims }) => claims, 'OAUTH_INVALID_RESPONSE'],
    ['another issuer', (claims) => ({ ...claims, iss: 'http://127.0.0.1:1' }), 'OAUTH_JWT_CLAIM_COMPARISON_FAILED'],
    ['another client', (claims) => ({ ...claims, aud: 'another' }), 'OAUTH_JWT_CLAIM_COMPARISON_FAILED'],
    ['another nonce', (claims) => ({ ...claims, nonce: newToken() }), 'OAUTH_JWT_CLAIM_COMPARISON_FAILED'],
    ['no nonce', ({ nonce: _, ...claims }) => claims, 'OAUTH_INVALID_RESPONSE'],
    ['no subject', ({ sub: _, ...claims }) => claims, 'OAUTH_INVALID_RESPONSE'],
  ])('that answers with %s', async (_what, alter, why) => {
    there.alter = alter;
    expect(await ending(signIn())).toBe(why ? 'sign_in_failed' : 'done');
    expect(await lastWhy()).toBe(why && `the answer is not right: ${why}`);
  });

  test('whose key signed nothing of it is not believed', async () => {
    there.alter = (claims) => claims;
    there.forge = true;
    expect(await ending(signIn())).toBe('sign_in_failed');
  });

  test('that changes its keys is believed at once', async () => {
    expect(await ending(signIn())).toBe('done');
    there.rotateKeys();
    expect(await ending(signIn())).toBe('done');
  });

  test.each(['refuse', 'endless', 'error'] as const)(
    'that is broken (%s) is unavailable, and takes nothing',
    async (how) => {
      const { url, cookie } = await begin();
      const back = await there.visit(url);
      there.breakDown(how);
      expect(await ending(finish(back.search, cookie))).toMatch(/unavailable|sign_in_failed/);
      expect((await world.acts('session.create')).at(-1)).toMatchObject({ result: 'failed' });
      there.repair();
      expect(await ending(signIn())).toBe('done');
    },
  );

  test('with another secret than ours lets nobody in, until it is told to us', async () => {
    const of = { issuer: there.issuer, openidClient: there.client.id };
    const seal = (openidSecret: string) => sealSecret(directory, world.tenant, { ...of, openidSecret });
    await change({ openidSecret: 'wrong' }, {}, await seal('wrong'));
    expect(await ending(signIn())).toBe('sign_in_failed');
    await change({ openidSecret: there.client.secret }, {}, await seal(there.client.secret));
    expect(await ending(signIn())).toBe('done');
    const acts = JSON.stringify(await world.query('SELECT a::text AS text FROM acts a'));
    expect(acts).toContain('replaced');
    expect(acts).not.toContain(there.client.secret);
    const rows = await world.query<{ openid_secret: Buffer }>('SELECT openid_secret FROM identity_providers');
    expect(rows[0]!.openid_secret.includes(there.client.secret)).toBe(false);
  });

  test('that is turned off lets nobody in, and whoever came by it is out', async () => {
    const tokens = await signIn();
    const { url, cookie } = await begin();
    const back = await there.visit(url);
    await change({ state: 'off' });
    expect((await loadActor(world.database, tokens.accessToken)).refused).toBe('revoked');
    expect([await ending(finish(back.search, cookie)), await ending(begin())]).toEqual(['sign_in_failed', 'not_found']);
    expect((await listProvidersForSignIn(world.database, String(world.tenant))).items).toEqual([]);
    await change({ state: 'active' });
    expect((await listProvidersForSignIn(world.database, 'example ltd')).items).toEqual([
      { id: provider, name: 'Test' },
    ]);
    expect((await listProvidersForSignIn(world.database, 'nobody\0')).items).toEqual([]);
    expect(await ending(signIn())).toBe('done');
  });

  test('says where to sign out, for sessions that came by it', async () => {
    const tokens = await signIn();
    const { user, session } = await userOf(tokens);
    const returnTo = 'https://backup.example/';
    const away = await providerSignOut(directory, { tenant: world.tenant, user, session }, returnTo);
    expect(away).toMatch(new RegExp(`^${there.issuer}/session/end\\?`));
    expect(new URL(away!).searchParams.get('post_logout_redirect_uri')).toBe(returnTo);
    const name = `local${made}`;
    const local = await world.addUser(name);
    const own = await world.signIn(name, { password });
    expect(
      await providerSignOut(directory, { tenant: world.tenant, user: local, session: own.session }, returnTo),
    ).toBeNull();
  });

  test.each([
    ['that does not answer', 'http://127.0.0.1:1'],
    ['in plain HTTP elsewhere', 'http://example.invalid'],
    ['that calls itself otherwise', '(other)'],
  ])('%s is not connected', async (_what, issuer) => {
    const at = issuer === '(other)' ? there.issuer.replace('127.0.0.1', 'localhost') : issuer;
    const refused = await problemOf(connect({ issuer: at }));
    expect([refused.code, refused.extras.field]).toEqual(['out_of_bounds', 'issuer']);
    expect(refused.message).toBe('no identity provider answers there that says it is this issuer');
  });

  test('on this machine is not spoken to in plain HTTP, but by tests', () => {
    expect(world.directory.openid.isAllowed(there.issuer)).toBe(false);
    expect(world.directory.openid.isAllowed('https://login.example')).toBe(true);
  });

  test('is connected once, with organizations of the tenant', async () => {
    expect(await ending(connect())).toBe('conflict');
    const elsewhere = { settings: settings({ organization: 999_999 }), openidClient: 'another' };
    expect(await ending(connect(elsewhere))).toBe('not_found');
  });

  test('is one tenant’s, and changes from the version that was seen', async () => {
    const { version } = await readProvider(world.database, { tenant: world.tenant, provider });
    expect(await ending(change({ name: 'x' }, { tenant: 999_999 }))).toBe('not_found');
    expect(await ending(readProvider(world.database, { tenant: 999_999, provider }))).toBe('not_found');
    expect((await listProviders(world.database, 999_999, { limit: 10 })).items).toEqual([]);
    expect(await ending(change({ name: 'Test' }, { expected: version - 1 }))).toBe('precondition_failed');
    expect((await change({ name: 'Test' }, { expected: version })).version).toBe(version + 1);
    expect((await listProviders(world.database, world.tenant, { limit: 10 })).items).toMatchObject([
      { id: provider, hasSecret: true, settings: { domains: ['example.com'] } },
    ]);
  });

  const request = { name: 'a', issuer: 'https://login.example', openidClient: 'b', settings: {} };
  test.each<[what: string, change: object, right: boolean]>([
    ['as it should be', {}, true],
    ['an issuer that is no address', { issuer: 'login' }, false],
    ['new users without a place', { settings: { createsUsers: true } }, false],
    ['a domain in capitals', { settings: { domains: ['Example.COM'] } }, true],
    ['a domain that is none', { settings: { domains: ['example'] } }, false],
    ['a scope of two', { settings: { scopes: ['email profile'] } }, false],
    ['a role there is not', { settings: { groups: [{ group: 'a', roles: [{ role: 'King', scope: 'all' }] }] } }, false],
    [
      'a role wider than it is',
      { settings: { groups: [{ group: 'a', roles: [{ role: 'Org Admin', scope: 'all' }] }] } },
      false,
    ],
    ['a secret of 2,048 characters', { openidSecret: 'a'.repeat(2_048) }, true],
    ['a secret of 2,049 characters', { openidSecret: 'a'.repeat(2_049) }, false],
    ['a secret of 4,096 bytes', { openidSecret: `${'€'.repeat(1_365)}a` }, true],
    ['a secret of 4,097 bytes', { openidSecret: `${'€'.repeat(1_365)}aa` }, false],
    ['200 groups', { settings: { groups: Array.from({ length: 200 }, (_, i) => ({ group: `${i}` })) } }, true],
    ['201 groups', { settings: { groups: Array.from({ length: 201 }, (_, i) => ({ group: `${i}` })) } }, false],
  ])('is asked for with %s', (_what, of, right) => {
    expect(CreateProviderRequest.safeParse({ ...request, ...of }).success).toBe(right);
  });
});
