/** What concerns the server as a whole, for those who run it. */
import { z } from 'zod';
import { serverAlerts, serverVault } from '../../../reports/alerts.ts';
import { AlertList, FenceView, ReviewedAlertView } from '../../../reports/answers.ts';
import { fenceReport } from '../../../reports/fence.ts';
import { reviewAndRecord } from '../../../reports/reviewing.ts';
import { idText } from '../finders.ts';
import { type ApiRoute, change, read } from '../route.ts';
import { alertsQuery } from './alerts.ts';

const tag = 'Server';
const may = { operator: true } as const;

export const operatorRoutes: readonly ApiRoute[] = [
  read({
    path: '/v1/operator/fence',
    tag,
    summary: 'Show whether anything may be deleted, and what stops it',
    may,
    answer: FenceView,
    read: ({ deps }) => fenceReport(deps.storage),
  }),
  read({
    path: '/v1/operator/alerts',
    tag,
    summary: 'List alerts about the server as a whole, the latest first',
    may,
    query: alertsQuery,
    answer: AlertList,
    read: ({ deps, query }) => serverAlerts(deps.directory.database, query),
  }),
  change({
    method: 'POST',
    path: '/v1/operator/alerts/:alert/review',
    tag,
    summary: 'Say that you have looked at an alert about the server',
    says: 'What it stopped goes on: see its `toDo` before.',
    may,
    params: z.strictObject({ alert: idText }),
    answer: ReviewedAlertView,
    change: (tx, { by, params }) => reviewAndRecord(tx, by, { vault: serverVault, alert: params.alert, owner: null }),
  }),
];
