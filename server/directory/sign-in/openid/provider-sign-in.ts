/**
 * Signs a user in by an identity provider: OpenID Connect, authorization code with PKCE, state and nonce.
 *
 * What must stay true: an answer counts once, in the browser that was sent away, within ten minutes, for the provider it
 * was sent to. The browser has a cookie; state is bound to its hash, and nonce and PKCE verifier follow from both, so that
 * the database alone completes nobody's sign-in.
 */
import { createHmac } from 'node:crypto';
import * as openid from 'openid-client';
import type { z } from 'zod';
import { sha256 } from '../../../../protocol/hashes.ts';
import { Problem } from '../../../../protocol/problems.ts';
import { type Database, isPassingFault, statement } from '../../../../storage/catalog/database.ts';
import type { By } from '../../audit/act.ts';
import { recordAlone } from '../../audit/record.ts';
import type { Directory } from '../../directory.ts';
import { recordSignIn } from '../sessions/acts-of-sign-in.ts';
import type { ComesFrom } from '../sessions/begin.ts';
import { createSession, type Owner, type SessionTokens } from '../sessions/sessions.ts';
import type { DrawnTokens } from '../sessions/tokens-of-session.ts';
import { newToken, tokenHash } from '../tokens.ts';
import { providerSecretContext } from './providers.ts';
import { NotMade, settleUser } from './settle-user.ts';
import { ProviderDocument } from './shapes.ts';
import { type Claims, type Who, whoIs } from './who.ts';

export const providerSignInMinutes = 10;
/** Under way at one provider: more than people, and fewer than fill a disk. */
const underWayMax = 10_000;
const callbackCharactersMax = 8_192;

const sql = {
  find: statement(
    'directory.findProviderToSignIn',
    `SELECT p.provider_id AS id, p.tenant_id AS tenant, p.name, p.issuer, p.openid_client AS "openidClient",
            p.openid_secret AS secret, p.document
       FROM identity_providers p WHERE p.provider_id = $1 AND p.state = 'active'`,
  ),
  begin: statement(
    'directory.beginProviderSignIn',
    `INSERT INTO provider_sign_ins (state_sha256, browser_sha256, tenant_id, provider_id, return_to, expires_at)
     SELECT $1, $2, $3, $4, $5, now() + interval '${providerSignInMinutes} minutes'
      WHERE (SELECT count(*) FROM (SELECT 1 FROM provider_sign_ins WHERE provider_id = $4 LIMIT ${underWayMax}) s) < ${underWayMax}
         ON CONFLICT (state_sha256) DO UPDATE SET return_to = $5 RETURNING 1`,
  ),
  dropLapsed: statement(
    'directory.dropLapsedProviderSignIns',
    'DELETE FROM provider_sign_ins WHERE provider_id = $1 AND expires_at <= now()',
  ),
  // Only in the browser that was sent: whoever else knows the state cannot even use it up.
  take: statement(
    'directory.takeProviderSignIn',
    `DELETE FROM provider_sign_ins WHERE state_sha256 = $1 AND browser_sha256 = $2
     RETURNING provider_id AS provider, return_to AS "returnTo", expires_at > now() AS "inTime"`,
  ),
  lockProvider: statement(
    'directory.shareProviderToSignIn',
    `SELECT version FROM identity_providers WHERE tenant_id = $1 AND provider_id = $2 AND state = 'active' FOR SHARE`,
  ),
  ofSession: statement(
    'directory.findProviderOfSession',
    `SELECT p.issuer, p.openid_client AS "openidClient" FROM sessions s
       JOIN identity_providers p ON p.provider_id = s.provider_id WHERE s.tenant_id = $1 AND s.user_id = $2 AND s.session_id = $3`,
  ),
};

interface ProviderRow {
  id: number;
  tenant: number;
  name: string;
  issuer: string;
  openidClient: string;
  secret: Buffer | null;
  document: unknown;
}

/** Sends the browser away. */
export interface SentAway {
  /** Where to. */
  url: string;
  /** For a cookie of the browser: HttpOnly, Secure, SameSite=Lax, for the callback's path, ten minutes. */
  cookie: string;
}

/**
 * Begins a sign-in.
 * @param request.redirectUri the callback's address, as it is registered at the provider
 * @param request.returnTo where the browser goes in the end; the caller has checked that it is a place of ours
 * @throws Problem not_found; too_many_requests; unavailable when the provider does not answer
 */
