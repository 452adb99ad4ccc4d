/** A short run of the fuzzer; `npm run test:fuzz` runs 100,000 cases and looks at the memory. */
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { seededRandom } from '../helpers/random.ts';
import { fuzz, mutate } from './fuzz.ts';
import { ApiWorld } from './world.ts';

let world: ApiWorld;
beforeAll(async () => {
  world = await ApiWorld.open();
}, 60_000);
afterAll(() => world?.close());

test('no body makes the server fail', async () => {
  const { faults, statuses } = await fuzz(world, { cases: 1_500, seed: 20_261_122 });
  expect(faults).toEqual([]);
  // Most are refused, some are right by chance, and it is not all the same refusal.
  expect(Object.keys(statuses).length).toBeGreaterThan(4);
  expect(statuses['400']).toBeGreaterThan(300);
  expect(await world.ask('GET', '/livez')).toMatchObject({ status: 200 });
}, 120_000);

test('mutations differ from what they were made of', () => {
  const random = seededRandom(1);
  const body = { name: 'x', parent: 1 };
  const made = Array.from({ length: 50 }, () => JSON.stringify(mutate(random, body)));
  expect(new Set(made).size).toBeGreaterThan(30);
});
