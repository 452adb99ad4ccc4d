/**
 * Sessions: made by a sign-in, listed, and ended. An ended session is a row that says so, and every request reads it.
 *
 * Lock order: the user's row, then the session's, then the log's head. Making a session and whatever ends all of a user's
 * (a new password, an administrator) meet at the user's row, so that none is made by a password that is no longer theirs.
 */
import { Problem } from '../../../../protocol/problems.ts';
import { type Database, statement, type Transaction } from '../../../../storage/catalog/database.ts';
import type { By } from '../../audit/act.ts';
import { record } from '../../audit/record.ts';
import { revokeOpenCodes } from '../../devices/registering/open-codes.ts';
import { pageOf, readCursor } from '../../users/pages.ts';
import { tokenHash } from '../tokens.ts';
import {
  accessTokenMinutes,
  browserSessionHours,
  type DrawnTokens,
  refreshToken,
  refreshTokenDays,
  sessionDays,
  sessionsPerUserMax,
} from './tokens-of-session.ts';

/** Of rows of sessions by this name: whether they are in force. */
export const liveOf = (s: string): string =>
  `${s}.ended_at IS NULL AND ${s}.ends_at > now() AND ${s}.refresh_until > now()`;
const live = liveOf('sessions');
const ofOwner = '(user_id = $1 OR operator_id = $2)';

const sql = {
  insert: statement(
    'directory.insertSession',
    `INSERT INTO sessions (tenant_id, user_id, operator_id, handle_sha256, refresh_sha256, refresh_until, ends_at, limited, provider_id, address, program, browser)
     VALUES ($1, $2, $3, $4, $5, now() + interval '${refreshTokenDays} days',
             now() + CASE WHEN $10 THEN interval '${browserSessionHours} hours' ELSE interval '${sessionDays} days' END, $6, $7, $8, $9, $10)
         ON CONFLICT (handle_sha256) DO NOTHING RETURNING session_id AS session`,
  ),
  findByHandle: statement(
    'directory.findSessionByHandle',
    `SELECT session_id AS session, limited, refresh_until AS "refreshUntil" FROM sessions WHERE handle_sha256 = $1`,
  ),
  insertToken: statement(
    'directory.insertAccessToken',
    `INSERT INTO access_tokens (token_sha256, session_id, client_id, expires_at)
     VALUES ($1, $2, $3, now() + interval '${accessTokenMinutes} minutes') ON CONFLICT (token_sha256) DO NOTHING`,
  ),
  // Written once in a while and not with every request.
  keepSignedIn: statement(
    'directory.keepSignedIn',
    `UPDATE access_tokens a SET expires_at = now() + interval '${accessTokenMinutes} minutes' FROM sessions s
      WHERE a.token_sha256 = $1 AND s.session_id = a.session_id AND s.browser
        AND a.expires_at > now() AND a.expires_at < now() + interval '${accessTokenMinutes} minutes' - interval '1 minute'`,
  ),
  endOldest: statement(
    'directory.endOldestSessions',
    `UPDATE sessions SET ended_at = now() WHERE session_id IN (
       SELECT session_id FROM sessions WHERE ${ofOwner} AND ${live}
        ORDER BY refreshed_at DESC, session_id DESC OFFSET ${sessionsPerUserMax})`,
  ),
  list: statement(
    'directory.listSessions',
    `SELECT session_id AS id, created_at AS "createdAt", refreshed_at AS "lastUsedAt", least(ends_at, refresh_until) AS "endsAt",
            address, program, limited, provider_id AS provider
       FROM sessions WHERE ${ofOwner} AND ${live} AND session_id > $3 ORDER BY session_id LIMIT $4`,
  ),
  end: statement(
    'directory.endSession',
    `UPDATE sessions SET ended_at = coalesce(ended_at, now()) WHERE ${ofOwner} AND session_id = $3
     RETURNING ended_at = now() AS "endedNow"`,
  ),
  endAll: statement(
    'directory.endSessions',
    `UPDATE sessions SET ended_at = now() WHERE ${ofOwner} AND ended_at IS NULL AND session_id IS DISTINCT FROM $3
     RETURNING session_id AS session`,
  ),
  endByPassword: statement(
    'directory.endSessionsByPassword',
    `UPDATE sessions SET ended_at = now() WHERE ${ofOwner} AND ended_at IS NULL AND provider_id IS NULL AND session_id <> $3
     RETURNING session_id AS session`,
  ),
  lockUser: statement(
    'directory.lockUserOfSessions',
    'SELECT name, organization_id AS organization FROM users WHERE tenant_id = $1 AND user_id = $2 FOR NO KEY UPDATE',
  ),
};

/** Whose sessions: a user's, or an operator's. */
export type Owner =
  | { tenant: number; user: number; operator?: undefined }
  | { operator: number; tenant?: undefined; user?: undefined };

const idsOf = (owner: Owner): [user: number | null, operator: number | null] =>
  owner.operator === undefined ? [owner.user, null] : [null, owner.operator];

export interface NewSession {
  owner: Owner;
  limited: boolean;
  /** The identity provider they came by; null: a password. */
  provider: number | null;
  address: string | null;
  /** What the client calls itself (User-Agent); null: nothing. */
  program: string | null;
  /** At our own page, which keeps the access token in a cookie and no refresh token; false unless it is said. */
  browser?: boolean;
}

/** What whoever signed in gets: the only time that the tokens are seen. */
export interface SessionTokens {
  session: number;
  accessToken: string;
  accessExpiresInSeconds: number;
  refreshToken: string;
  refreshExpiresAt: Date;
  /** May only set up a second factor; then it is a session like any other. */
  limited: boolean;
}

