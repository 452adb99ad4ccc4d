import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { Directory } from '../../directory.ts';
import { ending, home, password, signInWorld, type World } from '../test-world.ts';
import { admitOperator, createCredentials } from './basic-sign-in.ts';

let world: World;
const { address } = home;

beforeAll(async () => {
  world = await signInWorld();
  await world.query('INSERT INTO operators (name, password_hash) VALUES ($1, $2)', ['Olga', world.passwordHash]);
  await world.addUser('Anna', { administrator: true });
});
afterAll(() => world?.close());

const admit = (userName: string, given: string, of: Directory = world.anotherReplica()) =>
  ending(admitOperator(of, { userName, password: given }, address));

test('an operator is let in by name and password, and the log says so once a minute', async () => {
  const replica = world.anotherReplica();
  const before = (await world.acts('operator.sign_in')).length;
  expect([await admit('olga', password, replica), await admit('olga', password, replica)]).toEqual(['done', 'done']);
  expect((await world.acts('operator.sign_in')).slice(before)).toMatchObject([{ result: 'done', party: 'Olga' }]);
});

test.each([
  ['olga', 'wrong'],
  ['olga', ''],
  ['nobody', password],
  ['Anna', password],
  ['olga\0', password],
  ['', password],
])('nobody is let in as %j with %j', async (userName, given) => {
  expect(await admit(userName, given)).toBe('sign_in_failed');
  expect(await admit('olga', password)).toBe('done');
});

test('whether an operator still may is asked every time, also while the password is known', async () => {
  const replica = world.anotherReplica();
  expect(await admit('olga', password, replica)).toBe('done');
  await world.query(`UPDATE operators SET state = 'blocked'`);
  expect(await admit('olga', password, replica)).toBe('sign_in_failed');
  await world.query(`UPDATE operators SET state = 'active', password_hash = $1`, [
    await replica.passwords.hash('a new one of hers'),
  ]);
  expect(await admit('olga', password, replica)).toBe('sign_in_failed');
  expect(await admit('olga', 'a new one of hers', replica)).toBe('done');
  await world.query('UPDATE operators SET password_hash = $1', [world.passwordHash]);
});

test('guesses are bounded, and do not shut out who is known', async () => {
  const bounded = world.anotherReplica(3);
  expect(await admit('olga', password, bounded)).toBe('done');
  for (let i = 0; i < 3; i++) expect(await admit('olga', `guess ${i}`, bounded)).toBe('sign_in_failed');
  expect(await admit('olga', 'guess 3', bounded)).toBe('too_many_requests');
  for (let i = 0; i < 10; i++) expect(await admit('olga', password, bounded)).toBe('done');
  expect(await admit('olga', password)).toBe('done');
});

test('guesses at an operator wait in the database too', async () => {
  for (let i = 0; i < 10; i++) expect(await admit('olga', `guess ${i}`)).toBe('sign_in_failed');
  expect(await admit('olga', password)).toBe('too_many_requests');
  await world.query('DELETE FROM sign_in_failures');
  expect(await admit('olga', password)).toBe('done');
});

test('many requests at once cost one hash and one attempt', async () => {
  const bounded = world.anotherReplica(3);
  let hashes = 0;
  const counting: Directory = {
    ...bounded,
    passwords: {
      ...bounded.passwords,
      verify: (...args) => {
        hashes++;
        return bounded.passwords.verify(...args);
      },
    },
  };
  const all = await Promise.all(Array.from({ length: 40 }, () => admit('olga', password, counting)));
  expect(new Set(all)).toEqual(new Set(['done']));
  expect(hashes).toBe(1);
});

describe('passwords that were right', () => {
  const credential = { userName: 'a', password: 'p', passwordHash: 'h', address };

  test('are known for their time, and no others', async () => {
    let now = 0;
    let asked = 0;
    const judge = (right: boolean) => async () => {
      asked++;
      return right;
    };
    const credentials = createCredentials({ forMs: 60_000, entriesMax: 10, now: () => now });
    expect(await credentials.isRight(credential, judge(true))).toBe(true);
    now = 59_999;
    expect(await credentials.isRight(credential, judge(false))).toBe(true);
    expect(asked).toBe(1);
    for (const other of [{ userName: 'b' }, { password: 'q' }, { passwordHash: 'i' }, { passwordHash: null }])
      expect(await credentials.isRight({ ...credential, ...other }, judge(false))).toBe(false);
    expect(asked).toBe(5);
    now = 60_000;
    expect(await credentials.isRight(credential, judge(false))).toBe(false);
    expect(asked).toBe(6);
  });

  test('are forgotten, the oldest first, before they are too many; wrong ones are never kept', async () => {
    const credentials = createCredentials({ forMs: 60_000, entriesMax: 2, now: () => 0 });
    const known = async (userName: string): Promise<boolean> =>
      credentials.isRight({ ...credential, userName }, async () => false);
    for (const userName of ['a', 'b', 'c']) await credentials.isRight({ ...credential, userName }, async () => true);
    expect([await known('a'), await known('b'), await known('c')]).toEqual([false, true, true]);
  });

  test('an error is told to those who wait for the same, and is not kept', async () => {
    const credentials = createCredentials({ forMs: 60_000, entriesMax: 2, now: () => 0 });
    const away = () => Promise.reject(new Error('the database is away'));
    const both = await Promise.allSettled([
      credentials.isRight(credential, away),
      credentials.isRight(credential, away),
    ]);
    expect(both.map(({ status }) => status)).toEqual(['rejected', 'rejected']);
    expect(await credentials.isRight(credential, async () => true)).toBe(true);
  });
});
