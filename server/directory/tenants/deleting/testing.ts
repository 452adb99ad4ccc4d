/** Tenants that have something of everything, for tests of what becomes of it. */
import { randomBytes } from 'node:crypto';
import { expect } from '@jest/globals';
import { joinHashes, sha256 } from '../../../../protocol/hashes.ts';
import type { Fence } from '../../../../storage/archive/checking/fence.ts';
import { deleteDeadObjects } from '../../../../storage/archive/deleting/delete-objects.ts';
import { reclaimDue, settleDue } from '../../../../storage/archive/deleting/reclaim.ts';
import { storeLists } from '../../../../storage/archive/writing/lists.ts';
import { createArchive, createVault } from '../../../../storage/catalog/vaults.ts';
import type { ArchiveRef } from '../../../../storage/storage.ts';
import { commit, deletion, newRun, type TestStorage, upload, version } from '../../../../tests/helpers/storage.ts';
import { operator, type TestTenant, testTenant } from '../../organizations/testing.ts';
import { deleteStaged } from '../../restores/staging/delete-staged.ts';
import { userAccountKey } from '../../sign-in/accounts.ts';
import { beginOffboarding } from '../offboarding.ts';
import { beginDeleting } from './begin.ts';

export interface FullTenant extends TestTenant {
  users: number[];
  archives: ArchiveRef[];
  /** Of the object store. */
  keys: string[];
}

const block = (seed: number): Buffer => Buffer.alloc(700, `block ${seed} `);
let guids = 0;

/** Two users with a device each (one of them replaced another), and rows in every table there is about tenants. */
export async function fullTenant(storage: TestStorage): Promise<FullTenant> {
  const its = await testTenant(storage.database);
  const { tenant, top } = its;
  const [sub] = (await its.chain(top, 'sub')) as [number];
  const users = [await its.user(top, 'anna'), await its.user(sub, 'bert')];
  const archives: ArchiveRef[] = [];
  for (const user of users) archives.push(await deviceOf(storage, { tenant, user }));
  for (const ref of archives) await fill(storage, ref);
  await fillDirectory(storage, its, users as [number, number]);
  const vaults = archives.map(({ vault }) => vault);
  const keys = await storage.rows<{ key: string }>('SELECT key FROM objects WHERE vault_id = ANY ($1::bigint[])', [
    vaults,
  ]);
  return { ...its, users, archives, keys: keys.map(({ key }) => key) };
}

async function deviceOf(storage: TestStorage, { tenant, user }: { tenant: number; user: number }): Promise<ArchiveRef> {
  const ref = await storage.database.transaction(async (tx) => {
    const vault = (await createVault(tx, { userId: user }))!;
    return { vault, archive: await createArchive(tx, { vault, deviceId: user }) };
  });
  const guid = ++guids;
  const insert = (state: string, replaces: number | null) =>
    storage.rows<{ id: number }>(
      `INSERT INTO devices (tenant_id, user_id, guid, name, platform, agent_version, token_sha256, vault_id, archive_id, state, replaces_id)
       VALUES ($1, $2, $3, 'laptop', 'linux', '1', $4, $5, $6, $7, $8) RETURNING device_id AS id`,
      [tenant, user, guid, randomBytes(32), ref.vault, ref.archive, state, replaces],
    );
  const [old] = await insert('replaced', null);
  await insert('active', old!.id);
  await storage.rows(`INSERT INTO plans (tenant_id, guid, name, content) SELECT $1, $2::bigint, 'mine', '{}'`, [
    tenant,
    guid,
  ]);
  return ref;
}

