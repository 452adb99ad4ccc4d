/**
 * What a request is about, as far as asking whether it may goes: where in the tenant's tree, whose, and by what name. Found
 * within the tenant of whoever asks, so that what is another tenant's is not found, like what does not exist.
 */
import { Problem } from '../../protocol/problems.ts';
import { statement, type Transaction } from '../../storage/catalog/database.ts';
import type { Target } from './roles/may.ts';
import { isGuid } from './tenant-view.ts';

const sql = {
  organization: statement(
    'directory.targetOrganization',
    'SELECT organization_id AS id, name, path FROM organizations WHERE tenant_id = $1 AND organization_id = $2',
  ),
  user: statement(
    'directory.targetUser',
    `SELECT u.user_id AS id, u.name, o.path FROM users u JOIN organizations o ON o.organization_id = u.organization_id
      WHERE u.tenant_id = $1 AND u.user_id = $2`,
  ),
  device: statement(
    'directory.targetDevice',
    `SELECT d.device_id AS id, d.name, o.path, d.user_id AS "userId", d.vault_id AS vault, d.archive_id AS archive, d.kind AS "deviceKind"
       FROM devices d JOIN users u ON u.user_id = d.user_id JOIN organizations o ON o.organization_id = u.organization_id
      WHERE d.tenant_id = $1 AND d.guid = $2::bigint AND d.state <> 'replaced'`,
  ),
  plan: statement(
    'directory.targetPlan',
    `SELECT p.plan_id AS id, p.name, o.path, u.user_id AS "userId"
       FROM plans p
       LEFT JOIN devices d ON d.tenant_id = p.tenant_id AND d.guid = p.guid AND d.state <> 'replaced'
       LEFT JOIN users u ON u.user_id = d.user_id
       JOIN organizations o ON o.organization_id = coalesce(p.organization_id, u.organization_id)
      WHERE p.tenant_id = $1 AND p.plan_id = $2`,
  ),
  client: statement(
    'directory.targetClient',
    `SELECT c.client_id AS id, c.name, o.path FROM api_clients c JOIN organizations o ON o.organization_id = c.organization_id
      WHERE c.tenant_id = $1 AND c.client_id = $2`,
  ),
};

export interface OrganizationTarget extends Target {
  kind: 'organization';
  id: number;
  name: string;
}

export interface UserTarget extends Target {
  kind: 'user';
  id: number;
  name: string;
  user: number;
}

export interface DeviceTarget extends Target {
  kind: 'device';
  /** The GUID. */
  id: string;
  name: string;
  deviceId: number;
  user: number;
  vault: number;
  archive: number;
  /** `restic`: a repository, whose files no agent of ours has sealed. */
  deviceKind: 'agent' | 'restic';
}

/** @throws Problem conflict: it is a repository of restic, of which only restic has the key */
export function assertHasAgent({ deviceKind }: DeviceTarget, what: string): void {
  if (deviceKind !== 'agent')
    throw new Problem('conflict', `this is a repository of restic, and ${what}: use restic, with its password`);
}

/** An API client, which is nobody's. */
export interface ClientTarget extends Target {
  kind: 'client';
  id: number;
  name: string;
}

/** A backup plan: its organization's, or its device's user's. */
export interface PlanTarget extends Target {
  kind: 'plan';
  id: number;
  name: string;
}

/** Of the tenant itself, above its organizations. */
export interface TenantTarget extends Target {
  kind: 'tenant';
  id: number;
  name: null;
}

export type FoundTarget = OrganizationTarget | UserTarget | DeviceTarget | ClientTarget | PlanTarget | TenantTarget;

interface Row {
  id: number;
  name: string;
  path: number[];
}

export const tenantTarget = (tenant: number): TenantTarget => ({
  kind: 'tenant',
  id: tenant,
  name: null,
  tenant,
  organizationPath: [],
});

export async function findOrganizationTarget(
  db: Transaction,
  tenant: number,
  organization: number,
): Promise<OrganizationTarget | null> {
  const [row] = await db.query<Row>(sql.organization, [tenant, organization]);
  return row ? { kind: 'organization', id: row.id, name: row.name, tenant, organizationPath: row.path } : null;
}

export async function findUserTarget(db: Transaction, tenant: number, user: number): Promise<UserTarget | null> {
  const [row] = await db.query<Row>(sql.user, [tenant, user]);
  return row ? { kind: 'user', id: row.id, name: row.name, tenant, organizationPath: row.path, user } : null;
}

export async function findDeviceTarget(db: Transaction, tenant: number, guid: string): Promise<DeviceTarget | null> {
  if (!isGuid(guid)) return null;
  type Device = Row & { userId: number } & Pick<DeviceTarget, 'vault' | 'archive' | 'deviceKind'>;
  const [row] = await db.query<Device>(sql.device, [tenant, guid]);
  if (!row) return null;
  const { name, path: organizationPath, id: deviceId, userId: user, vault, archive, deviceKind } = row;
  return { kind: 'device', id: guid, name, tenant, organizationPath, deviceId, user, vault, archive, deviceKind };
}

export async function findClientTarget(db: Transaction, tenant: number, client: number): Promise<ClientTarget | null> {
  const [row] = await db.query<Row>(sql.client, [tenant, client]);
  return row ? { kind: 'client', id: row.id, name: row.name, tenant, organizationPath: row.path } : null;
}

export async function findPlanTarget(db: Transaction, tenant: number, plan: number): Promise<PlanTarget | null> {
  const [row] = await db.query<Row & { userId: number | null }>(sql.plan, [tenant, plan]);
  if (!row) return null;
  const user = row.userId === null ? {} : { user: row.userId };
  return { kind: 'plan', id: row.id, name: row.name, tenant, organizationPath: row.path, ...user };
}
