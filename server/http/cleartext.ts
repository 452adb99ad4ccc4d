/** Passwords and tokens of people travel encrypted or not at all. */
import { Problem } from '../../protocol/problems.ts';
import { isFromThisMachine } from './client-address.ts';
import type { Context } from './deps.ts';

/** Behind an ingress that ends TLS, the nearest proxy of ours says how the client came. */
export function refuseCleartext(ctx: Context): void {
  const { tls, proxies } = ctx.state.deps.settings;
  if (tls || isFromThisMachine(ctx)) return;
  const proto = ctx.get('x-forwarded-proto').split(',').at(-1)?.trim().toLowerCase();
  if (proxies > 0 && proto === 'https') return;
  throw new Problem('forbidden', 'sign in over HTTPS only (behind an ingress: set HOLDFAST_PROXIES)');
}
