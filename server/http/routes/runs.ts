/** Backup runs of a device: made in its own archive, and listed by whoever reads it. */
import type Router from '@koa/router';
import { limits } from '../../../protocol/limits.ts';
import { RunFinishRequest, RunProgressRequest, RunStartRequest } from '../../../protocol/messages.ts';
import { finishRun, progressRun, readRuns, startRun } from '../../../storage/archive/writing/runs.ts';
import { answer } from '../answers.ts';
import { message } from '../bodies.ts';
import type { AppDeps, RequestState } from '../deps.ts';
import { device } from '../device.ts';
import { idParameter, pageLimit, readQuery, seqOrNull } from '../parameters.ts';

export function runRoutes(router: Router<RequestState>, { storage }: AppDeps): void {
  router.post(
    '/v1/archives/:archive/runs',
    device('own'),
    message(RunStartRequest, limits.messageBytesMax, async (ctx, request) => {
      answer(ctx, await startRun(storage, ctx.state.archive!, request), 201);
    }),
  );

  router.post(
    '/v1/archives/:archive/runs/:run/progress',
    device('own'),
    message(RunProgressRequest, limits.messageBytesMax, async (ctx, request) => {
      await progressRun(storage, { ...ctx.state.archive!, run: idParameter(ctx, 'run') }, request);
      answer(ctx, {});
    }),
  );

  router.post(
    '/v1/archives/:archive/runs/:run/finish',
    device('own'),
    message(RunFinishRequest, limits.messageBytesMax, async (ctx, request) => {
      await finishRun(storage, { ...ctx.state.archive!, run: idParameter(ctx, 'run') }, request);
      answer(ctx, {});
    }),
  );

  router.get('/v1/archives/:archive/runs', device('read'), async (ctx) => {
    const query = readQuery(ctx, { before: seqOrNull, limit: pageLimit });
    answer(ctx, await readRuns(storage, ctx.state.archive!, query));
  });
}
