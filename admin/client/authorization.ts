/**
 * The access token that requests carry: one from the environment, an API client's, or of whoever signed in, exchanged for
 * a new one when its minutes are over.
 */
import { Problem } from '../../protocol/problems.ts';
import { SignInNeeded } from '../errors.ts';
import { lockHome } from '../state/lock.ts';
import {
  forgetTokens,
  readSignedIn,
  readTokens,
  type SignedIn,
  type Tokens,
  writeSignedIn,
} from '../state/signed-in.ts';
import type { Connection } from './connection.ts';

export interface Authorization {
  token(): Promise<string>;
  /** Another token, after the server refused this one; null: there is none to be had. */
  renew(refused: string): Promise<string | null>;
  /** What to tell whoever is refused in the end. */
  advice: string;
}

/** As the environment has it. */
export function givenToken(token: string): Authorization {
  return {
    token: async () => token,
    renew: async () => null,
    advice: 'The token in HOLDFAST_ADMIN_TOKEN is not valid (any more).',
  };
}

/** An API client's, asked for once per command. */
export function clientToken(connection: Connection, client: { id: string; secret: string }): Authorization {
  let asked: Promise<string> | null = null;
  const ask = async (): Promise<string> => {
    const answer = await connection.json({
      method: 'POST',
      path: '/v1/clients/token',
      body: { grant_type: 'client_credentials', client_id: client.id, client_secret: client.secret },
      // Another token is all it makes.
      repeatable: true,
    });
    return String((answer as { access_token?: unknown }).access_token);
  };
  return {
    token: () => {
      asked ??= ask();
      return asked;
    },
    renew: async () => null,
    advice: 'The API client of HOLDFAST_ADMIN_CLIENT_ID is not valid (any more).',
  };
}

/** Before its end, so that it does not lapse on the way. */
const earlyMs = 20_000;

/** Of whoever signed in on this machine. */
export function signedInToken(connection: Connection, home: string): Authorization {
  const current = (): SignedIn & { tokens: Tokens } => {
    const signedIn = readSignedIn(home);
    if (!signedIn?.tokens) throw new SignInNeeded('You are not signed in. Sign in: npm run admin -- sign-in');
    return { ...signedIn, tokens: signedIn.tokens };
  };
  return {
    async token() {
      const { tokens } = current();
      if (Date.now() < tokens.accessExpiresAt - earlyMs) return tokens.accessToken;
      return exchange(tokens.accessToken);
    },
    renew: exchange,
    advice: 'Sign in again: npm run admin -- sign-in',
  };

  /** Whoever finds that another command has exchanged it already takes what that one got. */
  async function exchange(old: string): Promise<string> {
    const unlock = lockHome(home);
    try {
      const signedIn = current();
      if (signedIn.tokens.accessToken !== old) return signedIn.tokens.accessToken;
      const now = Date.now();
      // Sent again after an answer that was lost: the server takes the one before for a moment longer, for just that.
      const answer = await connection.json({
        method: 'POST',
        path: '/v1/sessions/refresh',
        body: { refreshToken: signedIn.tokens.refreshToken },
        repeatable: true,
      });
      const tokens = readTokens(answer, now);
      writeSignedIn(home, { ...signedIn, tokens });
      return tokens.accessToken;
    } catch (error) {
      if (!(error instanceof Problem) || error.code !== 'unauthorized') throw error;
      forgetTokens(home);
      throw new SignInNeeded(
        `Your sign-in at ${connection.origin} has ended. Sign in again: npm run admin -- sign-in`,
        { cause: error },
      );
    } finally {
      unlock();
    }
  }
}
