/**
 * Who may: the middleware of every route of restic's. A user name and a token come by HTTP Basic with each request, which
 * restic sends unasked, and reach the repository that the token is for and no other. However it came in, a repository has a
 * bounded number of requests under way.
 */
import { Problem } from '../../../protocol/problems.ts';
import { authenticateRepository } from '../../directory/restic/access.ts';
import { rawBody } from '../bodies.ts';
import { refuseCleartext } from '../cleartext.ts';
import { addressOf } from '../client-address.ts';
import type { Context } from '../deps.ts';

/** A user name has 254 characters at most, of up to four bytes, and a token 47. */
const credentialCharactersMax = 2_048;
/** What is read of a body to be answered that nobody wants: a pack of any usual size; of strangers, next to nothing. */
const discardedBytesMax = 32 * 1024 * 1024;
const strangersBytesMax = 64 * 1024;
const discardingMs = 10_000;

/** Requests that may wait for the directory at a time: their bodies are not in the budget yet. */
const authenticatingMax = 256;
let authenticating = 0;

export async function repository(ctx: Context, next: () => Promise<unknown>): Promise<void> {
  try {
    await admit(ctx, next);
  } finally {
    await discardRest(ctx, ctx.state.repository ? discardedBytesMax : strangersBytesMax);
  }
}

async function admit(ctx: Context, next: () => Promise<unknown>): Promise<void> {
  refuseCleartext(ctx);
  const { deps, signal } = ctx.state;
  const access = await authenticate(ctx);
  ctx.state.repository = access;
  const release = await deps.slots.requests.take(access.deviceId, signal);
  try {
    await next();
  } finally {
    release();
  }
}

async function authenticate(ctx: Context) {
  if (authenticating >= authenticatingMax)
    throw new Problem('overloaded', 'too many requests wait for their sign-in', { retryAfterSeconds: 2 });
  authenticating++;
  ctx.set('WWW-Authenticate', 'Basic realm="Holdfast", charset="UTF-8"');
  try {
    const name = (ctx as unknown as { params: Record<string, string> }).params.repository ?? '';
    const credentials = readCredentials(ctx.get('authorization'));
    const access = await authenticateRepository(ctx.state.deps.directory, credentials, name, addressOf(ctx));
    ctx.remove('WWW-Authenticate');
    return access;
  } finally {
    authenticating--;
  }
}

/** A token holds no colon, a user's name may. */
function readCredentials(header: string): { user: string; token: string } | null {
  const [scheme, encoded, ...more] = header.split(' ');
  if (scheme?.toLowerCase() !== 'basic' || !encoded || more.length > 0 || encoded.length > credentialCharactersMax)
    return null;
  const text = Buffer.from(encoded, 'base64').toString('utf8');
  const colon = text.lastIndexOf(':');
  return colon < 1 ? null : { user: text.slice(0, colon), token: text.slice(colon + 1) };
}

/**
 * Reads what is left of the body, and forgets it. An answer before the body's end stops its sender, on HTTP/2 by a reset of the
 * stream; Go before 1.20 takes that for the failure of the whole request, never looks at the answer, and restic tries again
 * what was refused. So the answer waits for the end, for a bounded time and a bounded number of bytes.
 */
async function discardRest(ctx: Context, bytesMax: number): Promise<void> {
  const source = rawBody(ctx);
  if (ctx.method === 'GET' || ctx.method === 'HEAD' || source.readableEnded || source.destroyed) return;
  let left = bytesMax;
  await new Promise<void>((resolve) => {
    const onData = (chunk: Buffer): void => {
      left -= chunk.byteLength;
      if (left < 0) onEnd();
    };
    const onEnd = (): void => {
      clearTimeout(timer);
      source
        .off('data', onData)
        .off('end', onEnd)
        .off('close', onEnd)
        .off('error', onEnd)
        .on('error', () => {});
      resolve();
    };
    const timer = setTimeout(onEnd, discardingMs);
    source.on('end', onEnd).on('close', onEnd).on('error', onEnd).on('data', onData).resume();
  });
}
