/**
 * What a device is told to back up, and when. Asked every quarter of an hour by every device there is: one that has the answer
 * already is told so, and sent nothing. How long versions are kept is not an agent's business and not said here.
 */
import type Router from '@koa/router';
import { sha256 } from '../../../protocol/hashes.ts';
import type { PlanMessage, PlansAnswer } from '../../../protocol/messages.ts';
import { encodeMessage, msgpackType } from '../../../protocol/wire.ts';
import { effectivePlans } from '../../directory/devices/plans/plans.ts';
import type { AppDeps, RequestState } from '../deps.ts';
import { device } from '../device.ts';
import { readQuery } from '../parameters.ts';

type EffectivePlan = Awaited<ReturnType<typeof effectivePlans>>['plans'][number];

export function planRoutes(router: Router<RequestState>, { directory }: AppDeps): void {
  router.get('/v1/self/plans', device(), async (ctx) => {
    readQuery(ctx, {});
    const { tenantId, guid } = ctx.state.device!;
    const { plans } = await effectivePlans(directory.database, { tenant: tenantId, guid });
    const message = encodeMessage({ plans: plans.map(toldPlan) } satisfies PlansAnswer);
    const etag = `"${sha256(message).toString('base64url', 0, 18)}"`;
    ctx.set({ ETag: etag, 'Cache-Control': 'private, no-cache' });
    if (isAmong(ctx.get('if-none-match'), etag)) {
      ctx.status = 304;
      return;
    }
    ctx.body = message;
    ctx.set('Content-Type', msgpackType);
  });
}

function toldPlan({ name, include, exclude, everyMinutes, windows, from }: EffectivePlan): PlanMessage {
  return { name, include, exclude, everyMinutes, windows, from: origin(from) };
}

function origin(from: EffectivePlan['from']): PlanMessage['from'] {
  if (from === 'settings') return { kind: 'settings', name: '' };
  if ('device' in from) return { kind: 'device', name: from.device.name };
  return { kind: 'organization', name: from.organization.name };
}

function isAmong(ifNoneMatch: string, etag: string): boolean {
  return ifNoneMatch.split(',').some((each) => ['*', etag, `W/${etag}`].includes(each.trim()));
}
