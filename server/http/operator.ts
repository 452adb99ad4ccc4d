/**
 * Who may, for what a browser shows to those who run the server: `operator()` lets in whoever signs in as one, with HTTP
 * Basic (RFC 7617) on every request. Browsers send the password along by themselves, so what changes something must come
 * from a page of ours. However they came in, each has a bounded number of requests under way.
 */
import { Problem } from '../../protocol/problems.ts';
import { admitOperator, type Operator, operatorSignIn } from '../directory/sign-in/operators/basic-sign-in.ts';
import type { OperatorSignIn } from '../metrics.ts';
import { refuseCleartext } from './cleartext.ts';
import { addressOf } from './client-address.ts';
import type { Context } from './deps.ts';

/** More than any password manager makes, and little to hash. */
const credentialCharactersMax = 2_048;
const reading = new Set(['GET', 'HEAD', 'OPTIONS']);
const howToSignIn = "sign in with HTTP Basic: an operator's name and password";

export function operator() {
  return async (ctx: Context, next: () => Promise<unknown>): Promise<void> => {
    refuseCleartext(ctx);
    refuseForeignPages(ctx);
    const found = await counted(ctx, authenticate(ctx));
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
  // Both ways to be refused below: what to send instead.
  ctx.set('WWW-Authenticate', 'Basic realm="Holdfast", charset="UTF-8"');
  const credentials = readCredentials(ctx.get('authorization'));
  if (!credentials) throw new Problem('unauthorized', howToSignIn, operatorSignIn);
  const { directory, slots } = ctx.state.deps;
  const address = addressOf(ctx);
  const release = await slots.signIns.take(address, ctx.state.signal);
  try {
    const found = await admitOperator(directory, credentials, address);
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
