import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { Secret } from 'otpauth';
import { loadActor } from '../sessions/actor.ts';
import type { SessionTokens } from '../sessions/sessions.ts';
import { signInAt } from '../sign-in.ts';
import { ending, home, password, problemOf, signInWorld, type World } from '../test-world.ts';
import { generator, judgeCode, newRecoveryCodes, secretContext, stepOfCode, takeCode } from './codes.ts';
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
let user: number;
let name: string;
let of: { tenant: number; user: number };
let tokens: SessionTokens;
let secret: Buffer;
let made = 0;

beforeAll(async () => {
  world = await signInWorld();
});
afterAll(() => world?.close());
beforeEach(async () => {
  name = `user${++made}`;
  user = await world.addUser(name);
  of = { tenant: world.tenant, user };
  tokens = await world.signIn(name);
});

/** As the user's phone does: what the secret shows now, or some steps away. */
const codeOf = (steps = 0): string => generator(secret).generate({ timestamp: Date.now() + steps * 30_000 });
/** Codes used so far do not count: as if time had passed since. */
const laterOn = () => world.query('UPDATE second_factors SET last_step = last_step - 10 WHERE user_id = $1', [user]);

async function begin(): Promise<void> {
  const drawn = await drawSecondFactor(world.directory, of, name);
  await world.database.transaction((tx) => beginSecondFactor(tx, world.by, of, drawn));
  secret = Buffer.from(Secret.fromBase32(drawn.shown.secret).bytes);
}
const confirm = (code = codeOf(), session = tokens.session, drawn = newRecoveryCodes()) =>
  confirmSecondFactor(world.directory, world.by, { of, session, code }, home.address, drawn);
async function enrol(): Promise<string[]> {
  await begin();
  const { recoveryCodes } = await confirm();
  await laterOn();
  return recoveryCodes;
}
const require = (value: boolean) =>
  world.query(
    `INSERT INTO organization_settings (tenant_id, organization_id, name, value) VALUES ($1, $2, 'signIn.twoFactor', $3)
         ON CONFLICT (organization_id, name) DO UPDATE SET value = $3`,
    [world.tenant, world.root, JSON.stringify(value)],
  );
const whyRefused = async (accessToken: string) => (await loadActor(world.database, accessToken)).refused;

describe('the code of a moment', () => {
  // RFC 6238, appendix B, in six digits.
  test.each([
    [59, '287082'],
    [1_111_111_109, '081804'],
    [20_000_000_000, '353130'],
  ])('at second %d is %s', (seconds, code) => {
    const made = generator(Buffer.from('12345678901234567890', 'ascii'));
    expect(made.generate({ timestamp: seconds * 1_000 })).toBe(code);
  });
});

describe('a second factor', () => {
  test('counts from its confirmation, and is asked for from then on', async () => {
    await begin();
    expect(await ending(world.signIn(name))).toBe('done');
    expect(await readSecondFactorState(world.database, of)).toEqual({
      state: 'begun',
      since: null,
      recoveryCodesLeft: 0,
    });
    const { recoveryCodes } = await confirm();
    expect(new Set(recoveryCodes).size).toBe(10);
    expect(await readSecondFactorState(world.database, of)).toMatchObject({ state: 'inForce', recoveryCodesLeft: 10 });
    const asked = await problemOf(world.signIn(name));
    expect(asked.code).toBe('second_factor_needed');
    await laterOn();
    expect(await ending(world.signIn(name, { code: codeOf() }))).toBe('done');
    expect((await world.acts('session.create')).at(-1)!.details).toEqual({ with: 'password and code' });
  });

  test('is nothing to whoever has the wrong password', async () => {
    await enrol();
    expect(await ending(world.signIn(name, { password: 'wrong', code: codeOf() }))).toBe('sign_in_failed');
    expect(await ending(world.signIn(name, { code: codeOf() }))).toBe('done');
  });

  test('is shown once, and is stored sealed for its user alone', async () => {
    await begin();
    const [row] = await world.query<{ secret: Buffer }>('SELECT secret FROM second_factors WHERE user_id = $1', [user]);
    expect(row!.secret.includes(secret)).toBe(false);
    expect(await world.directory.keys.unseal(row!.secret, secretContext(of))).toEqual(secret);
    await expect(world.directory.keys.unseal(row!.secret, secretContext({ ...of, user: user + 1 }))).rejects.toThrow();
  });

  test('is confirmed by a code of it, not by one of the secret before', async () => {
    await begin();
    const before = codeOf();
    await begin();
    expect(await ending(confirm(before))).toBe('second_factor_needed');
    expect(await ending(confirm('000000'))).toBe('second_factor_needed');
    expect(await ending(confirm())).toBe('done');
    expect(await ending(begin())).toBe('conflict');
    expect(await ending(confirm())).toBe('second_factor_needed');
  });

  test('confirmed twice by one request, after a COMMIT of unknown outcome, has the same recovery codes', async () => {
    await begin();
    const drawn = newRecoveryCodes();
    expect(await confirm(codeOf(), tokens.session, drawn)).toEqual({ recoveryCodes: drawn });
    await laterOn();
    const again = { ...world.directory, database: { ...world.database } };
    // The database confirms it, and the connection is lost: the transaction is run again.
    again.database.transaction = async (work) => {
      await world.database.transaction(work);
      return world.database.transaction(work);
    };
    await renewRecoveryCodes(again, world.by, { of, code: codeOf() }, home.address, drawn);
    expect(await readSecondFactorState(world.database, of)).toMatchObject({ recoveryCodesLeft: 10 });
  });
});

