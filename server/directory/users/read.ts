/** Users as those see them who administer: one, and in pages. */
import type { z } from 'zod';
import { Problem } from '../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../storage/catalog/database.ts';
import type { Scope } from '../roles/permissions.ts';
import { effectiveOf, type HeldRow, heldColumns, heldOfUser } from './effective-state.ts';
import { pageOf, readCursor, type Within, withinValues } from './pages.ts';
import type { ListUsersQuery, UserPage, UserRecord } from './shapes.ts';

const select = `SELECT u.user_id AS "userId", u.organization_id AS "organizationId", o.name AS "organizationName", u.name,
            u.display_name AS "displayName", u.email, u.state, u.password_hash IS NOT NULL AS "hasPassword", u.created_at AS "createdAt",
            u.version, ${heldColumns},
            (SELECT count(*)::int FROM devices d WHERE d.user_id = u.user_id AND d.state NOT IN ('replaced', 'deactivated')) AS devices,
            ARRAY(SELECT jsonb_build_object('role', r.role, 'scope', r.scope, 'organizationId', r.organization_id, 'organizationName', g.name, 'grantedAt', r.granted_at)
                    FROM user_roles r JOIN organizations g ON g.organization_id = r.organization_id
                   WHERE r.user_id = u.user_id ORDER BY r.role, r.organization_id) AS roles
       FROM users u JOIN organizations o ON o.organization_id = u.organization_id CROSS JOIN LATERAL ${heldOfUser} held`;

const sql = {
  one: statement('directory.readUser', `${select} WHERE u.tenant_id = $1 AND u.user_id = $2`),

  page: statement(
    'directory.pageUsers',
    `${select}
      WHERE u.tenant_id = $1 AND u.user_id > $2
        AND ($4::bigint IS NULL OR o.path @> ARRAY[$4::bigint]) AND ($5::bigint IS NULL OR u.user_id = $5)
        AND ($6::bigint IS NULL OR u.organization_id = $6)
        AND ($7::bigint IS NULL OR o.path @> ARRAY[$7::bigint])
        AND ($8::text IS NULL OR held.state = $8)
        AND ($9::text IS NULL OR starts_with(lower(u.name), lower($9)) OR starts_with(lower(u.email), lower($9)))
        AND ($10::text IS NULL OR EXISTS (SELECT 1 FROM user_roles r WHERE r.user_id = u.user_id AND r.role = $10))
      ORDER BY u.user_id LIMIT $3`,
  ),
};

interface Row extends HeldRow {
  userId: number;
  organizationId: number;
  organizationName: string;
  name: string;
  displayName: string | null;
  email: string | null;
  state: 'active' | 'blocked' | 'deactivated';
  hasPassword: boolean;
  createdAt: Date;
  version: number;
  devices: number;
  roles: { role: string; scope: Scope; organizationId: number; organizationName: string; grantedAt: string }[];
}

function viewOf(row: Row): UserRecord {
  return {
    id: row.userId,
    organization: { id: row.organizationId, name: row.organizationName },
    name: row.name,
    displayName: row.displayName,
    email: row.email,
    state: row.state,
    effective: effectiveOf(row),
    hasPassword: row.hasPassword,
    devices: row.devices,
    roles: row.roles.map(({ role, scope, organizationId, organizationName, grantedAt }) => ({
      role,
      scope,
      organization: { id: organizationId, name: organizationName },
      grantedAt: new Date(grantedAt).toISOString(),
      inForce: scope !== 'tree' || organizationId === row.organizationId,
    })),
    createdAt: row.createdAt.toISOString(),
    version: row.version,
  };
}

/** @throws Problem not_found */
export async function readUser(db: Transaction, of: { tenant: number; user: number }): Promise<UserRecord> {
  const [row] = await db.query<Row>(sql.one, [of.tenant, of.user]);
  if (!row) throw noSuchUser();
  return viewOf(row);
}

export function noSuchUser(): Problem {
  return new Problem('not_found', 'there is no such user');
}

/** A page of the tenant's users, as far as the reader reaches, by id. @throws Problem out_of_bounds, field `after` */
export async function listUsers(
  db: Transaction,
  of: { tenant: number; within: Within },
  query: z.infer<typeof ListUsersQuery>,
): Promise<z.infer<typeof UserPage>> {
  const rows = await db.query<Row>(sql.page, [
    of.tenant,
    readCursor(query.after),
    query.limit + 1,
    ...withinValues(of.within),
    query.organization ?? null,
    query.below ?? null,
    query.state ?? null,
    query.search ?? null,
    query.role ?? null,
  ]);
  return pageOf(rows, query.limit, { id: (row) => row.userId, item: viewOf });
}
