/**
 * Blocks, deactivates and brings back organizations. Each has a state of its own; what holds for it and for those below is the
 * strictest on the way up, so nothing is written further down, and lifting it lifts exactly what it did: one that was blocked
 * when it was deactivated is blocked again afterwards.
 * Blocked: backups go on, nobody signs in, nothing is restored. Deactivated: no backups either, and the archives of its
 * devices go cold.
 */
import { Problem } from '../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../storage/catalog/database.ts';
import type { By } from '../audit/act.ts';
import { record } from '../audit/record.ts';
import { coolArchives, warmArchives } from '../devices/cold.ts';
import { assertAdministratorLeft } from '../users/administrators-left.ts';
import { type LockedOrganization, lockOrganization, lockTenant } from './locking.ts';
import { readOrganization } from './reading.ts';
import type { OwnState } from './shapes.ts';

const sql = {
  setState: statement(
    'directory.setOrganizationState',
    `UPDATE organizations SET state = $3, state_before = CASE $3 WHEN 'deactivated' THEN state END, version = version + 1
      WHERE tenant_id = $1 AND organization_id = $2`,
  ),
  isIn: statement(
    'directory.isUserInSubtree',
    `SELECT 1 FROM users u JOIN organizations o ON o.organization_id = u.organization_id
      WHERE u.tenant_id = $1 AND u.user_id = $2 AND o.path @> ARRAY[$3::bigint]`,
  ),
  hasAdministrator: statement(
    'directory.hasAdministratorBelow',
    `SELECT 1 FROM user_roles r JOIN users u ON u.user_id = r.user_id JOIN organizations o ON o.organization_id = u.organization_id
      WHERE r.tenant_id = $1 AND r.role = 'Customer Cloud Admin' AND o.path @> ARRAY[$2::bigint] LIMIT 1`,
  ),
};

export type OrganizationStateChange = 'block' | 'unblock' | 'deactivate' | 'reactivate';

/** From which own states each leads where. `before`: to what it was before it was deactivated. */
const changes: Record<OrganizationStateChange, { from: readonly OwnState[]; to: OwnState | 'before' }> = {
  block: { from: ['active'], to: 'blocked' },
  unblock: { from: ['blocked'], to: 'active' },
  deactivate: { from: ['active', 'blocked'], to: 'deactivated' },
  reactivate: { from: ['deactivated'], to: 'before' },
};

/** What it is after the change; null: it is so already. @throws Problem conflict */
function stateAfter(change: OrganizationStateChange, { state, stateBefore }: LockedOrganization): OwnState | null {
  const { from, to } = changes[change];
  if (from.includes(state)) return to === 'before' ? (stateBefore ?? 'active') : to;
  if (state === to || (to === 'before' && state === 'active')) return null;
  throw new Problem('conflict', `it is ${state}`, { state });
}

/**
 * @returns the organization as it is then. Unblocked or reactivated it may still be stopped from above: `effective` says so
 * @throws Problem not_found, precondition_failed; conflict: the change does not start from its state, or would lock out who
 *   asks for it
 */
export async function changeOrganizationState(
  tx: Transaction,
  by: By,
  request: { tenant: number; organization: number; change: OrganizationStateChange; expected: number | null },
) {
  const { tenant, organization, change, expected } = request;
  await lockTenant(tx, tenant);
  const locked = await lockOrganization(tx, tenant, organization, expected);
  const to = stateAfter(change, locked);
  if (to !== null) {
    const isStopped = change === 'block' || change === 'deactivate';
    if (isStopped) await assertActorStays(tx, by, request);
    await tx.query(sql.setState, [tenant, organization, to]);
    if (isStopped) await assertAdministered(tx, request);
    const scope = { tenant, of: { organization } };
    if (change === 'deactivate') await coolArchives(tx, by, scope);
    if (change === 'reactivate') await warmArchives(tx, by, scope);
    await record(tx, by, {
      action: `organization.${change}`,
      target: { kind: 'organization', id: organization, name: locked.name },
      organization,
      result: 'done',
      details: { from: locked.state, to },
    });
  }
  return readOrganization(tx, { tenant, organization });
}

/** Somebody who stops their own organization could not lift it again, and perhaps nobody could. */
async function assertActorStays(
  tx: Transaction,
  { party }: By,
  { tenant, organization }: { tenant: number; organization: number },
): Promise<void> {
  if (party.kind !== 'user') return;
  const inIt = await tx.query(sql.isIn, [tenant, party.id, organization]);
  if (inIt.length > 0) throw new Problem('conflict', 'you are in this organization, and would lock yourself out');
}

/** A tenant whose last administrator is in it would be nobody's. */
async function assertAdministered(
  tx: Transaction,
  { tenant, organization }: { tenant: number; organization: number },
): Promise<void> {
  const administrators = await tx.query(sql.hasAdministrator, [tenant, organization]);
  if (administrators.length > 0) await assertAdministratorLeft(tx, tenant);
}
