/**
 * The agent protocol as one Koa app. Read from the top, it is what happens to a request: it is observed, its errors
 * become problems, a server that is leaving sends it elsewhere, and a route serves it or nothing does.
 */
import Router from '@koa/router';
import Koa from 'koa';
import { Problem } from '../../protocol/problems.ts';
import { apiRoutes } from './api/routes.ts';
import { serveApi } from './api/serve.ts';
import type { AppDeps, Context, RequestState, RequestsInFlight } from './deps.ts';
import { observe } from './observe.ts';
import { cutAnswer, renderProblem, renderProblems } from './problems.ts';
import { resticRoutes } from './restic/routes.ts';
import { apiPageRoutes } from './routes/api-page.ts';
import { archiveRoutes } from './routes/archives.ts';
import { blockRoutes } from './routes/blocks.ts';
import { commandRoutes } from './routes/commands.ts';
import { dashboardRoutes } from './routes/dashboard.ts';
import { planRoutes } from './routes/plans.ts';
import { probeRoutes } from './routes/probes.ts';
import { registrationRoutes } from './routes/registration.ts';
import { runRoutes } from './routes/runs.ts';

export function createRequestsInFlight(): RequestsInFlight {
  return { open: new Set(), draining: false, leaving: false, stopping: new AbortController() };
}

export function createApp(deps: AppDeps): Koa<RequestState> {
  const router = new Router<RequestState>({ strict: true, sensitive: true });
  probeRoutes(router, deps);
  registrationRoutes(router, deps);
  planRoutes(router, deps);
  blockRoutes(router, deps);
  archiveRoutes(router, deps);
  runRoutes(router, deps);
  commandRoutes(router, deps);
  serveApi(router, apiRoutes);
  apiPageRoutes(router, apiRoutes);
  dashboardRoutes(router, deps);
  resticRoutes(router, deps);
  return createShell(deps, router);
}

/** The app around any routes: what every request goes through. */
export function createShell(deps: AppDeps, router: Router<RequestState>): Koa<RequestState> {
  const app = new Koa<RequestState>();
  // Koa's own way of answering errors knows nothing of problems. What gets here came after the middleware:
  // a connection that broke while the answer was sent, or a fault of the middleware itself.
  app.context.onerror = function (this: Context, error: Error | null) {
    if (error === null || error === undefined || this.state?.log === undefined) return;
    this.state.failure ??= error;
    this.state.log.debug({ err: error }, 'answer not sent');
    // A stream that is gone has no answer to get, and its end was the client's doing: no failure of ours.
    if (this.headerSent || isGone(this)) cutAnswer(this);
    else {
      renderProblem(this, new Problem('internal', 'the answer could not be made', {}, { cause: error }));
      this.res.end(this.body as string);
    }
  };
  app.on('error', () => {});

  app.use(observe(deps));
  app.use(renderProblems);
  app.use(refuseWhileDraining(deps));
  app.use(router.routes());
  app.use(refuseUnknown);
  return app;
}

function isGone({ res }: Context): boolean {
  return (res as unknown as { stream?: { destroyed: boolean } }).stream?.destroyed ?? res.destroyed;
}

/** A request that was taken before is served to its end; a new one has lost nothing and comes again elsewhere. */
function refuseWhileDraining(deps: AppDeps) {
  return async (ctx: Context, next: () => Promise<unknown>): Promise<void> => {
    if (deps.requests.draining && !probePaths.has(ctx.path)) {
      throw new Problem('shutting_down', 'this server takes no more requests', { retryAfterSeconds: 1 });
    }
    await next();
  };
}

const probePaths = new Set(['/livez', '/readyz', '/metrics']);

/** Reached only when no route answered. */
function refuseUnknown(ctx: Context): void {
  const layers = (ctx as unknown as { matched?: { methods: string[] }[] }).matched ?? [];
  const allowed = [...new Set(layers.flatMap((layer) => layer.methods))];
  if (allowed.length === 0) throw new Problem('not_found', 'there is no such resource');
  ctx.set('Allow', allowed.join(', '));
  throw new Problem('method_not_allowed', `${ctx.method} is not allowed here`, { allowed });
}
