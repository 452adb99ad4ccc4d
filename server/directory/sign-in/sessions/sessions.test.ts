import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { type Actor, may } from '../../roles/may.ts';
import { ending, home, password, problemOf, signInWorld, type World } from '../test-world.ts';
import { newToken, tokenHash } from '../tokens.ts';
import { loadActor } from './actor.ts';
import { signInOperator, signInUser } from './begin.ts';
import { judgeRefresh, type RefreshState } from './judge-refresh.ts';
import { refreshSession } from './refresh.ts';
import { endSession, endSessionsOfUser, listSessions, type SessionTokens } from './sessions.ts';
import { drawTokens, sessionsPerUserMax } from './tokens-of-session.ts';

let world: World;
let user: number;
let name: string;
let made = 0;

beforeAll(async () => {
  world = await signInWorld();
});
afterAll(() => world?.close());
beforeEach(async () => {
  name = `user${++made}`;
  user = await world.addUser(name);
});

const refresh = (token: string, drawn = drawTokens()) => refreshSession(world.directory, token, drawn, home.address);
const whyRefused = async (accessToken: string): Promise<string | null> =>
  (await loadActor(world.database, accessToken)).refused;
const owner = () => ({ tenant: world.tenant, user });

describe('a user who signs in', () => {
  test('is loaded with their place, and the roles they have now', async () => {
    const { accessToken, session } = await world.signIn(name);
    const identity = {
      kind: 'user',
      user,
      userName: name,
      session,
      tenant: world.tenant,
      organization: world.child,
      organizationPath: [world.root, world.child],
    };
    const actor = { tenant: world.tenant, user, organization: world.child, grants: [] };
    expect(await loadActor(world.database, accessToken)).toEqual({ refused: null, identity, actor, limited: false });

    await world.query(
      `INSERT INTO user_roles (tenant_id, user_id, role, scope, organization_id) VALUES ($1, $2, 'Org Admin', 'tree', $3)`,
      [world.tenant, user, world.child],
    );
    const loaded = await loadActor(world.database, accessToken);
    expect(loaded).toMatchObject({
      actor: { grants: [{ role: 'Org Admin', scope: 'tree', organization: world.child }] },
    });
    const target = { tenant: world.tenant, organizationPath: [world.root, world.child], user };
    expect(may((loaded as { actor: Actor }).actor, 'user.update', target).allowed).toBe(true);
  });

  test.each<[how: string, given: (w: World) => { tenant?: string; userName: string }]>([
    ['by its number', (w) => ({ tenant: String(w.tenant), userName: name })],
    ['by its number before the name', (w) => ({ userName: `${w.tenant}/${name}` })],
    ['by its name', () => ({ tenant: ' example LTD ', userName: name.toUpperCase() })],
    [
      'by the registration key of any organization',
      (w) => ({ tenant: w.registrationKey.toLowerCase(), userName: name }),
    ],
    ['not at all, if it is the first', () => ({ userName: name })],
  ])('names the tenant %s', async (_how, given) => {
    expect(await ending(world.signIn('', given(world)))).toBe('done');
  });

  test.each<[what: string, given: () => { tenant?: string; userName?: string; password?: string }]>([
    ['a wrong password', () => ({ userName: name, password: `${password}!` })],
    ['a name that is nobody’s', () => ({ userName: `${name}?` })],
    ['a tenant that is none', () => ({ tenant: '999999', userName: name })],
    ['a name with a NUL', () => ({ userName: `${name}\0` })],
    ['a tenant with a NUL', () => ({ tenant: '\0', userName: name })],
    ['half a character', () => ({ userName: `${name}\ud800` })],
  ])('is refused with %s, and told nothing', async (_what, given) => {
    const refused = await problemOf(world.signIn('', given()));
    expect(refused.toJSON()).toEqual((await problemOf(world.signIn('nobody', {}))).toJSON());
    expect(refused.code).toBe('sign_in_failed');
  });

  test('leaves in the log how it ended and why, and never what was typed', async () => {
    const before = (await world.acts('session.create')).length;
    await ending(world.signIn(name, { password: 'Mistyped secret' }));
    await ending(world.signIn('my secret as a name'));
    await world.signIn(name);
    const acts = (await world.acts('session.create')).slice(before);
    expect(acts).toEqual([
      { result: 'refused', details: { why: 'wrong password' }, party: name, partyId: String(user) },
      { result: 'refused', details: { why: 'no such name' }, party: 'unknown', partyId: null },
      { result: 'done', details: { with: 'password' }, party: name, partyId: String(user) },
    ]);
    expect(JSON.stringify(await world.query('SELECT * FROM acts'))).not.toMatch(/secret/i);
  });

  test('twice by one request, after a COMMIT of unknown outcome, has one session and one act', async () => {
    const drawn = drawTokens();
    const before = (await world.acts('session.create')).length;
    const both = [
      await signInUser(world.directory, { userName: name, password }, home, drawn),
      await signInUser(world.directory, { userName: name, password }, home, drawn),
    ];
    expect(both[1]).toEqual(both[0]);
    expect(await world.acts('session.create')).toHaveLength(before + 1);
  });

  test('with a password that is changed while it is judged gets no session', async () => {
    const changed = await world.directory.passwords.hash('another one altogether');
    const slow = {
      ...world.directory,
      passwords: {
        ...world.directory.passwords,
        verify: async (given: string, hash: string | null) => {
          const right = await world.directory.passwords.verify(given, hash);
          await world.query('UPDATE users SET password_hash = $2 WHERE user_id = $1', [user, changed]);
          return right;
        },
      },
    };
    expect(await ending(signInUser(slow, { userName: name, password }, home, drawTokens()))).toBe('sign_in_failed');
    expect((await listSessions(world.database, owner(), { limit: 10 })).items).toEqual([]);
  });

  test('has a bounded number of sessions: the one not used for longest makes room', async () => {
    const first = await world.signIn(name);
    const second = await world.signIn(name);
    await refresh(first.refreshToken);
    for (let i = 2; i < sessionsPerUserMax; i++) {
      await world.query(
        `INSERT INTO sessions (tenant_id, user_id, handle_sha256, refresh_sha256, refresh_until, ends_at)
         VALUES ($1, $2, $3, $3, now() + interval '1 day', now() + interval '1 day')`,
        [world.tenant, user, tokenHash(newToken())],
      );
    }
    expect(await whyRefused(second.accessToken)).toBeNull();
    await world.signIn(name);
    expect(await whyRefused(second.accessToken)).toBe('revoked');
    expect(await whyRefused(first.accessToken)).toBeNull();
  });
});

