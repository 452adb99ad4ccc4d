/** Registering with a code of the second factor, on a real database. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { failuresMax } from '../../sign-in/lockout.ts';
import { signInAt } from '../../sign-in/sign-in.ts';
import { ending, home, problemOf, signInWorld, type World } from '../../sign-in/test-world.ts';
import { listReplaceable } from '../access.ts';
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

const list = (given: { code?: string } = {}, directory = world.directory) =>
  listReplaceable(directory, { ...person.signIn, ...given }, home.address);
const guids = async () => (await registering.devicesOf(person)).map(({ guid }) => guid);

describe('a user with a second factor', () => {
  test('registers with a code of it, which is good for one device', async () => {
    await person.enrol();
    const asked = await problemOf(person.register());
    expect([asked.code, asked.extras]).toEqual(['second_factor_needed', {}]);
    const code = person.code();
    const { guid } = await person.register({ code: `${code.slice(0, 3)} ${code.slice(3)}` });
    const again = await problemOf(person.register({ code }));
    expect([again.code, again.extras]).toEqual(['second_factor_needed', { field: 'code' }]);
    expect(await guids()).toEqual([guid]);
    const [made] = await world.query<{ details: object }>(
      `SELECT details FROM acts WHERE action = 'device.register' AND target_id = $1`,
      [guid],
    );
    expect(made!.details).toMatchObject({ with: 'password and code' });
  });

  test('registers with a recovery code, once', async () => {
    const [one, other] = await person.enrol();
    await person.register({ code: one!.toLowerCase() });
    expect(await ending(person.register({ code: one! }))).toBe('second_factor_needed');
    expect(await ending(person.register({ code: other! }))).toBe('done');
  });

  test('who has none where one is needed is told to set it up first', async () => {
    const need = (value: boolean) =>
      world.query(
        `INSERT INTO organization_settings (tenant_id, organization_id, name, value) VALUES ($1, $2, 'signIn.twoFactor', $3)
             ON CONFLICT (organization_id, name) DO UPDATE SET value = $3`,
        [world.tenant, world.root, JSON.stringify(value)],
      );
    await need(true);
    const told = await problemOf(person.register({ code: '123456' }));
    await need(false);
    expect([told.code, told.extras]).toEqual(['second_factor_needed', { setUpFirst: true }]);
    expect(await ending(person.register({ code: '123456' }))).toBe('done'); // there is none to judge it by
  });

  test('waits after ten wrong codes, at every door, and a right one is not seen to be right', async () => {
    await person.enrol();
    for (let i = 0; i < failuresMax; i++) {
      const try_ = i % 2 ? person.register({ code: '000000' }) : list({ code: '000000' });
      expect(await ending(try_)).toBe('second_factor_needed');
    }
    const code = person.code();
    expect(await ending(person.register({ code }))).toBe('too_many_requests');
    expect(await ending(list({ code }))).toBe('too_many_requests');
    expect(await guids()).toEqual([]);
  });

  test('keeps the code where nothing came of it', async () => {
    await person.enrol();
    const code = person.code();
    expect(await ending(person.register({ code, replace: '1' }))).toBe('not_found');
    expect(await ending(person.register({ code }))).toBe('done');
  });

  test('of two installations with one code at the same moment, one is registered', async () => {
    await person.enrol();
    const code = person.code();
    const both = await Promise.all([1, 2].map(() => ending(person.register({ code, token: newToken() }))));
    expect(both.sort()).toEqual(['done', 'second_factor_needed']);
    expect(await guids()).toHaveLength(1);
  });
});

test('a password that is changed while a registration is under way lets nobody in', async () => {
  const { database } = world;
  // Between judging and the transaction.
  const changing = {
    ...database,
    transaction: async (work: Parameters<typeof database.transaction>[0]) => {
      await world.query(`UPDATE users SET password_hash = 'another' WHERE user_id = $1`, [person.user]);
      return database.transaction(work);
    },
  } as typeof database;
  expect(await ending(person.register({}, { ...world.directory, database: changing }))).toBe('sign_in_failed');
  expect(await guids()).toEqual([]);
});

describe('a second factor that was not there when the sign-in was judged', () => {
  /** What happens between judging and the transaction, where a key service may take seconds. */
  const meanwhile = (happens: () => Promise<unknown>) => {
    const { database } = world;
    const transaction = async (work: Parameters<typeof database.transaction>[0]) => {
      await happens();
      return database.transaction(work);
    };
    return { ...world.directory, database: { ...database, transaction } as typeof database };
  };
  const want = (value: boolean) =>
    world.query(
      `INSERT INTO organization_settings (tenant_id, organization_id, name, value) VALUES ($1, $2, 'signIn.twoFactor', $3)
           ON CONFLICT (organization_id, name) DO UPDATE SET value = $3`,
      [world.tenant, world.root, JSON.stringify(value)],
    );
  const raising = (directory = world.directory) =>
    signInAt(directory, { id: world.tenant }, person.signIn, home.address);

  test('is asked for when it is in force by then', async () => {
    const enrolling = meanwhile(() => person.enrol());
    const refused = await problemOf(person.register({}, enrolling));
    expect([refused.code, refused.extras]).toEqual(['second_factor_needed', {}]);
    expect(await guids()).toEqual([]);
    expect(await ending(person.register({ code: person.code() }))).toBe('done');
    person = await registering.person();
    expect(await ending(raising(meanwhile(() => person.enrol())))).toBe('second_factor_needed');
    person = await registering.person();
    expect(
      await ending(
        list(
          {},
          meanwhile(() => person.enrol()),
        ),
      ),
    ).toBe('second_factor_needed');
  });

  test('has to be set up when it is wanted by then', async () => {
    const wanting = meanwhile(() => want(true));
    const told: unknown[] = [];
    for (const door of [() => person.register({}, wanting), () => raising(wanting), () => list({}, wanting)]) {
      const { code, extras } = await problemOf(door());
      told.push([code, extras]);
      await want(false);
    }
    expect(told).toEqual(Array.from({ length: 3 }, () => ['second_factor_needed', { setUpFirst: true }]));
    expect(await guids()).toEqual([]);
    expect([await ending(person.register()), await ending(raising())]).toEqual(['done', 'done']);
  });

  test('raises nothing for somebody who was blocked meanwhile', async () => {
    const blocking = meanwhile(() =>
      world.query(`UPDATE users SET state = 'blocked' WHERE user_id = $1`, [person.user]),
    );
    expect(await ending(raising(blocking))).toBe('sign_in_failed');
  });
});

