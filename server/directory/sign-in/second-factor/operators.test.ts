/** The second factor of those who run the server, through every door they have. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { Secret } from 'otpauth';
import type { By } from '../../audit/act.ts';
import type { Directory } from '../../directory.ts';
import { admitOperator } from '../operators/basic-sign-in.ts';
import { isOperatorLimited, loadActor } from '../sessions/actor.ts';
import { signInOperator } from '../sessions/begin.ts';
import { refreshSession } from '../sessions/refresh.ts';
import type { SessionTokens } from '../sessions/sessions.ts';
import { drawTokens } from '../sessions/tokens-of-session.ts';
import { ending, home, password, signInWorld, type World } from '../test-world.ts';
import { generator, secretContext } from './codes.ts';
import {
  beginSecondFactor,
  confirmSecondFactor,
  drawSecondFactor,
  readSecondFactorState,
  removeSecondFactor,
  renewRecoveryCodes,
  resetSecondFactor,
} from './second-factor.ts';

let world: World;
let by: By;
/** Where the server wants a second factor of its operators. */
let strict: Directory;
let name: string;
let of: { operator: number };
let tokens: SessionTokens;
let secret: Buffer;
let made = 0;

beforeAll(async () => {
  world = await signInWorld();
  by = { ...world.by, tenant: null };
  strict = { ...world.directory, operatorSecondFactor: true };
});
afterAll(() => world?.close());
beforeEach(async () => {
  name = `operator${++made}`;
  const [row] = await world.query<{ operator: number }>(
    'INSERT INTO operators (name, password_hash) VALUES ($1, $2) RETURNING operator_id AS operator',
    [name, world.passwordHash],
  );
  of = row!;
  tokens = await signIn();
});

const signIn = (given: { code?: string; password?: string; newPassword?: string } = {}, directory = world.directory) =>
  signInOperator(directory, { userName: name, password, ...given }, home, drawTokens());
const basic = (directory = world.anotherReplica()) =>
  ending(admitOperator(directory, { userName: name, password }, home.address));
const codeOf = (steps = 0): string => generator(secret).generate({ timestamp: Date.now() + steps * 30_000 });
const laterOn = () =>
  world.query('UPDATE operator_second_factors SET last_step = last_step - 10 WHERE operator_id = $1', [of.operator]);
const confirm = (code = codeOf(), session = tokens.session) =>
  confirmSecondFactor(world.directory, by, { of, session, code }, home.address);
async function enrol(): Promise<string[]> {
  const drawn = await drawSecondFactor(world.directory, of, name);
  await world.database.transaction((tx) => beginSecondFactor(tx, by, of, drawn));
  secret = Buffer.from(Secret.fromBase32(drawn.shown.secret).bytes);
  const { recoveryCodes } = await confirm();
  await laterOn();
  return recoveryCodes;
}
/** `limited`, `full` or why it is refused. */
async function standing(accessToken: string, directory = world.directory): Promise<string> {
  const loaded = await loadActor(world.database, accessToken);
  if (loaded.refused !== null) return loaded.refused;
  if (loaded.actor) throw new Error('this is no operator');
  return isOperatorLimited(directory, loaded) ? 'limited' : 'full';
}

test('is asked for from its confirmation on; sessions that did not show a code end, but the one that set it up', async () => {
  const other = await signIn();
  await enrol();
  expect([await standing(tokens.accessToken), await standing(other.accessToken)]).toEqual(['full', 'revoked']);
  expect(await readSecondFactorState(world.database, of)).toMatchObject({ state: 'inForce', recoveryCodesLeft: 10 });
  const endings = [
    ending(signIn()),
    ending(signIn({ code: '000000' })),
    ending(signIn({ password: 'x', code: codeOf() })),
  ];
  expect(await Promise.all(endings)).toEqual(['second_factor_needed', 'second_factor_needed', 'sign_in_failed']);
  const code = codeOf();
  expect([await ending(signIn({ code })), await ending(signIn({ code }))]).toEqual(['done', 'second_factor_needed']);
  expect((await world.acts('session.create')).at(-2)).toMatchObject({
    party: name,
    details: { with: 'password and code' },
  });
});

test('recovery codes sign in once each, and are made anew with a code', async () => {
  const codes = await enrol();
  expect([await ending(signIn({ code: codes[0]! })), await ending(signIn({ code: codes[0]! }))]).toEqual([
    'done',
    'second_factor_needed',
  ]);
  const renewed = await renewRecoveryCodes(world.directory, by, { of, code: codeOf() }, home.address);
  expect(await ending(signIn({ code: codes[1]! }))).toBe('second_factor_needed');
  expect(await ending(signIn({ code: renewed.recoveryCodes[1]! }))).toBe('done');
});

test('is sealed for its operator alone: a user of the same number does not open it', async () => {
  await enrol();
  const [row] = await world.query<{ secret: Buffer }>(
    'SELECT secret FROM operator_second_factors WHERE operator_id = $1',
    [of.operator],
  );
  expect(await world.directory.keys.unseal(row!.secret, secretContext(of))).toEqual(secret);
  const sameNumber = secretContext({ tenant: world.tenant, user: of.operator });
  await expect(world.directory.keys.unseal(row!.secret, sameNumber)).rejects.toThrow();
});

