import { afterAll, beforeAll, expect, test } from '@jest/globals';
import type { By } from '../../audit/act.ts';
import { signInOperator } from '../sessions/begin.ts';
import { drawTokens } from '../sessions/tokens-of-session.ts';
import { ending, home, problemOf, signInWorld, type World } from '../test-world.ts';
import { createFirstOperator, createOperator, listOperators, prepareOperator, setOperatorState } from './operators.ts';

let world: World;
let by: By;
const password = 'a mare of no colour';

beforeAll(async () => {
  world = await signInWorld();
  by = { ...world.by, tenant: null };
});
afterAll(() => world?.close());

const signIn = (userName: string) =>
  ending(signInOperator(world.directory, { userName, password }, home, drawTokens()));
const all = async () => (await listOperators(world.database, { limit: 100 })).items;
const setState = (operator: number, state: 'active' | 'blocked', expected: number | null = null) =>
  world.database.transaction((tx) => setOperatorState(tx, by, { operator, state, expected }));
const create = async (name: string, given = password) => {
  const hash = await prepareOperator(world.directory, { name, password: given });
  return world.database.transaction((tx) => createOperator(tx, by, name, hash));
};

test('the first operator is made once, by however many processes start', async () => {
  const first = () => createFirstOperator(world.directory, { name: 'operator', password });
  expect((await Promise.all([first(), first(), first()])).filter(Boolean)).toHaveLength(1);
  expect(await first()).toBe(false);
  expect(await signIn('Operator')).toBe('done');
  expect(await world.acts('operator.create')).toHaveLength(1);
});

test('others are made, with a name of their own and a password that is none of the first tried', async () => {
  expect(await create('Olga')).toMatchObject({ name: 'Olga', state: 'active', version: 1 });
  expect((await problemOf(create('olga'))).extras.field).toBe('name');
  expect((await problemOf(create('oleg', 'password1234'))).extras.field).toBe('password');
  expect((await all()).map(({ name }) => name)).toEqual(['operator', 'Olga']);
  const first = await listOperators(world.database, { limit: 1 });
  expect((await listOperators(world.database, { limit: 1, after: first.next! })).items[0]!.name).toBe('Olga');
});

test('one stays active, when two are blocked at once too', async () => {
  const [one, two] = await all();
  expect(await ending(setState(999_999, 'blocked'))).toBe('not_found');
  expect(await ending(setState(one!.id, 'blocked', 7))).toBe('precondition_failed');
  const both = await Promise.all([ending(setState(one!.id, 'blocked')), ending(setState(two!.id, 'blocked'))]);
  expect(both.sort()).toEqual(['conflict', 'done']);
  const [blocked] = (await all()).filter(({ state }) => state === 'blocked');
  expect(await signIn(blocked!.name)).toBe('sign_in_failed');
  expect((await setState(blocked!.id, 'active')).version).toBe(blocked!.version + 1);
  expect(await signIn(blocked!.name)).toBe('done');
});
