/**
 * Whether somebody may hand out permissions: pure. What must stay true: whoever gets them reaches nothing by them that
 * the giver does not reach by the same permission. Asked when a role is given, when an API client is made or changed,
 * and when a client's secret is shown, for whoever sees it is that client.
 */
import { type Actor, may, reachOf } from '../../roles/may.ts';
import { permissions as all, narrower, type Permission, type Scope } from '../../roles/permissions.ts';

export interface Given {
  permissions: Iterable<Permission>;
  /** At most this far; a permission's own reach bounds it too. For a role: the narrower of the grant's and the role's. */
  scope: Scope;
  /** From the tenant's topmost organization to the one that it is given in; at least one. Of the giver's tenant. */
  organizationPath: readonly number[];
}

/** Those of the permissions that the giver may not give so far; none: they may give them all. */
export function notToGive(giver: Actor, { permissions, scope, organizationPath }: Given): Permission[] {
  return [...permissions].filter((permission) => {
    const reach = narrower(scope, all.get(permission)?.reach ?? 'all');
    switch (reach) {
      case 'all':
        return reachOf(giver, permission) !== 'all';
      case 'tree':
        return !may(giver, permission, { tenant: giver.tenant, organizationPath }).allowed;
      case 'self': // about what is its holder's own: no further than the giver's own is for the giver
        return reachOf(giver, permission) === null;
      default:
        throw new Error(`${reach satisfies never} is no scope`);
    }
  });
}

/** Whether the giver may give all of them so far. */
export function mayGive(
  giver: Actor,
  permissions: Iterable<Permission>,
  scope: Scope,
  organizationPath: readonly number[],
): boolean {
  return notToGive(giver, { permissions, scope, organizationPath }).length === 0;
}
