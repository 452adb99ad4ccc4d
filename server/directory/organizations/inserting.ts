/** New tenants and organizations, as rows. */
import { statement, type Transaction } from '../../../storage/catalog/database.ts';

const sql = {
  anyTenant: statement('directory.anyTenant', 'SELECT tenant_id FROM tenants LIMIT 1'),
  insertTenant: statement(
    'directory.insertTenant',
    'INSERT INTO tenants (name) VALUES ($1) RETURNING tenant_id AS "tenantId"',
  ),
  insertOrganization: statement(
    'directory.insertOrganization',
    `WITH drawn AS MATERIALIZED (SELECT nextval(pg_get_serial_sequence('organizations', 'organization_id')) AS id)
     INSERT INTO organizations (organization_id, tenant_id, parent_id, name, registration_key, path) OVERRIDING SYSTEM VALUE
     SELECT drawn.id, $1, $2, $3, $4, coalesce((SELECT path FROM organizations WHERE tenant_id = $1 AND organization_id = $2), '{}') || drawn.id
       FROM drawn RETURNING organization_id AS "organizationId"`,
  ),
};

export async function hasTenant(tx: Transaction): Promise<boolean> {
  return (await tx.query(sql.anyTenant)).length > 0;
}

export async function insertTenant(tx: Transaction, name: string): Promise<number> {
  const [row] = await tx.query<{ tenantId: number }>(sql.insertTenant, [name]);
  return row!.tenantId;
}

export interface NewOrganization {
  tenantId: number;
  /** null: at the top of the tenant. */
  parentId: number | null;
  name: string;
  registrationKey: string;
}

/** Asks nothing about the parent: whoever calls holds the tenant's row, or has made the tenant just now. */
export async function insertOrganization(tx: Transaction, organization: NewOrganization): Promise<number> {
  const { tenantId, parentId, name, registrationKey } = organization;
  const [row] = await tx.query<{ organizationId: number }>(sql.insertOrganization, [
    tenantId,
    parentId,
    name,
    registrationKey,
  ]);
  return row!.organizationId;
}
