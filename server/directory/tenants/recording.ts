/** Acts of the platform operator: into the server's log, and into that of the tenant they concern, who is to know of them. */

import type { Transaction } from '../../../storage/catalog/database.ts';
import type { Act, By } from '../audit/act.ts';
import { record } from '../audit/record.ts';

/** Always the tenant's log first and then the server's, so that two of these do not wait for one another. */
export async function recordOfTenant(
  tx: Transaction,
  by: By,
  tenant: { id: number; name: string },
  act: Pick<Act, 'action' | 'details'>,
): Promise<void> {
  const whole: Act = { ...act, target: { kind: 'tenant', ...tenant }, organization: null, result: 'done' };
  await record(tx, { ...by, tenant: tenant.id }, whole);
  await record(tx, { ...by, tenant: null }, whole);
}
