/** Every route of the JSON API, in the order of its document. */
import type { ApiRoute } from './route.ts';
import { alertRoutes } from './routes/alerts.ts';
import { auditRoutes } from './routes/audit.ts';
import { browsingRoutes } from './routes/browsing.ts';
import { clientRoutes } from './routes/clients.ts';
import { deviceRoutes } from './routes/devices.ts';
import { licenceRoutes } from './routes/licences.ts';
import { manifestRoutes } from './routes/manifest.ts';
import { operatorRoutes } from './routes/operator.ts';
import { organizationRoutes } from './routes/organizations.ts';
import { passwordRoutes } from './routes/passwords.ts';
import { planRoutes } from './routes/plans.ts';
import { providerRoutes } from './routes/providers.ts';
import { pushedRestoreRoutes } from './routes/pushed-restores.ts';
import { reportRoutes } from './routes/reports.ts';
import { resticRoutes } from './routes/restic.ts';
import { restoreHistoryRoutes } from './routes/restore-history.ts';
import { restoreReviewRoutes } from './routes/restore-reviews.ts';
import { restoreRoutes } from './routes/restores.ts';
import { retentionRoutes } from './routes/retention.ts';
import { sessionRoutes } from './routes/sessions.ts';
import { tenantRoutes } from './routes/tenants.ts';
import { userRoutes } from './routes/users.ts';

export const apiRoutes: readonly ApiRoute[] = [
  ...sessionRoutes,
  ...passwordRoutes,
  ...providerRoutes,
  ...organizationRoutes,
  ...userRoutes,
  ...deviceRoutes,
  ...resticRoutes,
  ...retentionRoutes,
  ...alertRoutes,
  ...reportRoutes,
  ...planRoutes,
  ...manifestRoutes,
  ...browsingRoutes,
  ...restoreHistoryRoutes,
  ...restoreRoutes,
  ...pushedRestoreRoutes,
  ...restoreReviewRoutes,
  ...licenceRoutes,
  ...clientRoutes,
  ...auditRoutes,
  ...tenantRoutes,
  ...operatorRoutes,
];
