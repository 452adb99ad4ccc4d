/**
 * API clients: programs with permissions of their own, a scope and an end. The secret is shown when it is made and kept as
 * SHA-256; it is 256 random bits, so no more is needed.
 *
 * What must stay true: whoever sees a secret may themselves give all that its client may. So the giver is an argument
 * here and not the route's business: what the client may is only known under its lock.
 *
 * Lock order: the tenant's row (shared: the tree stays as it is), the client's row, the log's head.
 */
import { randomBytes } from 'node:crypto';
import type { z } from 'zod';
import { Problem } from '../../../../protocol/problems.ts';
import { type Database, statement, type Transaction } from '../../../../storage/catalog/database.ts';
import type { By } from '../../audit/act.ts';
import { record } from '../../audit/record.ts';
import { iso } from '../../moments.ts';
import { userBehind } from '../../restores/thresholds/askers.ts';
import type { Actor } from '../../roles/may.ts';
import { isPermission, type Permission } from '../../roles/permissions.ts';
import { heldOfOrganization } from '../../users/effective-state.ts';
import { assertExpected, shareTree } from '../../users/locks.ts';
import { pageOf, readCursor, type Within, withinValues } from '../../users/pages.ts';
import { newToken, tokenHash } from '../tokens.ts';
import { notToGive } from './may-give.ts';
import {
  type ClientView,
  type CreateClientRequest,
  clientDaysMax,
  type ListClientsQuery,
  type UpdateClientRequest,
} from './shapes.ts';

const columns = `c.client_id AS id, c.client_key AS "clientId", c.name, c.organization_id AS organization, c.permissions, c.scope,
       c.expires_at AS "expiresAt", c.revoked_at AS "revokedAt",
       CASE WHEN c.old_secret_until > now() THEN c.old_secret_until END AS "oldSecretUntil", c.made_by AS "madeBy",
       c.created_at AS "createdAt", c.last_used_at AS "lastUsedAt", c.version`;
const from = 'FROM api_clients c JOIN organizations o ON o.organization_id = c.organization_id';

const sql = {
  insert: statement(
    'directory.insertClient',
    `INSERT INTO api_clients (tenant_id, organization_id, name, client_key, secret_sha256, permissions, scope, expires_at, made_by, secret_shown_to)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING client_id AS id`,
  ),
  place: statement(
    'directory.placeForClient',
    `SELECT o.organization_id AS id, o.path, held.state IN ('deactivated', 'offboarding', 'deleting', 'deleted') AS out
       FROM organizations o CROSS JOIN LATERAL ${heldOfOrganization} held WHERE o.tenant_id = $1 AND o.organization_id = $2`,
  ),
  isInTime: statement(
    'directory.isClientEndInTime',
    `SELECT $1::timestamptz > now() AND $1::timestamptz <= now() + interval '${clientDaysMax} days' AS "inTime"`,
  ),
  lock: statement(
    'directory.lockClient',
    `SELECT ${columns}, o.path ${from} WHERE c.tenant_id = $1 AND c.client_id = $2 FOR NO KEY UPDATE OF c`,
  ),
  read: statement('directory.readClient', `SELECT ${columns} ${from} WHERE c.tenant_id = $1 AND c.client_id = $2`),
  list: statement(
    'directory.listClients',
    `SELECT ${columns} ${from}
      WHERE c.tenant_id = $1 AND c.client_id > $2 AND ($3::bigint IS NULL OR o.path @> ARRAY[$3::bigint])
        AND ($4::text IS NULL OR $4 = CASE WHEN c.revoked_at IS NOT NULL THEN 'revoked'
                                           WHEN c.expires_at <= now() THEN 'expired' ELSE 'inForce' END)
      ORDER BY c.client_id LIMIT $5`,
  ),
  update: statement(
    'directory.updateClient',
    `UPDATE api_clients SET name = $3, permissions = $4, scope = $5, expires_at = $6, version = version + 1
      WHERE tenant_id = $1 AND client_id = $2`,
  ),
  rotate: statement(
    'directory.rotateClient',
    `UPDATE api_clients
        SET secret_sha256 = $3, secret_shown_to = $5, version = version + 1,
            old_secret_sha256 = CASE WHEN $4::int > 0 THEN secret_sha256 END,
            old_secret_until = CASE WHEN $4::int > 0 THEN now() + $4::int * interval '1 hour' END
      WHERE tenant_id = $1 AND client_id = $2`,
  ),
  endTokens: statement('directory.endTokensOfClient', 'DELETE FROM access_tokens WHERE client_id = $1'),
  revoke: statement(
    'directory.revokeClient',
    'UPDATE api_clients SET revoked_at = now(), version = version + 1 WHERE tenant_id = $1 AND client_id = $2',
  ),
};

