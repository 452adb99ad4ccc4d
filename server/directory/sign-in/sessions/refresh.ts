/**
 * Exchanges a refresh token for new tokens. A used one that comes again ends the session, since one of the two who have it
 * is not its owner, and nobody can tell which; an answer lost on the way is forgiven for a moment (judge-refresh.ts).
 *
 * Lock order: the session's row, then the log's head. Two exchanges of one session go one after the other.
 */
import { Problem } from '../../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../../storage/catalog/database.ts';
import type { By } from '../../audit/act.ts';
import { record } from '../../audit/record.ts';
import type { Directory } from '../../directory.ts';
import type { OwnSettings } from '../../settings/effective.ts';
import { type EffectiveState, heldOfUser } from '../../users/effective-state.ts';
import { isSecondFactorWanted, settingsWithoutSecondFactor } from '../second-factor/wanted.ts';
import { tokenHash } from '../tokens.ts';
import { judgeRefresh, type RefreshJudgement, type RefreshState } from './judge-refresh.ts';
import { insertAccessToken, type SessionTokens, tokensOf } from './sessions.ts';
import { type DrawnTokens, readRefreshToken, refreshGraceSeconds, refreshTokenDays } from './tokens-of-session.ts';

const sql = {
  lock: statement(
    'directory.lockSession',
    `SELECT session_id AS session, tenant_id AS tenant, user_id AS "user", operator_id AS operator,
            refresh_sha256 AS current, previous_sha256 AS previous, ended_at IS NOT NULL AS ended,
            least(ends_at, refresh_until) <= now() AS over,
            refreshed_at > now() - interval '${refreshGraceSeconds} seconds' AS "inGrace"
       FROM sessions WHERE handle_sha256 = $1 FOR NO KEY UPDATE`,
  ),
  ownerOfUser: statement(
    'directory.ownerOfUserSession',
    `SELECT u.name, o.organization_id AS organization, held.state, bare.settings AS "askOf"
       FROM sessions s JOIN users u ON u.tenant_id = s.tenant_id AND u.user_id = s.user_id
       JOIN organizations o ON o.organization_id = u.organization_id
       CROSS JOIN LATERAL ${heldOfUser} held LEFT JOIN LATERAL ${settingsWithoutSecondFactor} bare ON true
      WHERE s.session_id = $1`,
  ),
  ownerOperator: statement(
    'directory.ownerOfOperatorSession',
    `SELECT p.name, NULL::bigint AS organization, p.state,
            EXISTS (SELECT 1 FROM operator_second_factors f
                     WHERE f.operator_id = p.operator_id AND f.confirmed_at IS NOT NULL) AS "secondFactor"
       FROM sessions s JOIN operators p ON p.operator_id = s.operator_id WHERE s.session_id = $1`,
  ),
  // In the grace the one before stays the one before, and its time runs on.
  exchange: statement(
    'directory.exchangeRefreshToken',
    `UPDATE sessions SET limited = $4, refresh_sha256 = $2, refresh_until = now() + interval '${refreshTokenDays} days',
            previous_sha256 = CASE WHEN $3 THEN previous_sha256 ELSE refresh_sha256 END,
            refreshed_at = CASE WHEN $3 THEN refreshed_at ELSE now() END
      WHERE session_id = $1`,
  ),
  readEnd: statement(
    'directory.readRefreshUntil',
    'SELECT least(refresh_until, ends_at) AS until FROM sessions WHERE session_id = $1',
  ),
  dropLapsed: statement(
    'directory.dropLapsedTokens',
    'DELETE FROM access_tokens WHERE session_id = $1 AND expires_at <= now()',
  ),
  end: statement('directory.endReusedSession', 'UPDATE sessions SET ended_at = now() WHERE session_id = $1'),
};

/** What a 401 of the API carries: a type of its own, for its code is a device's too (RFC 9457, 3.1.4). */
export const accessTokenNeeded = {
  type: 'urn:holdfast:problem:access_token_needed',
  title: 'A valid access token is needed; sign in',
};

interface SessionRow extends RefreshState {
  session: number;
  tenant: number | null;
  user: number | null;
  operator: number | null;
}

interface OwnerRow {
  name: string;
  organization: number | null;
  state: EffectiveState;
  /** Of a user without a second factor, who came by a password. */
  askOf?: OwnSettings[] | null;
  /** Of an operator. */
  secondFactor?: boolean;
}

/**
 * Whether a second factor is missing is asked anew each time, and the session says so from then on: one that was limited is
 * one like any other when nobody wants it to be, and the other way round.
 * @param drawn a new access token and secret; its handle is not used, for the session keeps its own
 * @param address where the request came from
 * @throws Problem unauthorized, whatever the reason: sign in again
 */
export async function refreshSession(
  { database, operatorSecondFactor }: Pick<Directory, 'database' | 'operatorSecondFactor'>,
  presented: string,
  drawn: DrawnTokens,
  address: string,
): Promise<SessionTokens> {
  const read = readRefreshToken(presented);
  if (!read) throw signInAgain();
  // What ended a session must be kept although the caller is refused: so that is an answer here, and an error outside.
  const tokens = await database.transaction(async (tx) => {
    const [row] = await tx.query<SessionRow>(sql.lock, [read.handleSha256]);
    if (!row) return null;
    const judgement = judgeRefresh(row, read.secretSha256, tokenHash(drawn.secret)!);
    if (judgement === 'ended' || judgement === 'over') return null;
    const owner = await ownerOf(tx, row);
    if (judgement === 'reused') {
      await endReused(tx, row, owner, address);
      return null;
    }
    // Not exchanged then: lifting a block leaves the session as it was.
    if (owner.state !== 'active') return null;
    const limited = owner.askOf
      ? isSecondFactorWanted(owner.askOf)
      : operatorSecondFactor && owner.secondFactor === false;
    await exchange(tx, row, { judgement, limited }, drawn);
    const [{ until }] = (await tx.query<{ until: Date }>(sql.readEnd, [row.session])) as [{ until: Date }];
    return tokensOf(row.session, drawn, read.handle, until, limited);
  });
  if (!tokens) throw signInAgain();
  return tokens;
}

async function exchange(
  tx: Transaction,
  { session }: SessionRow,
  { judgement, limited }: { judgement: RefreshJudgement; limited: boolean },
  drawn: DrawnTokens,
): Promise<void> {
  if (judgement === 'repeated') return;
  await tx.query(sql.exchange, [session, tokenHash(drawn.secret), judgement === 'again', limited]);
  await tx.query(sql.dropLapsed, [session]);
  await insertAccessToken(tx, drawn.access, { session });
}

async function endReused(tx: Transaction, row: SessionRow, owner: OwnerRow, address: string): Promise<void> {
  await tx.query(sql.end, [row.session]);
  const party =
    row.operator === null
      ? { kind: 'user' as const, id: row.user, name: owner.name }
      : { kind: 'operator' as const, id: row.operator, name: owner.name };
  const by: By = { tenant: row.tenant, party, address };
  await record(tx, by, {
    action: 'session.end',
    target: { kind: 'session', id: row.session, name: null },
    organization: owner.organization,
    result: 'done',
    details: { why: 'a refresh token was used twice: somebody has a copy of it' },
  });
}

async function ownerOf(tx: Transaction, { session, operator }: SessionRow): Promise<OwnerRow> {
  const [row] = await tx.query<OwnerRow>(operator === null ? sql.ownerOfUser : sql.ownerOperator, [session]);
  return row!;
}

function signInAgain(): Problem {
  return new Problem('unauthorized', 'this refresh token is not valid (any more): sign in again', accessTokenNeeded);
}
