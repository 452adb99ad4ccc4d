/** Tenants as the platform operator sees them: what they are called, how they are, and how much they have. */
import type { z } from 'zod';
import { Problem } from '../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../storage/catalog/database.ts';
import type { TenantState } from '../organizations/locking.ts';
import { pageOf, readCursor } from '../users/pages.ts';
import { nothingLeft, readProgress } from './deleting/progress.ts';
import type { ListTenantsQuery, Tenant, TenantDeletion, TenantFigures, TenantPage } from './shapes.ts';
import { vaultsOfTenant } from './vaults-of-tenant.ts';

const select = `SELECT t.tenant_id AS id, t.name, t.state, t.delete_after AS "deleteAfter", t.created_at AS "createdAt", t.version,
            t.deleting_at AS "begunAt", t.deleting_by AS "begunBy", t.deleted_at AS "finishedAt", t.had,
            (SELECT count(*)::int FROM organizations o WHERE o.tenant_id = t.tenant_id) AS organizations,
            u.users, u."activeUsers", u.devices
       FROM tenants t CROSS JOIN LATERAL (
         SELECT count(*)::int AS users, (count(*) FILTER (WHERE u.state = 'active'))::int AS "activeUsers", coalesce(sum(d.devices), 0)::int AS devices
           FROM users u CROSS JOIN LATERAL (
             SELECT count(*) AS devices FROM devices d WHERE d.user_id = u.user_id AND d.state NOT IN ('replaced', 'deactivated')) d
          WHERE u.tenant_id = t.tenant_id) u`;

const sql = {
  one: statement('directory.readTenant', `${select} WHERE t.tenant_id = $1`),
  page: statement(
    'directory.pageTenants',
    `${select} WHERE t.tenant_id > $1 AND ($3::text IS NULL OR t.state = $3)
        AND ($4::text IS NULL OR position(lower($4) IN lower(t.name)) > 0)
      ORDER BY t.tenant_id LIMIT $2`,
  ),
  all: statement('directory.listTenants', 'SELECT tenant_id AS "tenantId", name FROM tenants ORDER BY tenant_id'),

  // Folded and not folded yet: exact.
  storedBytes: statement(
    'directory.storedBytesOfVaults',
    `SELECT coalesce(sum(bytes), 0)::bigint AS bytes FROM (
       SELECT object_bytes AS bytes FROM vault_usage WHERE vault_id = ANY ($1::bigint[])
       UNION ALL
       SELECT object_bytes FROM usage_deltas WHERE vault_id = ANY ($1::bigint[])) each`,
  ),
};

interface Row {
  id: number;
  name: string;
  state: TenantState;
  deleteAfter: Date | null;
  createdAt: Date;
  version: number;
  organizations: number;
  users: number;
  activeUsers: number;
  devices: number;
  /** These of one whose data is being deleted, or was. */
  begunAt: Date | null;
  begunBy: string | null;
  finishedAt: Date | null;
  had: TenantFigures | null;
}

async function viewOf(db: Transaction, row: Row): Promise<Tenant> {
  const { deleteAfter, createdAt, begunAt, begunBy, finishedAt, had, ...rest } = row;
  const times = { deleteAfter: deleteAfter?.toISOString() ?? null, createdAt: createdAt.toISOString() };
  return { ...rest, ...times, storedBytes: await storedBytesOf(db, row.id), deletion: await deletionOf(db, row) };
}

async function deletionOf(db: Transaction, row: Row): Promise<TenantDeletion | null> {
  const { begunAt, begunBy, finishedAt, had } = row;
  if (!begunAt || !begunBy || !had) return null;
  const progress = finishedAt ? nothingLeft : await readProgress(db, row.id);
  return { begunAt: begunAt.toISOString(), begunBy, finishedAt: finishedAt?.toISOString() ?? null, had, ...progress };
}

async function storedBytesOf(db: Transaction, tenant: number): Promise<number> {
  let sum = 0;
  for await (const vaults of vaultsOfTenant(db, tenant)) {
    const [row] = await db.query<{ bytes: number }>(sql.storedBytes, [vaults]);
    sum += row!.bytes;
  }
  return sum;
}

/** @throws Problem not_found */
export async function readTenant(db: Transaction, tenant: number): Promise<Tenant> {
  const [row] = await db.query<Row>(sql.one, [tenant]);
  if (!row) throw new Problem('not_found', 'there is no such tenant');
  return viewOf(db, row);
}

/** @throws Problem out_of_bounds, field `after` */
export async function listTenants(
  db: Transaction,
  query: z.infer<typeof ListTenantsQuery>,
): Promise<z.infer<typeof TenantPage>> {
  const { after, limit, state = null, search = null } = query;
  const rows = await db.query<Row>(sql.page, [readCursor(after), limit + 1, state, search]);
  const { items, next } = pageOf(rows, limit, { id: (row) => row.id, item: (row) => row });
  const tenants: Tenant[] = [];
  for (const row of items) tenants.push(await viewOf(db, row));
  return { items: tenants, next };
}

/** Every tenant's id and name, for commands that go through all of them. */
export function allTenants(db: Transaction): Promise<{ tenantId: number; name: string }[]> {
  return db.query<{ tenantId: number; name: string }>(sql.all);
}
