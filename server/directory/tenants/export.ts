/**
 * What a tenant takes along when it leaves: its organizations, settings, users, roles, devices and the history of restores, a
 * line each. No secret is in it (passwords, keys and tokens of any kind), and nothing of the archives: files are taken along by
 * restoring them.
 *
 * It is the tenant's own: whoever asks is an administrator of the tenant, never the operator (docs/decisions/directory.md).
 * Read page by page, so it holds little at a time, and what changes meanwhile is in it or not. The last line counts the
 * others: an export without it is cut off.
 */
import { statement, type Transaction } from '../../../storage/catalog/database.ts';
import type { By } from '../audit/act.ts';
import { record } from '../audit/record.ts';
import { lockTenant } from '../organizations/locking.ts';

const pageRows = 500;
// A value is as long as a request at most: 1 MiB.
const pageSettings = 16;

const sql = {
  tenant: statement(
    'directory.exportTenant',
    'SELECT tenant_id AS id, name, state, created_at AS "createdAt", now() AS "exportedAt" FROM tenants WHERE tenant_id = $1',
  ),
  organizations: statement(
    'directory.exportOrganizations',
    `SELECT organization_id AS id, parent_id AS parent, name, state, created_at AS "createdAt" FROM organizations
      WHERE tenant_id = $1 AND organization_id > $2 ORDER BY organization_id LIMIT ${pageRows}`,
  ),
  settings: statement(
    'directory.exportSettings',
    `SELECT o.organization_id AS organization, s.name, s.value, s.locked
       FROM organizations o JOIN organization_settings s ON s.organization_id = o.organization_id
      WHERE o.tenant_id = $1 AND o.organization_id >= $2 AND (s.organization_id, s.name) > ($2, $3)
      ORDER BY s.organization_id, s.name LIMIT ${pageSettings}`,
  ),
  users: statement(
    'directory.exportUsers',
    `SELECT u.user_id AS id, u.organization_id AS organization, u.name, u.display_name AS "displayName", u.email, u.state, u.created_at AS "createdAt",
            (SELECT coalesce(json_agg(json_build_object('role', r.role, 'scope', r.scope, 'organization', r.organization_id) ORDER BY r.role, r.organization_id), '[]')
               FROM user_roles r WHERE r.user_id = u.user_id) AS roles
       FROM users u WHERE u.tenant_id = $1 AND u.user_id > $2 ORDER BY u.user_id LIMIT ${pageRows}`,
  ),
  devices: statement(
    'directory.exportDevices',
    `SELECT device_id AS id, guid::text AS guid, user_id AS "user", name, platform, agent_version AS "agentVersion", state, retention,
            created_at AS "createdAt", last_seen_at AS "lastSeenAt"
       FROM devices WHERE tenant_id = $1 AND user_id = ANY ($2::bigint[]) AND device_id > $3 AND state <> 'replaced'
      ORDER BY device_id LIMIT ${pageRows}`,
  ),
  restores: statement(
    'directory.exportRestores',
    `SELECT restore_id AS id, user_id AS "user", guid::text AS guid, asker_kind AS "askerKind", asker_id AS "askerId", asker_name AS "askerName",
            address, kind, format, seq, moment_at AS "momentAt", reason, permission, planned_files AS "plannedFiles", planned_bytes AS "plannedBytes",
            state, attempts AS tries, done_files AS "doneFiles", done_bytes AS "doneBytes", sent_bytes AS "sentBytes", left_out AS "leftOut",
            why, created_at AS "createdAt", begun_at AS "begunAt", ended_at AS "endedAt"
       FROM restore_requests WHERE tenant_id = $1 AND restore_id > $2 ORDER BY restore_id LIMIT ${pageRows}`,
  ),
};

export interface ExportLine {
  kind: 'tenant' | 'organization' | 'setting' | 'user' | 'device' | 'restore' | 'end';
  [member: string]: unknown;
}

/** Notes in the tenant's log that it is exported; before the first line is read. @throws Problem not_found */
export async function noteTenantExport(tx: Transaction, by: By, tenant: number): Promise<void> {
  const { name } = await lockTenant(tx, tenant);
  await record(tx, by, {
    action: 'tenant.export',
    target: { kind: 'tenant', id: tenant, name },
    organization: null,
    result: 'done',
    details: {},
  });
}

/** Holds a page at most: 500 rows, or 16 settings of up to 1 MiB. */
export async function* exportLines(db: Transaction, tenant: number): AsyncGenerator<ExportLine> {
  const counts = { organizations: 0, settings: 0, users: 0, devices: 0, restores: 0 };
  for (const row of await db.query<object>(sql.tenant, [tenant])) yield { kind: 'tenant', ...row };
  for await (const page of pagesOf<{ id: number }>(db, tenant, 'organizations')) {
    counts.organizations += page.length;
    for (const row of page) yield { kind: 'organization', ...row };
  }
  for await (const page of pagesOfSettings(db, tenant)) {
    counts.settings += page.length;
    for (const row of page) yield { kind: 'setting', ...row };
  }
  for await (const page of pagesOf<{ id: number }>(db, tenant, 'users')) {
    counts.users += page.length;
    for (const row of page) yield { kind: 'user', ...row };
    const users = page.map(({ id }) => id);
    for await (const devices of pagesOfDevices(db, tenant, users)) {
      counts.devices += devices.length;
      for (const { id: _, ...row } of devices) yield { kind: 'device', ...row };
    }
  }
  // A member of theirs is called kind, too.
  for await (const page of pagesOf<{ id: number; kind: string }>(db, tenant, 'restores')) {
    counts.restores += page.length;
    for (const { kind: way, ...row } of page) yield { kind: 'restore', way, ...row };
  }
  yield { kind: 'end', ...counts };
}

async function* pagesOf<Row extends { id: number }>(
  db: Transaction,
  tenant: number,
  what: 'organizations' | 'users' | 'restores',
): AsyncGenerator<Row[]> {
  for (let last = 0; ; ) {
    const page = await db.query<Row>(sql[what], [tenant, last]);
    yield page;
    if (page.length < pageRows) return;
    last = page.at(-1)!.id;
  }
}

async function* pagesOfSettings(db: Transaction, tenant: number): AsyncGenerator<object[]> {
  type Row = { organization: number; name: string };
  for (let last: Row = { organization: 0, name: '' }; ; ) {
    const page = await db.query<Row>(sql.settings, [tenant, last.organization, last.name]);
    yield page;
    if (page.length < pageSettings) return;
    last = page.at(-1)!;
  }
}

async function* pagesOfDevices(db: Transaction, tenant: number, users: number[]): AsyncGenerator<{ id: number }[]> {
  for (let last = 0; ; ) {
    const page = await db.query<{ id: number }>(sql.devices, [tenant, users, last]);
    yield page;
    if (page.length < pageRows) return;
    last = page.at(-1)!.id;
  }
}
