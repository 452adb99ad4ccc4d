import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { failuresMax, longestWaitMinutes, readSignInFailures, unlockUser } from './lockout.ts';
import { changePassword } from './password-changes/password-changes.ts';
import { signInUser } from './sessions/begin.ts';
import { drawTokens } from './sessions/tokens-of-session.ts';
import { signInAt } from './sign-in.ts';
import { sweepSignIn } from './sweep.ts';
import { ending, home, password, problemOf, signInWorld, type World } from './test-world.ts';

let world: World;
let user: number;
let name: string;
let made = 0;
const elsewhere = '198.51.100.7';
const alsoElsewhere = '203.0.113.9';

beforeAll(async () => {
  world = await signInWorld();
});
afterAll(() => world?.close());
beforeEach(async () => {
  name = `user${++made}`;
  user = await world.addUser(name);
});

const attempt = (given: string, address: string, userName = name) =>
  ending(world.signIn(userName, { password: given }, { address }));
const guess = (address: string, userName = name) => attempt('a wrong one', address, userName);
/** Wrong ones until the account waits. */
async function lock(address: string, userName = name): Promise<void> {
  for (let i = 0; i < failuresMax; i++) expect(await guess(address, userName)).toBe('sign_in_failed');
}
const passTime = (interval: string) =>
  world.query(
    `UPDATE sign_in_failures SET locked_until = locked_until - $1::interval, last_at = last_at - $1::interval`,
    [interval],
  );

