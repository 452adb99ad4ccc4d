/**
 * The second step of leaving: a tenant's data is to be deleted, and nothing takes that back. A job does it from here on
 * (delete-tenants.ts); what is decided is decided here, under the lock of the tenant's row.
 *
 * What must stay true: only of a tenant that is leaving, whose day has come by the database's clock, and on which nobody
 * has a hold. Calling back, beginning to leave, placing a hold and registering a device take the same lock, so of any two
 * the second sees what the first did; holds are counted in a statement after it. Should that clock have run ahead, the job
 * waits for the day.
 */
import { Problem } from '../../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../../storage/catalog/database.ts';
import type { By } from '../../audit/act.ts';
import { longestDays } from '../../audit/heads/expire-logs.ts';
import { isLeaving, lockTenant } from '../../organizations/locking.ts';
import { refuseHolds } from '../holds.ts';
import { readTenant } from '../reading.ts';
import { recordOfTenant } from '../recording.ts';
import type { TenantFigures } from '../shapes.ts';
import { countEngineRows } from './progress.ts';

const sql = {
  isDue: statement('directory.isTenantDue', 'SELECT delete_after <= now() AS due FROM tenants WHERE tenant_id = $1'),
  // Those whose setting it is are deleted, and the log is kept for as long as they said.
  actsDays: statement(
    'directory.actsDaysOfTenant',
    `SELECT s.value FROM organizations o
       LEFT JOIN organization_settings s ON s.organization_id = o.organization_id AND s.name = 'auditLog.days'
      WHERE o.tenant_id = $1 AND cardinality(o.path) = 1`,
  ),
  begin: statement(
    'directory.beginDeletingTenant',
    `UPDATE tenants SET state = 'deleting', deleting_at = now(), deleting_by = $2, had = $3::jsonb, acts_days = $4, version = version + 1
      WHERE tenant_id = $1`,
  ),
};

export interface BeginDeleting {
  tenant: number;
  /** What the tenant is called, so that one that is not meant is noticed. */
  name: string;
  expected: number | null;
}

/**
 * Begins it. Asked again it changes nothing.
 * @throws Problem not_found, precondition_failed; out_of_bounds (field `name`): it is called otherwise; conflict: it is not
 *   leaving, its day has not come (and when it does), or it has holds (and how many)
 */
export async function beginDeleting(tx: Transaction, by: By, { tenant, name, expected }: BeginDeleting) {
  const locked = await lockTenant(tx, tenant, expected);
  const { state, deleteAfter } = locked;
  if (locked.name !== name) throw new Problem('out_of_bounds', 'that is not what it is called', { field: 'name' });
  if (state === 'deleting' || state === 'deleted') return readTenant(tx, tenant);
  if (!isLeaving(state)) throw new Problem('conflict', `the tenant is ${state}: offboard it first`, { state });
  const [day] = await tx.query<{ due: boolean }>(sql.isDue, [tenant]);
  if (!day!.due) {
    const until = deleteAfter!.toISOString();
    throw new Problem('conflict', `it can be called back until ${until}`, { state, deleteAfter: until });
  }
  const { archives, versions, ...holds } = await countEngineRows(tx, tenant);
  refuseHolds(holds);

  const { party } = by;
  const { organizations, users, activeUsers, devices, storedBytes } = await readTenant(tx, tenant);
  const had: TenantFigures = { organizations, users, activeUsers, devices, archives, versions, storedBytes };
  const days = longestDays((await tx.query<{ value: unknown }>(sql.actsDays, [tenant])).map(({ value }) => value));
  const begunBy = party.id === null ? party.kind : `${party.kind} ${party.id}`;
  await tx.query(sql.begin, [tenant, begunBy, JSON.stringify(had), days === 'unreadable' ? null : days]);
  const details = { from: state, to: 'deleting', deleteAfter: deleteAfter!.toISOString(), had: { ...had } };
  await recordOfTenant(tx, by, { id: tenant, name }, { action: 'tenant.delete', details });
  return readTenant(tx, tenant);
}
