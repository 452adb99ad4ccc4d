/**
 * What an administrator may look at: their tenant's organizations, users, devices and vaults, and nothing of another's.
 * Every statement names the tenant, so that what is somebody else's is not found, like what does not exist.
 */
import { type Database, statement, type Transaction } from '../../storage/catalog/database.ts';

const sql = {
  organization: statement(
    'directory.findOrganization',
    'SELECT organization_id AS "organizationId", name FROM organizations WHERE tenant_id = $1 AND organization_id = $2',
  ),

  organizations: statement(
    'directory.listOrganizations',
    `SELECT organization_id AS "organizationId", parent_id AS "parentId", name FROM organizations
      WHERE tenant_id = $1 AND organization_id > $2 ORDER BY organization_id LIMIT $3`,
  ),

  // A user's vault is made with their first device, and every device names it.
  users: statement(
    'directory.listUsers',
    `SELECT u.user_id AS "userId", u.name AS "userName", u.organization_id AS "organizationId", u.state, d.vault_id AS vault
       FROM users u LEFT JOIN LATERAL (SELECT vault_id FROM devices WHERE user_id = u.user_id LIMIT 1) d ON true
      WHERE u.tenant_id = $1 AND u.user_id > $2 ORDER BY u.user_id LIMIT $3`,
  ),

  userOfVault: statement(
    'directory.findUserOfVault',
    `SELECT u.user_id AS "userId", u.name AS "userName" FROM devices d JOIN users u ON u.user_id = d.user_id
      WHERE d.vault_id = $2 AND d.state <> 'replaced' AND d.tenant_id = $1 LIMIT 1`,
  ),

  userName: statement('directory.userName', 'SELECT name FROM users WHERE tenant_id = $1 AND user_id = $2'),

  device: statement(
    'directory.findDeviceOfTenant',
    `SELECT d.guid::text AS guid, d.name AS "deviceName", d.state, d.tenant_id AS "tenantId", d.user_id AS "userId",
            u.name AS "userName", d.vault_id AS vault, d.archive_id AS archive
       FROM devices d JOIN users u ON u.user_id = d.user_id
      WHERE d.guid = $2::bigint AND d.state <> 'replaced' AND d.tenant_id = coalesce($1::bigint, d.tenant_id)`,
  ),

  tenants: statement('directory.listTenants', 'SELECT tenant_id AS "tenantId", name FROM tenants ORDER BY tenant_id'),
};

export interface OrganizationRow {
  organizationId: number;
  parentId: number | null;
  name: string;
}

export interface UserRow {
  userId: number;
  userName: string;
  organizationId: number;
  state: 'active' | 'blocked' | 'deactivated';
  /** Null: no device was ever registered. */
  vault: number | null;
}

export interface DeviceRow {
  guid: string;
  deviceName: string;
  state: string;
  tenantId: number;
  userId: number;
  userName: string;
  vault: number;
  archive: number;
}

export async function findOrganization(
  db: Transaction,
  tenantId: number,
  organizationId: number,
): Promise<{ organizationId: number; name: string } | null> {
  const [row] = await db.query<{ organizationId: number; name: string }>(sql.organization, [tenantId, organizationId]);
  return row ?? null;
}

const pageRows = 1_000;

/** All of a tenant's organizations. A tree of tens of thousands is some megabytes. */
export async function listOrganizations(db: Database, tenantId: number): Promise<OrganizationRow[]> {
  const all: OrganizationRow[] = [];
  for (let page: OrganizationRow[] = []; ; ) {
    page = await db.query<OrganizationRow>(sql.organizations, [tenantId, page.at(-1)?.organizationId ?? 0, pageRows]);
    all.push(...page);
    if (page.length < pageRows) return all;
  }
}

/** A tenant's users in the order of their ids, read page by page. */
export async function* listUsers(db: Database, tenantId: number): AsyncGenerator<UserRow> {
  for (let last = 0; ; ) {
    const page = await db.query<UserRow>(sql.users, [tenantId, last, pageRows]);
    yield* page;
    if (page.length < pageRows) return;
    last = page.at(-1)!.userId;
  }
}

/** Whose vault it is, if it is one of the tenant's. */
export async function findUserOfVault(
  db: Transaction,
  tenantId: number,
  vault: number,
): Promise<{ userId: number; userName: string } | null> {
  const [row] = await db.query<{ userId: number; userName: string }>(sql.userOfVault, [tenantId, vault]);
  return row ?? null;
}

export async function findUserName(db: Transaction, tenantId: number, userId: number): Promise<string | null> {
  const [row] = await db.query<{ name: string }>(sql.userName, [tenantId, userId]);
  return row?.name ?? null;
}

/** The device of that GUID that is not replaced. @param tenantId null: whichever tenant it is of, for whoever runs the server */
export async function findDevice(db: Transaction, tenantId: number | null, guid: string): Promise<DeviceRow | null> {
  if (!isGuid(guid)) return null;
  const [row] = await db.query<DeviceRow>(sql.device, [tenantId, guid]);
  return row ?? null;
}

/** Whether the text can be a GUID at all: 1 to 2^63 - 1. */
export function isGuid(text: string): boolean {
  return /^[1-9]\d{0,18}$/.test(text) && BigInt(text) < 1n << 63n;
}

/** For whoever runs the server: every tenant. */
export function listTenants(db: Database): Promise<{ tenantId: number; name: string }[]> {
  return db.query<{ tenantId: number; name: string }>(sql.tenants);
}
