/**
 * The roles users have. Who may give what is the route's question (`directory.uac.elevated_role_manage`); here is what
 * would make no sense: roles there are not, a scope wider than the role's, and `tree` where its holder is not.
 */
import type { z } from 'zod';
import { Problem } from '../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../storage/catalog/database.ts';
import type { By } from '../audit/act.ts';
import { record } from '../audit/record.ts';
import { lockTenant } from '../organizations/locking.ts';
import { narrower, permissions, type Scope } from '../roles/permissions.ts';
import { isRole, roles } from '../roles/roles.ts';
import { assertAdministratorLeft } from './administrators-left.ts';
import { findPlace, type LockedUser, lockUser } from './locks.ts';
import { readUser } from './read.ts';
import type { GiveRoleRequest, RoleList, TakeRoleRequest, UserRecord } from './shapes.ts';

const sql = {
  find: statement(
    'directory.findGrant',
    'SELECT scope FROM user_roles WHERE tenant_id = $1 AND user_id = $2 AND role = $3 AND organization_id = $4',
  ),
  give: statement(
    'directory.giveRole',
    'INSERT INTO user_roles (tenant_id, user_id, role, scope, organization_id) VALUES ($1, $2, $3, $4, $5)',
  ),
  take: statement(
    'directory.takeRole',
    'DELETE FROM user_roles WHERE tenant_id = $1 AND user_id = $2 AND role = $3 AND organization_id = $4 RETURNING scope',
  ),
  raise: statement(
    'directory.raiseUserVersion',
    'UPDATE users SET version = version + 1 WHERE tenant_id = $1 AND user_id = $2',
  ),
};

/** Every role there is, in the order of the names. */
export function listRoles(): z.infer<typeof RoleList> {
  const items = [...roles].map(([name, { description, scope, granted }]) => ({
    name,
    description,
    scope,
    permissions: [...granted].map((permission) => ({ name: permission, inUse: permissions.get(permission)!.inUse })),
  }));
  return { items };
}

export interface OfUser {
  tenant: number;
  user: number;
  /** The version the change was made from; null: whichever. */
  expected: number | null;
}

/**
 * Gives a role. Given again as it is, nothing changes.
 * @throws Problem out_of_bounds (fields `role`, `scope`), not_found (also field `organization`), precondition_failed, conflict:
 *   a `tree` where the user is not (field `organization`), or the same role there with another scope (field `scope`)
 */
export async function giveRole(
  tx: Transaction,
  by: By,
  request: OfUser & z.infer<typeof GiveRoleRequest>,
): Promise<UserRecord> {
  const { tenant, role } = request;
  if (!isRole(role)) throw new Problem('out_of_bounds', 'there is no such role', { field: 'role' });
  const own = roles.get(role)!.scope;
  const scope = request.scope ?? own;
  if (narrower(scope, own) !== scope)
    throw new Problem('out_of_bounds', `${role} reaches no further than ${own}`, { field: 'scope' });
  const named = request.organization === undefined ? null : await findPlace(tx, tenant, request.organization);
  const locked = await lockUser(tx, request);
  const organization = named?.id ?? locked.organization;
  if (scope === 'tree' && organization !== locked.organization)
    throw new Problem('conflict', 'a role with scope tree is given in the organization the user is in', {
      field: 'organization',
    });
  const [before] = await tx.query<{ scope: Scope }>(sql.find, [tenant, locked.id, role, organization]);
  if (before && before.scope !== scope)
    throw new Problem('conflict', `the user has this role there with scope ${before.scope}; take it first`, {
      field: 'scope',
    });
  if (!before) {
    await tx.query(sql.give, [tenant, locked.id, role, scope, organization]);
    await tx.query(sql.raise, [tenant, locked.id]);
    await recordGrant(tx, by, 'role.give', { locked, role, scope, organization });
  }
  return readUser(tx, { tenant, user: locked.id });
}

/**
 * Takes a role, also one that this server does not know any more.
 * @throws Problem not_found (also field `role`: they do not have it there), precondition_failed, conflict when no
 *   *Customer Cloud Admin* would be left
 */
export async function takeRole(
  tx: Transaction,
  by: By,
  request: OfUser & z.infer<typeof TakeRoleRequest>,
): Promise<UserRecord> {
  const { tenant, role } = request;
  const isAdministrator = role === 'Customer Cloud Admin';
  if (isAdministrator) await lockTenant(tx, tenant);
  const locked = await lockUser(tx, request);
  const organization = request.organization ?? locked.organization;
  const [taken] = await tx.query<{ scope: Scope }>(sql.take, [tenant, locked.id, role, organization]);
  if (!taken) throw new Problem('not_found', 'the user does not have this role there', { field: 'role' });
  await tx.query(sql.raise, [tenant, locked.id]);
  if (isAdministrator) await assertAdministratorLeft(tx, tenant);
  await recordGrant(tx, by, 'role.take', { locked, role, scope: taken.scope, organization });
  return readUser(tx, { tenant, user: locked.id });
}

function recordGrant(
  tx: Transaction,
  by: By,
  action: string,
  grant: { locked: LockedUser; role: string; scope: Scope; organization: number },
): Promise<void> {
  const { locked, role, scope, organization } = grant;
  return record(tx, by, {
    action,
    target: { kind: 'user', id: locked.id, name: locked.name },
    organization: locked.organization,
    result: 'done',
    details: { role, scope, organization },
  });
}
