/**
 * A tenant leaves, in two steps. First nobody signs in, backs up or restores, and it can be called back; after a delay its
 * data may be deleted (deleting/begin.ts).
 *
 * What must stay true: no tenant with a hold on one of its vaults begins to leave, and none that leaves gets a hold. Holds
 * lock the rows of vaults, and a tenant has many; so the two meet at the tenant's row instead. Whoever places a hold
 * calls `lockTenantForHold` first, in the same transaction; this one takes the same lock and counts holds in a statement
 * after it. Whichever is second sees what the first did.
 * That is for a clear answer in time. That held versions stay does not rest on it: deleting a tenant goes through the one
 * deleter, which asks each vault for its holds under that vault's lock, as ever (docs/decisions/deleting.md).
 */
import { Problem } from '../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../storage/catalog/database.ts';
import type { By } from '../audit/act.ts';
import { isLeaving, lockTenant } from '../organizations/locking.ts';
import { assertNoHolds } from './holds.ts';
import { readTenant } from './reading.ts';
import { recordOfTenant } from './recording.ts';

const sql = {
  leave: statement(
    'directory.offboardTenant',
    `UPDATE tenants SET state = 'offboarding', delete_after = now() + $2 * interval '1 day', version = version + 1
      WHERE tenant_id = $1 RETURNING delete_after AS "deleteAfter"`,
  ),
};

/**
 * Begins it. Asked again it changes nothing, the delay neither.
 * @param request.delayDays until its data may be deleted
 * @throws Problem not_found, precondition_failed; conflict: it has holds, and how many; its data is being deleted, or was
 */
export async function beginOffboarding(
  tx: Transaction,
  by: By,
  request: { tenant: number; delayDays: number; expected: number | null },
) {
  const { tenant, delayDays, expected } = request;
  const { name, state } = await lockTenant(tx, tenant, expected);
  if (state !== 'offboarding') {
    if (isLeaving(state)) throw new Problem('conflict', `the tenant is ${state}`, { state });
    await assertNoHolds(tx, tenant);
    const [left] = await tx.query<{ deleteAfter: Date }>(sql.leave, [tenant, delayDays]);
    const details = { from: state, to: 'offboarding', deleteAfter: left!.deleteAfter.toISOString() };
    await recordOfTenant(tx, by, { id: tenant, name }, { action: 'tenant.offboard', details });
  }
  return readTenant(tx, tenant);
}

/**
 * Before a hold is placed on a vault of the tenant, in the transaction that places it. Lock order: the tenant's row is
 * before every vault's.
 * @throws Problem not_found; conflict: the tenant is leaving. Its operator can call it back, and then it can be held
 */
export async function lockTenantForHold(tx: Transaction, tenant: number): Promise<void> {
  const { state } = await lockTenant(tx, tenant);
  if (isLeaving(state)) throw new Problem('conflict', 'the tenant is leaving: no hold is placed in it', { state });
}
