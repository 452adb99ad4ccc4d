/** `may` against a second opinion: every role, permission and place; then several grants at once, in trees by chance. */
import { expect, test } from '@jest/globals';
import { type Random, seededRandom } from '../../../tests/helpers/random.ts';
import {
  oracleGrant,
  oracleMay,
  oraclePermissions,
  oracleRoles,
  type Relation,
} from '../../../tests/helpers/roles-oracle.ts';
import { type Actor, type Answer, type Grant, may, reachOf, type Target } from './may.ts';
import type { Permission, Scope } from './permissions.ts';
import type { Role } from './roles.ts';
import { actor, given, places } from './test-world.ts';

const permissions = oraclePermissions as Permission[];

test.each([...oracleRoles.keys()])('%s may what the second opinion says, everywhere', (role) => {
  const holder = actor([given(role as Role)]);
  const wrong: string[] = [];
  let allowed = 0;
  for (const permission of permissions) {
    for (const [place, [target, relation]] of Object.entries(places)) {
      const expected = oracleMay([oracleGrant(role)], permission, relation);
      const answer = may(holder, permission, target);
      if (answer.allowed !== expected) wrong.push(`${permission} at ${place}: ${expected ? 'may' : 'may not'}`);
      if (answer.allowed) allowed++;
    }
  }
  expect(wrong).toEqual([]);
  expect(allowed).toBeGreaterThan(0);
});

const seed = Number(process.env.HOLDFAST_TEST_SEED ?? 20_260_401);

test(`several grants add up as the second opinion says, in any tree (seed ${seed})`, () => {
  const random = seededRandom(seed);
  const seen = { allowed: 0, refused: 0 };
  for (let round = 0; round < 4_000; round++) {
    const tree = randomTree(random);
    const holder = randomActor(random, tree);
    for (let question = 0; question < 8; question++) {
      const target = randomTarget(random, tree, holder);
      const permission = random.pick(permissions);
      const relation = relationOf(tree, holder, target);
      const grants = holder.grants.map((grant) => ({
        ...asOracle(grant),
        left: grant.organization !== holder.organization,
      }));
      const expected = oracleMay(grants, permission, relation);
      const answer = may(holder, permission, target);
      const listed = isListed(holder, permission, target, relation) ?? answer.allowed;
      if (answer.allowed !== expected || listed !== expected || !explains(holder, target, answer)) {
        const all = { holder, permission, target, relation, expected, answer, listed };
        throw new Error(`round ${round}: ${JSON.stringify(all)}`);
      }
      seen[answer.allowed ? 'allowed' : 'refused']++;
    }
  }
  expect(Math.min(seen.allowed, seen.refused)).toBeGreaterThan(3_000);
});

/** An answer that rests on a grant would be the same had the actor no other, but for what that one is of use with. */
function explains(holder: Actor, target: Target, answer: Answer): boolean {
  if (!answer.allowed)
    return (
      answer.held.length > 0 === (answer.why === 'out_of_scope') &&
      (answer.missing !== null) === (answer.why === 'needs')
    );
  const { by, permission } = answer;
  const grant = holder.grants[by.grant]!;
  if (by.role !== (grant.role ?? null) || by.organization !== grant.organization) return false;
  return permission === 'viewlogs.device' || may({ ...holder, grants: [grant] }, permission, target).allowed;
}

/** What a listing shows. Never listed, so null: the tenant itself, two users at once, another tenant's. */
function isListed(holder: Actor, permission: Permission, target: Target, { place, whose }: Relation): boolean | null {
  if (place === 'tenant' || place === 'another tenant' || whose === 'both') return null;
  const reach = reachOf(holder, permission);
  if (reach === 'tree') return target.organizationPath.includes(holder.organization);
  return reach === 'all' || (reach === 'self' && whose === 'own');
}

/** Parents by organization: 1 is the topmost. */
type Tree = Map<number, number | null>;

function randomTree(random: Random): Tree {
  const tree: Tree = new Map([[1, null]]);
  const size = 2 + random.below(9);
  for (let id = 2; id <= size; id++) tree.set(id, random.pick([...tree.keys()]));
  return tree;
}

function pathTo(tree: Tree, organization: number): number[] {
  const parent = tree.get(organization)!;
  return parent === null ? [organization] : [...pathTo(tree, parent), organization];
}

function randomActor(random: Random, tree: Tree): Actor {
  const organization = random.pick([...tree.keys()]);
  const grants = Array.from({ length: 1 + random.below(3) }, (): Grant => {
    const scope = random.pick<Scope>(['all', 'all', 'tree', 'self']);
    const given = { scope, organization: random.chance(0.2) ? random.pick([...tree.keys()]) : organization };
    if (random.chance(0.6)) return { ...given, role: random.pick([...oracleRoles.keys()]) as Role };
    return { ...given, permissions: Array.from({ length: 1 + random.below(20) }, () => random.pick(permissions)) };
  });
  return { tenant: 1, user: random.chance(0.1) ? null : 500, organization, grants };
}

function randomTarget(random: Random, tree: Tree, holder: Actor): Target {
  const tenant = random.chance(0.05) ? 2 : 1;
  if (random.chance(0.1)) return { tenant, organizationPath: [] };
  const about = random.pick(['own', 'own device', 'organization', 'user', 'device', 'two users'] as const);
  const isOwn = about === 'own' || about === 'own device';
  const organization = isOwn ? holder.organization : random.pick([...tree.keys()]);
  const organizationPath = pathTo(tree, organization);
  const [one, other] = random.pick([
    [501, 502],
    [500, 501],
    [501, 500],
  ]) as [number, number];
  const whom = {
    own: { user: 500 },
    'own device': { user: 500, deviceUser: 500 },
    organization: {},
    user: { user: 501 },
    device: { user: 501, deviceUser: 501 },
    'two users': { user: one, deviceUser: other },
  }[about];
  return { tenant, organizationPath, ...whom };
}

/** By climbing from the target, where `may` looks into its path. */
function relationOf(tree: Tree, holder: Actor, target: Target): Relation {
  const whose = whoseIs(holder, target);
  if (target.tenant !== holder.tenant) return { place: 'another tenant', whose };
  const at = target.organizationPath.at(-1) ?? null;
  if (at === null) return { place: 'tenant', whose };
  if (at === holder.organization) return { place: 'own organization', whose };
  for (let up = tree.get(at) ?? null; up !== null; up = tree.get(up) ?? null)
    if (up === holder.organization) return { place: 'below', whose };
  return { place: 'elsewhere in the tenant', whose };
}

function whoseIs(holder: Actor, { user, deviceUser }: Target): Relation['whose'] {
  if (user === undefined) return 'nobody';
  if (deviceUser !== undefined && deviceUser !== user) return 'both';
  return user === holder.user ? 'own' : 'somebody';
}

function asOracle(grant: Grant) {
  if (grant.role === undefined) return { permissions: grant.permissions, scope: grant.scope };
  const role = oracleGrant(grant.role);
  const order = ['self', 'tree', 'all'];
  return { ...role, scope: order.indexOf(grant.scope) < order.indexOf(role.scope) ? grant.scope : role.scope };
}
