/**
 * Who may: the middleware that a route line names. `device()` lets in any device with a valid token;
 * `device('own')` only to the archive in the path that is its own; `device('read')` also to the others of its user
 * that it may read; `device('restore')` only if it may restore: one that is blocked backs up and does not. What a device
 * may not reach answers like what does not exist. However it came in, a device has a bounded number of requests under way. `stranger` lets in anybody, few at a time.
 */
import { Problem } from '../../protocol/problems.ts';
import { authenticateDevice, type DeviceAccess, mayReadArchive } from '../directory/devices/access.ts';
import { addressOf } from './client-address.ts';
import type { Context } from './deps.ts';
import { idParameter } from './parameters.ts';

/** 256 random bits as base64url. */
const tokenShape = /^[A-Za-z0-9_-]{43}$/;
/** Requests that may wait for the directory at a time: their bodies are not in the budget yet. */
const authenticatingMax = 256;
let authenticating = 0;

export function device(reach?: 'own' | 'read' | 'restore') {
  return async (ctx: Context, next: () => Promise<unknown>): Promise<void> => {
    const identity = await authenticate(ctx);
    ctx.state.device = identity;
    const release = await ctx.state.deps.slots.requests.take(identity.deviceId, ctx.state.signal);
    try {
      if (reach === 'restore') {
        if (!identity.mayRestore)
          throw new Problem('forbidden', 'this device is blocked: it backs up, and does not restore');
      } else if (reach) {
        const archive = idParameter(ctx, 'archive');
        if (
          archive !== identity.archive &&
          !(reach === 'read' && (await mayReadArchive(ctx.state.deps.directory, identity, archive)))
        ) {
          throw new Problem('not_found', 'there is no such archive');
        }
        ctx.state.archive = { vault: identity.vault, archive };
      }
      await next();
    } finally {
      release();
    }
  };
}

/** Lets in who has no token yet, some at a time. */
export async function stranger(ctx: Context, next: () => Promise<unknown>): Promise<void> {
  const release = await ctx.state.deps.slots.strangers.take(addressOf(ctx), ctx.state.signal);
  try {
    await next();
  } finally {
    release();
  }
}

async function authenticate(ctx: Context): Promise<DeviceAccess> {
  const [scheme, token, ...more] = ctx.get('authorization').split(' ');
  if (scheme?.toLowerCase() !== 'bearer' || !token || more.length > 0 || !tokenShape.test(token)) throw unauthorized();
  if (authenticating >= authenticatingMax) {
    throw new Problem('overloaded', 'too many requests wait for their sign-in', { retryAfterSeconds: 2 });
  }
  authenticating++;
  try {
    const identity = await authenticateDevice(ctx.state.deps.directory, token);
    if (!identity) throw unauthorized();
    return identity;
  } finally {
    authenticating--;
  }
}

function unauthorized(): Problem {
  return new Problem('unauthorized', 'the request carries no valid device token');
}
