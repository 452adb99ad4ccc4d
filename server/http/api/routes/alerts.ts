/** What a person has to look at among the backups they look after, and the word that they have. */
import { z } from 'zod';
import { limits } from '../../../../protocol/limits.ts';
import { findUserTarget, type UserTarget } from '../../../directory/targets.ts';
import { findUserOfVault } from '../../../directory/tenant-view.ts';
import { tenantAlerts } from '../../../reports/alerts.ts';
import { AlertList, ReviewedAlertView } from '../../../reports/answers.ts';
import { reviewAndRecord } from '../../../reports/reviewing.ts';
import { idText, yesOrNo } from '../finders.ts';
import { type ApiRoute, change, type Finder, read } from '../route.ts';

const tag = 'Alerts';

export const alertsQuery = z.strictObject({
  reviewed: yesOrNo.meta({ description: 'Also those that somebody has reviewed' }),
  limit: z.coerce.number().int().min(1).max(limits.pageEntriesMax).default(limits.pageEntriesMax),
});

/** Whose vault the path names. */
const userOfVaultInPath: Finder<{ vault: number }, unknown, unknown, UserTarget> = async (db, { actor, params }) => {
  const user = await findUserOfVault(db, actor.tenant, params.vault);
  return user && findUserTarget(db, actor.tenant, user.userId);
};

export const alertRoutes: readonly ApiRoute[] = [
  read({
    path: '/v1/alerts',
    tag,
    summary: 'List alerts, the latest first',
    says: 'In words, with what to do.',
    may: { permission: 'computer.read', of: 'listing' },
    query: alertsQuery,
    answer: AlertList,
    read: ({ ctx, deps, caller, within, query }) =>
      tenantAlerts(
        deps.directory.database,
        { tenantId: caller.tenant!, within },
        { ...query, signal: ctx.state.signal },
      ),
  }),
  change({
    method: 'POST',
    path: '/v1/alerts/:vault/:alert/review',
    tag,
    summary: 'Say that you have looked at an alert',
    says: 'What it stopped goes on: see its `toDo` before.',
    may: { permission: 'computer.update', target: userOfVaultInPath },
    params: z.strictObject({ vault: idText, alert: idText }),
    answer: ReviewedAlertView,
    change: (tx, { by, target, params }) =>
      reviewAndRecord(tx, by, { ...params, owner: { user: target.id, organization: target.organizationPath.at(-1)! } }),
  }),
];
