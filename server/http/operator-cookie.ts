/**
 * The cookie of an operator who signed in at the page: an access token that no script of a page can read, and that no
 * browser sends along from another site's page.
 */
import { isFromThisMachine } from './client-address.ts';
import type { Context } from './deps.ts';

/** `__Host-`: of this host alone, over HTTPS alone, which the browser sees to. */
const cookieName = '__Host-holdfast-operator';
/** Without TLS browsers keep no cookie of that name: only on this machine. */
const plainCookieName = 'holdfast-operator';

const isPlain = (ctx: Context): boolean => ctx.state.deps.settings.tls === null && isFromThisMachine(ctx);

/** @param token null: takes the cookie away. It has no end of its own: the browser's closing, or the token's. */
export function setOperatorCookie(ctx: Context, token: string | null): void {
  const name = isPlain(ctx) ? plainCookieName : cookieName;
  const secure = isPlain(ctx) ? '' : ' Secure;';
  ctx.set(
    'Set-Cookie',
    `${name}=${token ?? ''}; Path=/; HttpOnly;${secure} SameSite=Strict${token ? '' : '; Max-Age=0'}`,
  );
}

export function readOperatorCookie(ctx: Context): string | null {
  const name = `${isPlain(ctx) ? plainCookieName : cookieName}=`;
  const found = ctx
    .get('cookie')
    .split(/;\s*/)
    .find((each) => each.startsWith(name));
  return found?.slice(name.length) || null;
}