describe('looking at the devices there are', () => {
  test('uses the code up, and answers another to register with', async () => {
    const { guid } = await person.register();
    await person.enrol();
    expect(await ending(list())).toBe('second_factor_needed');
    const code = person.code();
    const { devices, registrationCode } = await list({ code });
    expect(devices.map((each) => each.guid)).toEqual([guid]);
    expect(await ending(list({ code }))).toBe('second_factor_needed');
    expect(await ending(person.register({ code }))).toBe('second_factor_needed');
    expect((await register(world.directory, { registrationCode, replace: guid })).guid).toBe(guid);
    expect(await ending(register(world.directory, { registrationCode }))).toBe('sign_in_failed');
  });

  test('answers none where no code was needed, and none for a registration code, which stays good', async () => {
    expect(await list()).toEqual({ devices: [] });
    const registrationCode = await person.makeCode();
    const look = () => listReplaceable(world.directory, { registrationCode }, home.address);
    expect([await look(), await look()]).toEqual([{ devices: [] }, { devices: [] }]);
    expect(await ending(register(world.directory, { registrationCode }))).toBe('done');
    expect(await ending(look())).toBe('sign_in_failed');
  });

  test('answers a code for ten minutes, at most five of them', async () => {
    const codes = await person.enrol();
    const answered: string[] = [];
    for (const code of codes.slice(0, 6)) answered.push((await list({ code })).registrationCode!);
    const left = await world.query<{ minutes: number }>(
      'SELECT extract(epoch FROM expires_at - made_at)::int / 60 AS minutes FROM registration_codes WHERE user_id = $1',
      [person.user],
    );
    expect(left).toEqual(Array.from({ length: 5 }, () => ({ minutes: 10 })));
    const use = (registrationCode: string) => ending(register(world.directory, { registrationCode }));
    expect([await use(answered[0]!), await use(answered[1]!)]).toEqual(['sign_in_failed', 'done']);
  });

  test('answers the same when a COMMIT had an unknown outcome', async () => {
    await person.enrol();
    const directory = { ...world.directory, database: losing(world.database) };
    const { registrationCode } = await list({ code: person.code() }, directory);
    expect(await ending(register(world.directory, { registrationCode }))).toBe('done');
  });
});

