/**
 * The page where those who run the server sign in with a browser: name, password and, where there is one, a code of the
 * second factor. A browser that is asked by HTTP Basic could send the first two alone.
 */
import type Router from '@koa/router';
import { z } from 'zod';
import { Problem } from '../../../protocol/problems.ts';
import { loadActor } from '../../directory/sign-in/sessions/actor.ts';
import { signInOperator } from '../../directory/sign-in/sessions/begin.ts';
import { endSession } from '../../directory/sign-in/sessions/sessions.ts';
import { drawTokens } from '../../directory/sign-in/sessions/tokens-of-session.ts';
import { form } from '../bodies.ts';
import { refuseCleartext } from '../cleartext.ts';
import { addressOf } from '../client-address.ts';
import type { Context, RequestState } from '../deps.ts';
import { operatorSignInPath, refuseForeignPages } from '../operator.ts';
import { readOperatorCookie, setOperatorCookie } from '../operator-cookie.ts';

export const operatorSignOutPath = '/admin/sign-out';
const formBytesMax = 16 * 1024;

const Form = z.strictObject({
  userName: z.string().min(1).max(300),
  password: z.string().min(1).max(1_024),
  code: z.string().max(64).default(''),
});

/** What is shown is text of ours alone: nothing that was typed comes back. */
const contentSecurityPolicy =
  "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

const signOutForm = `<form method="post" action="${operatorSignOutPath}">
<p>This browser is signed in.</p>
<button>Sign out</button>
</form>
`;

const page = (says: string, isSignedIn: boolean): string => `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Holdfast: sign in</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 22rem; margin: 4rem auto; padding: 0 1rem; color-scheme: light dark }
label, input, button { display: block; width: 100%; box-sizing: border-box; font: inherit }
input { margin: 0 0 1rem; padding: .4rem }
button { padding: .5rem }
</style>
</head>
<body>
<h1>Holdfast</h1>
<p>For those who run this server.</p>
${says === '' ? '' : `<p role="alert"><strong>${says}</strong></p>`}
<form method="post" action="${operatorSignInPath}">
<label for="userName">Name</label>
<input id="userName" name="userName" autocomplete="username" required autofocus>
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" required>
<label for="code">Code of the second factor, if you have one, or a recovery code</label>
<input id="code" name="code" autocomplete="one-time-code">
<button>Sign in</button>
</form>
${isSignedIn ? signOutForm : ''}</body>
</html>
`;

const setUpFirst =
  'A second factor is needed here, and you have none. Set one up, then sign in again: npm run admin -- sign-in --operator, then npm run admin -- me second-factor set-up';

/** @param home where whoever is let in goes */
export function operatorSignInRoutes(router: Router<RequestState>, home: string): void {
  router.get(operatorSignInPath, (ctx) => show(ctx, 200, ''));
  router.post(operatorSignInPath, async (ctx: Context) => {
    refuseCleartext(ctx);
    refuseForeignPages(ctx);
    const { slots } = ctx.state.deps;
    const release = await slots.signIns.take(addressOf(ctx), ctx.state.signal);
    try {
      await form(Form, formBytesMax, (_, given) => signIn(ctx, given, home))(ctx);
    } catch (error) {
      // Whoever has no second factor leaves the field empty, so a code that is missing is asked for here, too.
      if (!(error instanceof Problem) || error.status >= 500) throw error;
      if (error.code === 'sign_in_failed') ctx.state.deps.metrics.operatorSignIn('wrong');
      if (error.extras.retryAfterSeconds) ctx.set('Retry-After', String(error.extras.retryAfterSeconds));
      show(ctx, error.status, says(error));
    } finally {
      release();
    }
  });
  router.post(operatorSignOutPath, async (ctx: Context) => {
    refuseForeignPages(ctx);
    await signOut(ctx);
    goTo(ctx, operatorSignInPath);
  });
}

async function signIn(ctx: Context, { code, ...given }: z.infer<typeof Form>, home: string): Promise<void> {
  const { directory } = ctx.state.deps;
  const from = { address: addressOf(ctx), program: ctx.get('user-agent') || null, browser: true };
  const typed = code.trim();
  const tokens = await signInOperator(directory, { ...given, ...(typed && { code: typed }) }, from, drawTokens());
  if (tokens.limited) {
    await end(ctx, tokens.accessToken);
    throw new Problem('second_factor_needed', setUpFirst);
  }
  setOperatorCookie(ctx, tokens.accessToken);
  goTo(ctx, home);
}

async function signOut(ctx: Context): Promise<void> {
  const token = readOperatorCookie(ctx);
  setOperatorCookie(ctx, null);
  if (token !== null) await end(ctx, token);
}

async function end(ctx: Context, token: string): Promise<void> {
  const { database } = ctx.state.deps.directory;
  const { identity } = await loadActor(database, token);
  if (identity?.kind !== 'operator') return;
  const { operator, operatorName, session } = identity;
  const by = {
    tenant: null,
    party: { kind: 'operator' as const, id: operator, name: operatorName },
    address: addressOf(ctx),
  };
  await database.transaction((tx) => endSession(tx, by, { operator }, session));
}

function says({ code, message, extras }: Problem): string {
  if (code === 'sign_in_failed') return 'The name or password is not right.';
  if (message === setUpFirst) return setUpFirst;
  if (code === 'second_factor_needed')
    return extras.field === 'code'
      ? 'The code is not right, or was used before.'
      : 'Give a code of your second factor too.';
  if (code === 'too_many_requests') return 'Too many failed sign-ins: wait a while.';
  return 'This cannot be taken.';
}

function goTo(ctx: Context, path: string): void {
  ctx.set('Cache-Control', 'no-store');
  ctx.status = 303; // the browser asks by GET, and does not send the password again
  ctx.set('Location', path);
  ctx.body = '';
}

function show(ctx: Context, status: number, message: string): void {
  ctx.set('Content-Security-Policy', contentSecurityPolicy);
  ctx.set('X-Content-Type-Options', 'nosniff');
  ctx.set('Referrer-Policy', 'same-origin');
  ctx.set('Cache-Control', 'no-store');
  ctx.status = status;
  ctx.body = page(message, readOperatorCookie(ctx) !== null);
  ctx.set('Content-Type', 'text/html; charset=utf-8');
}