describe('an access token', () => {
  let tokens: SessionTokens;
  beforeEach(async () => {
    tokens = await world.signIn(name);
  });

  test.each<[what: string, text: string]>([
    ['nothing', ''],
    ['short', 'x'],
    ['of the right length', 'A'.repeat(43)],
    ['NULs', '\0'.repeat(43)],
    ['one that was never given', newToken()],
    ['letters of another alphabet', 'é'.repeat(43)],
    ['very long', 'x'.repeat(100_000)],
  ])('is nothing that is %s', async (_what, text) => {
    expect(await loadActor(world.database, text)).toEqual({ refused: 'unknown', identity: null });
  });

  test('is not the refresh token or a part of it', async () => {
    const parts = [tokens.refreshToken, ...tokens.refreshToken.split('.')];
    for (const part of parts) expect(await whyRefused(part)).toBe('unknown');
  });

  test('lasts a quarter of an hour', async () => {
    const of = [tokenHash(tokens.accessToken)];
    const [row] = await world.query<{ left: number }>(
      'SELECT extract(epoch FROM expires_at - now())::float8 AS left FROM access_tokens WHERE token_sha256 = $1',
      of,
    );
    expect(Math.abs(row!.left - 15 * 60)).toBeLessThan(60);
    expect(tokens.accessExpiresInSeconds).toBe(15 * 60);
    await world.query('UPDATE access_tokens SET expires_at = now() WHERE token_sha256 = $1', of);
    expect(await whyRefused(tokens.accessToken)).toBe('expired');
  });

  test.each<[why: string, change: string, back: string]>([
    [
      'blocked',
      `UPDATE users SET state = 'blocked' WHERE user_id = $1`,
      `UPDATE users SET state = 'active' WHERE user_id = $1`,
    ],
    [
      'deactivated',
      `UPDATE users SET state = 'deactivated' WHERE user_id = $1`,
      `UPDATE users SET state = 'active' WHERE user_id = $1`,
    ],
    [
      'blocked',
      `UPDATE organizations SET state = 'blocked' WHERE organization_id = (SELECT path[1] FROM organizations JOIN users USING (organization_id) WHERE user_id = $1)`,
      `UPDATE organizations SET state = 'active' WHERE $1::bigint > 0`,
    ],
    [
      'deactivated',
      `UPDATE organizations SET state = 'deactivated' WHERE organization_id = (SELECT organization_id FROM users WHERE user_id = $1)`,
      `UPDATE organizations SET state = 'active' WHERE $1::bigint > 0`,
    ],
    [
      'suspended',
      `UPDATE tenants SET state = 'suspended' WHERE tenant_id = (SELECT tenant_id FROM users WHERE user_id = $1)`,
      `UPDATE tenants SET state = 'active' WHERE $1::bigint > 0`,
    ],
  ])(
    'of somebody %s is refused with the next request, as is a sign-in, and both are let in when that is lifted',
    async (why, change, back) => {
      await world.query(change, [user]);
      try {
        expect(await whyRefused(tokens.accessToken)).toBe(why);
        expect(await ending(world.signIn(name))).toBe('sign_in_failed');
        expect((await world.acts('session.create')).at(-1)!.details).toEqual({ why });
        expect(await ending(refresh(tokens.refreshToken))).toBe('unauthorized');
      } finally {
        await world.query(back, [user]);
      }
      expect(await whyRefused(tokens.accessToken)).toBeNull();
      expect(await ending(refresh(tokens.refreshToken))).toBe('done');
    },
  );
});

