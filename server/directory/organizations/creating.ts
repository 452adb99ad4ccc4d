/** Makes organizations, and takes empty ones away. */
import { Problem } from '../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../storage/catalog/database.ts';
import type { By } from '../audit/act.ts';
import { record } from '../audit/record.ts';
import { insertOrganization } from './inserting.ts';
import { isLeaving, lockOrganization, lockTenant } from './locking.ts';
import { findPlace, parentFor } from './placing.ts';
import { readOrganization } from './reading.ts';

const sql = {
  // FOR UPDATE, which also waits for those who refer to it just now, and keeps others from beginning to.
  lockWhole: statement(
    'directory.lockOrganizationWhole',
    'SELECT 1 FROM organizations WHERE tenant_id = $1 AND organization_id = $2 FOR UPDATE',
  ),
  inTheWay: statement(
    'directory.countInOrganization',
    `SELECT (SELECT count(*)::int FROM organizations WHERE tenant_id = $1 AND parent_id = $2) AS organizations,
            (SELECT count(*)::int FROM users WHERE tenant_id = $1 AND organization_id = $2) AS users,
            (SELECT count(*)::int FROM user_roles WHERE tenant_id = $1 AND organization_id = $2 AND scope <> 'tree') AS grants`,
  ),
  deleteGrants: statement(
    'directory.deleteGrantsOfOrganization',
    `DELETE FROM user_roles WHERE tenant_id = $1 AND organization_id = $2 AND scope = 'tree' RETURNING 1`,
  ),
  deleteSettings: statement(
    'directory.deleteSettingsOfOrganization',
    'DELETE FROM organization_settings WHERE tenant_id = $1 AND organization_id = $2',
  ),
  delete: statement(
    'directory.deleteOrganization',
    'DELETE FROM organizations WHERE tenant_id = $1 AND organization_id = $2',
  ),
};

export interface CreateOrganization {
  tenant: number;
  /** Null: at the top of the tenant. */
  parent: number | null;
  name: string;
  /** Drawn before the transaction (`newRegistrationKey`). */
  registrationKey: string;
}

/**
 * Makes an organization that inherits everything.
 * @throws Problem not_found and conflict (field `parent`): no such parent, it is deactivated, the tree would be too deep;
 *   conflict: the tenant is leaving
 */
export async function createOrganization(tx: Transaction, by: By, request: CreateOrganization) {
  const { tenant, parent, name, registrationKey } = request;
  const { state } = await lockTenant(tx, tenant);
  if (isLeaving(state)) throw new Problem('conflict', 'the tenant is leaving: nothing is made in it any more');
  parentFor(await findPlace(tx, tenant, parent), { levels: 1 });
  const organization = await insertOrganization(tx, { tenantId: tenant, parentId: parent, name, registrationKey });
  await record(tx, by, {
    action: 'organization.create',
    target: { kind: 'organization', id: organization, name },
    organization,
    result: 'done',
    details: { parent },
  });
  return readOrganization(tx, { tenant, organization });
}

/**
 * Takes away an organization that is empty and deactivated, with its settings and with the roles that were given in it with
 * scope `tree`: those have no force once nobody is in it.
 * What is in the way is not taken along: users have archives, and who moves them decides where to.
 * @throws Problem not_found, precondition_failed; conflict, which says what is in the way
 */
export async function deleteOrganization(
  tx: Transaction,
  by: By,
  request: { tenant: number; organization: number; expected: number | null },
): Promise<{ deleted: number }> {
  const { tenant, organization, expected } = request;
  await lockTenant(tx, tenant);
  await tx.query(sql.lockWhole, [tenant, organization]);
  const { name, parent, state } = await lockOrganization(tx, tenant, organization, expected);
  if (state !== 'deactivated') throw new Problem('conflict', 'deactivate it first', { state });
  await assertEmpty(tx, tenant, organization);

  const grants = await tx.query(sql.deleteGrants, [tenant, organization]);
  await tx.query(sql.deleteSettings, [tenant, organization]);
  await tx.query(sql.delete, [tenant, organization]).catch((error) => {
    throw referredTo(error) ?? error;
  });
  await record(tx, by, {
    action: 'organization.delete',
    target: { kind: 'organization', id: organization, name },
    organization: parent, // where those see it who could see the one that is gone
    result: 'done',
    details: { parent, grants: grants.length },
  });
  return { deleted: organization };
}

/** In a statement after the lock: whoever was about to put something in has done so by now, or cannot any more. */
async function assertEmpty(tx: Transaction, tenant: number, organization: number): Promise<void> {
  type InTheWay = { organizations: number; users: number; grants: number };
  const [found] = await tx.query<InTheWay>(sql.inTheWay, [tenant, organization]);
  const { organizations, users, grants } = found!;
  const said = [
    organizations > 0 && `${organizations} organizations below it`,
    users > 0 && `${users} users in it, deactivated ones included (move them elsewhere)`,
    grants > 0 && `${grants} roles that were given in it and count elsewhere (give them anew elsewhere)`,
  ].filter((text) => text !== false);
  if (said.length > 0)
    throw new Problem('conflict', `in the way: ${said.join('; ')}`, { inTheWay: { organizations, users, grants } });
}

/** Something else that belongs to organizations, such as an API client: the database knows what refers to it. */
function referredTo(error: unknown): Problem | null {
  const { code, table } = (error ?? {}) as { code?: unknown; table?: unknown };
  if (code !== '23503' || typeof table !== 'string') return null;
  const what = table.replaceAll('_', ' ');
  return new Problem('conflict', `in the way: there are still ${what} of it`, { inTheWay: { [table]: true } });
}
