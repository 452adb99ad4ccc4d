/** Failed sign-ins in the log: the first of each kind, and the sum of the others. A minute may end while a test runs. */
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { repeatLimits } from '../../audit/repeats.ts';
import { tellRepeats } from '../../audit/tell-repeats.ts';
import { signInClient } from '../clients/client-sign-in.ts';
import { admitOperator } from '../operators/basic-sign-in.ts';
import { judgeSignIn } from '../sign-in.ts';
import { ending, home, password, signInWorld, type World } from '../test-world.ts';
import { newToken } from '../tokens.ts';

let world: World;
const attempts = 3 * repeatLimits.ofOneParty;

beforeAll(async () => {
  world = await signInWorld();
});
afterAll(() => world?.close());

/** Written one by one, and the sum of those that were not. */
async function told(action: string): Promise<{ written: number; counted: number; why: unknown[] }> {
  await world.query(`UPDATE act_repeats SET minute = minute - interval '5 minutes'`);
  await tellRepeats(world.database);
  const acts = (await world.acts(action)).filter(({ result }) => result === 'refused');
  const counted = acts.reduce((sum, { details }) => sum + Number(details.notWritten ?? 0), 0);
  const written = acts.filter(({ details }) => details.notWritten === undefined).length;
  return { written, counted, why: [...new Set(acts.map(({ details }) => details.why))].sort() };
}

test.each<[door: string, action: string, why: string, attempt: (i: number) => Promise<unknown>]>([
  ['a session', 'session.create', 'no such name', (i) => world.signIn(`nobody ${i}`)],
  [
    'a device',
    'device.sign_in',
    'no such name',
    (i) => judgeSignIn(world.directory, { id: world.tenant }, { userName: `nobody ${i}`, password }, home.address),
  ],
  [
    'an operator',
    'operator.sign_in',
    'no such name',
    (i) => admitOperator(world.directory, { userName: `nobody ${i}`, password }, home.address),
  ],
  [
    'a program',
    'client.sign_in',
    'no such client',
    (i) => signInClient(world.directory, { clientId: `none ${i}`, clientSecret: newToken() }, newToken(), home.address),
  ],
])('a flood at the door of %s does not fill the log, and is in it', async (_door, action, why, attempt) => {
  for (let i = 0; i < attempts; i++) expect(await ending(attempt(i))).toBe('sign_in_failed');
  const all = await told(action);
  expect(all.written + all.counted).toBe(attempts);
  expect(all.written).toBeGreaterThanOrEqual(repeatLimits.ofOneParty);
  expect(all.written).toBeLessThanOrEqual(2 * repeatLimits.ofOneParty);
  expect(all.why).toEqual([why]);
});

test('and what is refused for another reason meanwhile is written all the same', async () => {
  await world.addUser('Blocked');
  await world.query(`UPDATE users SET state = 'blocked' WHERE name = 'Blocked'`);
  for (let i = 0; i < attempts; i++) await ending(world.signIn(`somebody ${i}`));
  expect(await ending(world.signIn('blocked'))).toBe('sign_in_failed');
  expect((await told('session.create')).why).toEqual(['blocked', 'no such name']);
});
