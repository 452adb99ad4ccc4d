/**
 * Tokens of repositories: made, listed, revoked. One is for one repository and in one mode; what it may is asked with every
 * request (access.ts), so that a revoked one ends with the next. Kept as SHA-256 and shown once.
 *
 * Lock order: the tenant's row for sharing, the user's, the repository's (lockDevice), the token's, the log's head.
 */
import type { z } from 'zod';
import { Problem } from '../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../storage/catalog/database.ts';
import type { By } from '../audit/act.ts';
import { record } from '../audit/record.ts';
import { lockDevice } from '../devices/changes.ts';
import { iso } from '../moments.ts';
import { isGuid } from '../tenant-view.ts';
import { pageOf, readCursor } from '../users/pages.ts';
import { resticTokenHash } from './secrets.ts';
import { type CreateTokenRequest, type ListTokensQuery, type TokenPage, type TokenView, tokensMax } from './shapes.ts';

const columns = `token_id AS id, name, mode, created_at AS "createdAt", created_by AS "createdBy", expires_at AS "expiresAt",
            last_used_at AS "lastUsedAt", revoked_at AS "revokedAt", expires_at <= now() AS expired`;

const sql = {
  isRepository: statement(
    'directory.isRepository',
    "SELECT 1 FROM devices WHERE tenant_id = $1 AND guid = $2::bigint AND kind = 'restic'",
  ),
  count: statement(
    'directory.countResticTokens',
    `SELECT count(*)::int AS tokens FROM restic_tokens
      WHERE tenant_id = $1 AND guid = $2::bigint AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())`,
  ),
  insert: statement(
    'directory.insertResticToken',
    `INSERT INTO restic_tokens (tenant_id, user_id, guid, name, mode, token_sha256, created_by, expires_at)
     VALUES ($1, $2, $3::bigint, $4, $5, $6, $7, now() + $8::int * interval '1 day') RETURNING ${columns}`,
  ),
  made: statement(
    'directory.findMadeResticToken',
    `SELECT ${columns} FROM restic_tokens WHERE tenant_id = $1 AND guid = $2::bigint AND token_sha256 = $3`,
  ),
  page: statement(
    'directory.pageResticTokens',
    `SELECT ${columns} FROM restic_tokens WHERE tenant_id = $1 AND guid = $2::bigint AND token_id > $3 ORDER BY token_id LIMIT $4`,
  ),
  lock: statement(
    'directory.lockResticToken',
    `SELECT ${columns} FROM restic_tokens WHERE tenant_id = $1 AND guid = $2::bigint AND token_id = $3 FOR NO KEY UPDATE`,
  ),
  revoke: statement(
    'directory.revokeResticToken',
    `UPDATE restic_tokens SET revoked_at = now(), version = version + 1
      WHERE tenant_id = $1 AND guid = $2::bigint AND token_id = $3 RETURNING ${columns}`,
  ),
};

interface Row {
  id: number;
  name: string;
  mode: z.infer<typeof TokenView>['mode'];
  createdAt: Date;
  createdBy: string;
  expiresAt: Date | null;
  lastUsedAt: Date | null;
  revokedAt: Date | null;
  expired: boolean | null;
}

function viewOf({ expired, ...row }: Row): z.infer<typeof TokenView> {
  const state = row.revokedAt ? 'revoked' : expired ? 'expired' : 'inForce';
  const { id, name, mode, createdBy } = row;
  return {
    id,
    name,
    mode,
    state,
    createdAt: row.createdAt.toISOString(),
    createdBy,
    expiresAt: iso(row.expiresAt),
    lastUsedAt: iso(row.lastUsedAt),
    revokedAt: iso(row.revokedAt),
  };
}

/** What a transaction of unknown outcome has made of a token that was drawn; null: nothing. */
export async function findMadeToken(
  tx: Transaction,
  { tenant, guid }: OfRepository,
  token: string,
): Promise<z.infer<typeof TokenView> | null> {
  const [row] = await tx.query<Row>(sql.made, [tenant, guid, resticTokenHash(token)]);
  return row ? viewOf(row) : null;
}

interface OfRepository {
  tenant: number;
  guid: string;
}

