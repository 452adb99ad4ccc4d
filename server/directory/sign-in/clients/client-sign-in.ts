/**
 * An API client's sign-in (OAuth 2.0 client credentials, RFC 6749, 4.4): name and secret for an access token of minutes.
 * Secrets are 256 random bits, so guessing is bounded only to spare the log.
 *
 * Lock order: the client's row, what counts refusals, then the log's head.
 */
import { Problem } from '../../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../../storage/catalog/database.ts';
import type { By } from '../../audit/act.ts';
import { record, recordFirst } from '../../audit/record.ts';
import type { Directory } from '../../directory.ts';
import { type EffectiveState, heldOfOrganization } from '../../users/effective-state.ts';
import { insertAccessToken } from '../sessions/sessions.ts';
import { accessTokenMinutes } from '../sessions/tokens-of-session.ts';
import { tokenHash } from '../tokens.ts';

/** Access tokens of one client at a time; the first to end makes room. */
export const tokensPerClientMax = 100;

const sql = {
  lock: statement(
    'directory.lockClientToSignIn',
    `SELECT c.client_id AS id, c.tenant_id AS tenant, c.organization_id AS organization, c.name, held.state,
            c.revoked_at IS NOT NULL AS revoked, c.expires_at <= now() AS expired,
            (c.secret_sha256 = $2 OR coalesce(c.old_secret_sha256 = $2 AND c.old_secret_until > now(), false)) AS "right"
       FROM api_clients c JOIN organizations o ON o.organization_id = c.organization_id
       CROSS JOIN LATERAL ${heldOfOrganization} held
      WHERE c.client_key = $1 FOR NO KEY UPDATE OF c`,
  ),
  isIssued: statement('directory.isTokenIssued', 'SELECT 1 FROM access_tokens WHERE token_sha256 = $1'),
  makeRoom: statement(
    'directory.makeRoomForToken',
    `DELETE FROM access_tokens WHERE client_id = $1 AND (expires_at <= now() OR token_sha256 IN (
       SELECT token_sha256 FROM access_tokens WHERE client_id = $1
        ORDER BY expires_at DESC, token_sha256 OFFSET ${tokensPerClientMax - 1}))`,
  ),
  noteUsed: statement('directory.noteClientUsed', 'UPDATE api_clients SET last_used_at = now() WHERE client_id = $1'),
};

interface Row {
  id: number;
  tenant: number;
  organization: number;
  name: string;
  state: EffectiveState;
  revoked: boolean;
  expired: boolean;
  right: boolean;
}

/**
 * @param drawn the access token to give: `newToken()`, drawn before
 * @param address where the request came from
 * @throws Problem sign_in_failed whatever the reason; too_many_requests
 */
export async function signInClient(
  directory: Directory,
  { clientId, clientSecret }: { clientId: string; clientSecret: string },
  drawn: string,
  address: string,
): Promise<{ accessToken: string; expiresInSeconds: number }> {
  const forgive = directory.signIns.attempt(`client ${clientId}`, address);
  const issued = await directory.database
    .transaction((tx) => issue(tx, { clientId, secret: tokenHash(clientSecret), drawn, address }))
    .catch((error) => {
      forgive(); // it was not judged
      throw error;
    });
  if (!issued)
    throw new Problem('sign_in_failed', 'the client or its secret is not right', {
      type: 'urn:holdfast:problem:client_sign_in',
      title: 'The API client or its secret is not right',
    });
  forgive();
  return { accessToken: drawn, expiresInSeconds: accessTokenMinutes * 60 };
}

/** Being refused is written down too, so it is an answer and no error. */
async function issue(
  tx: Transaction,
  given: { clientId: string; secret: Buffer | null; drawn: string; address: string },
): Promise<boolean> {
  const { clientId, secret, drawn, address } = given;
  const [row] = clientId.includes('\0') ? [] : await tx.query<Row>(sql.lock, [clientId, secret]);
  if (row && (await tx.query(sql.isIssued, [tokenHash(drawn)])).length > 0) return true; // by a COMMIT of unknown outcome
  const why = whyRefused(row);
  if (row && !why) {
    await tx.query(sql.makeRoom, [row.id]);
    await insertAccessToken(tx, drawn, { client: row.id });
    await tx.query(sql.noteUsed, [row.id]);
  }
  const by: By = {
    tenant: row?.tenant ?? null,
    party: { kind: 'client', id: row?.id ?? null, name: row?.name ?? 'unknown' },
    address,
  };
  const about = {
    action: 'client.sign_in',
    target: row ? { kind: 'client' as const, id: row.id, name: row.name } : null,
    organization: row?.organization ?? null,
  };
  if (why) await recordFirst(tx, by, { ...about, result: 'refused', details: { why } });
  else await record(tx, by, { ...about, result: 'done', details: {} });
  return !why;
}

function whyRefused(row: Row | undefined): string | null {
  if (!row) return 'no such client';
  if (!row.right) return 'wrong secret';
  if (row.revoked) return 'revoked';
  if (row.expired) return 'expired';
  return row.state === 'active' ? null : row.state;
}
