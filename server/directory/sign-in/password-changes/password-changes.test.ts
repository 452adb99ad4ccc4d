import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { Actor } from '../../roles/may.ts';
import { loadActor } from '../sessions/actor.ts';
import type { SessionTokens } from '../sessions/sessions.ts';
import { ending, home, password, problemOf, signInWorld, type World } from '../test-world.ts';
import { newToken } from '../tokens.ts';
import { acceptInvitation, inviteUser, readInvitation } from './invitations.ts';
import { changePassword, drawOneTimePassword, resetPassword } from './password-changes.ts';

let world: World;
let user: number;
let name: string;
let of: { tenant: number; user: number };
let made = 0;
const better = 'a mare of no colour';

beforeAll(async () => {
  world = await signInWorld();
});
afterAll(() => world?.close());
beforeEach(async () => {
  name = `user${++made}`;
  user = await world.addUser(name);
  of = { tenant: world.tenant, user };
});

const whyRefused = async (tokens: SessionTokens) => (await loadActor(world.database, tokens.accessToken)).refused;
const actorWith = (role: 'Org Admin' | 'Customer Cloud Admin' | 'Identity Management Administrator'): Actor => ({
  tenant: world.tenant,
  user: 999_999,
  organization: world.child,
  grants: [{ role, scope: 'all', organization: world.child }],
});
const grant = (role: string, scope: string, organization = world.child) =>
  world.query('INSERT INTO user_roles (tenant_id, user_id, role, scope, organization_id) VALUES ($1, $2, $3, $4, $5)', [
    world.tenant,
    user,
    role,
    scope,
    organization,
  ]);

describe('a user’s own password', () => {
  let tokens: SessionTokens;
  beforeEach(async () => {
    tokens = await world.signIn(name);
  });
  const change = (given: { password?: string; newPassword?: string } = {}) =>
    changePassword(
      world.directory,
      world.by,
      { ...of, session: tokens.session, password, newPassword: better, ...given },
      home.address,
    );

  test('is changed by whoever knows it, and other sessions end', async () => {
    const other = await world.signIn(name);
    expect(await change()).toEqual({ endedSessions: 1 });
    expect([await whyRefused(tokens), await whyRefused(other)]).toEqual([null, 'revoked']);
    expect(await ending(world.signIn(name))).toBe('sign_in_failed');
    expect(await ending(world.signIn(name, { password: better }))).toBe('done');
    expect((await world.acts('password.change')).at(-1)).toMatchObject({ result: 'done', details: { sessions: 1 } });
  });

  test('is not guessed with a session that somebody took', async () => {
    for (let i = 0; i < 10; i++) {
      const wrong = await problemOf(change({ password: 'wrong' }));
      expect([wrong.code, wrong.extras.field]).toEqual(['out_of_bounds', 'password']);
    }
    expect(await ending(change())).toBe('too_many_requests');
  });

  test('is not changed to the same, or to one that is tried first', async () => {
    for (const newPassword of [password, 'password1234', `${name}${name}${name}`])
      expect((await problemOf(change({ newPassword }))).extras.field).toBe('newPassword');
  });

  test('that is changed twice at once is one of the two, and the loser is told', async () => {
    const both = await Promise.all([ending(change()), ending(change({ newPassword: `${better} two` }))]);
    expect(both.sort()).toEqual(['done', 'out_of_bounds']);
  });

  test('is none for whoever signs in elsewhere', async () => {
    await world.query('UPDATE users SET password_hash = NULL WHERE user_id = $1', [user]);
    expect(await ending(change())).toBe('conflict');
  });
});

