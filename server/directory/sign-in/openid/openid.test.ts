import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { Directory } from '../../directory.ts';
import { beginOffboarding } from '../../tenants/offboarding.ts';
import { drawTokens } from '../sessions/tokens-of-session.ts';
import { ending, home, problemOf } from '../test-world.ts';
import { newToken } from '../tokens.ts';
import { finishProviderSignIn, type SentAway } from './provider-sign-in.ts';
import type { Person } from './test-provider.ts';
import {
  begin,
  begun,
  change,
  close,
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

describe('somebody at a provider', () => {
  test('signs in, becomes a user, and is the same user the next time, whatever they are called then', async () => {
    const first = await userOf(await signIn());
    expect(first).toMatchObject({ userName: there.person.email, organization: world.root, grants: [] });
    expect(await lastWhy()).toBeUndefined();
    const again = await userOf(await signIn({ email: `other${made}@example.com`, name: 'Somebody Else' }));
    expect(again.user).toBe(first.user);
    expect((await world.acts('session.create')).at(-1)).toMatchObject({ result: 'done', details: { with: 'Test' } });
  });

  test('goes back to where they came from', async () => {
    const { url, cookie } = await begin('/users/7');
    expect(await finish((await there.visit(url)).search, cookie)).toMatchObject({ returnTo: '/users/7' });
  });

  test('has no password here', async () => {
    const { userName } = await userOf(await signIn());
    expect(await ending(world.signIn(userName))).toBe('sign_in_failed');
  });

  test('who was a user before is found by a verified address of the provider’s domains', async () => {
    const user = await world.addUser(`old${made}`);
    await world.query('UPDATE users SET email = $2 WHERE user_id = $1', [user, there.person.email!.toUpperCase()]);
    expect((await userOf(await signIn())).user).toBe(user);
    expect((await world.acts('user.link_provider')).at(-1)!.details).toEqual({ provider, subject: there.person.sub });
    // Another subject with that address is somebody else, and not that user.
    expect(await ending(signIn({ sub: `thief${made}` }))).toBe('sign_in_failed');
  });

  test.each<[what: string, person: Partial<Person>, why: string]>([
    ['an address that is not verified', { email_verified: false }, 'no verified mail address of the domains'],
    [
      'an address that nothing is said of',
      { email_verified: undefined as never },
      'no verified mail address of the domains',
    ],
    ['an address verified in words', { email_verified: 'true' as never }, 'no verified mail address of the domains'],
    ['an address of another domain', { email: 'anna@example.net' }, 'no verified mail address of the domains'],
    ['no address', { email: undefined as never }, 'no verified mail address of the domains'],
  ])('with %s is nobody’s, even if a user has it', async (_what, person, why) => {
    const user = await world.addUser(`victim${made}`);
    const email = person.email ?? there.person.email;
    await world.query('UPDATE users SET email = NULL WHERE lower(email) = lower($1)', [email]);
    await world.query('UPDATE users SET email = $2 WHERE user_id = $1', [user, email]);
    expect(await ending(signIn(person))).toBe('sign_in_failed');
    expect(await lastWhy()).toBe(why);
  });

  test('with the name of a user is not that user', async () => {
    const user = await world.addUser(there.person.email!);
    expect(await ending(signIn())).toBe('sign_in_failed');
    expect(await lastWhy()).toContain('a new user cannot be made');
    expect(await world.query('SELECT 1 FROM provider_accounts WHERE user_id = $1', [user])).toEqual([]);
  });

  test('is not made a user where the provider makes none', async () => {
    await change({ settings: settings({ createsUsers: false }) });
    expect(await ending(signIn())).toBe('sign_in_failed');
    expect(await lastWhy()).toBe('nobody here is known by this account');
    await change({ settings: settings() });
  });

  test('is out while they are blocked here', async () => {
    const { user } = await userOf(await signIn());
    await world.query(`UPDATE users SET state = 'blocked' WHERE user_id = $1`, [user]);
    expect([await ending(signIn()), await lastWhy()]).toEqual(['sign_in_failed', 'blocked']);
    await world.query(`UPDATE users SET state = 'active' WHERE user_id = $1`, [user]);
    expect(await ending(signIn())).toBe('done');
  });

  describe('in a tenant that leaves', () => {
    /** Puts the tenant into a state, with all that belongs to it. */
    const put = (state: string) =>
      world.query(
        `UPDATE tenants SET state = $2, delete_after = CASE WHEN $2 = 'active' THEN NULL ELSE now() END,
                deleting_at = CASE WHEN $3 THEN now() END, deleting_by = CASE WHEN $3 THEN 'operator 1' END,
                had = CASE WHEN $3 THEN '{}'::jsonb END, deleted_at = CASE WHEN $2 = 'deleted' THEN now() END
          WHERE tenant_id = $1`,
        [world.tenant, state, state === 'deleting' || state === 'deleted'],
      );
    const people = () => world.query('SELECT user_id FROM users UNION ALL SELECT user_id FROM provider_accounts');
    afterEach(() => put('active'));

    test.each(['offboarding', 'deleting', 'deleted'])(
      '(%s) does not become a user, nor is signed in',
      async (state) => {
        const known = { ...there.person };
        await signIn();
        there.person = { ...known, sub: `new${made}`, email: `new${made}@example.com` };
        const before = await people();
        await put(state);
        expect([await ending(signIn()), await lastWhy()]).toEqual(['sign_in_failed', state]);
        expect([await ending(signIn(known)), await lastWhy()]).toEqual(['sign_in_failed', state]);
        expect(await people()).toEqual(before);
      },
    );

    test('from this moment on: who comes in it waits, and is refused', async () => {
      const before = await people();
      const { url, cookie } = await begin();
      const back = (await there.visit(url)).search;
      let coming: Promise<string> | undefined;
      await world.database.transaction(async (tx) => {
        await beginOffboarding(tx, world.by, { tenant: world.tenant, delayDays: 30, expected: null });
        coming ??= ending(finish(back, cookie));
        for (let waiting = 0; waiting === 0; await sleep(10)) {
          const text = `SELECT count(*)::int AS waiting FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()`;
          waiting = (await world.query<{ waiting: number }>(text))[0]!.waiting;
        }
      });
      expect([await coming, await lastWhy()]).toEqual(['sign_in_failed', 'offboarding']);
      expect(await people()).toEqual(before);
    });
  });

  test('who comes for the first time twice at once is one user', async () => {
    const both = await Promise.all([begin(), begin()]);
    const back = await Promise.all(both.map(async ({ url }) => (await there.visit(url)).search));
    const users = await Promise.all(
      back.map(async (query, i) => (await userOf(await finish(query, both[i]!.cookie))).user),
    );
    expect(users[0]).toBe(users[1]);
  });
});

describe('groups at the provider', () => {
  test('say where a new user goes and what they may, and the roles go with the group', async () => {
    const first = await userOf(await signIn({ groups: ['helpers', 'strangers'] }));
    expect(first).toMatchObject({
      organization: world.child,
      grants: [{ role: 'Org Help Desk', scope: 'tree', organization: world.child }],
    });
    expect((await userOf(await signIn({ groups: [] }))).grants).toEqual([]);
    expect((await world.acts('user.settle_roles')).at(-1)!.details).toEqual({
      provider,
      given: [],
      taken: ['Org Help Desk'],
    });
  });

  test('do not take what a person has given', async () => {
    const { user, organization } = await userOf(await signIn());
    await world.query(
      `INSERT INTO user_roles (tenant_id, user_id, role, scope, organization_id) VALUES ($1, $2, 'PROe User', 'self', $3)`,
      [world.tenant, user, organization],
    );
    expect((await userOf(await signIn({ groups: ['helpers'] }))).grants).toHaveLength(2);
    expect((await userOf(await signIn({ groups: 'strangers' }))).grants).toMatchObject([{ role: 'PROe User' }]);
  });

  test('do not take the last administrator from a tenant', async () => {
    expect((await userOf(await signIn({ groups: 'admins' }))).grants).toMatchObject([{ role: 'Customer Cloud Admin' }]);
    expect(await ending(signIn({ groups: [] }))).toBe('sign_in_failed');
    await world.addUser(`administrator${made}`, { administrator: true });
    expect((await userOf(await signIn({ groups: [] }))).grants).toEqual([]);
  });

  test.each([[null], [7], [{ helpers: true }], [['helpers', 7, null]], [[['helpers']]]])(
    'may be %j, and nothing breaks',
    async (groups) => {
      const { grants } = await userOf(await signIn({ groups }));
      expect(grants).toHaveLength(JSON.stringify(groups) === '["helpers",7,null]' ? 1 : 0);
    },
  );
});

describe('an answer', () => {
  let sent: SentAway;
  let back: URL;
  beforeEach(async () => {
    sent = await begin();
    back = await there.visit(sent.url);
  });
  const withParameter = (name: string, value: string | null): string => {
    const changed = new URL(back);
    if (value === null) changed.searchParams.delete(name);
    else changed.searchParams.set(name, value);
    return changed.search;
  };

  test('asks with PKCE, state and nonce, and none of them is in the database', async () => {
    const asked = new URL(sent.url).searchParams;
    expect([asked.get('response_type'), asked.get('code_challenge_method')]).toEqual(['code', 'S256']);
    const rows = JSON.stringify(await world.query('SELECT p::text AS text FROM provider_sign_ins p'));
    for (const name of ['state', 'nonce', 'code_challenge']) {
      expect(asked.get(name)).toHaveLength(43);
      expect(rows).not.toContain(asked.get(name));
    }
  });

  test('counts once', async () => {
    expect(await ending(finish(back.search, sent.cookie))).toBe('done');
    expect(await ending(finish(back.search, sent.cookie))).toBe('sign_in_failed');
  });

  test('counts once when it comes twice at the same moment', async () => {
    const both = await Promise.all([
      ending(finish(back.search, sent.cookie)),
      ending(finish(back.search, sent.cookie)),
    ]);
    expect(both.sort()).toEqual(['done', 'sign_in_failed']);
  });

  test('counts in the browser that was sent alone, and is not used up by another', async () => {
    expect(await ending(finish(back.search, newToken()))).toBe('sign_in_failed');
    expect(await ending(finish(back.search, null))).toBe('sign_in_failed');
    expect(await ending(finish(back.search, sent.cookie))).toBe('done');
  });

  test('counts for ten minutes', async () => {
    await world.query('UPDATE provider_sign_ins SET expires_at = now()');
    expect(await ending(finish(back.search, sent.cookie))).toBe('sign_in_failed');
  });

  test.each<[what: string, name: string, value: string | null]>([
    ['another state', 'state', newToken()],
    ['no state', 'state', null],
    ['a state that is none', 'state', '\0'],
  ])('with %s is none, and says nothing', async (_what, name, value) => {
    const refused = await problemOf(finish(withParameter(name, value), sent.cookie));
    expect(refused.code).toBe('sign_in_failed');
  });

  test.each<[what: string, name: string, value: string | null, why: RegExp]>([
    ['another code', 'code', 'x'.repeat(43), /refused the code/],
    ['no code', 'code', null, /not right/],
    ['another issuer', 'iss', 'http://127.0.0.1:1', /not right/],
    ['no issuer, of a provider that says it', 'iss', null, /not right/],
    ['an error', 'error', 'access_denied', /refused the sign-in/],
  ])('with %s is refused', async (_what, name, value, why) => {
    expect(await ending(finish(withParameter(name, value), sent.cookie))).toBe('sign_in_failed');
    expect((await world.acts('session.create')).at(-1)).toMatchObject({
      result: 'failed',
      details: { why: expect.stringMatching(why) },
    });
  });

  test('whose code was used is refused, also in a sign-in of its own', async () => {
    await finish(back.search, sent.cookie);
    const next = await begin();
    const state = new URL(next.url).searchParams.get('state')!;
    expect(await ending(finish(withParameter('state', state), next.cookie))).toBe('sign_in_failed');
    expect(await lastWhy()).toBe('the provider refused the code');
  });

  test('that was put into another’s sign-in is refused by PKCE', async () => {
    const victim = await begin();
    const state = new URL(victim.url).searchParams.get('state')!;
    expect(await ending(finish(withParameter('state', state), victim.cookie))).toBe('sign_in_failed');
    expect(await lastWhy()).toBe('the provider refused the code');
  });

  test('with another nonce is refused', async () => {
    const { url, cookie } = await begin();
    const changed = new URL(url);
    changed.searchParams.set('nonce', newToken());
    expect(await ending(finish((await there.visit(changed.href)).search, cookie))).toBe('sign_in_failed');
    expect(await lastWhy()).toBe('the answer is not right: OAUTH_JWT_CLAIM_COMPARISON_FAILED');
  });

  test('made twice by one request, after a COMMIT of unknown outcome, has one session', async () => {
    const again: Directory = { ...directory, database: { ...world.database } };
    again.database.transaction = async (work) => {
      await world.database.transaction(work);
      return world.database.transaction(work);
    };
    const before = (await world.acts('session.create')).length;
    const request = { query: back.search, cookie: sent.cookie, redirectUri: there.redirectUri };
    const tokens = await finishProviderSignIn(again, request, home, drawTokens());
    const { user } = await userOf(tokens);
    expect(await world.query('SELECT session_id FROM sessions WHERE user_id = $1', [user])).toHaveLength(1);
    expect(await world.acts('session.create')).toHaveLength(before + 1);
  });
});
