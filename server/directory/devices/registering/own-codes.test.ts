/** Registration codes that users make for themselves, on a real database. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { failuresMax } from '../../sign-in/lockout.ts';
import { updateProvider } from '../../sign-in/openid/providers.ts';
import { UpdateProviderRequest } from '../../sign-in/openid/shapes.ts';
import { endSession } from '../../sign-in/sessions/sessions.ts';
import { sweepSignIn } from '../../sign-in/sweep.ts';
import { ending, home, password, problemOf, signInWorld, type World } from '../../sign-in/test-world.ts';
import { listReplaceable } from '../access.ts';
import { openCodesMax, registrationCodeHash } from './registration-codes.ts';
import { OwnRegistrationCodeRequest } from './shapes.ts';
import { losing, newToken, type Person, Registering, register } from './testing.ts';

let world: World;
let registering: Registering;
let person: Person;
let session: number;
let provider: number;

beforeAll(async () => {
  world = await signInWorld();
  registering = new Registering(world);
  const document = { scopes: [], groupsClaim: null, groups: [], createsUsers: false, organization: null, domains: [] };
  const [row] = await world.query<{ id: number }>(
    `INSERT INTO identity_providers (tenant_id, name, issuer, openid_client, document) VALUES ($1, 'Test', 'https://id.example.com', 'us', $2)
     RETURNING provider_id AS id`,
    [world.tenant, JSON.stringify(document)],
  );
  provider = row!.id;
});
afterAll(() => world?.close());
beforeEach(async () => {
  person = await registering.person();
  session = await person.session();
});

const use = (registrationCode: string, more = {}) => register(world.directory, { registrationCode, ...more });
const make = (given: object = {}) => person.makeOwnCode(session, given);
const told = async (promise: Promise<unknown>) => {
  const { code, extras } = await problemOf(promise);
  return [code, extras];
};
const set = (name: string, value: boolean) =>
  world.query(
    `INSERT INTO organization_settings (tenant_id, organization_id, name, value) VALUES ($1, $2, $3, $4)
         ON CONFLICT (organization_id, name) DO UPDATE SET value = $4`,
    [world.tenant, world.root, name, JSON.stringify(value)],
  );
const unset = () => world.query('DELETE FROM organization_settings WHERE tenant_id = $1', [world.tenant]);
/** As if the session had begun at the provider so long ago. */
const cameByProvider = (ago = '0 seconds') =>
  world.query(`UPDATE sessions SET provider_id = $2, created_at = now() - $3::interval WHERE session_id = $1`, [
    session,
    provider,
    ago,
  ]);
const withoutPassword = () => world.query('UPDATE users SET password_hash = NULL WHERE user_id = $1', [person.user]);

