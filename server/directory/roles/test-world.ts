/**
 * A tenant to ask `may` about: organizations 1 > 10 > 20 > 30 > 40, beside 20 its sibling 21 with 31 below, and the actor,
 * user 500, in 20.
 */
import type { Relation } from '../../../tests/helpers/roles-oracle.ts';
import type { Actor, Grant, Target } from './may.ts';
import type { Role } from './roles.ts';

const own = [1, 10, 20];
const child = [...own, 30];
const grandchild = [...child, 40];
const sibling = [1, 10, 21];

const at = (organizationPath: readonly number[], of: Partial<Target> = {}): Target => ({
  tenant: 1,
  organizationPath,
  ...of,
});
const user = (id: number) => ({ user: id });
const device = (id: number) => ({ user: id, deviceUser: id });
const below = (whose: Relation['whose']): Relation => ({ place: 'below', whose });
const here = (whose: Relation['whose']): Relation => ({ place: 'own organization', whose });
const elsewhere = (whose: Relation['whose']): Relation => ({ place: 'elsewhere in the tenant', whose });
const away: Relation = { place: 'another tenant', whose: 'somebody' };

/** What there is to ask about, and where that is. */
export const places = {
  self: [at(own, user(500)), here('own')],
  'own device': [at(own, device(500)), here('own')],
  'own organization': [at(own), here('nobody')],
  colleague: [at(own, user(501)), here('somebody')],
  "colleague's device": [at(own, device(501)), here('somebody')],
  child: [at(child), below('nobody')],
  'user in child': [at(child, user(530)), below('somebody')],
  'device in child': [at(child, device(530)), below('somebody')],
  grandchild: [at(grandchild), below('nobody')],
  'user in grandchild': [at(grandchild, user(540)), below('somebody')],
  'device in grandchild': [at(grandchild, device(540)), below('somebody')],
  sibling: [at(sibling), elsewhere('nobody')],
  'user in sibling': [at(sibling, user(521)), elsewhere('somebody')],
  'device in sibling': [at(sibling, device(521)), elsewhere('somebody')],
  'device below sibling': [at([...sibling, 31], device(531)), elsewhere('somebody')],
  parent: [at([1, 10]), elsewhere('nobody')],
  'user in parent': [at([1, 10], user(510)), elsewhere('somebody')],
  'device in parent': [at([1, 10], device(510)), elsewhere('somebody')],
  'topmost organization': [at([1]), elsewhere('nobody')],
  'the tenant itself': [at([]), { place: 'tenant', whose: 'nobody' }],
  'own files to the device of a colleague': [at(own, { user: 500, deviceUser: 501 }), here('both')],
  'files of a colleague to own device': [at(own, { user: 501, deviceUser: 500 }), here('both')],
  'files of a colleague to the device of another': [at(own, { user: 501, deviceUser: 502 }), here('both')],
  'files of somebody in sibling to own device': [at(own, { user: 521, deviceUser: 500 }), here('both')],
  // The numbers of another tenant are its own; were they the same, it would be no different.
  'other tenant': [
    { tenant: 2, organizationPath: own },
    { ...away, whose: 'nobody' },
  ],
  'user in other tenant': [{ tenant: 2, organizationPath: own, user: 501 }, away],
  'same numbers in other tenant': [
    { tenant: 2, organizationPath: own, ...device(500) },
    { ...away, whose: 'own' },
  ],
  'device in child of other tenant': [{ tenant: 2, organizationPath: child, ...device(530) }, away],
  'the other tenant itself': [
    { tenant: 2, organizationPath: [] },
    { ...away, whose: 'nobody' },
  ],
} as const satisfies Record<string, readonly [Target, Relation]>;

export type Place = keyof typeof places;

/** Whoever has these grants, in organization 20. */
export function actor(grants: readonly Grant[], of: Partial<Actor> = {}): Actor {
  return { tenant: 1, user: 500, organization: 20, grants, ...of };
}

/** A role as it is given to a user: as far as it goes, in their organization. */
export function given(role: Role, of: Partial<Pick<Grant, 'scope' | 'organization'>> = {}): Grant {
  return { role, scope: 'all', organization: 20, ...of };
}
