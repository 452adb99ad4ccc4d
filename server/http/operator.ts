/**
 * Who may, for what a browser shows to those who run the server: `operator()` lets in whoever signed in as one: with the
 * cookie of the sign-in page, an access token of the API, or HTTP Basic (RFC 7617) on every request, which is refused where a
 * second factor is in force or needed: a password alone would be a way around it (docs/decisions/sign-in.md). Browsers send
 * cookie and password along by themselves, so what changes something must come from a page of ours. However they came in,
 * each has a bounded number of requests under way.
 */
import { Problem } from '../../protocol/problems.ts';
import type { Directory } from '../directory/directory.ts';
import { admitOperator, type Operator, operatorSignIn } from '../directory/sign-in/operators/basic-sign-in.ts';
import { isOperatorLimited, loadActor } from '../directory/sign-in/sessions/actor.ts';
import { keepSignedIn } from '../directory/sign-in/sessions/sessions.ts';
import type { OperatorSignIn } from '../metrics.ts';
import { refuseCleartext } from './cleartext.ts';
import { addressOf } from './client-address.ts';
import type { Context } from './deps.ts';
import { readOperatorCookie } from './operator-cookie.ts';

/** More than any password manager makes, and little to hash. */
const credentialCharactersMax = 2_048;
const reading = new Set(['GET', 'HEAD', 'OPTIONS']);
export const operatorSignInPath = '/admin/sign-in';
const howToSignIn = `sign in at ${operatorSignInPath}, or with HTTP Basic: an operator's name and password`;

export function operator() {
  return async (ctx: Context, next: () => Promise<unknown>): Promise<void> => {
    refuseCleartext(ctx);
    refuseForeignPages(ctx);
    const found = await counted(ctx, authenticate(ctx)).catch((error) => {
      if (!isForThePage(ctx, error)) throw error;
    });
    if (!found) return toThePage(ctx);
    ctx.state.operator = found;
    const release = await ctx.state.deps.slots.requests.take(`operator ${found.id}`, ctx.state.signal);
    try {
      await next();
    } finally {
      release();
    }
  };
}

/** Counts how a sign-in ended: many wrong ones are somebody who guesses. */
async function counted<T>(ctx: Context, signIn: Promise<T>): Promise<T> {
  const { metrics } = ctx.state.deps;
  try {
    const found = await signIn;
    metrics.operatorSignIn('let_in');
    return found;
  } catch (error) {
    metrics.operatorSignIn((error instanceof Problem && ends.get(error.code)) || 'turned_away');
    throw error;
  }
}

const ends = new Map<string, OperatorSignIn>([
  ['unauthorized', 'unsigned'],
  ['sign_in_failed', 'wrong'],
]);

async function authenticate(ctx: Context): Promise<Operator> {
  const { directory, slots } = ctx.state.deps;
  const address = addressOf(ctx);
  const cookie = readOperatorCookie(ctx);
  const [scheme, token] = ctx.get('authorization').split(' ');
  const credentials = readCredentials(ctx.get('authorization'));
  // What to send instead, whatever is refused below. A page's own requests are not asked for Basic: the browser would put a
  // dialog before the page.
  const asks = ctx.get('sec-fetch-site') === '' || credentials ? 'Basic realm="Holdfast", charset="UTF-8"' : 'Bearer';
  ctx.set('WWW-Authenticate', asks);
  const release = await slots.signIns.take(address, ctx.state.signal);
  try {
    const found =
      (cookie === null ? null : await signedInOperator(directory, cookie, 'cookie')) ??
      (scheme?.toLowerCase() === 'bearer' && token ? await signedInOperator(directory, token, 'bearer') : null) ??
      (credentials && (await admitOperator(directory, credentials, address)));
    if (!found) throw new Problem('unauthorized', howToSignIn, operatorSignIn);
    ctx.remove('WWW-Authenticate');
    return found;
  } finally {
    release();
  }
}

/**
 * Of an access token; null: it is no operator's, or not good any more.
 * @throws Problem second_factor_needed: the session can only set one up
 */
async function signedInOperator(
  directory: Directory,
  token: string,
  by: 'cookie' | 'bearer',
): Promise<Operator | null> {
  const loaded = await loadActor(directory.database, token);
  if (loaded.refused !== null || loaded.actor !== null) return null;
  if (isOperatorLimited(directory, loaded))
    throw new Problem('second_factor_needed', 'set up your second factor first (POST /v1/me/second-factor)');
  if (by === 'cookie') await keepSignedIn(directory.database, token);
  const { operator: id, operatorName: name } = loaded.identity;
  return { id, name };
}

/** A person with a browser, to whom a page says more than a problem does. */
function isForThePage(ctx: Context, error: unknown): boolean {
  if (!(error instanceof Problem) || !['unauthorized', 'second_factor_needed'].includes(error.code)) return false;
  return reading.has(ctx.method) && /\btext\/html\b/.test(ctx.get('accept'));
}

function toThePage(ctx: Context): void {
  ctx.remove('WWW-Authenticate');
  ctx.set('Cache-Control', 'no-store');
  ctx.status = 303;
  ctx.set('Location', operatorSignInPath);
  ctx.body = '';
}

function readCredentials(header: string): { userName: string; password: string } | null {
  const [scheme, encoded, ...more] = header.split(' ');
  if (scheme?.toLowerCase() !== 'basic' || !encoded || more.length > 0 || encoded.length > credentialCharactersMax)
    return null;
  const text = Buffer.from(encoded, 'base64').toString('utf8');
  const colon = text.indexOf(':');
  return colon < 1 ? null : { userName: text.slice(0, colon), password: text.slice(colon + 1) };
}

/** Requests that another site's page makes a browser send. What is no browser says nothing, and has no password by itself. */
export function refuseForeignPages(ctx: Context): void {
  if (reading.has(ctx.method)) return;
  const [site, origin] = [ctx.get('sec-fetch-site'), ctx.get('origin')];
  const foreign = site !== '' ? site !== 'same-origin' : origin !== '' && !isOrigin(origin, ctx.host);
  if (foreign) throw new Problem('forbidden', 'this request was made by a page of another site');
}

function isOrigin(origin: string, host: string): boolean {
  return URL.canParse(origin) && new URL(origin).host === host;
}
