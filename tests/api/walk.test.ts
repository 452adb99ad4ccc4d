/**
 * Every route of the JSON API x every role x {self, own organization, child, sibling, another tenant}, over HTTP against a
 * real server. What is expected is decided by tests/helpers/roles-oracle.ts and tests/api/calls.ts, which import nothing
 * from server/.
 *
 * A change is asked for under an Idempotency-Key that its asker has used for something else: whoever may is told just that,
 * and nothing is changed, so that the world is the same for the next.
 */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { apiRoutes } from '../../server/http/api/routes.ts';
import { type OracleGrant, oracleGrant, oracleMay, oracleRoles, type Relation } from '../helpers/roles-oracle.ts';
import { type About, type ApiCall, apiCalls } from './calls.ts';
import { ApiWorld, type Holder, type Place, places } from './world.ts';

const relations = ['self', ...places] as const;
type RelationName = (typeof relations)[number];

/** As the oracle sees it. */
const placeOf: Record<RelationName, Relation['place']> = {
  self: 'own organization',
  own: 'own organization',
  child: 'below',
  sibling: 'elsewhere in the tenant',
  'other tenant': 'another tenant',
};

let world: ApiWorld;
const holders = new Map<string, Holder>();
const key = 'walk';

beforeAll(async () => {
  world = await ApiWorld.open();
  for (const role of oracleRoles.keys()) {
    const holder = await world.person(role);
    holders.set(role, holder);
    await world.storage.rows(
      `INSERT INTO requests_made (requester, key, request_sha256, status, answer) VALUES ($1, $2, sha256('another'), 200, '{}')`,
      [`user ${holder.user}`, `given ${key}`],
    );
  }
}, 60_000);

afterAll(() => world?.close());

/** Routes that ask for a permission, as `METHOD path`. */
const guarded = apiRoutes.filter((route) => 'permission' in route.may);
const nameOf = ({ method, path }: { method: string; path: string }): string => `${method} ${path}`;

test('every route that asks for a permission is described, and nothing else is', () => {
  expect(Object.keys(apiCalls).sort()).toEqual(guarded.map(nameOf).sort());
  expect(guarded.length).toBeGreaterThan(20);
  expect(oracleRoles.size).toBe(31);
});

function aboutOf(relation: RelationName, holder: Holder): About {
  const place: Place = world.places[relation === 'self' ? 'own' : relation];
  // Where the asker's own organization is: whoever may something in the target may it there.
  const elsewhere =
    world.places[
      relation === 'other tenant'
        ? 'other tenant'
        : relation === 'child'
          ? 'own'
          : relation === 'self'
            ? 'own'
            : relation
    ].organization;
  if (relation !== 'self') return { ...place, elsewhere };
  const { name: _, token: __, ...own } = holder;
  return { ...place, ...own, elsewhere };
}

function expected(call: ApiCall, grants: readonly OracleGrant[], relation: RelationName): boolean {
  const may = (permission: string): boolean => {
    if (call.about === 'tenant') return oracleMay(grants, permission, { place: 'tenant', whose: 'nobody' });
    if (call.about === 'listing')
      return relations.some((each) => oracleMay(grants, permission, relationOf('user', each)));
    return oracleMay(grants, permission, relationOf(call.about, relation));
  };
  return [call.permission, ...[call.or ?? []].flat()].some(may);
}

function relationOf(about: 'organization' | 'user' | 'device', relation: RelationName): Relation {
  const whose = about === 'organization' ? 'nobody' : relation === 'self' ? 'own' : 'somebody';
  return { place: placeOf[relation], whose };
}

describe('who may', () => {
  test.each(guarded.map((route) => [nameOf(route), route.kind] as const))('%s', async (name, kind) => {
    const call = apiCalls[name]!;
    const method = name.split(' ')[0]!;
    const wrong: string[] = [];
    const askAs = async ([role, holder]: [string, Holder]): Promise<void> => {
      const grants = [oracleGrant(role), oracleGrant('PROe User')];
      for (const relation of call.about === 'listing' || call.about === 'tenant' ? (['own'] as const) : relations) {
        const about = aboutOf(relation, holder);
        const { status, text } = await world.ask(method, call.path(about), {
          token: holder.token,
          ...(call.body && { body: call.body(about) }),
          ...(kind === 'change' && { headers: { 'idempotency-key': key } }),
        });
        const may = expected(call, grants, relation);
        const isRight = may
          ? status === (call.status ?? (kind === 'change' ? 422 : 200))
          : call.refused
            ? status === call.refused
            : status === 403 || status === 404;
        if (!isRight)
          wrong.push(`${role} ${relation}: ${may ? 'may' : 'may not'}, and got ${status} ${text.slice(0, 200)}`);
        // What is another tenant's is not there, for nobody.
        if (relation === 'other tenant' && call.about !== 'listing' && call.about !== 'tenant' && status !== 404)
          wrong.push(`${role}: another tenant's answered ${status}`);
      }
    };
    // Some at a time: each asks one after the other.
    const waiting = [...holders];
    const asker = async (): Promise<void> => {
      for (let next = waiting.pop(); next; next = waiting.pop()) await askAs(next);
    };
    await Promise.all(Array.from({ length: 6 }, asker));
    expect(wrong).toEqual([]);
  });
});

/** Listings whose items are organizations, users or devices: by what they are found. */
const listings: [path: string, permission: string, about: 'organization' | 'user' | 'device'][] = [
  ['/v1/organizations?limit=1000', 'org.read', 'organization'],
  ['/v1/users?limit=1000', 'user.read', 'user'],
  ['/v1/devices?limit=1000', 'computer.read', 'device'],
];

describe('a listing shows what its reader may see one by one, and nothing else', () => {
  test.each(listings)('%s', async (path, permission, about) => {
    const wrong: string[] = [];
    for (const [role, holder] of holders) {
      const { status, json } = await world.ask('GET', path, { token: holder.token });
      const shown = new Set(
        status === 200
          ? (json.items as { id?: number; guid?: string }[]).map((item) => String(item.guid ?? item.id))
          : [],
      );
      for (const relation of relations) {
        const target = aboutOf(relation, holder);
        const id = about === 'organization' ? target.organization : about === 'user' ? target.user : target.guid;
        if (about === 'organization' && relation === 'self') continue;
        const may = oracleMay([oracleGrant(role)], permission, relationOf(about, relation));
        if (shown.has(String(id)) !== may) wrong.push(`${role}: ${relation} is ${may ? 'not ' : ''}shown`);
      }
    }
    expect(wrong).toEqual([]);
  });
});