/**
 * Makes a session, and ends the oldest when there are too many. The caller has locked the user's or operator's row.
 * @returns whether it was made now: false when this transaction runs again after a COMMIT that did happen
 */
export async function createSession(
  tx: Transaction,
  made: NewSession,
  drawn: DrawnTokens,
): Promise<SessionTokens & { madeNow: boolean }> {
  const { owner, limited, provider, address, program, browser = false } = made;
  const [user, operator] = idsOf(owner);
  const handle = tokenHash(drawn.handle)!;
  const secret = tokenHash(drawn.secret)!;
  const from = [provider, address, clean(program), browser];
  const values = [owner.tenant ?? null, user, operator, handle, secret, limited, ...from];
  const madeNow = (await tx.query(sql.insert, values)).length > 0;
  const [row] = await tx.query<{ session: number; limited: boolean; refreshUntil: Date }>(sql.findByHandle, [handle]);
  const { session, refreshUntil } = row!;
  await tx.query(sql.insertToken, [tokenHash(drawn.access), session, null]);
  await tx.query(sql.endOldest, [user, operator]);
  return { ...tokensOf(session, drawn, drawn.handle, refreshUntil, row!.limited), madeNow };
}

export function tokensOf(
  session: number,
  drawn: Pick<DrawnTokens, 'access' | 'secret'>,
  handle: string,
  refreshExpiresAt: Date,
  limited: boolean,
): SessionTokens {
  return {
    session,
    accessToken: drawn.access,
    accessExpiresInSeconds: accessTokenMinutes * 60,
    refreshToken: refreshToken(handle, drawn.secret),
    refreshExpiresAt,
    limited,
  };
}

/** An access token of a session or of an API client. */
export async function insertAccessToken(
  tx: Transaction,
  access: string,
  of: { session: number } | { client: number },
): Promise<void> {
  const { session = null, client = null } = of as { session?: number; client?: number };
  await tx.query(sql.insertToken, [tokenHash(access), session, client]);
}

/**
 * The access token of a session at our own page is good for another while: it ends so long after it was last used, and with
 * its session at the latest. Of other sessions it is left as it is: they refresh.
 */
export async function keepSignedIn(database: Database, access: string): Promise<void> {
  await database.query(sql.keepSignedIn, [tokenHash(access)]);
}

/** PostgreSQL's text holds no NUL; half a surrogate pair is no character; nobody needs more than so much of it. */
function clean(program: string | null): string | null {
  return program?.slice(0, 255).replaceAll('\0', '').toWellFormed() || null;
}

export interface ListedSession {
  id: number;
  createdAt: Date;
  /** When its tokens were last exchanged. */
  lastUsedAt: Date;
  /** Unless it is used before. */
  endsAt: Date;
  address: string | null;
  program: string | null;
  limited: boolean;
  provider: number | null;
}

/** Sessions that are in force, oldest first. */
export async function listSessions(
  db: Database | Transaction,
  owner: Owner,
  page: { after?: string | undefined; limit: number },
): Promise<{ items: ListedSession[]; next: string | null }> {
  const values = [...idsOf(owner), readCursor(page.after), page.limit + 1];
  const rows = await db.query<ListedSession>(sql.list, values);
  return pageOf(rows, page.limit, { id: (row) => row.id, item: (row) => row });
}

/**
 * Ends a session: signing out, or an administrator's doing. One that has ended stays so, and is no error. Registration codes
 * that were made in it are good no more: they are asked for it when they are used.
 * @throws Problem not_found when the owner has no such session
 */
export async function endSession(tx: Transaction, by: By, owner: Owner, session: number): Promise<void> {
  const [row] = await tx.query<{ endedNow: boolean }>(sql.end, [...idsOf(owner), session]);
  if (!row) throw new Problem('not_found', 'there is no such session');
  if (!row.endedNow) return;
  await record(tx, by, {
    action: 'session.end',
    target: { kind: 'session', id: session, name: null },
    organization: null,
    result: 'done',
    details: owner.operator === undefined ? { user: owner.user } : { operator: owner.operator },
  });
}

/**
 * Ends all sessions of a user.
 * @param except one that stays: the caller's own
 * @throws Problem not_found
 */
export async function endSessionsOfUser(
  tx: Transaction,
  by: By,
  { tenant, user, except }: { tenant: number; user: number; except: number | null },
): Promise<{ ended: number }> {
  const [row] = await tx.query<{ name: string; organization: number }>(sql.lockUser, [tenant, user]);
  if (!row) throw new Problem('not_found', 'there is no such user');
  const ended = await endAll(tx, { tenant, user }, except);
  await record(tx, by, {
    action: 'user.end_sessions',
    target: { kind: 'user', id: user, name: row.name },
    organization: row.organization,
    result: 'done',
    details: { sessions: ended },
  });
  return { ended };
}

/**
 * Ends all but one, without an act of its own: part of one that is told. Open registration codes end with them, for they
 * may have been made from one of them. The owner's row is locked.
 */
export async function endAll(tx: Transaction, owner: Owner, except: number | null): Promise<number> {
  if (owner.operator === undefined) await revokeOpenCodes(tx, owner.user);
  return (await tx.query(sql.endAll, [...idsOf(owner), except])).length;
}

/**
 * The same for those that came by a password: by an identity provider they came with what that asks for. Open registration
 * codes end whoever made them, for they would go around the second factor that there is from now on.
 */
export async function endAllByPassword(tx: Transaction, owner: Owner, except: number): Promise<number> {
  if (owner.operator === undefined) await revokeOpenCodes(tx, owner.user);
  return (await tx.query(sql.endByPassword, [...idsOf(owner), except])).length;
}
