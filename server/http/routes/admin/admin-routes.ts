/** The administrator's API: JSON, within the tenant of whoever signs in (docs/operations.md). */
import type Router from '@koa/router';
import type { AppDeps, RequestState } from '../../deps.ts';
import { alertRoutes } from './alerts.ts';
import { retentionRoutes } from './retention.ts';
import { storageRoutes } from './storage.ts';

export function adminRoutes(router: Router<RequestState>, deps: AppDeps): void {
  retentionRoutes(router, deps);
  alertRoutes(router, deps);
  storageRoutes(router, deps);
}
