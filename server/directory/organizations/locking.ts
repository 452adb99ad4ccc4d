/**
 * The locks under which tenants and organizations change.
 *
 * Lock order in the directory: tenant row, organization rows (by id), user rows (by id), device rows (by id), everything
 * else, and the head of the audit log last.
 * Whoever changes the shape of the tree or a state in it holds the tenant's row: so paths and states that were read under
 * it stay what they are to the end of the transaction. What is one organization's alone (name, key, settings) is changed
 * under that organization's row.
 * The locks are NO KEY: rows that refer to a tenant or an organization can be made meanwhile.
 */
import { Problem } from '../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../storage/catalog/database.ts';
import type { OwnState } from './shapes.ts';

const sql = {
  lockTenant: statement(
    'directory.lockTenant',
    `SELECT name, state, version, delete_after AS "deleteAfter" FROM tenants WHERE tenant_id = $1 FOR NO KEY UPDATE`,
  ),
  lockOrganization: statement(
    'directory.lockOrganization',
    `SELECT organization_id AS id, parent_id AS parent, name, path, state, state_before AS "stateBefore", version
       FROM organizations WHERE tenant_id = $1 AND organization_id = $2 FOR NO KEY UPDATE`,
  ),
};

/** `deleting`: its data is being deleted, and nothing takes that back. `deleted`: this row is all there is. */
export const tenantStates = ['active', 'suspended', 'offboarding', 'deleting', 'deleted'] as const;
export type TenantState = (typeof tenantStates)[number];

/** Whether nothing is made in it any more, and nothing held. */
export const isLeaving = (state: TenantState): boolean => state !== 'active' && state !== 'suspended';

export interface LockedTenant {
  name: string;
  state: TenantState;
  version: number;
  deleteAfter: Date | null;
}

export interface LockedOrganization {
  id: number;
  parent: number | null;
  name: string;
  /** From the top down to its own id. */
  path: number[];
  state: OwnState;
  /** Of one that is deactivated. */
  stateBefore: 'active' | 'blocked' | null;
  version: number;
}

/** Before every other lock of the directory. @throws Problem not_found, precondition_failed */
export async function lockTenant(
  tx: Transaction,
  tenant: number,
  expected: number | null = null,
): Promise<LockedTenant> {
  const [row] = await tx.query<LockedTenant>(sql.lockTenant, [tenant]);
  if (!row) throw new Problem('not_found', 'there is no such tenant');
  assertVersion(row, expected);
  return row;
}

/** @throws Problem not_found, precondition_failed */
export async function lockOrganization(
  tx: Transaction,
  tenant: number,
  organization: number,
  expected: number | null = null,
): Promise<LockedOrganization> {
  const [row] = await tx.query<LockedOrganization>(sql.lockOrganization, [tenant, organization]);
  if (!row) throw new Problem('not_found', 'there is no such organization');
  assertVersion(row, expected);
  return row;
}

function assertVersion({ version }: { version: number }, expected: number | null): void {
  if (expected === null || version === expected) return;
  throw new Problem('precondition_failed', `it was changed since: it has version ${version} now`, { version });
}