/** Files, old versions, a deletion, a large file's list; a run with files left out; blocks that nobody committed. */
async function fill(storage: TestStorage, ref: ArchiveRef): Promise<void> {
  const { vault, archive } = ref;
  const [one, two, three, loose] = [1, 2, 3, 4].map(block) as [Buffer, Buffer, Buffer, Buffer];
  await upload(storage, vault, [one, two, three]);
  await upload(storage, vault, [loose]);
  const hashes = joinHashes([sha256(one), sha256(two)]);
  const list = { hash: sha256(hashes), blocks: hashes };
  await storeLists(storage, vault, [list]);
  const run = await newRun(storage, ref);
  const large = { lists: list.hash, size: one.byteLength + two.byteLength };
  await commit(storage, ref, run, [
    version('/a/b/kept', [one]),
    version('/a/gone', [two]),
    version('/large', [], large),
  ]);
  await commit(storage, ref, run, [version('/a/b/kept', [three]), deletion('/a/gone')]);
  const add = (text: string, values: unknown[] = [vault]): Promise<unknown> => storage.rows(text, values);
  await add(`INSERT INTO run_skipped VALUES ($1, $2, $3, sha256(''), '', 'unreadable', '')`, [vault, archive, run]);
  await add(`INSERT INTO restores VALUES ($1, $2, 1, now() - interval '1 s')`, [vault, archive]);
  await add(`INSERT INTO vault_keys VALUES ($1, 1, 'standard', '\\x01')`);
  await add(`INSERT INTO held_vault_keys VALUES ($1, 1, '\\x02')`);
  await add(`INSERT INTO holds (vault_id, policy, release_effective_at) VALUES ($1, '{}', now() - interval '1 s')`);
  await add(`INSERT INTO damage (vault_id, hash) VALUES ($1, sha256('none'))`);
  await add(`INSERT INTO damage_versions VALUES ($1, sha256('none'), $2, 1, 1)`, [vault, archive]);
  await add(`INSERT INTO alerts (vault_id, archive_id, kind) VALUES ($1, $2, 'damaged')`, [vault, archive]);
  await add(`INSERT INTO freed SELECT $1, hash, now() FROM blocks WHERE vault_id = $1 LIMIT 1 ON CONFLICT DO NOTHING`);
  await add(`INSERT INTO vault_usage VALUES ($1, 0, 0, 0, 0, 0)`);
  // As a repository of restic would have them, or an agent's archive never has.
  await add(`INSERT INTO plain_figures VALUES ($1, $2, 'data', 1, 1, 0, 0)`, [vault, archive]);
  await add(`INSERT INTO plain_deletes VALUES ($1, $2, '2020-01-01', 1, 1)`, [vault, archive]);
  await add(`INSERT INTO hidden_blocks VALUES ($1, sha256('none'), 1)`);
}

