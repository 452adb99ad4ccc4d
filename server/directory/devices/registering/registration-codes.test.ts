/** Registering with a registration code, on a real database. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { endSessionsOfUser } from '../../sign-in/sessions/sessions.ts';
import { sweepSignIn } from '../../sign-in/sweep.ts';
import { ending, home, problemOf, signInWorld, type World } from '../../sign-in/test-world.ts';
import { blockUser, deactivateUser, reactivateUser, unblockUser } from '../../users/states.ts';
import { registerDevice } from '../register.ts';
import { openCodesMax, registrationCodeHash, revokeRegistrationCodes } from './registration-codes.ts';
import { RegistrationCodeRequest } from './shapes.ts';
import { losing, newToken, type Person, Registering, register } from './testing.ts';

let world: World;
let registering: Registering;
let person: Person;

beforeAll(async () => {
  world = await signInWorld();
  registering = new Registering(world);
});
afterAll(() => world?.close());
beforeEach(async () => {
  person = await registering.person();
});

const use = (registrationCode: string, more = {}) => register(world.directory, { registrationCode, ...more });
const guids = async (of = person) => (await registering.devicesOf(of)).map(({ guid }) => guid);
const lapse = (code: string, in_: string) =>
  world.query(`UPDATE registration_codes SET expires_at = now() + interval '${in_}' WHERE code_sha256 = $1`, [
    registrationCodeHash(code),
  ]);

describe('a registration code', () => {
  test('registers one device of its user, who needs no password', async () => {
    await world.query('UPDATE users SET password_hash = NULL WHERE user_id = $1', [person.user]);
    expect(await ending(person.register())).toBe('sign_in_failed');
    const code = await person.makeCode();
    expect(code).toMatch(/^([2-9A-HJ-NP-Z]{4}-){5}[2-9A-HJ-NP-Z]{4}$/);
    const answer = await use(` ${code.toLowerCase().replaceAll('-', ' ')} `);
    expect(answer).toMatchObject({ userName: person.name, vaultKey: { level: 'standard' } });
    expect(await ending(use(code))).toBe('sign_in_failed');
    expect(await guids()).toEqual([answer.guid]);
    // And puts another installation in its place.
    expect((await use(await person.makeCode(), { replace: answer.guid })).guid).toBe(answer.guid);
  });

  test('asks for no second factor: whoever made it may take that away, or has given theirs', async () => {
    await person.enrol();
    expect(await ending(use(await person.makeCode()))).toBe('done');
  });

  test('that is unknown, used, lapsed, revoked, or of somebody blocked gets one answer', async () => {
    const said: string[] = [];
    const say = async (code: string) => said.push(JSON.stringify(await problemOf(use(code))));
    await say('ABCD-EFGH-JKLM-NPQR-STUV-WXYZ');
    await say('\0');
    const used = await person.makeCode();
    await use(used);
    await say(used);
    const lapsed = await person.makeCode();
    await lapse(lapsed, '0 seconds');
    await say(lapsed);
    const revoked = await person.makeCode();
    await world.database.transaction((tx) => revokeRegistrationCodes(tx, world.by, person.of));
    await say(revoked);
    const blocked = await person.makeCode();
    await world.query(`UPDATE users SET state = 'blocked' WHERE user_id = $1`, [person.user]);
    await say(blocked);
    expect(new Set(said).size).toBe(1);
    expect(said[0]).toContain('"code":"sign_in_failed"');
    const whys = await world.query<{ details: { why: string } }>(
      `SELECT details FROM acts WHERE action = 'device.sign_in' AND party_id = $1 ORDER BY number`,
      [String(person.user)],
    );
    expect(whys.map(({ details }) => details.why)).toEqual([
      'registration code used before',
      'registration code lapsed',
      'blocked',
    ]);
  });

  test('is good to the end of its time', async () => {
    const code = await person.makeCode();
    await lapse(code, '30 seconds');
    expect(await ending(use(code))).toBe('done');
  });

  test.each([
    [4, false],
    [5, true],
    [1_440, true],
    [1_441, false],
    [5.5, false],
  ])('for %d minutes may be made: %s', async (minutes, may) => {
    expect(RegistrationCodeRequest.safeParse({ minutes }).success).toBe(may);
    if (!may) return;
    const code = await person.makeCode(minutes);
    const [row] = await world.query<{ minutes: number }>(
      'SELECT extract(epoch FROM expires_at - made_at)::int / 60 AS minutes FROM registration_codes WHERE code_sha256 = $1',
      [registrationCodeHash(code)],
    );
    expect(row).toEqual({ minutes });
  });

  test('is for an hour if nothing is said', () => {
    expect(RegistrationCodeRequest.parse({})).toEqual({ minutes: 60 });
  });

  test('may be open five times; used, lapsed and revoked ones do not count', async () => {
    const codes: string[] = [];
    for (let i = 0; i < openCodesMax; i++) codes.push(await person.makeCode());
    expect(await ending(person.makeCode())).toBe('conflict');
    await use(codes[0]!);
    await lapse(codes[1]!, '0 seconds');
    codes.push(await person.makeCode(), await person.makeCode());
    expect(await ending(person.makeCode())).toBe('conflict');
    const revoke = () => world.database.transaction((tx) => revokeRegistrationCodes(tx, world.by, person.of));
    expect([await revoke(), await revoke()]).toEqual([{ revoked: 5 }, { revoked: 0 }]);
    expect(await ending(use(codes[2]!))).toBe('sign_in_failed');
    expect(await ending(person.makeCode())).toBe('done');
  });

  test('made at the same moment as others, is still one of five', async () => {
    const all = await Promise.all(Array.from({ length: openCodesMax + 3 }, () => ending(person.makeCode())));
    expect(all.filter((each) => each === 'done')).toHaveLength(openCodesMax);
  });

  test('of a user who is blocked or deactivated is gone, also when they come back', async () => {
    const by = { ...world.by };
    const request = { ...person.of, expected: null };
    const does = (verb: typeof blockUser) => world.database.transaction((tx) => verb(tx, by, request));
    for (const [end, undo] of [
      [blockUser, unblockUser],
      [deactivateUser, reactivateUser],
    ] as const) {
      const code = await person.makeCode();
      await does(end);
      expect(await ending(person.makeCode())).toBe('conflict');
      expect(await ending(use(code))).toBe('sign_in_failed');
      await does(undo);
      expect(await ending(use(code))).toBe('sign_in_failed');
    }
    expect((await world.acts('user.block')).at(-1)!.details).toMatchObject({ registrationCodes: 1 });
  });

  test('is refused while an organization above is blocked, and not made there', async () => {
    const code = await person.makeCode();
    await world.query(`UPDATE organizations SET state = 'blocked' WHERE organization_id = $1`, [world.root]);
    const refused = [await ending(use(code)), await ending(person.makeCode())];
    await world.query(`UPDATE organizations SET state = 'active' WHERE organization_id = $1`, [world.root]);
    expect(refused).toEqual(['sign_in_failed', 'conflict']);
    expect(await ending(use(code))).toBe('done');
  });

  test('ends with the sessions of its user', async () => {
    const code = await person.makeCode();
    await world.database.transaction((tx) => endSessionsOfUser(tx, world.by, { ...person.of, except: null }));
    expect(await ending(use(code))).toBe('sign_in_failed');
  });

  test('is not made for somebody who may do more', async () => {
    const actor = {
      user: 999_999,
      grants: [{ role: 'Org Admin', scope: 'all', organization: world.child }],
    };
    expect(await ending(person.makeCode(60, actor))).toBe('done');
    await world.query(
      `INSERT INTO user_roles (tenant_id, user_id, role, scope, organization_id) VALUES ($1, $2, 'Customer Cloud Admin', 'all', $3)`,
      [world.tenant, person.user, world.child],
    );
    expect(await ending(person.makeCode(60, actor))).toBe('forbidden');
    expect(await ending(person.makeCode())).toBe('done');
  });

  test('is not made for oneself without being asked, whatever one may', async () => {
    expect(await ending(person.makeCode(60, { user: person.user }))).toBe('forbidden');
    expect(await ending(person.makeCode(60, { user: null }))).toBe('done'); // an API client
  });

  test('is made for somebody with a second factor by those only who may take that away', async () => {
    const as = (role: string) => ({ user: 999_999, grants: [{ role, scope: 'all', organization: world.root }] });
    expect(await ending(person.makeCode(60, as('Org Admin')))).toBe('done');
    await person.enrol();
    expect(await ending(person.makeCode(60, as('Org Admin')))).toBe('forbidden');
    expect(await ending(person.makeCode(60, as('Customer Cloud Admin')))).toBe('done');
  });

  test('is in the log when it is made, used and revoked, and is itself not there', async () => {
    const code = await person.makeCode();
    const { guid } = await use(code);
    const texts = await world.query<{ text: string; action: string; details: { code?: number; with?: string } }>(
      `SELECT a::text AS text, action, details FROM acts a WHERE target_id IN ($1, $2) ORDER BY number`,
      [String(person.user), guid],
    );
    const made = texts.find(({ action }) => action === 'user.make_registration_code')!;
    const used = texts.find(({ action }) => action === 'device.register')!;
    expect(used.details.with).toBe(`registration code ${made.details.code}`);
    const kept = await world.query<{ text: string }>('SELECT c::text AS text FROM registration_codes c');
    for (const { text } of [...texts, ...kept]) expect(text).not.toContain(code);
  });

  test('of two installations at the same moment registers one', async () => {
    for (let round = 0; round < 4; round++) {
      const code = await person.makeCode();
      const before = await guids();
      const both = await Promise.all([1, 2].map(() => ending(use(code, { token: newToken() }))));
      expect(both.sort()).toEqual(['done', 'sign_in_failed']);
      expect(await guids()).toHaveLength(before.length + 1);
    }
  });

  test('that is wrong counts towards what may fail from an address', async () => {
    const replica = world.anotherReplica(2);
    const attempt = (registrationCode: string) => ending(register(replica, { registrationCode }));
    for (let i = 0; i < 3; i++) expect(await attempt(await person.makeCode())).toBe('done');
    expect([await attempt('A'), await attempt('B'), await attempt('C')]).toEqual([
      'sign_in_failed',
      'sign_in_failed',
      'too_many_requests',
    ]);
    expect(await attempt(await person.makeCode())).toBe('too_many_requests');
  });

  test('is swept a week after its end', async () => {
    const [late, old] = [await person.makeCode(), await person.makeCode()];
    await lapse(late, '-6 days');
    await lapse(old, '-8 days');
    await sweepSignIn(world.database);
    const left = await world.query<{ hash: Buffer }>(
      'SELECT code_sha256 AS hash FROM registration_codes WHERE user_id = $1',
      [person.user],
    );
    expect(left.map(({ hash }) => hash)).toEqual([registrationCodeHash(late)]);
  });
});

describe('a registration by a code that comes again', () => {
  test('gets the device it made, also when the code has lapsed since', async () => {
    const [code, token] = [await person.makeCode(), newToken()];
    const first = await use(code, { token });
    expect(await use(code, { token })).toEqual(first);
    await lapse(code, '-1 hour');
    expect(await use(code, { token })).toEqual(first);
    expect(await ending(use(code, { token: newToken() }))).toBe('sign_in_failed');
    expect(await ending(use(code))).toBe('sign_in_failed');
    expect(await guids()).toEqual([first.guid]);
  });

  test('gets it for a day, and not once the user is blocked', async () => {
    const [code, token] = [await person.makeCode(), newToken()];
    const { guid } = await use(code, { token });
    await world.query(`UPDATE users SET state = 'blocked' WHERE user_id = $1`, [person.user]);
    expect(await ending(use(code, { token }))).toBe('sign_in_failed');
    await world.query(`UPDATE users SET state = 'active' WHERE user_id = $1`, [person.user]);
    const age = (by: string) =>
      world.query(`UPDATE devices SET created_at = now() - interval '${by}' WHERE guid = $1::bigint`, [guid]);
    await age('23 hours 59 minutes');
    expect(await ending(use(code, { token }))).toBe('done');
    await age('24 hours');
    expect(await ending(use(code, { token }))).toBe('sign_in_failed');
    // Another code takes it up, and is used up by it.
    const other = await person.makeCode();
    expect((await use(other, { token })).guid).toBe(guid);
    expect(await ending(use(other))).toBe('sign_in_failed');
  });

  test('is made once when a COMMIT had an unknown outcome', async () => {
    const directory = { ...world.directory, database: losing(world.database) };
    const [registrationCode, token] = [await person.makeCode(), newToken()];
    const first = await register(directory, { registrationCode, token });
    expect(await register(directory, { registrationCode, token })).toEqual(first);
    expect(await guids()).toEqual([first.guid]);
  });
});

describe('a token', () => {
  test('is one device, however often and at whatever moment it comes', async () => {
    const token = newToken();
    const all = await Promise.all(Array.from({ length: 4 }, () => person.register({ token })));
    expect(new Set(all.map(({ guid }) => guid)).size).toBe(1);
    expect(await guids()).toEqual([all[0]!.guid]);
    for (const { vaultKeys } of all) expect(vaultKeys).toEqual(all[0]!.vaultKeys);
  });

  test('takes a place once', async () => {
    const old = await person.register();
    const [token, other] = [newToken(), newToken()];
    const first = await person.register({ token, replace: old.guid });
    expect(await person.register({ token, replace: old.guid })).toEqual(first);
    expect(await guids()).toEqual([old.guid, old.guid]);
    // The same token for something else.
    expect(await ending(person.register({ token }))).toBe('conflict');
    await person.register({ token: other });
    expect(await ending(person.register({ token: other, replace: old.guid }))).toBe('conflict');
  });

  test('of somebody else, or of a device that is not active, is refused without more', async () => {
    const said: string[] = [];
    const say = async (token: string) => said.push(JSON.stringify(await problemOf(person.register({ token }))));
    const theirs = newToken();
    await (await registering.person()).register({ token: theirs });
    await say(theirs);
    for (const state of ['blocked', 'deauthorized', 'deactivated', 'replaced']) {
      const token = newToken();
      const { guid } = await person.register({ token });
      await world.query('UPDATE devices SET state = $2 WHERE guid = $1::bigint', [guid, state]);
      await say(token);
    }
    expect(new Set(said).size).toBe(1);
    expect(JSON.parse(said[0]!)).toMatchObject({ code: 'conflict', field: 'token' });
  });

  test('of two users at the same moment is one’s', async () => {
    const other = await registering.person();
    for (let round = 0; round < 4; round++) {
      const token = newToken();
      const both = await Promise.all([person, other].map((each) => ending(each.register({ token }))));
      expect(both.sort()).toEqual(['conflict', 'done']);
    }
  });

  test('does not stand for a password', async () => {
    const token = newToken();
    await person.register({ token });
    expect(await ending(person.register({ token, password: 'wrong' }))).toBe('sign_in_failed');
  });

  test('is drawn here for agents that draw none', async () => {
    const { vaultKey } = await person.register();
    const request = { ...person.signIn, device: { name: 'x', platform: 'linux', agentVersion: '1' }, vaultKey };
    const { token } = await registerDevice(world.directory, request as never, home.address);
    expect(Buffer.from(token, 'base64url')).toHaveLength(32);
  });
});
