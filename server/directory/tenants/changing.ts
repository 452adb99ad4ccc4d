/**
 * What a platform operator does with tenants, but for seeing them off (offboarding.ts). Lock order: the tenant's row
 * first, the heads of the audit logs last.
 */
import { Problem } from '../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../storage/catalog/database.ts';
import type { By } from '../audit/act.ts';
import { insertOrganization, insertTenant } from '../organizations/inserting.ts';
import { lockTenant, type TenantState } from '../organizations/locking.ts';
import { insertUser } from '../users/people.ts';
import { readTenant } from './reading.ts';
import { recordOfTenant } from './recording.ts';

const sql = {
  passwordOnce: statement(
    'directory.passwordOnceOfFirst',
    `UPDATE users SET password_once_until = now() + $3 * interval '1 day' WHERE tenant_id = $1 AND user_id = $2`,
  ),
  rename: statement(
    'directory.renameTenant',
    'UPDATE tenants SET name = $2, version = version + 1 WHERE tenant_id = $1',
  ),
  setState: statement(
    'directory.setTenantState',
    'UPDATE tenants SET state = $2, delete_after = NULL, version = version + 1 WHERE tenant_id = $1',
  ),
};

const firstPasswordDays = 7;

export interface CreateTenant {
  name: string;
  /** Drawn before the transaction (`newRegistrationKey`). */
  registrationKey: string;
  administrator: {
    name: string;
    /** Made before the transaction, which takes a while. */
    passwordHash: string;
  };
}

/**
 * Makes a tenant with its topmost organization and an administrator, who has the role *Customer Cloud Admin*. Their password
 * went through the operator's hands, so it opens nothing but the door to setting another, for a week.
 */
export async function createTenant(tx: Transaction, by: By, request: CreateTenant) {
  const { tenant, organization, administrator } = await makeTenant(tx, by, request);
  await tx.query(sql.passwordOnce, [tenant, administrator, firstPasswordDays]);
  return { tenant: await readTenant(tx, tenant), organization, administrator };
}

/** The rows of a new tenant, and its act. */
export async function makeTenant(tx: Transaction, by: By, request: CreateTenant) {
  const { name, registrationKey, administrator } = request;
  const tenant = await insertTenant(tx, name);
  const organization = await insertOrganization(tx, { tenantId: tenant, parentId: null, name, registrationKey });
  const user = { tenantId: tenant, organizationId: organization, ...administrator, administrator: true };
  const userId = await insertUser(tx, user);
  // The administrator by number: the server's log holds no names of tenants' users.
  const details = { organization, administrator: userId };
  await recordOfTenant(tx, by, { id: tenant, name }, { action: 'tenant.create', details });
  return { tenant, organization, administrator: userId };
}

interface OneTenant {
  tenant: number;
  expected: number | null;
}

/** Its organizations keep their names. @throws Problem not_found, precondition_failed; conflict: there is nothing left of it */
export async function renameTenant(tx: Transaction, by: By, request: OneTenant & { name: string }) {
  const { tenant, name, expected } = request;
  const before = await lockTenant(tx, tenant, expected);
  if (before.name !== name) {
    // The last act of its log tells what went, under the name it had.
    if (before.state === 'deleted') throw new Problem('conflict', 'the tenant is deleted', { state: before.state });
    await tx.query(sql.rename, [tenant, name]);
    const details = { from: before.name, to: name };
    await recordOfTenant(tx, by, { id: tenant, name }, { action: 'tenant.rename', details });
  }
  return readTenant(tx, tenant);
}

/**
 * Nobody of the tenant signs in or restores; backups go on.
 * @throws Problem not_found, precondition_failed; conflict: it is leaving, which stops more
 */
export async function suspendTenant(tx: Transaction, by: By, request: OneTenant) {
  return changeState(tx, by, { ...request, action: 'tenant.suspend', from: ['active'], to: 'suspended' });
}

/**
 * Takes back a suspension, and an offboarding as long as its data is not being deleted: that begins under this lock, in a
 * state of its own. What was suspended before it was to leave is not suspended again.
 * @throws Problem not_found, precondition_failed; conflict: its data is being deleted, or was
 */
export async function resumeTenant(tx: Transaction, by: By, request: OneTenant) {
  return changeState(tx, by, { ...request, action: 'tenant.resume', from: ['suspended', 'offboarding'], to: 'active' });
}

async function changeState(
  tx: Transaction,
  by: By,
  request: OneTenant & { action: string; from: readonly TenantState[]; to: TenantState },
) {
  const { tenant, expected, action, from, to } = request;
  const { name, state } = await lockTenant(tx, tenant, expected);
  if (state !== to) {
    if (!from.includes(state)) throw new Problem('conflict', `the tenant is ${state}`, { state });
    await tx.query(sql.setState, [tenant, to]);
    await recordOfTenant(tx, by, { id: tenant, name }, { action, details: { from: state, to } });
  }
  return readTenant(tx, tenant);
}