describe('an account', () => {
  test('waits after ten wrong passwords in a row, whatever the next one is', async () => {
    await lock(elsewhere);
    const waits = await problemOf(world.signIn(name, {}, { address: elsewhere }));
    expect(waits.code).toBe('too_many_requests');
    expect(waits.extras.retryAfterSeconds).toBeGreaterThan(30);
    expect(waits.extras.retryAfterSeconds).toBeLessThanOrEqual(60);
    const wrong = await problemOf(world.signIn(name, { password: 'wrong' }, { address: elsewhere }));
    expect(wrong.message).toBe(waits.message);
    await passTime('1 minute');
    expect(await attempt(password, elsewhere)).toBe('done');
  });

  test('does not wait after nine', async () => {
    for (let i = 1; i < failuresMax; i++) await guess(elsewhere);
    expect(await attempt(password, elsewhere)).toBe('done');
    expect(await readSignInFailures(world.database, user)).toEqual([]);
  });

  test('that is nobody’s waits just the same', async () => {
    await lock(elsewhere, 'nobody at all');
    const nobody = await problemOf(world.signIn('NOBODY at all', {}, { address: elsewhere }));
    await lock(elsewhere);
    const somebody = await problemOf(world.signIn(name, {}, { address: elsewhere }));
    expect(nobody.toJSON()).toEqual(somebody.toJSON());
  });

  test('waits longer with each further wrong one, an hour at most', async () => {
    await lock(elsewhere);
    const waits: number[] = [];
    for (let i = 0; i < 8; i++) {
      const { extras } = await problemOf(world.signIn(name, {}, { address: elsewhere }));
      waits.push(Math.ceil(extras.retryAfterSeconds! / 60));
      await world.query('UPDATE sign_in_failures SET locked_until = now()');
      expect(await guess(elsewhere)).toBe('sign_in_failed');
    }
    expect(waits).toEqual([1, 2, 4, 8, 16, 32, longestWaitMinutes, longestWaitMinutes]);
  });

  test('is counted anew after a day without a wrong one', async () => {
    await lock(elsewhere);
    await passTime('25 hours');
    expect(await guess(elsewhere)).toBe('sign_in_failed');
    expect(await guess(elsewhere)).toBe('sign_in_failed');
  });

  test('is judged ten times, when a hundred come at once to two replicas', async () => {
    const replicas = [world.directory, world.anotherReplica()];
    let judged = 0;
    const counting = replicas.map((directory) => ({
      ...directory,
      passwords: {
        ...directory.passwords,
        verify: (...args: Parameters<typeof directory.passwords.verify>) => {
          judged++;
          return directory.passwords.verify(...args);
        },
      },
    }));
    const all = await Promise.all(
      Array.from({ length: 100 }, (_, i) =>
        ending(
          signInUser(
            counting[i % 2]!,
            { userName: name, password: 'a wrong one' },
            { ...home, address: `198.51.100.${i}` },
            drawTokens(),
          ),
        ),
      ),
    );
    expect(judged).toBe(failuresMax);
    expect(all.filter((each) => each === 'sign_in_failed')).toHaveLength(failuresMax);
    expect(all.filter((each) => each === 'too_many_requests')).toHaveLength(100 - failuresMax);
  });

  test('cannot be kept from its owner at home by guessing from elsewhere', async () => {
    expect(await attempt(password, home.address)).toBe('done');
    await lock(elsewhere);
    // All other addresses together have one count.
    expect(await attempt(password, alsoElsewhere)).toBe('too_many_requests');
    expect(await attempt(password, home.address)).toBe('done');
    // And the owner's success gives nobody elsewhere new guesses.
    expect(await guess(elsewhere)).toBe('too_many_requests');
  });

  test('waits at home too, after wrong ones from there', async () => {
    expect(await attempt(password, home.address)).toBe('done');
    await lock(home.address);
    expect(await attempt(password, home.address)).toBe('too_many_requests');
    expect(await attempt(password, elsewhere)).toBe('done');
  });

  test('knows an address for 90 days, and sixteen of them', async () => {
    expect(await attempt(password, home.address)).toBe('done');
    await world.query(`UPDATE sign_in_addresses SET last_at = now() - interval '91 days'`);
    await lock(elsewhere);
    expect(await attempt(password, home.address)).toBe('too_many_requests');
    await passTime('1 minute');
    for (let i = 0; i < 17; i++) expect(await attempt(password, `192.0.2.${100 + i}`)).toBe('done');
    const known = await world.query<{ address: string }>(
      'SELECT address FROM sign_in_addresses WHERE account_sha256 IN (SELECT account_sha256 FROM sign_in_addresses WHERE address = $1)',
      ['192.0.2.116'],
    );
    expect(known).toHaveLength(16);
    expect(known.map(({ address }) => address)).not.toContain('192.0.2.100');
  });

  test('is unlocked by an administrator, who sees what happened', async () => {
    await lock(elsewhere);
    const [seen] = await readSignInFailures(world.database, user);
    expect(seen).toMatchObject({ what: 'password', known: false, failures: 10, lockedUntil: expect.any(Date) });
    const unlock = (of: { tenant: number; user: number }) =>
      world.database.transaction((tx) => unlockUser(tx, world.by, of));
    expect(await ending(unlock({ tenant: world.tenant + 1_000, user }))).toBe('not_found');
    expect(await attempt(password, elsewhere)).toBe('too_many_requests');
    await unlock({ tenant: world.tenant, user });
    expect((await world.acts('user.unlock')).at(-1)!.details).toEqual({ failures: 10 });
    expect(await attempt(password, elsewhere)).toBe('done');
  });

  test('waits by every door once it waits by one', async () => {
    await lock(elsewhere);
    const { directory, registrationKey } = world;
    const doors = [
      signInAt(directory, { registrationKey }, { userName: name, password }, elsewhere),
      changePassword(
        directory,
        world.by,
        { tenant: world.tenant, user, session: 0, password, newPassword: 'a mare of no colour' },
        elsewhere,
      ),
    ];
    expect(await Promise.all(doors.map(ending))).toEqual(['too_many_requests', 'too_many_requests']);
  });

  test('loses nothing by attempts that were not judged', async () => {
    const busy = {
      ...world.directory,
      passwords: { ...world.directory.passwords, verify: () => Promise.reject(new Error('busy')) },
    };
    for (let i = 0; i < failuresMax * 2; i++)
      await expect(signInUser(busy, { userName: name, password }, home, drawTokens())).rejects.toThrow('busy');
    expect(await attempt(password, home.address)).toBe('done');
  });
});

test('what is past is swept: failures, addresses, tokens, sessions', async () => {
  await guess(elsewhere);
  const tokens = await world.signIn(name);
  await world.query(`UPDATE sign_in_failures SET last_at = now() - interval '25 hours', locked_until = NULL`);
  await world.query(`UPDATE sign_in_addresses SET last_at = now() - interval '91 days'`);
  await world.query(`UPDATE access_tokens SET expires_at = now() - interval '25 hours'`);
  await world.query(`UPDATE sessions SET ended_at = now() - interval '8 days' WHERE session_id = $1`, [tokens.session]);
  const kept = await world.signIn(name);
  expect(await sweepSignIn(world.database)).toBeGreaterThan(3);
  const left = await world.query<{ failures: number; addresses: number; tokens: number; ended: number; kept: number }>(
    `SELECT (SELECT count(*) FROM sign_in_failures)::int AS failures, (SELECT count(*) FROM sign_in_addresses)::int AS addresses,
            (SELECT count(*) FROM access_tokens)::int AS tokens, (SELECT count(*) FROM sessions WHERE session_id = $1)::int AS ended,
            (SELECT count(*) FROM sessions WHERE session_id = $2)::int AS kept`,
    [tokens.session, kept.session],
  );
  expect(left).toEqual([{ failures: 0, addresses: 1, tokens: 1, ended: 0, kept: 1 }]);
  expect(await sweepSignIn(world.database)).toBe(0);
});
