/** Nobody takes the last *Customer Cloud Admin* from a tenant: it could not be administered any more. */
import { Problem } from '../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../storage/catalog/database.ts';

// Not by the tenant's own state: suspending it stops everybody's sign-in and takes nobody's role.
const condition = `r.role = 'Customer Cloud Admin' AND r.scope = 'all' AND u.state = 'active'
        AND NOT EXISTS (SELECT 1 FROM organizations a WHERE a.organization_id = ANY (o.path) AND a.state <> 'active')`;

const from = `FROM user_roles r JOIN users u ON u.user_id = r.user_id JOIN organizations o ON o.organization_id = u.organization_id`;

const sql = {
  any: statement('directory.anyAdministratorLeft', `SELECT 1 ${from} WHERE r.tenant_id = $1 AND ${condition} LIMIT 1`),
};

/**
 * Asked after a change that may have been about an administrator, in its transaction, which undoes it. The tenant's row must
 * be locked since before the change (lockTenant): of two such changes the second sees what the first has left.
 * @throws Problem conflict
 */
export async function assertAdministratorLeft(tx: Transaction, tenant: number): Promise<void> {
  if ((await tx.query(sql.any, [tenant])).length > 0) return;
  throw new Problem('conflict', 'no active Customer Cloud Admin would be left in this tenant');
}
