import { describe, expect, test } from '@jest/globals';
import { createPasswords } from './passwords.ts';
import { createSignInRate } from './sign-in-rate.ts';

const code = (promise: Promise<unknown>) =>
  promise.then(
    () => 'accepted',
    (error: { code?: string }) => error.code,
  );

describe('passwords', () => {
  test('a hash knows its password, in any Unicode form, and no other', async () => {
    const passwords = createPasswords({ concurrentMax: 2, waitingMax: 10 });
    const phc = await passwords.hash('caf\u00e9');
    expect(phc).toMatch(/^\$argon2id\$v=19\$m=19456,t=2,p=1\$/);
    expect(await passwords.verify('cafe\u0301', phc)).toBe(true);
    expect(await passwords.verify('cafe', phc)).toBe(false);
    expect(await passwords.verify('cafe', null)).toBe(false);
    expect(await passwords.hash('caf\u00e9')).not.toBe(phc);
  });

  test("checks the reference's hash", async () => {
    // Made with the reference implementation: argon2 somesalt -id -t 2 -k 65536 -p 1 <<< password
    const phc = '$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc';
    const passwords = createPasswords({ concurrentMax: 1, waitingMax: 1 });
    expect(await passwords.verify('password', phc)).toBe(true);
    expect(await passwords.verify('Password', phc)).toBe(false);
  });

  test('so many work, so many wait, the next is turned away, and places come free again', async () => {
    const passwords = createPasswords({ concurrentMax: 2, waitingMax: 3 });
    const said = await Promise.all(Array.from({ length: 6 }, () => code(passwords.verify('x', null))));
    expect(said.filter((each) => each === 'accepted')).toHaveLength(5);
    expect(said[5]).toBe('too_many_requests');
    expect(await Promise.all(Array.from({ length: 5 }, () => code(passwords.verify('x', null))))).not.toContain(
      'too_many_requests',
    );
  });
});

describe('the bound on failed sign-ins', () => {
  const make = () => {
    const clock = { ms: 0 };
    return { clock, rate: createSignInRate({ failuresPerMinute: 3, entriesMax: 50, now: () => clock.ms }) };
  };
  const attempts = (count: number, attempt: () => unknown) => {
    for (let i = 0; i < count; i++) attempt();
  };

  test('holds per name and address for a minute, and says how long to wait', () => {
    const { clock, rate } = make();
    attempts(3, () => rate.attempt('ann', 'a'));
    clock.ms = 20_000;
    expect(() => rate.attempt('ANN', 'a')).toThrow(
      expect.objectContaining({ code: 'too_many_requests', extras: { retryAfterSeconds: 40 } }),
    );
    expect(() => rate.attempt('ann', 'b')).not.toThrow();
    expect(() => rate.attempt('bob', 'a')).not.toThrow();
    clock.ms = 60_000;
    expect(() => rate.attempt('ann', 'a')).not.toThrow();
  });

  test('does not count what succeeded', () => {
    const { rate } = make();
    expect(() => attempts(100, () => rate.attempt('ann', 'a')())).not.toThrow();
  });

  test('holds for an address that tries many names', () => {
    const { rate } = make();
    let name = 0;
    attempts(30, () => rate.attempt(`user ${name++}`, 'a'));
    expect(() => rate.attempt('ann', 'a')).toThrow(expect.objectContaining({ code: 'too_many_requests' }));
  });

  test('of one name, refused any number of times, holds for no other name at the address', () => {
    const { rate } = make();
    attempts(3, () => rate.attempt('ann', 'a'));
    attempts(100, () => expect(() => rate.attempt('ann', 'a')).toThrow());
    expect(() => rate.attempt('bob', 'a')).not.toThrow();
  });

  test('of programs is a bound of its own, by address', () => {
    const { rate } = make();
    attempts(3, () => rate.programFailed('a'));
    attempts(100, () =>
      expect(() => rate.programFailed('a')).toThrow(expect.objectContaining({ code: 'too_many_requests' })),
    );
    expect(() => rate.programFailed('b')).not.toThrow();
    expect(() => rate.attempt('ann', 'a')).not.toThrow();
  });

  test('remembers a bounded number, the newest', () => {
    const { rate } = make();
    attempts(3, () => rate.attempt('ann', 'a'));
    let address = 0;
    attempts(50, () => rate.attempt('bob', `${address++}`));
    expect(() => rate.attempt('ann', 'a')).not.toThrow();
  });
});
