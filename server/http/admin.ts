/**
 * Who may, for routes of administrators: `administrator()` lets in whoever signs in as one, with HTTP Basic (RFC 7617)
 * on every request; `administrator('operator')` only those who run the server. A password travels encrypted or not at
 * all. Browsers send it along by themselves, so what changes something must come from a page of ours. However they
 * came in, each has a bounded number of requests under way.
 */
import { Problem } from '../../protocol/problems.ts';
import { type Administrator, administratorSignIn, signInAdministrator } from '../directory/administrators.ts';
import type { AdminSignIn } from '../metrics.ts';
import { addressOf, isFromThisMachine } from './client-address.ts';
import type { Context } from './deps.ts';

/** More than any password manager makes, and little to hash. */
const credentialCharactersMax = 2_048;
const reading = new Set(['GET', 'HEAD', 'OPTIONS']);
const howToSignIn =
  'sign in with HTTP Basic: your user name and password, in another tenant than the first with its number, as in 12/anna';

export function administrator(reach?: 'operator') {
  return async (ctx: Context, next: () => Promise<unknown>): Promise<void> => {
    refuseCleartext(ctx);
    refuseForeignPages(ctx);
    const found = await counted(ctx, authenticate(ctx));
    ctx.state.administrator = found;
    if (reach === 'operator' && !found.operator)
      throw new Problem('forbidden', 'this is for administrators of the first tenant, who run the server');
    const release = await ctx.state.deps.slots.requests.take(`administrator ${found.userId}`, ctx.state.signal);
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
    metrics.adminSignIn('let_in');
    return found;
  } catch (error) {
    metrics.adminSignIn((error instanceof Problem && ends.get(error.code)) || 'turned_away');
    throw error;
  }
}

const ends = new Map<string, AdminSignIn>([
  ['unauthorized', 'unsigned'],
  ['sign_in_failed', 'wrong'],
  ['forbidden', 'not_allowed'],
]);

async function authenticate(ctx: Context): Promise<Administrator> {
  // Both ways to be refused below: what to send instead.
  ctx.set('WWW-Authenticate', 'Basic realm="Holdfast", charset="UTF-8"');
  const credentials = readCredentials(ctx.get('authorization'));
  if (!credentials) throw new Problem('unauthorized', howToSignIn, administratorSignIn);
  const { directory, slots } = ctx.state.deps;
  const address = addressOf(ctx);
  const release = await slots.signIns.take(address, ctx.state.signal);
  try {
    const found = await signInAdministrator(directory, credentials, address);
    ctx.remove('WWW-Authenticate');
    return found;
  } finally {
    release();
  }
}

function readCredentials(header: string): { userName: string; password: string } | null {
  const [scheme, encoded, ...more] = header.split(' ');
  if (scheme?.toLowerCase() !== 'basic' || !encoded || more.length > 0 || encoded.length > credentialCharactersMax)
    return null;
  const text = Buffer.from(encoded, 'base64').toString('utf8');
  const colon = text.indexOf(':');
  return colon < 1 ? null : { userName: text.slice(0, colon), password: text.slice(colon + 1) };
}

/** Behind an ingress that ends TLS, the nearest proxy of ours says how the client came. */
function refuseCleartext(ctx: Context): void {
  const { tls, proxies } = ctx.state.deps.settings;
  if (tls || isFromThisMachine(ctx)) return;
  const proto = ctx.get('x-forwarded-proto').split(',').at(-1)?.trim().toLowerCase();
  if (proxies > 0 && proto === 'https') return;
  throw new Problem('forbidden', 'administrators sign in over HTTPS only (behind an ingress: set HOLDFAST_PROXIES)');
}

/** Requests that another site's page makes a browser send. What is no browser says nothing, and has no password by itself. */
function refuseForeignPages(ctx: Context): void {
  if (reading.has(ctx.method)) return;
  const [site, origin] = [ctx.get('sec-fetch-site'), ctx.get('origin')];
  const foreign = site !== '' ? site !== 'same-origin' : origin !== '' && !isOrigin(origin, ctx.host);
  if (foreign) throw new Problem('forbidden', 'this request was made by a page of another site');
}

function isOrigin(origin: string, host: string): boolean {
  return URL.canParse(origin) && new URL(origin).host === host;
}