describe('a refresh', () => {
  test('exchanges both tokens; the access token before goes on for its time', async () => {
    const first = await world.signIn(name);
    const second = await refresh(first.refreshToken);
    expect(second.session).toBe(first.session);
    expect(second.refreshToken).not.toBe(first.refreshToken);
    expect([await whyRefused(first.accessToken), await whyRefused(second.accessToken)]).toEqual([null, null]);
    expect(await ending(refresh(second.refreshToken))).toBe('done');
  });

  test('whose answer was lost can be asked again, until what it brought was used', async () => {
    const first = await world.signIn(name);
    await refresh(first.refreshToken); // never arrived
    const again = await refresh(first.refreshToken);
    const third = await refresh(again.refreshToken);
    expect(await ending(refresh(first.refreshToken))).toBe('unauthorized');
    expect(await whyRefused(third.accessToken)).toBe('revoked');
  });

  test('of a token used more than a moment ago ends the session, and says so in the log', async () => {
    const first = await world.signIn(name);
    const second = await refresh(first.refreshToken);
    await world.query(`UPDATE sessions SET refreshed_at = now() - interval '61 seconds' WHERE session_id = $1`, [
      first.session,
    ]);
    expect(await ending(refresh(first.refreshToken))).toBe('unauthorized');
    expect(await whyRefused(second.accessToken)).toBe('revoked');
    expect(await ending(refresh(second.refreshToken))).toBe('unauthorized');
    const [act] = (await world.acts('session.end')).slice(-1);
    expect(act).toMatchObject({ partyId: String(user), details: { why: expect.stringContaining('twice') } });
  });

  test('by thief and owner at once ends the session at the next one, whoever comes first', async () => {
    const { refreshToken, session } = await world.signIn(name);
    const both = await Promise.all([refresh(refreshToken), refresh(refreshToken)]);
    expect(new Set(both.map((each) => each.refreshToken)).size).toBe(2);
    const next = await Promise.all(both.map((each) => ending(refresh(each.refreshToken))));
    expect(next).toContain('unauthorized');
    const [row] = await world.query('SELECT ended_at IS NOT NULL AS ended FROM sessions WHERE session_id = $1', [
      session,
    ]);
    expect(row).toEqual({ ended: true });
  });

  test('made twice by one request, after a COMMIT of unknown outcome, answers the same', async () => {
    const first = await world.signIn(name);
    const drawn = drawTokens();
    expect(await refresh(first.refreshToken, drawn)).toEqual(await refresh(first.refreshToken, drawn));
  });

  test.each<[what: string, change: string]>([
    ['not used for 30 days', 'refresh_until = now()'],
    ['90 days old', 'ends_at = now()'],
    ['ended', 'ended_at = now()'],
  ])('of a session %s is refused', async (_what, change) => {
    const { refreshToken, session, accessToken } = await world.signIn(name);
    await world.query(`UPDATE sessions SET ${change} WHERE session_id = $1`, [session]);
    expect(await ending(refresh(refreshToken))).toBe('unauthorized');
    if (!change.startsWith('refresh')) expect(await whyRefused(accessToken)).not.toBeNull();
  });

  test.each<[what: string, text: string]>([
    ['nothing', ''],
    ['a dot', '.'],
    ['one that was never given', `${newToken()}.${newToken()}`],
    ['NULs', '\0'.repeat(87)],
    ['an access token', newToken()],
    ['very long', 'x'.repeat(100_000)],
  ])('is refused to %s', async (_what, text) => {
    expect(await ending(refresh(text))).toBe('unauthorized');
  });

  const [a, b, c] = [Buffer.alloc(32, 1), Buffer.alloc(32, 2), Buffer.alloc(32, 3)];
  const state: RefreshState = { current: a, previous: b, ended: false, over: false, inGrace: true };
  test.each<[state: Partial<RefreshState>, presented: Buffer, drawn: Buffer, judgement: string]>([
    [{}, a, c, 'exchange'],
    [{}, b, c, 'again'],
    [{ inGrace: false }, b, c, 'reused'],
    [{ previous: null }, b, c, 'reused'],
    [{}, c, Buffer.alloc(32, 4), 'reused'],
    [{}, b, a, 'repeated'],
    [{ over: true }, a, c, 'over'],
    [{ over: true }, c, b, 'over'],
    [{ ended: true, over: true }, a, c, 'ended'],
  ])('in the state %j is judged', (of, presented, drawn, judgement) => {
    expect(judgeRefresh({ ...state, ...of }, presented, drawn)).toBe(judgement);
  });
});

