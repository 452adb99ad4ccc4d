import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { defaultRetention } from '../../../../storage/archive/retention/retention.ts';
import { actingAs, type PeopleWorld, peopleWorld, type TestDevice, told } from '../../users/testing.ts';
import { type DecidesOf, decidesByChanging, decidesByCreating } from './deciding.ts';
import { createPlan, deletePlan, updatePlan } from './plans.ts';

let world: PeopleWorld;
let tenant: number;
let at: Record<'top' | 'below' | 'aside', number>;
let laptop: TestDevice;

beforeAll(async () => {
  world = await peopleWorld();
});
afterAll(() => world?.close());
beforeEach(async () => {
  const made = await world.tenant();
  ({ tenant } = made);
  const below = await world.organization(tenant, made.organization);
  at = { top: made.organization, below, aside: await world.organization(tenant, made.organization) };
  laptop = await world.device({ tenant, user: await world.user({ tenant, organization: below }) });
});

type Owner = 'top' | 'below' | 'aside' | 'laptop';
/** What a plan says of how long; `folders`: it does, and not of which folders. */
type Kind = 'long' | 'plain' | 'unreadable' | 'folders';
type Made = [owner: Owner, name: string, kind: Kind];

const retention = { ...defaultRetention, deletedAfterDays: null };
const content = { include: ['/home'], exclude: [], everyMinutes: 15, windows: [] };
const ownerOf = (owner: Owner) => (owner === 'laptop' ? { device: laptop.guid } : { organization: at[owner] });

async function make([owner, name, kind]: Made): Promise<number> {
  const asked = { ...content, retention: kind === 'long' || kind === 'folders' ? retention : null };
  const { id } = await world.change((tx) =>
    createPlan(tx, actingAs(tenant), { ...asked, ...ownerOf(owner), name, tenant }),
  );
  const stored = { unreadable: { include: 5 }, folders: { ...asked, include: ['~'] } };
  if (kind === 'unreadable' || kind === 'folders')
    await world.sql('UPDATE plans SET content = $2 WHERE plan_id = $1', [id, stored[kind]]);
  return id;
}

describe('a plan that is made', () => {
  test.each<[there: Made[], owner: Owner, says: boolean, decides: DecidesOf]>([
    [[], 'below', false, null],
    [[], 'laptop', false, null],
    [[], 'below', true, 'organization'],
    [[], 'laptop', true, 'device'],
    // In the place of one above.
    [[['top', 'Mine', 'long']], 'below', false, 'organization'],
    [[['top', 'Mine', 'long']], 'laptop', false, 'device'],
    [[['below', 'mine', 'long']], 'laptop', false, 'device'],
    [[['top', 'mine', 'unreadable']], 'below', false, 'organization'],
    [[['top', 'mine', 'unreadable']], 'laptop', false, 'device'],
    [[['top', 'mine', 'folders']], 'below', false, 'organization'],
    [[['top', 'mine', 'plain']], 'below', false, null],
    [[['top', 'other', 'long']], 'below', false, null],
    [[['aside', 'mine', 'long']], 'below', false, null],
    [[['aside', 'mine', 'long']], 'laptop', false, null],
    // Of those above the nearest counts.
    [
      [
        ['top', 'mine', 'long'],
        ['below', 'mine', 'plain'],
      ],
      'laptop',
      false,
      null,
    ],
    [
      [
        ['top', 'mine', 'plain'],
        ['below', 'mine', 'long'],
      ],
      'laptop',
      false,
      'device',
    ],
    // What is nearer to a device stays in force there.
    [[['below', 'mine', 'long']], 'top', false, null],
    [[['laptop', 'mine', 'long']], 'below', false, null],
  ])('besides %j, of %s, with a retention: %s: %s', async (there, owner, says, decides) => {
    for (const each of there) await make(each);
    const asked = { ...ownerOf(owner), name: 'mine', retention: says ? retention : null, tenant };
    expect(await decidesByCreating(world.database, asked)).toBe(decides);
  });

  test('of nothing that is there decides nothing', async () => {
    const asked = { name: 'mine', retention, tenant };
    const other = await world.tenant();
    expect(await decidesByCreating(world.database, { ...asked, organization: other.organization })).toBeNull();
    expect(await decidesByCreating(world.database, { ...asked, device: '1' })).toBeNull();
  });
});