export async function beginProviderSignIn(
  directory: Directory,
  request: { provider: number; redirectUri: string; returnTo: string | null },
  address: string,
): Promise<SentAway> {
  const { database } = directory;
  const forgive = directory.signIns.attempt('an identity provider', address); // to spare the provider
  const provider = await find(directory, request.provider);
  const configuration = await directory.openid.recent(provider).catch((cause) => {
    throw notAnswering(cause);
  });
  const [state, cookie] = [newToken(), newToken()];
  const { nonce, verifier } = derive(cookie, state);
  await database.query(sql.dropLapsed, [provider.id]);
  const begun = await database.query(sql.begin, [
    tokenHash(state),
    tokenHash(cookie),
    provider.tenant,
    provider.id,
    request.returnTo,
  ]);
  if (begun.length === 0)
    throw new Problem('too_many_requests', 'too many sign-ins are under way there', { retryAfterSeconds: 60 });
  forgive();
  const document = ProviderDocument.parse(provider.document);
  const url = openid.buildAuthorizationUrl(configuration, {
    redirect_uri: request.redirectUri,
    scope: ['openid', ...document.scopes].join(' '),
    state,
    nonce,
    code_challenge: sha256(Buffer.from(verifier, 'ascii')).toString('base64url'),
    code_challenge_method: 'S256',
  });
  return { url: url.href, cookie };
}

export interface ProviderSignedIn extends SessionTokens {
  returnTo: string | null;
}

/**
 * Ends a sign-in that has come back.
 * @param request.query what stands after the question mark of the callback
 * @param request.cookie of the browser; null: none
 * @throws Problem sign_in_failed, whatever the reason; unavailable when the provider does not answer
 */
export async function finishProviderSignIn(
  directory: Directory,
  request: { query: string; cookie: string | null; redirectUri: string },
  from: ComesFrom,
  drawn: DrawnTokens,
): Promise<ProviderSignedIn> {
  const { provider, returnTo, state, cookie } = await takeBegun(directory, request);
  const document = ProviderDocument.parse(provider.document);
  const refuse = async (why: string, result: 'refused' | 'failed' = 'refused'): Promise<Problem> => {
    await recordRefusal(directory.database, provider, { why, result }, from.address);
    return failed();
  };

  let claims: Claims;
  try {
    claims = await readClaims(directory, provider, { ...request, state, cookie });
  } catch (error) {
    const why = whyNot(error);
    const problem = await refuse(why, 'failed');
    throw why === 'the provider does not answer' ? notAnswering(error) : problem;
  }
  const who = whoIs(claims, document);
  if (!who) throw await refuse('the provider sent no subject');
  const made = await makeSession(directory, { provider, document, who, from, drawn });
  if (typeof made === 'string') throw await refuse(made);
  return { ...made, returnTo };
}

/**
 * Where to send the browser so that the provider signs out too; null: nowhere, the session came by none or it has no such
 * place. Ending the session here is the caller's (endSession), and does not wait for the provider.
 */
export async function providerSignOut(
  { database, openid: clients }: Directory,
  { tenant, user, session }: { tenant: number; user: number; session: number },
  returnTo: string,
): Promise<string | null> {
  const values = [tenant, user, session];
  const [provider] = await database.query<{ issuer: string; openidClient: string }>(sql.ofSession, values);
  if (!provider) return null;
  const configuration = await clients.recent(provider).catch(() => null);
  if (!configuration?.serverMetadata().end_session_endpoint) return null;
  return openid.buildEndSessionUrl(configuration, { post_logout_redirect_uri: returnTo }).href;
}

interface Begun {
  provider: ProviderRow;
  returnTo: string | null;
  state: string;
  cookie: string;
}

/** Uses up what was begun, before anything is asked of the provider. */
async function takeBegun(
  directory: Directory,
  { query, cookie }: { query: string; cookie: string | null },
): Promise<Begun> {
  const states = query.length <= callbackCharactersMax ? new URLSearchParams(query).getAll('state') : [];
  const state = states.length === 1 ? states[0]! : '';
  const hashes = [tokenHash(state), tokenHash(cookie ?? '')];
  if (hashes.includes(null)) throw failed();
  const [begun] = await directory.database.query<{ provider: number; returnTo: string | null; inTime: boolean }>(
    sql.take,
    hashes,
  );
  if (!begun?.inTime) throw failed();
  const provider = await find(directory, begun.provider).catch(() => null); // turned off meanwhile
  if (!provider) throw failed();
  return { provider, returnTo: begun.returnTo, state, cookie: cookie! };
}