async function fillDirectory(storage: TestStorage, its: TestTenant, [anna, bert]: [number, number]): Promise<void> {
  const { tenant, top } = its;
  const add = async (text: string, values: unknown[]): Promise<number> =>
    (await storage.rows<{ id: number }>(text, values))[0]?.id ?? 0;
  await add(
    `INSERT INTO organization_settings (tenant_id, organization_id, name, value) VALUES ($1, $2, 'quotas.bytes', '1000000'), ($1, $2, 'auditLog.days', '400')`,
    [tenant, top],
  );
  await add(`INSERT INTO plans (tenant_id, organization_id, name, content) VALUES ($1, $2, 'all', '{}')`, [
    tenant,
    top,
  ]);
  const provider = await add(
    `INSERT INTO identity_providers (tenant_id, name, issuer, openid_client, openid_secret, document)
     VALUES ($1, 'p', 'https://p.test', 'c', '\\x01', '{}') RETURNING provider_id AS id`,
    [tenant],
  );
  await add(`INSERT INTO provider_accounts VALUES ($1, 'subject', $2, $3)`, [provider, tenant, anna]);
  await add(
    `INSERT INTO provider_sign_ins VALUES (sha256($3::bytea), sha256(''), $1, $2, null, now() + interval '1 hour')`,
    [tenant, provider, `state ${tenant}`],
  );
  await add(
    `INSERT INTO user_roles (tenant_id, user_id, role, scope, organization_id, provider_id) VALUES ($1, $2, 'PROe User', 'self', $3, $4)`,
    [tenant, anna, top, provider],
  );
  const session = await add(
    `INSERT INTO sessions (tenant_id, user_id, handle_sha256, refresh_sha256, refresh_until, ends_at, provider_id)
     VALUES ($1, $2, $4, $4, now() + interval '1 day', now() + interval '1 day', $3) RETURNING session_id AS id`,
    [tenant, anna, provider, randomBytes(32)],
  );
  const client = await add(
    `INSERT INTO api_clients (tenant_id, organization_id, name, client_key, secret_sha256, permissions, scope, expires_at, made_by)
     VALUES ($1, $2, 'program', $3, sha256(''), '{org.read}', 'tree', now() + interval '1 day', 'user ada') RETURNING client_id AS id`,
    [tenant, top, `key ${tenant}`],
  );
  await add(
    `INSERT INTO access_tokens VALUES ($1, $2, null, now() + interval '1 h'), ($3, null, $4, now() + interval '1 h')`,
    [randomBytes(32), session, randomBytes(32), client],
  );
  await add(`INSERT INTO second_factors (user_id, tenant_id, secret) VALUES ($1, $2, '\\x01')`, [anna, tenant]);
  await add(`INSERT INTO recovery_codes VALUES ($1, sha256(''))`, [anna]);
  await add(
    `INSERT INTO invitations (user_id, tenant_id, token_sha256, expires_at) VALUES ($1, $2, $3, now() + interval '1 day')`,
    [bert, tenant, randomBytes(32)],
  );
  await add(
    `INSERT INTO registration_codes (tenant_id, user_id, code_sha256, kind, expires_at, session_id)
     VALUES ($1, $2, $3, 'made', now() + interval '1 h', $4)`,
    [tenant, anna, randomBytes(32), session],
  );
  await add(
    `INSERT INTO restic_tokens (tenant_id, user_id, guid, name, mode, token_sha256, created_by) VALUES ($1, $2, 1, 'first', 'full', $3, 'anna')`,
    [tenant, anna, randomBytes(32)],
  );
  await add(
    `INSERT INTO restore_requests (tenant_id, user_id, guid, vault_id, archive_id, asker_kind, asker_id, asker_name, kind, format,
            selection, seq, permission, planned_files, planned_folders, planned_links, planned_bytes, planned_damaged, planned_gone,
            planned_missing, lapses_at)
     SELECT tenant_id, user_id, guid, vault_id, archive_id, 'user', user_id, 'anna', 'streamed', 'zip', '{"paths":["Lw"],"deleted":false}',
            1, 'restore.personal', 1, 0, 0, 1, 0, 0, 0, now() FROM devices WHERE tenant_id = $1 AND user_id = $2 AND state = 'active'`,
    [tenant, anna],
  );
  await add(
    `INSERT INTO device_commands (tenant_id, user_id, guid, kind, body, expires_at)
     SELECT tenant_id, user_id, guid, 'browse', '{}', now() FROM devices WHERE tenant_id = $1 AND user_id = $2 AND state = 'active'`,
    [tenant, anna],
  );
  await add(
    `INSERT INTO device_channels (tenant_id, user_id, guid, channel, is_open)
     SELECT tenant_id, user_id, guid, gen_random_uuid(), true FROM devices WHERE tenant_id = $1 AND user_id = $2 AND state = 'active'`,
    [tenant, anna],
  );
  await add(`INSERT INTO restore_meters (tenant_id, asker_kind, asker_id) VALUES ($1, 'user', $2)`, [tenant, anna]);
  await add(`INSERT INTO restore_charges VALUES ($1, $2, 'user', $2, 1, 0, 1)`, [tenant, anna]);
  await add(
    `INSERT INTO restore_blocks (tenant_id, asker_kind, asker_id, asker_name, user_id, vault_id, archive_id, restored_bytes, asked_bytes, threshold_bytes)
     SELECT tenant_id, 'client', $3, 'program', user_id, vault_id, archive_id, 1, 1, 1 FROM devices
      WHERE tenant_id = $1 AND user_id = $2 AND state = 'active'`,
    [tenant, anna, client],
  );
  await add(
    `UPDATE restore_requests SET kind = 'staged', state = 'completed', lapses_at = now() + interval '1 day' WHERE tenant_id = $1`,
    [tenant],
  );
  const staged = await add(
    `INSERT INTO staged_archives (tenant_id, user_id, restore_id, asker_kind, asker_id, attempt, state, key_record, reserved_bytes, length, part_frames)
     SELECT tenant_id, user_id, restore_id, 'user', user_id, gen_random_uuid(), 'ready', '\\x01', 100, 84, 128 FROM restore_requests
      WHERE tenant_id = $1 RETURNING staged_id AS id`,
    [tenant],
  );
  await add(`INSERT INTO staged_fetches (staged_id, tenant_id, ends_at, address) VALUES ($1, $2, 0, '192.0.2.1')`, [
    staged,
    tenant,
  ]);
  const account = userAccountKey(bert);
  await add(`INSERT INTO sign_in_failures VALUES ($1, 'password', 'elsewhere', 1)`, [account]);
  await add(`INSERT INTO sign_in_addresses VALUES ($1, '192.0.2.1')`, [account]);
  await add(
    `INSERT INTO requests_made (requester, key, request_sha256, status, answer)
     VALUES ($1, 'k', sha256(''), 200, '{}'), ($2, 'k', sha256(''), 200, '{}')`,
    [`user ${anna}`, `client ${client}`],
  );
}