describe('a plan that is changed or deleted', () => {
  const change = { include: ['/other'] };
  test.each<[kind: Kind, change: Parameters<typeof decidesByChanging>[1]['change'], decides: boolean]>([
    ['long', { everyMinutes: 60, exclude: ['*.tmp'], windows: [] }, false],
    ['long', { include: ['/home'], retention, name: 'mine' }, false], // as it is
    ['long', { name: 'MINE' }, false],
    ['long', { retention: null }, true],
    ['long', { retention: { ...retention, deletedAfterDays: 1 } }, true],
    ['long', { include: ['/home', '/other'] }, true],
    ['long', { include: [], retention: null }, true],
    ['long', { name: 'yours' }, true],
    ['long', 'delete', true],
    ['plain', { everyMinutes: 60 }, false],
    ['plain', change, false],
    ['plain', { name: 'yours', retention: null }, false],
    ['plain', 'delete', false],
    ['plain', { retention }, true],
    ['plain', { retention: undefined }, false],
    ['unreadable', { ...content, retention: null }, true],
    ['unreadable', { everyMinutes: 60 }, true],
    ['unreadable', 'delete', true],
    ['folders', { everyMinutes: 60 }, true],
    ['folders', change, true],
    ['folders', 'delete', true],
  ])('that is %s, by %j: %s', async (kind, change, decides) => {
    const [ofBelow, ofLaptop] = [await make(['below', 'mine', kind]), await make(['laptop', 'mine', kind])];
    expect(await decidesByChanging(world.database, { tenant, plan: ofBelow, change })).toBe(
      decides ? 'organization' : null,
    );
    await world.sql('DELETE FROM plans WHERE plan_id = $1', [ofBelow]);
    expect(await decidesByChanging(world.database, { tenant, plan: ofLaptop, change })).toBe(decides ? 'device' : null);
  });

  test.each<[there: Made[], owner: Owner, change: { name: string } | typeof change | 'delete', decides: DecidesOf]>([
    // What comes into force again.
    [[['top', 'MINE', 'long']], 'below', 'delete', 'organization'],
    [[['top', 'MINE', 'long']], 'below', { name: 'yours' }, 'organization'],
    [[['top', 'MINE', 'long']], 'laptop', 'delete', 'device'],
    [[['top', 'mine', 'unreadable']], 'below', 'delete', 'organization'],
    [[['top', 'mine', 'plain']], 'below', 'delete', null],
    [
      [
        ['top', 'mine', 'long'],
        ['below', 'mine', 'plain'],
      ],
      'laptop',
      'delete',
      null,
    ],
    [[['aside', 'mine', 'long']], 'below', 'delete', null],
    [[['laptop', 'mine', 'long']], 'below', 'delete', null],
    // What it takes the place of.
    [[['top', 'Yours', 'long']], 'below', { name: 'yours' }, 'organization'],
    [[['top', 'Yours', 'long']], 'laptop', { name: 'yours' }, 'device'],
    [[['top', 'yours', 'unreadable']], 'below', { name: 'yours' }, 'organization'],
    [[['top', 'yours', 'plain']], 'below', { name: 'yours' }, null],
    [[['below', 'yours', 'long']], 'top', { name: 'yours' }, null],
    // Neither.
    [[['top', 'mine', 'long']], 'below', change, null],
    [[['top', 'mine', 'long']], 'below', { name: 'MINE' }, null],
    [[['top', 'other', 'long']], 'below', { name: 'yours' }, null],
  ])('besides %j, of %s, by %j: %s', async (there, owner, change, decides) => {
    for (const each of there) await make(each);
    const plan = await make([owner, 'mine', 'plain']);
    expect(await decidesByChanging(world.database, { tenant, plan, change })).toBe(decides);
  });

  test('and is none of the tenant decides nothing', async () => {
    const plan = await make(['below', 'mine', 'long']);
    const other = await world.tenant();
    expect(await decidesByChanging(world.database, { tenant: other.tenant, plan, change: 'delete' })).toBeNull();
  });

  test('is the one that was asked about: who gives it a retention meanwhile waits, and finds it gone', async () => {
    const plan = await make(['below', 'mine', 'plain']);
    const of = { tenant, plan, expected: null };
    let given: Promise<string> | undefined;
    await world.change(async (tx) => {
      expect(await decidesByChanging(tx, { tenant, plan, change: 'delete' })).toBeNull();
      given = told(world.change((other) => updatePlan(other, actingAs(tenant), { ...of, change: { retention } })));
      for (let waiting = 0; waiting === 0; ) {
        const [row] = await world.sql<{ n: number }>(
          `SELECT count(*)::int AS n FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`,
        );
        waiting = row!.n;
      }
      await deletePlan(tx, actingAs(tenant), of);
    });
    expect(await given).toBe('not_found');
  });
});
