/** Tenants, organizations and users, as rows. */
import { type Database, statement, type Transaction } from '../../storage/catalog/database.ts';

const sql = {
  // One statement whether the key, the name or both are unknown: how long it takes tells nothing.
  findForSignIn: statement(
    'directory.findForSignIn',
    `SELECT u.user_id AS "userId", u.tenant_id AS "tenantId", u.password_hash AS "passwordHash", u.state
       FROM organizations o JOIN users u ON u.tenant_id = o.tenant_id AND lower(u.name) = lower($2)
      WHERE o.registration_key = $1`,
  ),

  // Registrations of one user go one after the other; NO KEY, so that rows referring to the user are not kept waiting.
  lockUser: statement('directory.lockUser', `SELECT state FROM users WHERE user_id = $1 FOR NO KEY UPDATE`),

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
  insertUser: statement(
    'directory.insertUser',
    `INSERT INTO users (tenant_id, organization_id, name, password_hash) VALUES ($1, $2, $3, $4)
     RETURNING user_id AS "userId"`,
  ),
  grantRole: statement(
    'directory.grantRole',
    `INSERT INTO user_roles (tenant_id, user_id, role, scope, organization_id) VALUES ($1, $2, $3, $4, $5)`,
  ),
};

export interface SignInRow {
  userId: number;
  tenantId: number;
  passwordHash: string | null;
  state: 'active' | 'blocked' | 'deactivated';
}

/** The user of that name in the tenant whose organization has that registration key, or null. */
export async function findForSignIn(
  db: Database,
  registrationKey: string,
  userName: string,
): Promise<SignInRow | null> {
  // PostgreSQL's text holds no NUL; no key and no name has one either.
  if (`${registrationKey}${userName}`.includes('\0')) return null;
  const [row] = await db.query<SignInRow>(sql.findForSignIn, [registrationKey, userName]);
  return row ?? null;
}

/** Locks the user's row to the transaction's end; false when the user is not active (any more). */
export async function lockActiveUser(tx: Transaction, userId: number): Promise<boolean> {
  const [row] = await tx.query<{ state: string }>(sql.lockUser, [userId]);
  return row?.state === 'active';
}

export async function hasTenant(tx: Transaction): Promise<boolean> {
  return (await tx.query(sql.anyTenant)).length > 0;
}

export async function insertTenant(tx: Transaction, name: string): Promise<number> {
  const [row] = await tx.query<{ tenantId: number }>(sql.insertTenant, [name]);
  return row!.tenantId;
}

export interface NewOrganization {
  tenantId: number;
  /** null for the tenant's root. */
  parentId: number | null;
  name: string;
  registrationKey: string;
}

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

export interface NewUser {
  tenantId: number;
  organizationId: number;
  name: string;
  passwordHash: string;
  /** Has every permission in the whole tenant: the role *Customer Cloud Admin*. */
  administrator?: boolean;
}

export async function insertUser(tx: Transaction, user: NewUser): Promise<number> {
  const [row] = await tx.query<{ userId: number }>(sql.insertUser, [
    user.tenantId,
    user.organizationId,
    user.name,
    user.passwordHash,
  ]);
  const { userId } = row!;
  if (user.administrator)
    await tx.query(sql.grantRole, [user.tenantId, userId, 'Customer Cloud Admin', 'all', user.organizationId]);
  return userId;
}