type Client = z.infer<typeof ClientView>;

interface ClientRow extends Omit<Client, 'expiresAt' | 'revokedAt' | 'oldSecretUntil' | 'createdAt' | 'lastUsedAt'> {
  expiresAt: Date;
  revokedAt: Date | null;
  oldSecretUntil: Date | null;
  createdAt: Date;
  lastUsedAt: Date | null;
}

/** Drawn before the transaction that may run twice. The secret is shown once, beside the verb's answer. */
export interface DrawnClient {
  clientKey: string;
  secret: string;
}

export function drawClient(): DrawnClient {
  return { clientKey: `client-${randomBytes(12).toString('hex')}`, secret: newToken() };
}

/** Which client, and the version that the change was made from; null: whichever. */
export interface OfClient {
  tenant: number;
  client: number;
  expected: number | null;
}

/**
 * Makes a client.
 * @param giver whoever makes it
 * @throws Problem forbidden { permissions } for what the giver may not give so far; not_found, conflict (field
 *   `organization`); out_of_bounds (field `expiresAt`)
 */
export async function createClient(
  tx: Transaction,
  by: By,
  request: z.infer<typeof CreateClientRequest> & { tenant: number; giver: Actor },
  drawn: DrawnClient,
): Promise<Client> {
  const { tenant, name, permissions, scope, expiresAt, giver } = request;
  const organization = await findPlace(tx, tenant, request.organization);
  assertMayGive(giver, { permissions, scope, path: organization.path });
  await assertInTime(tx, expiresAt);
  const values = [
    tenant,
    organization.id,
    name,
    drawn.clientKey,
    tokenHash(drawn.secret),
    permissions,
    scope,
    expiresAt,
  ];
  const [row] = await tx.query<{ id: number }>(sql.insert, [...values, by.party.name, await userBehind(tx, by)]);
  const made = await readClient(tx, { tenant, client: row!.id });
  await recordClient(tx, by, 'client.create', made, { permissions, scope, expiresAt: made.expiresAt });
  return made;
}

/**
 * Changes what it is called, may, reaches, or when it ends.
 * @throws Problem as createClient, not_found, precondition_failed; conflict when it is revoked
 */
export async function updateClient(
  tx: Transaction,
  by: By,
  request: OfClient & { giver: Actor; change: z.infer<typeof UpdateClientRequest> },
): Promise<Client> {
  const { tenant, giver, change } = request;
  const { path, before } = await lockUsable(tx, request);
  const { name = before.name, permissions = before.permissions.filter(isPermission), scope = before.scope } = change;
  assertMayGive(giver, { permissions, scope, path });
  if (change.expiresAt !== undefined) await assertInTime(tx, change.expiresAt);
  const expiresAt = change.expiresAt ?? before.expiresAt;
  await tx.query(sql.update, [tenant, before.id, name, permissions, scope, expiresAt]);
  const after = await readClient(tx, request);
  const changed = (['name', 'permissions', 'scope', 'expiresAt'] as const).filter(
    (each) => JSON.stringify(before[each]) !== JSON.stringify(after[each]),
  );
  const details = Object.fromEntries(changed.map((each) => [each, { from: before[each], to: after[each] }]));
  await recordClient(tx, by, 'client.update', after, details);
  return after;
}

/**
 * Gives it a new secret, which works at once; the one before works for a while longer, so that nothing stands still.
 * @param request.overlapHours 0: the one before ends now, with all access tokens
 * @throws Problem forbidden { permissions } when the giver may not give what it may; not_found, precondition_failed;
 *   conflict when it is revoked
 */
export async function rotateClient(
  tx: Transaction,
  by: By,
  request: OfClient & { giver: Actor; overlapHours: number },
  drawn: Pick<DrawnClient, 'secret'>,
): Promise<Client> {
  const { tenant, giver, overlapHours } = request;
  const { path, before } = await lockUsable(tx, request);
  assertMayGive(giver, { permissions: before.permissions.filter(isPermission), scope: before.scope, path });
  await tx.query(sql.rotate, [tenant, before.id, tokenHash(drawn.secret), overlapHours, await userBehind(tx, by)]);
  if (overlapHours === 0) await tx.query(sql.endTokens, [before.id]);
  const after = await readClient(tx, request);
  await recordClient(tx, by, 'client.rotate', after, { overlapHours });
  return after;
}

