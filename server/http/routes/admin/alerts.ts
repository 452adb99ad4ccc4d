/** What a person has to look at, and the word that they have. What concerns the whole server is for those who run it. */
import type Router from '@koa/router';
import { Problem } from '../../../../protocol/problems.ts';
import { reviewAlert } from '../../../../storage/archive/retention/review-alert.ts';
import { findUserName, findUserOfVault } from '../../../directory/tenant-view.ts';
import { tenantAlerts } from '../../../reports/alerts.ts';
import { administrator } from '../../admin.ts';
import type { AppDeps, Context, RequestState } from '../../deps.ts';
import { flag, idParameter, pageLimit, readQuery } from '../../parameters.ts';
import { answerJson } from './json-answers.ts';

/** In a path: the vault that no vault is, of alerts about the whole server. */
const serverVault = '0';

export function alertRoutes(router: Router<RequestState>, { storage, directory }: AppDeps): void {
  router.get('/v1/admin/alerts', administrator(), async (ctx) => {
    const query = readQuery(ctx, { reviewed: flag, limit: pageLimit });
    const { tenantId, operator: server } = ctx.state.administrator!;
    const { signal } = ctx.state;
    answerJson(ctx, await tenantAlerts(directory.database, { tenantId, server }, { ...query, signal }));
  });

  router.post('/v1/admin/alerts/:vault/:alert/review', administrator(), async (ctx) => {
    readQuery(ctx, {});
    const alert = idParameter(ctx, 'alert');
    const vault = await vaultInPath(ctx);
    const { tenantId, userId } = ctx.state.administrator!;
    const by = (await findUserName(directory.database, tenantId, userId)) ?? `user ${userId}`;
    const { kind } = await reviewAlert(storage, { vault, alert, by });
    ctx.state.log.info({ user: userId, vault, alert, kind }, 'alert reviewed');
    answerJson(ctx, { vault, alert, kind, reviewedBy: by });
  });

  async function vaultInPath(ctx: Context): Promise<number> {
    const { tenantId, operator } = ctx.state.administrator!;
    const isServer = (ctx as unknown as { params: Record<string, string> }).params.vault === serverVault;
    const vault = isServer ? 0 : idParameter(ctx, 'vault');
    const may = isServer ? operator : await findUserOfVault(directory.database, tenantId, vault);
    if (!may) throw new Problem('not_found', 'there is no such open alert');
    return vault;
  }
}