describe('a user who makes a code for themself', () => {
  test('gives their password', async () => {
    const code = await make();
    expect(await ending(use(code))).toBe('done');
    expect(await told(make({ password: null }))).toEqual(['out_of_bounds', { field: 'password' }]);
    expect(await told(make({ password: 'wrong' }))).toEqual(['out_of_bounds', { field: 'password' }]);
    const [made] = await world.query<{ count: number }>(
      'SELECT count(*)::int AS count FROM registration_codes WHERE user_id = $1',
      [person.user],
    );
    expect(made!.count).toBe(1);
  });

  test('waits after ten wrong ones, here and at every door', async () => {
    for (let i = 0; i < failuresMax; i++) expect(await ending(make({ password: 'wrong' }))).toBe('out_of_bounds');
    expect(await ending(make())).toBe('too_many_requests');
    expect(await ending(person.register())).toBe('too_many_requests');
  });

  test('gives a code of their second factor too, which is good once', async () => {
    const [recovery] = await person.enrol();
    session = await person.session(person.code());
    await person.laterOn();
    expect(await told(make())).toEqual(['second_factor_needed', { field: 'code' }]);
    expect(await told(make({ code: '000000' }))).toEqual(['second_factor_needed', { field: 'code' }]);
    const code = person.code();
    expect(await ending(make({ code, password: 'wrong' }))).toBe('out_of_bounds');
    expect(await ending(use(await make({ code })))).toBe('done');
    expect(await told(make({ code }))).toEqual(['second_factor_needed', { field: 'code' }]);
    expect([await ending(make({ code: recovery })), await ending(make({ code: recovery }))]).toEqual([
      'done',
      'second_factor_needed',
    ]);
  });

  test('is asked again when a second factor came into force meanwhile', async () => {
    const { database } = world;
    const transaction = async (work: Parameters<typeof database.transaction>[0]) => {
      await person.enrol();
      return database.transaction(work);
    };
    const directory = { ...world.directory, database: { ...database, transaction } as typeof database };
    expect(await told(person.makeOwnCode(session, {}, directory))).toEqual(['second_factor_needed', { field: 'code' }]);
  });

  test.each([
    [4, false],
    [5, true],
    [60, true],
    [61, false],
  ])('may ask for %d minutes: %s', (minutes, may) => {
    expect(OwnRegistrationCodeRequest.safeParse({ password, minutes }).success).toBe(may);
  });

  test('makes one when a COMMIT had an unknown outcome', async () => {
    await person.enrol();
    session = await person.session(person.code());
    await person.laterOn();
    const directory = { ...world.directory, database: losing(world.database) };
    const code = await person.makeOwnCode(session, { code: person.code() }, directory);
    expect(await ending(use(code))).toBe('done');
  });
});

describe('a user without a password', () => {
  const own = { password: null };

  test.each([
    ['0 seconds', 'done'],
    ['14 minutes 30 seconds', 'done'],
    ['15 minutes', 'forbidden'],
  ])('makes one in a session that began at their provider %s ago: %s', async (ago, end) => {
    await withoutPassword();
    await cameByProvider(ago);
    expect(await ending(make(own))).toBe(end);
    const refused = (await world.acts('user.make_registration_code')).filter(({ result }) => result === 'refused');
    if (end === 'forbidden')
      expect(refused.at(-1)!.details.why).toBe('no sign-in at a provider in the last 15 minutes');
  });

  test('makes none in another session, nor with a password they have not', async () => {
    await withoutPassword();
    expect(await ending(make(own))).toBe('forbidden');
    await cameByProvider();
    expect(await ending(make())).toBe('conflict');
    // In a fresh session of somebody else.
    const other = await registering.person();
    expect(await ending(other.makeOwnCode(session, own))).toBe('out_of_bounds');
    await world.query('UPDATE users SET password_hash = NULL WHERE user_id = $1', [other.user]);
    expect(await ending(other.makeOwnCode(session, own))).toBe('forbidden');
  });

  test('gives the code of a second factor they have here, and is not held up by one that is wanted', async () => {
    await withoutPassword();
    await cameByProvider();
    await set('signIn.twoFactor', true);
    const code = await make(own);
    expect(await ending(use(code))).toBe('done');
    await unset();
    await person.enrol();
    expect(await told(make(own))).toEqual(['second_factor_needed', { field: 'code' }]);
    expect(await ending(make({ ...own, code: person.code() }))).toBe('done');
  });

  test('is also one whose organization takes no passwords', async () => {
    await cameByProvider();
    expect(await ending(make(own))).toBe('out_of_bounds');
    await set('signIn.password', false);
    const ends = [await ending(make(own)), await ending(make())];
    await unset();
    expect(ends).toEqual(['done', 'conflict']);
  });
});