describe('a code', () => {
  test.each<[off: string, seconds: number, step: number | null]>([
    ['the end of the step but one before', 1_000_019.999, null],
    ['the beginning of the step before', 1_000_020, 33_335],
    ['its first moment', 1_000_050, 33_335],
    ['its last moment', 1_000_079.999, 33_335],
    ['the end of the step after', 1_000_109.999, 33_335],
    ['the beginning of the step but one after', 1_000_110, null],
  ])('of step 33335 at %s', (_off, seconds, step) => {
    const of = Buffer.alloc(20, 7);
    const token = generator(of).generate({ timestamp: 1_000_060_000 });
    expect(stepOfCode(of, token, seconds * 1_000)).toBe(step);
  });

  test('is good once, and none before it is good any more', async () => {
    await enrol();
    const [before, now] = [codeOf(-1), codeOf()];
    expect(await ending(world.signIn(name, { code: now }))).toBe('done');
    expect(await ending(world.signIn(name, { code: now }))).toBe('second_factor_needed');
    expect(await ending(world.signIn(name, { code: before }))).toBe('second_factor_needed');
  });

  test('that comes twice at once lets one in', async () => {
    await enrol();
    const code = codeOf();
    const both = await Promise.all([ending(world.signIn(name, { code })), ending(world.signIn(name, { code }))]);
    expect(both.sort()).toEqual(['done', 'second_factor_needed']);
  });

  test('that was judged right twice is used up once', async () => {
    await enrol();
    const judge = () => judgeCode(world.directory, of, codeOf(), { address: home.address, confirmed: true });
    const [first, second] = [await judge(), await judge()];
    const take = (code: NonNullable<typeof first>) => world.database.transaction((tx) => takeCode(tx, of, code));
    expect([await take(first!), await take(second!)]).toEqual([true, false]);
  });

  test.each(['', '12345', '1234567', 'abcdef', '१२३४५६', '000000\0', `${'1'.repeat(64)}`])(
    'is not %j',
    async (code) => {
      await enrol();
      expect(await ending(world.signIn(name, { code }))).toBe('second_factor_needed');
    },
  );

  test('may be typed with a space', async () => {
    await enrol();
    const code = codeOf();
    expect(await ending(world.signIn(name, { code: `${code.slice(0, 3)} ${code.slice(3)}` }))).toBe('done');
  });

  test('cannot be guessed: after ten wrong ones the right one waits too, and wrong passwords are counted apart', async () => {
    await enrol();
    const wrong = codeOf() === '000000' ? '000001' : '000000';
    const from = { address: '198.51.100.1' };
    for (let i = 0; i < 10; i++)
      expect(await ending(world.signIn(name, { code: wrong }, from))).toBe('second_factor_needed');
    expect(await ending(world.signIn(name, { code: codeOf() }, from))).toBe('too_many_requests');
    expect(await ending(world.signIn(name, {}, from))).toBe('second_factor_needed');
    expect(await ending(world.signIn(name, { code: codeOf() }))).toBe('done');
  });

  test('is not lost when the key service is away', async () => {
    await enrol();
    const away = {
      ...world.directory,
      keys: { ...world.directory.keys, unseal: () => Promise.reject(new Error('away')) },
    };
    const judge = () => judgeCode(away, of, codeOf(), { address: home.address, confirmed: true });
    for (let i = 0; i < 12; i++) await expect(judge()).rejects.toThrow('away');
    expect(await ending(world.signIn(name, { code: codeOf() }))).toBe('done');
  });
});

