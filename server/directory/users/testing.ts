/** For tests: a database with tenants, organizations and people, and the acts that verbs have recorded. */
import { randomBytes } from 'node:crypto';
import { Problem } from '../../../protocol/problems.ts';
import { type Database, databaseDefaults, openDatabase, type Transaction } from '../../../storage/catalog/database.ts';
import { testDatabase } from '../../../tests/helpers/postgres.ts';
import type { By } from '../audit/act.ts';
import { insertOrganization, insertTenant } from '../organizations/inserting.ts';
import { newRegistrationKey } from '../organizations/registration-key.ts';
import { insertUser } from './people.ts';

export interface PeopleWorld {
  database: Database;
  /** Runs SQL of the test's own. */
  sql<Row = Record<string, unknown>>(text: string, values?: unknown[]): Promise<Row[]>;
  tenant(): Promise<{ tenant: number; organization: number }>;
  organization(tenant: number, parent: number | null, name?: string): Promise<number>;
  user(of: { tenant: number; organization: number }, name?: string, administrator?: boolean): Promise<number>;
  /** A device with a vault and an archive of its own user. @returns its GUID */
  device(of: { tenant: number; user: number }, more?: { name?: string; platform?: string }): Promise<TestDevice>;
  change<T>(work: (tx: Transaction) => Promise<T>): Promise<T>;
  /** What was recorded in a tenant's log, oldest first. */
  actions(tenant: number): Promise<string[]>;
  close(): Promise<void>;
}

export interface TestDevice {
  guid: string;
  deviceId: number;
  vault: number;
  archive: number;
}

let drawn = 0;

export async function peopleWorld(): Promise<PeopleWorld> {
  const made = await testDatabase();
  const database = openDatabase({ ...databaseDefaults, connectionString: made.connectionString });
  const sql: PeopleWorld['sql'] = (text, values = []) => database.query({ name: '', text }, values);
  const organization: PeopleWorld['organization'] = (tenantId, parentId, name = `organization ${++drawn}`) =>
    database.transaction((tx) =>
      insertOrganization(tx, { tenantId, parentId, name, registrationKey: newRegistrationKey() }),
    );
  return {
    database,
    sql,
    organization,
    async tenant() {
      const tenant = await database.transaction((tx) => insertTenant(tx, `tenant ${++drawn}`));
      return { tenant, organization: await organization(tenant, null) };
    },
    user: ({ tenant, organization }, name = `user${++drawn}`, administrator = false) =>
      database.transaction((tx) =>
        insertUser(tx, { tenantId: tenant, organizationId: organization, name, passwordHash: 'none', administrator }),
      ),
    async device({ tenant, user }, { name = `device ${++drawn}`, platform = 'linux' } = {}) {
      await sql('INSERT INTO vaults (user_id) VALUES ($1) ON CONFLICT DO NOTHING', [user]);
      const [row] = await sql<TestDevice>(
        `WITH vault AS (SELECT vault_id FROM vaults WHERE user_id = $1),
              archive AS (INSERT INTO archives (vault_id, device_id) SELECT vault_id, 0 FROM vault RETURNING vault_id, archive_id)
         INSERT INTO devices (tenant_id, user_id, guid, name, platform, agent_version, token_sha256, vault_id, archive_id, last_seen_at)
         SELECT $2, $1, $3, $4, $5, '1.0.0', $6, vault_id, archive_id, now() FROM archive
         RETURNING guid::text AS guid, device_id AS "deviceId", vault_id AS vault, archive_id AS archive`,
        [user, tenant, String(4_611_686_018_427_387_904n + BigInt(++drawn)), name, platform, randomBytes(32)],
      );
      return row!;
    },
    change: (work) => database.transaction(work),
    async actions(tenant) {
      const rows = await sql<{ action: string }>('SELECT action FROM acts WHERE tenant_id = $1 ORDER BY number', [
        tenant,
      ]);
      return rows.map(({ action }) => action);
    },
    async close() {
      await database.close();
      await made.drop();
    },
  };
}

export const actingAs = (tenant: number, user: number | null = null): By => ({
  tenant,
  party: user === null ? { kind: 'server', id: null, name: 'the test' } : { kind: 'user', id: user, name: 'somebody' },
  address: null,
});

/** How a verb ended: `done`, or the problem's code with the field it names. */
export async function told(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return 'done';
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    return [error.code, error.extras.field].filter((part) => part !== undefined).join(' ');
  }
}
