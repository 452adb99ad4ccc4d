/**
 * Whether somebody may get into another's place: whoever sets a user's password, or sees an invitation, can sign in as that
 * user. What must stay true: nobody comes by that to more than they may do themselves, so an administrator of a department
 * does not become the tenant's by way of a colleague's forgotten password. Whoever may give any role may do that too.
 */
import { Problem } from '../../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../../storage/catalog/database.ts';
import { type Actor, may } from '../../roles/may.ts';
import { narrower, type Scope } from '../../roles/permissions.ts';
import { type Role, roles } from '../../roles/roles.ts';
import { notToGive } from '../clients/may-give.ts';

const sql = {
  grants: statement(
    'directory.grantsToActAs',
    `SELECT r.role, r.scope, o.path, own.path AS "ownPath"
       FROM users u JOIN organizations own ON own.organization_id = u.organization_id
       LEFT JOIN user_roles r ON r.user_id = u.user_id AND (r.scope <> 'tree' OR r.organization_id = u.organization_id)
       LEFT JOIN organizations o ON o.organization_id = r.organization_id
      WHERE u.tenant_id = $1 AND u.user_id = $2`,
  ),
};

interface GrantRow {
  role: Role | null;
  scope: Scope | null;
  path: number[] | null;
  ownPath: number[];
}

/**
 * Asked under the lock of the user's row. Roles without force (`tree`, given where the user is not) do not count.
 * @throws Problem forbidden when the user has a role that the actor may not give
 */
export async function assertMayActAs(
  tx: Transaction,
  actor: Actor,
  { tenant, user }: { tenant: number; user: number },
): Promise<void> {
  if (actor.user === user && actor.tenant === tenant) return;
  const rows = await tx.query<GrantRow>(sql.grants, [tenant, user]);
  const organizationPath = rows[0]?.ownPath ?? [];
  if (may(actor, 'directory.uac.elevated_role_manage', { tenant, organizationPath, user }).allowed) return;
  for (const { role, scope, path } of rows) {
    const facts = role === null ? undefined : roles.get(role);
    // A role that this server does not know gives nothing here, and may be mighty to a later one.
    if (role !== null && !facts) throw mightier();
    if (!facts) continue;
    const given = { permissions: facts.granted, scope: narrower(scope!, facts.scope), organizationPath: path! };
    if (notToGive(actor, given).length > 0) throw mightier();
  }
}

function mightier(): Problem {
  return new Problem('forbidden', 'this user may do what you may not: ask somebody who may do all that they may');
}
