/**
 * The queues' dashboard, for those who run the server. It shows everything, and may begin again what has failed or
 * begin at once what waits; all else that its pages could ask for (jobs of one's own, other data, emptied queues) is
 * refused here, whatever they offer.
 */
import type Router from '@koa/router';
import { Problem } from '../../../protocol/problems.ts';
import type { AppDeps, Context, Dashboard, RequestState } from '../deps.ts';
import { operator } from '../operator.ts';
import { operatorSignInRoutes } from './operator-sign-in.ts';

export const dashboardPath = '/admin/queues';

/**
 * Below the mount: one job again or at once, every failed or delayed job of a queue, a repeating job now. The
 * dashboard's router does not tell capitals from small letters, so `CLEAN` is no job here either.
 */
const allowedWrites = [
  /^\/api\/queues\/[^/]+\/(?!clean\/|retry\/)[^/]+\/(?:retry|promote)$/i,
  /^\/api\/queues\/[^/]+\/retry\/failed$/i,
  /^\/api\/queues\/[^/]+\/promote$/i,
  /^\/api\/queues\/[^/]+\/job-schedulers\/[^/]+\/run$/i,
];

/** Everything from here, nothing from elsewhere; the pages carry their styles in their elements. */
const contentSecurityPolicy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self' 'unsafe-inline'",
  "img-src 'self' data:",
  "font-src 'self'",
  "connect-src 'self'",
  "base-uri 'self'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

export function dashboardRoutes(router: Router<RequestState>, { dashboard }: AppDeps): void {
  if (!dashboard) return;
  const paths = [dashboardPath, `${dashboardPath}/{*page}`];
  operatorSignInRoutes(router, dashboardPath);
  router.get(paths, operator(), (ctx) => show(ctx, dashboard));
  router.put(paths, operator(), onlyAllowedWrites, (ctx) => show(ctx, dashboard));
}

async function onlyAllowedWrites(ctx: Context, next: () => Promise<unknown>): Promise<void> {
  const path = ctx.path.slice(dashboardPath.length);
  if (!allowedWrites.some((allowed) => allowed.test(path)))
    throw new Problem('forbidden', 'here jobs can be begun again or at once, and nothing else be changed');
  await next();
  ctx.state.log.info({ operator: ctx.state.operator!.id, path, status: ctx.status }, 'queues changed by an operator');
}

async function show(ctx: Context, dashboard: Dashboard): Promise<void> {
  ctx.set('Content-Security-Policy', contentSecurityPolicy);
  ctx.set('X-Content-Type-Options', 'nosniff');
  ctx.set('Referrer-Policy', 'same-origin');
  // The names of its files change with their content; everything else is of the moment.
  const isFile = ctx.path.startsWith(`${dashboardPath}/static/`);
  ctx.set('Cache-Control', isFile ? 'private, max-age=3600' : 'no-store');
  // None of what is allowed has a body, so none is read.
  (ctx as { disableBodyParser?: boolean }).disableBodyParser = true;
  const route = (ctx as { _matchedRoute?: unknown })._matchedRoute;
  try {
    await dashboard(ctx, async () => {});
  } finally {
    // The dashboard's own routes would be the labels of our metrics.
    Object.assign(ctx, { _matchedRoute: route });
  }
  if (ctx.status === 404 && ctx.body === undefined) throw new Problem('not_found', 'there is no such page');
}