describe('a password that an administrator sets', () => {
  const reset = async (actor = actorWith('Org Admin'), whose = of) => {
    const drawn = await drawOneTimePassword(world.directory);
    await world.database.transaction((tx) => resetPassword(tx, world.by, { ...whose, actor }, drawn));
    return drawn.password;
  };

  test('ends all sessions and opens nothing but setting another', async () => {
    const tokens = await world.signIn(name);
    const once = await reset();
    expect(await whyRefused(tokens)).toBe('revoked');
    expect(await ending(world.signIn(name))).toBe('sign_in_failed');
    expect(await ending(world.signIn(name, { password: once }))).toBe('password_change_needed');
    const weak = await problemOf(world.signIn(name, { password: once, newPassword: 'password1234' }));
    expect([weak.code, weak.extras.field]).toEqual(['out_of_bounds', 'newPassword']);
    expect(await ending(world.signIn(name, { password: once, newPassword: once }))).toBe('out_of_bounds');
    expect(await ending(world.signIn(name, { password: once, newPassword: better }))).toBe('done');
    expect(await ending(world.signIn(name, { password: once }))).toBe('sign_in_failed');
    expect(await ending(world.signIn(name, { password: better }))).toBe('done');
    expect(JSON.stringify(await world.query('SELECT a::text AS text FROM acts a'))).not.toContain(once);
  });

  test('is good for three days', async () => {
    const once = await reset();
    const [row] = await world.query<{ hours: number }>(
      'SELECT round(extract(epoch FROM password_once_until - now()) / 3600)::int AS hours FROM users WHERE user_id = $1',
      [user],
    );
    expect(row).toEqual({ hours: 72 });
    await world.query('UPDATE users SET password_once_until = now() WHERE user_id = $1', [user]);
    expect(await ending(world.signIn(name, { password: once, newPassword: better }))).toBe('sign_in_failed');
    expect((await world.acts('session.create')).at(-1)!.details).toEqual({ why: 'one-time password lapsed' });
  });

  test('lets in whoever has waited for wrong ones', async () => {
    for (let i = 0; i < 10; i++) await ending(world.signIn(name, { password: 'wrong' }));
    expect(await ending(world.signIn(name))).toBe('too_many_requests');
    const once = await reset();
    expect(await ending(world.signIn(name, { password: once, newPassword: better }))).toBe('done');
  });

  test('is no way to become somebody mightier', async () => {
    await grant('Org Admin', 'tree');
    expect(await ending(reset())).toBe('done');
    await grant('Customer Cloud Admin', 'all');
    expect(await ending(reset())).toBe('forbidden');
    expect(await ending(reset(actorWith('Customer Cloud Admin')))).toBe('done');
    expect(await ending(reset(actorWith('Identity Management Administrator')))).toBe('done');
  });

  test('does not ask about roles without force, and refuses those it does not know', async () => {
    await grant('Org Admin', 'tree', world.root);
    expect(await ending(reset())).toBe('done');
    await grant('A role of tomorrow', 'all');
    expect(await ending(reset())).toBe('forbidden');
  });

  test('is not set in another tenant', async () => {
    expect(await ending(reset(actorWith('Customer Cloud Admin'), { ...of, tenant: 999_999 }))).toBe('not_found');
  });
});

describe('an invitation', () => {
  beforeEach(() => world.query('UPDATE users SET password_hash = NULL WHERE user_id = $1', [user]));
  const invite = async (actor = actorWith('Org Admin')) => {
    const token = newToken();
    await world.database.transaction((tx) => inviteUser(tx, world.by, { ...of, actor }, token));
    return token;
  };
  const accept = (token: string, newPassword = better) =>
    acceptInvitation(world.directory, { token, newPassword }, home.address);

  test('says whom it is for, and sets the first password once', async () => {
    expect(await ending(world.signIn(name))).toBe('sign_in_failed');
    const token = await invite();
    expect(await readInvitation(world.database, token)).toEqual({
      tenant: world.tenant,
      tenantName: 'Example Ltd',
      userName: name,
      expiresAt: expect.any(String),
    });
    expect(await accept(token)).toEqual({ tenant: world.tenant, userName: name });
    expect(await ending(world.signIn(name, { password: better }))).toBe('done');
    expect([await ending(accept(token)), await ending(readInvitation(world.database, token))]).toEqual([
      'not_found',
      'not_found',
    ]);
    expect((await world.acts('password.set')).at(-1)).toMatchObject({ party: name, partyId: String(user) });
    expect(await ending(invite())).toBe('conflict');
  });

  test('is one at a time: the newest', async () => {
    const [first, second] = [await invite(), await invite()];
    expect([await ending(accept(first)), await ending(accept(second))]).toEqual(['not_found', 'done']);
  });

  test('accepted twice at once sets one password', async () => {
    const token = await invite();
    const both = await Promise.all([ending(accept(token)), ending(accept(token, `${better} two`))]);
    expect(both.sort()).toEqual(['done', 'not_found']);
  });

  test('is good for three days, for a user who may sign in', async () => {
    const token = await invite();
    await world.query(`UPDATE users SET state = 'blocked' WHERE user_id = $1`, [user]);
    expect(await ending(accept(token))).toBe('not_found');
    await world.query(`UPDATE users SET state = 'active' WHERE user_id = $1`, [user]);
    expect(await ending(accept(token, 'password1234'))).toBe('out_of_bounds');
    await world.query('UPDATE invitations SET expires_at = now() WHERE user_id = $1', [user]);
    expect(await ending(accept(token))).toBe('not_found');
  });

  test('to somebody mightier is not seen', async () => {
    await grant('Cross Org Admin', 'all');
    expect(await ending(invite())).toBe('forbidden');
    expect(await ending(invite(actorWith('Customer Cloud Admin')))).toBe('done');
  });

  test.each([
    ['nothing', ''],
    ['short', 'x'],
    ['NULs', '\0'.repeat(43)],
    ['never given', newToken()],
  ])('is nothing that is %s', async (_what, token) => {
    expect(await ending(accept(token))).toBe('not_found');
  });
});