/** Exchanges the code, and checks all that OpenID Connect says is to be checked. */
async function readClaims(
  { openid: clients, keys }: Directory,
  provider: ProviderRow,
  given: { query: string; redirectUri: string; state: string; cookie: string },
): Promise<Claims> {
  const context = providerSecretContext(provider.tenant, provider.issuer, provider.openidClient);
  const secret = provider.secret && (await keys.unseal(provider.secret, context)).toString('utf8');
  const configuration = await clients.fresh(provider, secret);
  const { nonce, verifier } = derive(given.cookie, given.state);
  const url = new URL(given.redirectUri);
  url.search = given.query;
  const tokens = await openid.authorizationCodeGrant(configuration, url, {
    expectedState: given.state,
    expectedNonce: nonce,
    pkceCodeVerifier: verifier,
    idTokenExpected: true,
  });
  const claims = tokens.claims()!;
  if (!configuration.serverMetadata().userinfo_endpoint) return claims;
  // Many providers say names and groups only there. What the signed token says counts first.
  const info = await openid.fetchUserInfo(configuration, tokens.access_token, claims.sub);
  return { ...info, ...claims };
}

/** In one transaction: the user, their roles, the session. Made again after a COMMIT of unknown outcome it finds them. */
async function makeSession(
  { database }: Directory,
  of: {
    provider: ProviderRow;
    document: z.infer<typeof ProviderDocument>;
    who: Who;
    from: ComesFrom;
    drawn: DrawnTokens;
  },
): Promise<SessionTokens | string> {
  const { provider, document, who, from, drawn } = of;
  const { tenant, id, name } = provider;
  try {
    return await database.transaction(async (tx) => {
      const user = await settleUser(tx, { tenant, provider: { id, name }, document, who, address: from.address });
      if (typeof user === 'string') return user;
      if ((await tx.query(sql.lockProvider, [tenant, id])).length === 0) return 'the provider was turned off';
      const owner: Owner = { tenant, user: user.id };
      const { madeNow, ...tokens } = await createSession(tx, { owner, limited: false, provider: id, ...from }, drawn);
      const by: By = { tenant, party: { kind: 'user', id: user.id, name: user.name }, address: from.address };
      const { session } = tokens;
      if (madeNow) await recordSignIn(tx, by, { session, organization: user.organization, with: name, limited: false });
      return tokens;
    });
  } catch (error) {
    if (error instanceof NotMade) return error.message;
    if (error instanceof Problem && error.code === 'conflict') return error.message;
    throw error;
  }
}

function derive(cookie: string, state: string): { nonce: string; verifier: string } {
  const of = (what: string): string =>
    createHmac('sha256', Buffer.from(cookie, 'base64url')).update(`${what} ${state}`).digest('base64url');
  return { nonce: of('nonce'), verifier: of('verifier') };
}

async function find({ database }: Directory, provider: number): Promise<ProviderRow> {
  const [row] = await database.query<ProviderRow>(sql.find, [provider]);
  if (!row) throw new Problem('not_found', 'there is no such identity provider');
  return row;
}

/** In our words: what a provider says of an error is anybody's text. */
function whyNot(error: unknown): string {
  if (isPassingFault(error)) throw error;
  if (error instanceof openid.AuthorizationResponseError) return 'the provider refused the sign-in';
  if (error instanceof openid.WWWAuthenticateChallengeError)
    return 'the provider does not know our client or its secret';
  if (error instanceof openid.ResponseBodyError) return 'the provider refused the code';
  if (error instanceof openid.ClientError && error.code !== 'OAUTH_TIMEOUT') {
    // The code is the library's, as OAUTH_JWT_CLAIM_COMPARISON_FAILED.
    return `the answer is not right: ${error.code ?? 'no reason'}`;
  }
  if (error instanceof openid.ClientError || error instanceof TypeError) return 'the provider does not answer';
  throw error;
}

/** Bounded like every refusal (audit/repeats.ts): anybody can send a browser back with nonsense. */
async function recordRefusal(
  database: Database,
  { tenant, id, name }: ProviderRow,
  { why, result }: { why: string; result: 'refused' | 'failed' },
  address: string,
): Promise<void> {
  const by: By = { tenant, party: { kind: 'user', id: null, name: 'unknown' }, address };
  const target = { kind: 'provider', id, name } as const;
  await recordAlone(database, by, { action: 'session.create', target, organization: null, result, details: { why } });
}

function failed(): Problem {
  return new Problem('sign_in_failed', 'the sign-in did not come to its end: begin it again', {
    type: 'urn:holdfast:problem:provider_sign_in',
    title: 'The identity provider did not sign you in here',
  });
}

function notAnswering(cause: unknown): Problem {
  return new Problem('unavailable', 'the identity provider does not answer', { retryAfterSeconds: 10 }, { cause });
}