describe('a code of one’s own is good no longer than what it was made by:', () => {
  const lastWhy = async () => (await world.acts('device.sign_in')).at(-1)!.details.why;
  const looking = (registrationCode: string) =>
    ending(listReplaceable(world.directory, { registrationCode }, home.address));

  test('its session, which its user has ended', async () => {
    const [code, others] = [await make(), await person.makeOwnCode(await person.session())];
    await world.database.transaction((tx) => endSession(tx, world.by, person.of, session));
    expect([await ending(use(code)), await lastWhy()]).toEqual(['sign_in_failed', 'session ended']);
    expect(await looking(code)).toBe('sign_in_failed');
    expect(await ending(use(others))).toBe('done');
  });

  test('its session, which ends while the registration is under way', async () => {
    const code = await make();
    const { database } = world;
    const transaction = async (work: Parameters<typeof database.transaction>[0]) => {
      await world.query('UPDATE sessions SET ended_at = now() WHERE session_id = $1', [session]);
      return database.transaction(work);
    };
    const directory = { ...world.directory, database: { ...database, transaction } as typeof database };
    expect(await ending(register(directory, { registrationCode: code }))).toBe('sign_in_failed');
    expect(await registering.devicesOf(person)).toEqual([]);
  });

  test('its session, which was not refreshed, or is past its end', async () => {
    const code = await make();
    for (const column of ['refresh_until', 'ends_at']) {
      const [before] = await world.query<{ at: Date }>(`SELECT ${column} AS at FROM sessions WHERE session_id = $1`, [
        session,
      ]);
      const until = (at: Date) =>
        world.query(`UPDATE sessions SET ${column} = $2 WHERE session_id = $1`, [session, at]);
      await until(new Date(Date.now() - 60_000));
      expect(await looking(code)).toBe('sign_in_failed');
      await until(before!.at);
    }
    expect(await ending(use(code))).toBe('done');
  });

  test('its provider, which was turned off', async () => {
    await withoutPassword();
    await cameByProvider();
    const code = await make({ password: null });
    const turn = (state: string) =>
      world.database.transaction((tx) => {
        const change = UpdateProviderRequest.parse({ state });
        return updateProvider(
          tx,
          world.by,
          { tenant: world.tenant, provider, expected: null, change },
          { sealed: null },
        );
      });
    await turn('off');
    expect([await ending(use(code)), await lastWhy()]).toEqual(['sign_in_failed', 'session ended']);
    await turn('active');
    expect(await ending(use(code))).toBe('sign_in_failed');
  });

  test('a password alone, where a second factor is wanted since', async () => {
    const [code, administrators] = [await make(), await person.makeCode()];
    await set('signIn.twoFactor', true);
    const ends = [await ending(use(code)), await lastWhy(), await ending(use(administrators))];
    await unset();
    expect(ends).toEqual(['sign_in_failed', 'second factor wanted', 'done']);
    expect(await ending(use(code))).toBe('done');
  });

  test('a password alone, where a second factor is in force since; an administrator’s, too', async () => {
    const elsewhere = await person.session();
    const codes = [await make(), await person.makeOwnCode(elsewhere), await person.makeCode()];
    await person.enrol();
    for (const code of codes) expect(await ending(use(code))).toBe('sign_in_failed');
  });

  test('but what it has registered stays, and is answered again', async () => {
    const [code, token] = [await make(), newToken()];
    const first = await use(code, { token });
    await world.database.transaction((tx) => endSession(tx, world.by, person.of, session));
    expect(await use(code, { token })).toEqual(first);
  });

  test('and then it does not count among those that are open', async () => {
    for (let i = 0; i < openCodesMax; i++) await make();
    expect(await ending(make())).toBe('conflict');
    await world.database.transaction((tx) => endSession(tx, world.by, person.of, session));
    session = await person.session();
    expect(await ending(make())).toBe('done');
  });

  test('and its session stays until it is forgotten', async () => {
    const code = await make();
    const left = async (): Promise<number> =>
      (await world.query('SELECT 1 FROM sessions WHERE session_id = $1', [session])).length;
    await world.query('DELETE FROM access_tokens WHERE session_id = $1', [session]);
    await world.query(`UPDATE sessions SET ended_at = now() - interval '8 days' WHERE session_id = $1`, [session]);
    await sweepSignIn(world.database);
    expect(await left()).toBe(1);
    await world.query(`UPDATE registration_codes SET expires_at = now() - interval '8 days' WHERE code_sha256 = $1`, [
      registrationCodeHash(code),
    ]);
    await sweepSignIn(world.database);
    expect(await left()).toBe(0);
  });
});
