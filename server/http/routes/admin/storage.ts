/** What is stored, and how well: usage, damage, how much has been verified; and, for those who run the server, the fence. */
import type Router from '@koa/router';
import { archiveDamage } from '../../../reports/damage.ts';
import { fenceReport } from '../../../reports/fence.ts';
import { usageLines } from '../../../reports/usage.ts';
import { verifyLines } from '../../../reports/verify.ts';
import { administrator } from '../../admin.ts';
import type { AppDeps, RequestState } from '../../deps.ts';
import { damagePageLimit, readQuery, seqOrNull } from '../../parameters.ts';
import { answerJson, answerLines } from './json-answers.ts';
import { deviceInPath } from './reach.ts';

export function storageRoutes(router: Router<RequestState>, { storage }: AppDeps): void {
  router.get('/v1/admin/usage', administrator(), async (ctx) => {
    readQuery(ctx, {});
    await answerLines(ctx, usageLines(storage, ctx.state.administrator!.tenantId));
  });

  router.get('/v1/admin/verify', administrator(), async (ctx) => {
    readQuery(ctx, {});
    await answerLines(ctx, verifyLines(storage.database, ctx.state.administrator!.tenantId));
  });

  router.get('/v1/admin/devices/:guid/damage', administrator(), async (ctx) => {
    const { after, limit } = readQuery(ctx, { after: seqOrNull, limit: damagePageLimit });
    const device = await deviceInPath(ctx);
    answerJson(ctx, await archiveDamage(storage, device, { after: after ?? 0, limit }));
  });

  router.get('/v1/admin/fence', administrator('operator'), async (ctx) => {
    readQuery(ctx, {});
    answerJson(ctx, await fenceReport(storage));
  });
}