describe('sessions', () => {
  test('are listed in pages, and only their owner’s that are in force', async () => {
    const all: SessionTokens[] = [];
    for (let i = 0; i < 3; i++) all.push(await world.signIn(name, {}, { program: `browser ${i}\0` }));
    await world.database.transaction((tx) => endSession(tx, world.by, owner(), all[1]!.session));
    const first = await listSessions(world.database, owner(), { limit: 1 });
    expect(first.items).toEqual([
      {
        id: all[0]!.session,
        createdAt: expect.any(Date),
        lastUsedAt: expect.any(Date),
        endsAt: expect.any(Date),
        address: home.address,
        program: 'browser 0',
        limited: false,
        provider: null,
      },
    ]);
    const second = await listSessions(world.database, owner(), { after: first.next!, limit: 1 });
    expect([second.items.map(({ id }) => id), second.next]).toEqual([[all[2]!.session], null]);
    const others = { tenant: world.tenant, user: await world.addUser(`${name} other`) };
    expect((await listSessions(world.database, others, { limit: 10 })).items).toEqual([]);
  });

  test('are ended one by one by their owner alone, once', async () => {
    const { session, accessToken } = await world.signIn(name);
    const end = (of: { tenant: number; user: number }) =>
      ending(world.database.transaction((tx) => endSession(tx, world.by, of, session)));
    const before = (await world.acts('session.end')).length;
    expect(await end({ tenant: world.tenant, user: user + 1_000 })).toBe('not_found');
    expect(await whyRefused(accessToken)).toBeNull();
    expect([await end(owner()), await end(owner())]).toEqual(['done', 'done']);
    expect(await whyRefused(accessToken)).toBe('revoked');
    expect(await world.acts('session.end')).toHaveLength(before + 1);
  });

  test('are ended all but one', async () => {
    const [kept, other] = [await world.signIn(name), await world.signIn(name)];
    const end = (of: { tenant: number; user: number }) =>
      world.database.transaction((tx) => endSessionsOfUser(tx, world.by, { ...of, except: kept.session }));
    expect(await end(owner())).toEqual({ ended: 1 });
    expect([await whyRefused(kept.accessToken), await whyRefused(other.accessToken)]).toEqual([null, 'revoked']);
    expect(await ending(end({ tenant: world.tenant + 1_000, user }))).toBe('not_found');
  });
});

describe('an operator', () => {
  beforeAll(async () => {
    await world.query('INSERT INTO operators (name, password_hash) VALUES ($1, $2)', ['Root', world.passwordHash]);
  });
  const signIn = (given: { userName?: string; password?: string; newPassword?: string } = {}) =>
    signInOperator(world.directory, { userName: 'root', password, ...given }, home, drawTokens());

  test('signs in by a door of their own, is nobody’s actor, and refreshes', async () => {
    const tokens = await signIn();
    const loaded = await loadActor(world.database, tokens.accessToken);
    expect(loaded).toEqual({
      refused: null,
      identity: {
        kind: 'operator',
        operator: expect.any(Number),
        operatorName: 'Root',
        session: tokens.session,
        secondFactor: false,
      },
      actor: null,
      limited: false,
    });
    expect(await ending(refresh(tokens.refreshToken))).toBe('done');
    expect(await ending(world.signIn('root'))).toBe('sign_in_failed');
    expect(await ending(signIn({ userName: name }))).toBe('sign_in_failed');
    expect(await ending(signIn({ password: 'wrong' }))).toBe('sign_in_failed');
  });

  test('who is blocked is out', async () => {
    const { accessToken } = await signIn();
    await world.query(`UPDATE operators SET state = 'blocked'`);
    expect([await whyRefused(accessToken), await ending(signIn())]).toEqual(['blocked', 'sign_in_failed']);
    await world.query(`UPDATE operators SET state = 'active'`);
    expect(await whyRefused(accessToken)).toBeNull();
  });

  test('who sets a new password is signed out elsewhere', async () => {
    const { accessToken } = await signIn();
    const tokens = await signIn({ newPassword: 'a mare of no colour' });
    expect(await whyRefused(accessToken)).toBe('revoked');
    expect(await whyRefused(tokens.accessToken)).toBeNull();
    expect([await ending(signIn()), await ending(signIn({ password: 'a mare of no colour' }))]).toEqual([
      'sign_in_failed',
      'done',
    ]);
  });
});