describe('a registration that comes again', () => {
  test('with the code that it used gets the device it made', async () => {
    await person.enrol();
    const [code, token] = [person.code(), newToken()];
    const first = await person.register({ code, token });
    const again = await person.register({ code, token });
    expect(again).toEqual(first);
    expect(first.token).toBe(token);
    expect(await guids()).toEqual([first.guid]);
    const acts = await world.query<{ action: string }>(
      `SELECT action FROM acts WHERE target_id = $1 AND target_kind = 'device' AND action LIKE 'device.%' ORDER BY number`,
      [first.guid],
    );
    expect(acts.map(({ action }) => action)).toEqual(['device.register', 'device.register_again']);
    // With another token it is a code that was used.
    expect(await ending(person.register({ code, token: newToken() }))).toBe('second_factor_needed');
    expect(await ending(person.register({ code }))).toBe('second_factor_needed');
  });

  test('with another code uses that up', async () => {
    await person.enrol();
    const token = newToken();
    const first = await person.register({ code: person.code(), token });
    const next = person.code(1);
    expect(await person.register({ code: next, token })).toEqual(first);
    expect(await ending(person.register({ code: next }))).toBe('second_factor_needed');
    expect(await guids()).toEqual([first.guid]);
  });

  test('without a code, or with a wrong one, gets nothing, and wrong ones are counted', async () => {
    await person.enrol();
    const [code, token] = [person.code(), newToken()];
    await person.register({ code, token });
    expect(await ending(person.register({ token }))).toBe('second_factor_needed');
    for (let i = 0; i < failuresMax; i++)
      expect(await ending(person.register({ code: '000000', token }))).toBe('second_factor_needed');
    expect(await ending(person.register({ code, token }))).toBe('too_many_requests');
  });

  test('does not make anything forgotten that failed before', async () => {
    await person.enrol();
    const [code, token] = [person.code(), newToken()];
    await person.register({ code, token });
    const wrong = () => ending(person.register({ code: '000000' }));
    for (let i = 0; i < failuresMax - 1; i++) expect(await wrong()).toBe('second_factor_needed');
    for (let i = 0; i < 3; i++) expect(await ending(person.register({ code, token }))).toBe('done');
    expect(await wrong()).toBe('second_factor_needed');
    expect(await wrong()).toBe('too_many_requests');
    expect(await ending(person.register({ code, token }))).toBe('too_many_requests');
  });

  test('of a device that is active no more is a code that was used, and counted as one', async () => {
    await person.enrol();
    const [code, token] = [person.code(), newToken()];
    const { guid } = await person.register({ code, token });
    await world.query(`UPDATE devices SET state = 'deauthorized' WHERE guid = $1::bigint`, [guid]);
    for (let i = 0; i < failuresMax; i++)
      expect(await ending(person.register({ code, token }))).toBe('second_factor_needed');
    expect(await ending(person.register({ code, token }))).toBe('too_many_requests');
  });

  test('is known by its code for a day', async () => {
    await person.enrol();
    const [code, token] = [person.code(), newToken()];
    const { guid } = await person.register({ code, token });
    const age = (by: string) =>
      world.query(`UPDATE devices SET created_at = now() - interval '${by}' WHERE guid = $1::bigint`, [guid]);
    await age('23 hours 59 minutes');
    expect(await ending(person.register({ code, token }))).toBe('done');
    await age('24 hours');
    expect(await ending(person.register({ code, token }))).toBe('second_factor_needed');
  });

  test('is made once when a COMMIT had an unknown outcome', async () => {
    await person.enrol();
    const directory = { ...world.directory, database: losing(world.database) };
    const [code, token] = [person.code(), newToken()];
    const first = await person.register({ code, token }, directory);
    expect(await person.register({ code, token }, directory)).toEqual(first);
    const later = await person.register({ code: person.code(1), token }, directory);
    expect(later).toEqual(first);
    expect(await guids()).toEqual([first.guid]);
  });
});
