/** What commands work with: the server they ask, and on whose word. From the environment, else from who signed in. */
import { readFileSync } from 'node:fs';
import { Problem } from '../../protocol/problems.ts';
import { type Authorization, clientToken, givenToken, signedInToken } from '../client/authorization.ts';
import { type Answer, type Asked, Connection } from '../client/connection.ts';
import { readFingerprint, readOrigin, type ServerAddress } from '../client/pinned-agent.ts';
import { SignInNeeded, UsageError } from '../errors.ts';
import { adminHome, type FromEnvironment, fromEnvironment, type Surroundings } from '../state/home.ts';
import { readSignedIn } from '../state/signed-in.ts';
import { note } from './output.ts';

export interface Session {
  home: string;
  connection: Connection;
  /** Null: nobody is signed in; what is for anyone can be asked. */
  authorization: Authorization | null;
  /** On the word of who signed in, and not of the environment. */
  isSignedIn: boolean;
}

export function programVersion(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return String((JSON.parse(text) as { version?: unknown }).version ?? '0');
}

export function connectionTo(address: ServerAddress): Connection {
  let saidOnce = false;
  return new Connection({
    ...address,
    userAgent: `holdfast-admin/${programVersion()}`,
    onRetry: (error) => {
      if (!saidOnce) note(`${error.message}; trying again`);
      saidOnce = true;
    },
  });
}

/** Null when no server is known. @throws UsageError for variables that cannot be */
export function openSession(around: Surroundings): Session | null {
  const home = adminHome(around);
  const given = fromEnvironment(around);
  const signedIn = readSignedIn(home);
  const origin = given.server === undefined ? (signedIn?.server ?? null) : readOrigin(given.server);
  if (origin === null) return null;
  const isSignedInThere = signedIn?.server === origin;
  const pinned = isSignedInThere ? signedIn.certificateSha256 : null;
  const certificateSha256 = given.fingerprint === undefined ? pinned : readFingerprint(given.fingerprint);
  const connection = connectionTo({ origin, certificateSha256 });
  const stored = isSignedInThere && signedIn.tokens ? signedInToken(connection, home) : null;
  const authorization = authorizationOf(given, connection) ?? stored;
  return { home, connection, authorization, isSignedIn: stored !== null && authorization === stored };
}

function authorizationOf(
  { token, clientId, clientSecret }: FromEnvironment,
  connection: Connection,
): Authorization | null {
  if (token !== undefined) return givenToken(token);
  if (clientId === undefined && clientSecret === undefined) return null;
  if (clientId === undefined || clientSecret === undefined)
    throw new UsageError('HOLDFAST_ADMIN_CLIENT_ID and HOLDFAST_ADMIN_CLIENT_SECRET belong together');
  return clientToken(connection, { id: clientId, secret: clientSecret });
}

export const howToSignIn =
  'Sign in first: npm run admin -- sign-in --server https://HOST:PORT --user NAME   (sign-in --help says more)';

const howToSetUp = 'Set up a second factor first: npm run admin -- me second-factor set-up';

/**
 * Asks as whoever is signed in; a token that the server does not take any more is renewed once.
 * @throws SignInNeeded, Problem, ConnectionLost
 */
export async function ask({ connection, authorization }: Session, asked: Asked): Promise<Answer> {
  if (!authorization) throw new SignInNeeded(howToSignIn);
  const send = (token: string): Promise<Answer> =>
    connection.send({ ...asked, headers: { ...asked.headers, authorization: `Bearer ${token}` } });
  const token = await authorization.token();
  try {
    return await send(token);
  } catch (error) {
    // Asked for a code, or a wrong one: they have a second factor.
    if (error instanceof Problem && error.code === 'second_factor_needed' && error.extras.field !== 'code')
      throw new Problem(error.code, `${error.message}\n${howToSetUp}`, error.extras, { cause: error });
    if (!isRefusedToken(error)) throw error;
    const renewed = await authorization.renew(token);
    if (renewed !== null) return await send(renewed).catch((again) => explain(again, authorization));
    return explain(error, authorization);
  }
}

const isRefusedToken = (error: unknown): error is Problem => error instanceof Problem && error.code === 'unauthorized';

function explain(error: unknown, { advice }: Authorization): never {
  if (!isRefusedToken(error)) throw error;
  throw new SignInNeeded(`The server does not take the access token. ${advice}`, { cause: error });
}
