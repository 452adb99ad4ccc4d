/**
 * The 31 roles that are given to users. A role's name is what is stored: it is never changed or used for another.
 * What is odd about them, and what we do about it, stands in docs/decisions/roles.md.
 */
import { organizationRoles } from './organization-roles.ts';
import { type Permission, permissions } from './permissions.ts';
import type { RoleFacts } from './role-facts.ts';
import { tenantRoles } from './tenant-roles.ts';

const data = { ...tenantRoles, ...organizationRoles };

export type Role = keyof typeof data;

export interface RoleInfo extends RoleFacts {
  /** As a set, and with every permission in it where the role has `*`. What an `.all` implies is not in it unless listed. */
  granted: ReadonlySet<Permission>;
}

const describe = (facts: RoleFacts): RoleInfo => ({
  ...facts,
  granted: new Set(facts.permissions === '*' ? permissions.keys() : facts.permissions),
});

/** Every role by its name, in the order of the names. */
export const roles: ReadonlyMap<Role, RoleInfo> = new Map(
  (Object.keys(data) as Role[]).sort().map((name) => [name, describe(data[name])]),
);

/** Whether a text from outside names a role. */
export function isRole(text: string): text is Role {
  return roles.has(text as Role);
}