/**
 * Ends it and all its access tokens, for good. One that is revoked stays so, and is no error.
 * @throws Problem not_found, precondition_failed
 */
export async function revokeClient(tx: Transaction, by: By, request: OfClient): Promise<Client> {
  const { before } = await lock(tx, request);
  if (before.revokedAt !== null) return before;
  await tx.query(sql.revoke, [request.tenant, before.id]);
  const after = await readClient(tx, request);
  await recordClient(tx, by, 'client.revoke', after, {});
  return after;
}

/** @throws Problem not_found */
export async function readClient(
  db: Database | Transaction,
  { tenant, client }: Pick<OfClient, 'tenant' | 'client'>,
): Promise<Client> {
  const [row] = await db.query<ClientRow>(sql.read, [tenant, client]);
  if (!row) throw noSuchClient();
  return viewOf(row);
}

/** Clients in reach, by id. Of a reader who reaches themselves alone: none, for clients are nobody's. */
export async function listClients(
  db: Database | Transaction,
  { tenant, within }: { tenant: number; within: Within },
  { after, limit, state }: z.infer<typeof ListClientsQuery>,
): Promise<{ items: Client[]; next: string | null }> {
  const [path, user] = withinValues(within);
  if (user !== null) return { items: [], next: null };
  const rows = await db.query<ClientRow>(sql.list, [tenant, readCursor(after), path, state ?? null, limit + 1]);
  return pageOf(rows, limit, { id: (row) => row.id, item: viewOf });
}

/** @throws Problem not_found, conflict, both with field `organization` */
async function findPlace(
  tx: Transaction,
  tenant: number,
  organization: number,
): Promise<{ id: number; path: number[] }> {
  await shareTree(tx, tenant);
  const [row] = await tx.query<{ id: number; path: number[]; out: boolean }>(sql.place, [tenant, organization]);
  if (!row) throw new Problem('not_found', 'there is no such organization', { field: 'organization' });
  if (row.out) throw new Problem('conflict', 'the organization is deactivated', { field: 'organization' });
  return row;
}

async function lock(tx: Transaction, of: OfClient): Promise<{ before: Client; path: number[] }> {
  const [row] = await tx.query<ClientRow & { path: number[] }>(sql.lock, [of.tenant, of.client]);
  if (!row) throw noSuchClient();
  assertExpected(row.version, of.expected);
  const { path, ...before } = row;
  return { before: viewOf(before), path };
}

async function lockUsable(tx: Transaction, of: OfClient): Promise<{ before: Client; path: number[] }> {
  await shareTree(tx, of.tenant);
  const locked = await lock(tx, of);
  if (locked.before.revokedAt !== null) throw new Problem('conflict', 'this client is revoked, for good');
  return locked;
}

function assertMayGive(
  giver: Actor,
  given: { permissions: readonly Permission[]; scope: 'tree' | 'all'; path: number[] },
): void {
  const { permissions, scope, path: organizationPath } = given;
  const missing = notToGive(giver, { permissions, scope, organizationPath });
  if (missing.length > 0)
    throw new Problem('forbidden', `you may not give what you do not have so far yourself: ${missing.join(', ')}`, {
      field: 'permissions',
      permissions: missing,
    });
}

/** By the database's clock: a client ends, and not in the distant future. */
async function assertInTime(tx: Transaction, expiresAt: string): Promise<void> {
  const [row] = await tx.query<{ inTime: boolean }>(sql.isInTime, [expiresAt]);
  if (!row!.inTime)
    throw new Problem('out_of_bounds', 'a client ends in the future, within two years', { field: 'expiresAt' });
}

function recordClient(
  tx: Transaction,
  by: By,
  action: string,
  { id, name, organization }: Client,
  details: Parameters<typeof record>[2]['details'],
): Promise<void> {
  return record(tx, by, { action, target: { kind: 'client', id, name }, organization, result: 'done', details });
}

function viewOf(row: ClientRow): Client {
  return {
    ...row,
    expiresAt: row.expiresAt.toISOString(),
    createdAt: row.createdAt.toISOString(),
    revokedAt: iso(row.revokedAt),
    oldSecretUntil: iso(row.oldSecretUntil),
    lastUsedAt: iso(row.lastUsedAt),
  };
}

function noSuchClient(): Problem {
  return new Problem('not_found', 'there is no such API client');
}