describe('recovery codes', () => {
  test('sign in once each, however they are typed', async () => {
    const codes = await enrol();
    const typed = codes[0]!.toLowerCase().replaceAll('-', ' ');
    expect(await ending(world.signIn(name, { code: typed }))).toBe('done');
    expect((await world.acts('session.create')).at(-1)!.details).toEqual({ with: 'password and recovery code' });
    expect(await ending(world.signIn(name, { code: codes[0]! }))).toBe('second_factor_needed');
    expect(await ending(world.signIn(name, { code: codes[1]! }))).toBe('done');
    expect(await readSecondFactorState(world.database, of)).toMatchObject({ recoveryCodesLeft: 8 });
  });

  test('are another user’s, not this one’s', async () => {
    const codes = await enrol();
    name = `${name} two`;
    user = await world.addUser(name);
    of = { tenant: world.tenant, user };
    tokens = await world.signIn(name);
    await enrol();
    expect(await ending(world.signIn(name, { code: codes[0]! }))).toBe('second_factor_needed');
  });

  test('are replaced all together, with a code', async () => {
    const codes = await enrol();
    const renew = (code: string) => renewRecoveryCodes(world.directory, world.by, { of, code }, home.address);
    expect(await ending(renew('000000'))).toBe('second_factor_needed');
    const { recoveryCodes } = await renew(codeOf());
    expect(await ending(world.signIn(name, { code: codes[1]! }))).toBe('second_factor_needed');
    expect(await ending(world.signIn(name, { code: recoveryCodes[1]! }))).toBe('done');
  });

  test('are not kept in the clear, and each has a letter', async () => {
    const codes = await enrol();
    const stored = JSON.stringify(await world.query('SELECT r::text AS text FROM recovery_codes r'));
    for (const code of codes) {
      expect(stored).not.toContain(code);
      expect(code).toMatch(/^(?=.*[A-Z])([2-9A-HJ-NP-Z]{4}-){3}[2-9A-HJ-NP-Z]{4}$/);
    }
  });
});

describe('where the organization wants a second factor', () => {
  beforeEach(() => require(true));
  afterAll(() => require(false));

  test('a user without one gets a session that can only set one up, and then can all', async () => {
    tokens = await world.signIn(name);
    expect(tokens.limited).toBe(true);
    expect(await loadActor(world.database, tokens.accessToken)).toMatchObject({ refused: null, limited: true });
    const other = await world.signIn(name);
    await begin();
    await confirm();
    expect(await loadActor(world.database, tokens.accessToken)).toMatchObject({ refused: null, limited: false });
    expect(await whyRefused(other.accessToken)).toBe('revoked');
    await laterOn();
    expect(await world.signIn(name, { code: codeOf() })).toMatchObject({ limited: false });
  });

  test('a setting that cannot be read is taken for yes', async () => {
    await world.query(`UPDATE organization_settings SET value = '"perhaps"' WHERE name = 'signIn.twoFactor'`);
    expect((await world.signIn(name)).limited).toBe(true);
  });

  test('whoever signs in to register a device gives a code, which is good once', async () => {
    const device = (code?: string) =>
      signInAt(
        world.directory,
        { registrationKey: world.registrationKey },
        { userName: name, password, code },
        home.address,
      );
    expect((await problemOf(device())).extras).toEqual({ setUpFirst: true });
    await enrol();
    const asked = await problemOf(device());
    expect([asked.code, asked.extras]).toEqual(['second_factor_needed', {}]);
    const code = codeOf();
    expect([await ending(device(code)), await ending(device(code))]).toEqual(['done', 'second_factor_needed']);
  });
});

describe('a second factor is taken away', () => {
  const remove = (code: string) =>
    removeSecondFactor(world.directory, world.by, { of, session: tokens.session, code }, home.address);
  const reset = (whose = of) => world.database.transaction((tx) => resetSecondFactor(tx, world.by, whose));

  test('by its user with a code, and other sessions end', async () => {
    await enrol();
    const other = await world.signIn(name, { code: codeOf() });
    await laterOn();
    expect(await ending(remove('000000'))).toBe('second_factor_needed');
    expect(await ending(remove(codeOf()))).toBe('done');
    expect([await whyRefused(tokens.accessToken), await whyRefused(other.accessToken)]).toEqual([null, 'revoked']);
    expect(await ending(world.signIn(name))).toBe('done');
    expect(await ending(remove(codeOf()))).toBe('second_factor_needed');
  });

  test('by an administrator without one, and all sessions end', async () => {
    await enrol();
    expect(await ending(reset({ ...of, tenant: world.tenant + 1_000 }))).toBe('not_found');
    expect(await ending(reset())).toBe('done');
    expect(await whyRefused(tokens.accessToken)).toBe('revoked');
    expect(await readSecondFactorState(world.database, of)).toEqual({
      state: 'none',
      since: null,
      recoveryCodesLeft: 0,
    });
    const before = (await world.acts('second_factor.reset')).length;
    await reset();
    expect(await world.acts('second_factor.reset')).toHaveLength(before);
  });

  test('and nothing of it is in the log but that', async () => {
    const codes = await enrol();
    const acts = JSON.stringify(await world.query('SELECT a::text AS text FROM acts a'));
    for (const each of [...codes, secret.toString('hex')]) expect(acts).not.toContain(each);
  });
});