interface LockedRepository extends OfRepository {
  name: string;
  user: number;
  organization: number;
}

/** Enters a token of a repository whose user the transaction has locked. @param token as `newResticToken()` draws it */
export async function enterToken(
  tx: Transaction,
  by: By,
  of: LockedRepository,
  request: z.output<typeof CreateTokenRequest>,
  token: string,
): Promise<z.infer<typeof TokenView>> {
  const { name, mode, days } = request;
  const hash = resticTokenHash(token)!;
  const [row] = await tx.query<Row>(sql.insert, [of.tenant, of.user, of.guid, name, mode, hash, by.party.name, days]);
  const view = viewOf(row!);
  await recordToken(tx, by, of, 'repository.create_token', view);
  return view;
}

/**
 * @param token drawn before the transaction, and shown once
 * @throws Problem not_found; conflict when the repository is deactivated, or has as many as there may be
 */
export async function createToken(
  tx: Transaction,
  by: By,
  { tenant, guid, ...request }: OfRepository & z.output<typeof CreateTokenRequest>,
  token: string,
): Promise<z.infer<typeof TokenView>> {
  const of = await lockRepository(tx, { tenant, guid });
  const made = await findMadeToken(tx, of, token);
  if (made) return made;
  if (of.state === 'deactivated') throw new Problem('conflict', 'the repository is deactivated', { state: of.state });
  const [row] = await tx.query<{ tokens: number }>(sql.count, [tenant, guid]);
  if (row!.tokens >= tokensMax)
    throw new Problem('conflict', `there are ${tokensMax} tokens in force: revoke some of them first`);
  return enterToken(tx, by, of, request, token);
}

/** Locks a repository and its user. @throws Problem not_found */
export async function lockRepository(
  tx: Transaction,
  { tenant, guid }: OfRepository,
): Promise<LockedRepository & { state: string }> {
  await assertRepository(tx, { tenant, guid });
  const { name, state, user } = await lockDevice(tx, { tenant, guid, expected: null });
  return { tenant, guid, name, state, user: user.id, organization: user.organization };
}

/** @throws Problem not_found: there is no such device, or it is none of restic's */
export async function assertRepository(db: Transaction, { tenant, guid }: OfRepository): Promise<void> {
  if (!isGuid(guid) || (await db.query(sql.isRepository, [tenant, guid])).length === 0)
    throw new Problem('not_found', 'there is no such repository');
}

/** By id, revoked and expired ones included. @throws Problem not_found; out_of_bounds, field `after` */
export async function listTokens(
  db: Transaction,
  of: OfRepository,
  { after, limit }: z.infer<typeof ListTokensQuery>,
): Promise<z.infer<typeof TokenPage>> {
  await assertRepository(db, of);
  const rows = await db.query<Row>(sql.page, [of.tenant, of.guid, readCursor(after), limit + 1]);
  return pageOf(rows, limit, { id: ({ id }) => id, item: viewOf });
}

/** For good. Revoked again: nothing changes. @throws Problem not_found */
export async function revokeToken(
  tx: Transaction,
  by: By,
  { token, ...of }: OfRepository & { token: number },
): Promise<z.infer<typeof TokenView>> {
  const repository = await lockRepository(tx, of);
  const [row] = await tx.query<Row>(sql.lock, [of.tenant, of.guid, token]);
  if (!row) throw new Problem('not_found', 'there is no such token');
  if (row.revokedAt) return viewOf(row);
  const [revoked] = await tx.query<Row>(sql.revoke, [of.tenant, of.guid, token]);
  const view = viewOf(revoked!);
  await recordToken(tx, by, repository, 'repository.revoke_token', view);
  return view;
}

function recordToken(
  tx: Transaction,
  by: By,
  { guid, name, organization, user }: LockedRepository,
  action: string,
  token: z.infer<typeof TokenView>,
): Promise<void> {
  const { id, mode, expiresAt } = token;
  return record(tx, by, {
    action,
    target: { kind: 'device', id: guid, name },
    organization,
    result: 'done',
    details: { user, token: id, called: token.name, mode, expiresAt },
  });
}