test('of an operator and of a user with the same number have nothing to do with one another', async () => {
  await world.query(`SELECT setval(pg_get_serial_sequence('users', 'user_id'), 5000)`);
  const user = await world.addUser('same number');
  name = 'same number';
  of = { operator: user };
  await world.query(
    'INSERT INTO operators (operator_id, name, password_hash) OVERRIDING SYSTEM VALUE VALUES ($1, $2, $3)',
    [user, name, world.passwordHash],
  );
  tokens = await signIn();
  const ofUser = await world.signIn(name);
  await enrol();
  expect(await ending(world.signIn(name))).toBe('done');
  expect((await loadActor(world.database, ofUser.accessToken)).refused).toBeNull();
  expect(await readSecondFactorState(world.database, { tenant: world.tenant, user })).toMatchObject({ state: 'none' });
});

test('cannot be guessed: after ten wrong ones the right one waits', async () => {
  await enrol();
  const wrong = codeOf() === '000000' ? '000001' : '000000';
  const elsewhere = { address: '198.51.100.9', program: null };
  const from = (code: string) =>
    ending(signInOperator(world.directory, { userName: name, password, code }, elsewhere, drawTokens()));
  for (let i = 0; i < 10; i++) expect(await from(wrong)).toBe('second_factor_needed');
  expect(await from(codeOf())).toBe('too_many_requests');
});

test('put into force while a sign-in without a code was under way: that one is refused', async () => {
  let once = false;
  const meanwhile: Directory = {
    ...world.directory,
    passwords: {
      ...world.directory.passwords,
      verify: async (...args) => {
        const right = await world.directory.passwords.verify(...args);
        if (!once) await enrol();
        once = true;
        return right;
      },
    },
  };
  expect(await ending(signIn({}, meanwhile))).toBe('second_factor_needed');
});

describe('HTTP Basic, which brings a password alone', () => {
  test('is refused from the moment a second factor is in force, also while the password is known', async () => {
    const replica = world.anotherReplica();
    expect(await basic(replica)).toBe('done');
    await enrol();
    expect([await basic(replica), await basic()]).toEqual(['second_factor_needed', 'second_factor_needed']);
    const acts = (await world.acts('operator.sign_in')).filter(({ party }) => party === name);
    expect(acts).toMatchObject([{ result: 'done' }, { result: 'refused', details: { why: 'no code' } }]);
  });

  test('does not make an address known to the account', async () => {
    await enrol();
    await world.query('DELETE FROM sign_in_addresses');
    expect(await basic()).toBe('second_factor_needed');
    expect(await world.query('SELECT 1 FROM sign_in_addresses')).toEqual([]);
  });

  test('is refused to all where the server wants a second factor', async () => {
    expect(await basic({ ...world.anotherReplica(), operatorSecondFactor: true })).toBe('second_factor_needed');
  });
});

describe('where the server wants a second factor', () => {
  test('one without gets a session that can only set one up, and then can all', async () => {
    tokens = await signIn({}, strict);
    expect([tokens.limited, await standing(tokens.accessToken, strict)]).toEqual([true, 'limited']);
    await enrol();
    expect(await standing(tokens.accessToken, strict)).toBe('full');
    expect(await signIn({ code: codeOf() }, strict)).toMatchObject({ limited: false });
  });

  test('sessions from before are asked at their next request, and told at their next refresh', async () => {
    expect(await standing(tokens.accessToken, strict)).toBe('limited');
    const refresh = (directory: Directory) =>
      refreshSession(directory, tokens.refreshToken, drawTokens(), home.address);
    tokens = await refresh(strict);
    expect(tokens.limited).toBe(true);
    expect(await standing(tokens.accessToken)).toBe('limited'); // as the session says by now
    tokens = await refresh(world.directory);
    expect([tokens.limited, await standing(tokens.accessToken)]).toEqual([false, 'full']);
  });

  test('whoever takes theirs away can do nothing but set up another', async () => {
    await enrol();
    await removeSecondFactor(strict, by, { of, session: tokens.session, code: codeOf() }, home.address);
    expect(await standing(tokens.accessToken, strict)).toBe('limited');
  });
});

test('is taken away for whoever has lost it, and their sessions end', async () => {
  await enrol();
  const reset = () => world.database.transaction((tx) => resetSecondFactor(tx, by, of));
  await reset();
  expect([await standing(tokens.accessToken), await ending(signIn())]).toEqual(['revoked', 'done']);
  await reset();
  const acts = (await world.acts('second_factor.reset')).filter(({ details }) => details.operator === of.operator);
  expect(acts).toMatchObject([{ details: { name, sessions: 1 } }]);
  const nobody = world.database.transaction((tx) => resetSecondFactor(tx, by, { operator: 999_999 }));
  expect(await ending(nobody)).toBe('not_found');
});