/** Tables that have nothing of a tenant, each with the reason. */
const ofNoTenant: Record<string, string> = {
  catalog: 'who the catalog is',
  fence: 'the fence',
  migrations: 'what was applied',
};
/** What is left of one, and what is counted for a minute. */
export const staying = new Set(['tenants', 'acts', 'act_heads', 'act_repeats']);

/** How many rows of each table are a tenant's: by every column that names something of it, and by the tables it has. */
export async function rowsOf(storage: TestStorage, its: FullTenant): Promise<Map<string, number>> {
  const columns = await storage.rows<{ table: string; columns: string[] }>(
    `SELECT t.table_name AS table, coalesce(json_agg(c.column_name), '[]') AS columns
       FROM information_schema.tables t JOIN information_schema.columns c USING (table_schema, table_name)
      WHERE t.table_schema = 'public' AND t.table_type = 'BASE TABLE' GROUP BY 1`,
  );
  const values = await namesOf(storage, its);
  const counts = new Map<string, number>();
  for (const { table, columns: has } of columns) {
    const named = Object.keys(values).filter((column) => has.includes(column));
    if (named.length === 0) {
      // Those who run the server are of none either.
      if (!/^operators?(_|$)/.test(table)) expect(ofNoTenant).toHaveProperty(table);
      continue;
    }
    if (table in ofNoTenant) continue;
    const where = named.map((column, i) => `${column}::text = ANY ($${i + 1}::text[])`).join(' OR ');
    const [row] = await storage.rows<{ n: number }>(
      `SELECT count(*)::int AS n FROM ${table} WHERE ${where}`,
      named.map((column) => values[column]),
    );
    counts.set(table, row!.n);
  }
  return counts;
}

const remembered = new Map<number, Record<string, string[]>>();

/** By column: what is the tenant's. Read once, while it is all there. */
async function namesOf(storage: TestStorage, its: FullTenant): Promise<Record<string, string[]>> {
  const before = remembered.get(its.tenant);
  if (before) return before;
  const ids = async (text: string): Promise<string[]> =>
    (await storage.rows<{ id: string }>(text, [its.tenant])).map(({ id }) => String(id));
  const people = await ids('SELECT user_id AS id FROM users WHERE tenant_id = $1');
  const clients = await ids('SELECT client_id AS id FROM api_clients WHERE tenant_id = $1');
  const accounts = people.map((user) => `\\x${userAccountKey(Number(user)).toString('hex')}`);
  const names = {
    tenant_id: [String(its.tenant)],
    organization_id: await ids('SELECT organization_id AS id FROM organizations WHERE tenant_id = $1'),
    user_id: people,
    vault_id: its.archives.map(({ vault }) => String(vault)),
    guid: await ids('SELECT guid::text AS id FROM devices WHERE tenant_id = $1'),
    client_id: clients,
    provider_id: await ids('SELECT provider_id AS id FROM identity_providers WHERE tenant_id = $1'),
    session_id: await ids('SELECT session_id AS id FROM sessions WHERE tenant_id = $1'),
    account_sha256: accounts,
    requester: [...people.map((user) => `user ${user}`), ...clients.map((client) => `client ${client}`)],
  };
  remembered.set(its.tenant, names);
  return names;
}

/** Offboards it, and lets its day have come. */
export async function leave(storage: TestStorage, tenant: number, past = '1 second'): Promise<void> {
  await storage.database.transaction((tx) => beginOffboarding(tx, operator, { tenant, delayDays: 1, expected: null }));
  await storage.rows('UPDATE tenants SET delete_after = now() - $2::interval WHERE tenant_id = $1', [tenant, past]);
}

export function begin(storage: TestStorage, tenant: number, name = 'tenant') {
  return storage.database.transaction((tx) => beginDeleting(tx, operator, { tenant, name, expected: null }));
}

/** What the engine's own jobs do meanwhile. */
export async function runEngineJobs(storage: TestStorage, fence: Fence): Promise<void> {
  for (let i = 0; i < 2; i++) {
    await settleDue(storage);
    await reclaimDue(storage);
    await deleteDeadObjects(storage, fence);
    await deleteStaged(storage, fence, { lateMs: 0 });
  }
}

export async function expectNothingLeftOf(storage: TestStorage, its: FullTenant): Promise<void> {
  const left = [...(await rowsOf(storage, its))].filter(([table, n]) => n > 0 && !staying.has(table));
  expect(left).toEqual([]);
}
