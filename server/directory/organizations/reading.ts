/** Organizations as those see them who administer: one, and in pages. */
import type { z } from 'zod';
import { Problem } from '../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../storage/catalog/database.ts';
import { effectiveOf, type HeldRow, heldColumns, heldOfOrganization } from '../users/effective-state.ts';
import { pageOf, readCursor, type Within, withinValues } from '../users/pages.ts';
import type { ListOrganizationsQuery, Organization, OrganizationDetail, OrganizationPage, OwnState } from './shapes.ts';

const columns = `o.organization_id AS id, o.parent_id AS parent, o.name, o.path, o.state, o.version,
            o.created_at AS "createdAt", ${heldColumns}`;
const from = `FROM organizations o CROSS JOIN LATERAL ${heldOfOrganization} held`;

const sql = {
  one: statement(
    'directory.readOrganization',
    `SELECT ${columns}, o.registration_key AS "registrationKey",
            (SELECT count(*)::int FROM organizations c WHERE c.tenant_id = $1 AND c.parent_id = $2) AS children,
            (SELECT count(*)::int FROM users u WHERE u.tenant_id = $1 AND u.organization_id = $2) AS users
       ${from} WHERE o.tenant_id = $1 AND o.organization_id = $2`,
  ),

  page: statement(
    'directory.pageOrganizations',
    `SELECT ${columns} ${from}
      WHERE o.tenant_id = $1 AND o.organization_id > $2
        AND ($4::bigint IS NULL OR o.path @> ARRAY[$4::bigint])
        AND ($5::bigint IS NULL OR o.path @> ARRAY[$5::bigint])
        AND ($6::bigint IS NULL OR o.parent_id = $6) AND (NOT $7::boolean OR o.parent_id IS NULL)
        AND ($8::text IS NULL OR held.state = $8)
        AND ($9::text IS NULL OR position(lower($9) IN lower(o.name)) > 0)
      ORDER BY o.organization_id LIMIT $3`,
  ),

  all: statement(
    'directory.allOrganizations',
    `SELECT organization_id AS "organizationId", parent_id AS "parentId", name FROM organizations
      WHERE tenant_id = $1 AND organization_id > $2 AND ($4::bigint IS NULL OR path @> ARRAY[$4::bigint])
      ORDER BY organization_id LIMIT $3`,
  ),
};

interface Row extends HeldRow {
  id: number;
  parent: number | null;
  name: string;
  path: number[];
  state: OwnState;
  version: number;
  createdAt: Date;
}

const viewOf = (row: Row): Organization => ({
  id: row.id,
  parent: row.parent,
  name: row.name,
  path: row.path,
  state: row.state,
  effective: effectiveOf(row),
  createdAt: row.createdAt.toISOString(),
  version: row.version,
});

/** @throws Problem not_found */
export async function readOrganization(
  db: Transaction,
  of: { tenant: number; organization: number },
): Promise<z.infer<typeof OrganizationDetail>> {
  type DetailRow = Row & { registrationKey: string; children: number; users: number };
  const [row] = await db.query<DetailRow>(sql.one, [of.tenant, of.organization]);
  if (!row) throw new Problem('not_found', 'there is no such organization');
  const { registrationKey, children, users } = row;
  return { ...viewOf(row), registrationKey, children, users };
}

/**
 * A page of the tenant's organizations, as far as the reader reaches, by id. Nothing for who reaches only themselves: no
 * organization is a user's own.
 * @throws Problem out_of_bounds, field `after`
 */
export async function listOrganizations(
  db: Transaction,
  of: { tenant: number; within: Within },
  query: z.infer<typeof ListOrganizationsQuery>,
): Promise<z.infer<typeof OrganizationPage>> {
  const after = readCursor(query.after);
  const [path, user] = withinValues(of.within);
  if (user !== null) return { items: [], next: null };
  const rows = await db.query<Row>(sql.page, [
    of.tenant,
    after,
    query.limit + 1,
    path,
    query.below ?? null,
    query.parent ?? null,
    query.parent === null,
    query.state ?? null,
    query.search ?? null,
  ]);
  return pageOf(rows, query.limit, { id: (row) => row.id, item: viewOf });
}

export interface OrganizationNode {
  organizationId: number;
  parentId: number | null;
  name: string;
}

const nodesRows = 1_000;

/**
 * All of a tenant's organizations that the reader reaches, for sums over the tree. Tens of thousands are some megabytes.
 * None for who reaches only themselves.
 */
export async function allOrganizations(
  db: Transaction,
  of: { tenantId: number; within: Within },
): Promise<OrganizationNode[]> {
  const [path, user] = withinValues(of.within);
  const all: OrganizationNode[] = [];
  if (user !== null) return all;
  for (let page: OrganizationNode[] = []; ; ) {
    page = await db.query<OrganizationNode>(sql.all, [of.tenantId, page.at(-1)?.organizationId ?? 0, nodesRows, path]);
    all.push(...page);
    if (page.length < nodesRows) return all;
  }
}
