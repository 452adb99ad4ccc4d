/**
 * What reports tell of a tenant: its users, devices and vaults, as far as the reader reaches, and nothing of another's.
 * Every statement names the tenant, so that what is somebody else's is not found, like what does not exist.
 */
import { type Database, statement, type Transaction } from '../../storage/catalog/database.ts';
import { type Within, withinValues } from './users/pages.ts';

const sql = {
  // A user's vault is made with their first device, and every device names it.
  users: statement(
    'directory.listUsers',
    `SELECT u.user_id AS "userId", u.name AS "userName", u.organization_id AS "organizationId", o.path, u.state, d.vault_id AS vault
       FROM users u JOIN organizations o ON o.organization_id = u.organization_id
       LEFT JOIN LATERAL (SELECT vault_id FROM devices WHERE user_id = u.user_id LIMIT 1) d ON true
      WHERE u.tenant_id = $1 AND u.user_id > $2
        AND ($4::bigint IS NULL OR o.path @> ARRAY[$4::bigint]) AND ($5::bigint IS NULL OR u.user_id = $5)
      ORDER BY u.user_id LIMIT $3`,
  ),

  userOfVault: statement(
    'directory.findUserOfVault',
    `SELECT u.user_id AS "userId", u.name AS "userName", u.tenant_id AS "tenantId", u.organization_id AS "organizationId"
       FROM devices d JOIN users u ON u.user_id = d.user_id
      WHERE d.vault_id = $2 AND d.state <> 'replaced' AND d.tenant_id = coalesce($1::bigint, d.tenant_id) LIMIT 1`,
  ),

  device: statement(
    'directory.findDeviceOfTenant',
    `SELECT d.guid::text AS guid, d.name AS "deviceName", d.state, d.tenant_id AS "tenantId", d.user_id AS "userId",
            u.name AS "userName", d.vault_id AS vault, d.archive_id AS archive
       FROM devices d JOIN users u ON u.user_id = d.user_id
      WHERE d.guid = $2::bigint AND d.state <> 'replaced' AND d.tenant_id = coalesce($1::bigint, d.tenant_id)`,
  ),
};

export interface UserRow {
  userId: number;
  userName: string;
  organizationId: number;
  /** Of that organization: the ids from the top down to it. */
  path: number[];
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

const pageRows = 1_000;

/** Whose things are told: a tenant's, as far as the reader reaches. */
export interface Reading {
  tenantId: number;
  within: Within;
}

/** Users in the order of their ids, read page by page. */
export async function* listUsers(db: Database, { tenantId, within }: Reading): AsyncGenerator<UserRow> {
  for (let last = 0; ; ) {
    const page = await db.query<UserRow>(sql.users, [tenantId, last, pageRows, ...withinValues(within)]);
    yield* page;
    if (page.length < pageRows) return;
    last = page.at(-1)!.userId;
  }
}

export interface VaultOwner {
  userId: number;
  userName: string;
  tenantId: number;
  organizationId: number;
}

/** Whose vault it is, if it is one of the tenant's. @param tenantId null: whichever tenant it is of, for whoever runs the server */
export async function findUserOfVault(
  db: Transaction,
  tenantId: number | null,
  vault: number,
): Promise<VaultOwner | null> {
  const [row] = await db.query<VaultOwner>(sql.userOfVault, [tenantId, vault]);
  return row ?? null;
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
