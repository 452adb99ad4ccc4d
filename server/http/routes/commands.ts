/**
 * What devices are told to do: one long answer for each, and what they say of it. A device speaks of its own commands; another's
 * are none to it.
 */
import type Router from '@koa/router';
import { CommandAnswerRequest, CommandEndRequest, CommandProgressRequest } from '../../../protocol/commands.ts';
import { limits } from '../../../protocol/limits.ts';
import { frameStreamType } from '../../../protocol/wire.ts';
import type { Transaction } from '../../../storage/catalog/database.ts';
import type { By } from '../../directory/audit/act.ts';
import { browseAnswered } from '../../directory/devices/commands/browsing.ts';
import type { OfDevice } from '../../directory/devices/commands/rows.ts';
import { pushEnded, pushProgressed } from '../../directory/restores/pushing/attempts.ts';
import { answer, streamed } from '../answers.ts';
import { message } from '../bodies.ts';
import { addressOf } from '../client-address.ts';
import type { AppDeps, Context, RequestState } from '../deps.ts';
import { device } from '../device.ts';
import { flag, idParameter, readQuery } from '../parameters.ts';

export function commandRoutes(router: Router<RequestState>, deps: AppDeps): void {
  const { channels, metrics, settings } = deps;
  const inTransaction = <T>(work: (tx: Transaction) => Promise<T>): Promise<T> =>
    deps.directory.database.transaction(work);

  router.get('/v1/self/commands', device(), async (ctx) => {
    const { once } = readQuery(ctx, { once: flag });
    const { device: to, signal } = ctx.state;
    await streamed(ctx, frameStreamType, once ? channels.once(to!) : channels.open(to!, signal));
  });

  router.post(
    '/v1/self/commands/:command/progress',
    device(),
    message(CommandProgressRequest, limits.messageBytesMax, async (ctx, told) => {
      const { pushExpiresMs: expiresMs } = settings;
      const bounds = { expiresMs, leaseMs: deps.storage.settings.restoreLeaseMs };
      const go = await inTransaction((tx) => pushProgressed(tx, byOf(ctx), ofDevice(ctx), told, bounds));
      answer(ctx, { go });
    }),
  );

  router.post(
    '/v1/self/commands/:command/end',
    device(),
    message(CommandEndRequest, limits.commandEndBytesMax, async (ctx, told) => {
      const isEnd = await inTransaction((tx) => pushEnded(tx, byOf(ctx), ofDevice(ctx), told));
      if (isEnd) metrics.commandEnded('restore', told.outcome);
      answer(ctx, {});
    }),
  );

  router.post(
    '/v1/self/commands/:command/answer',
    device(),
    message(CommandAnswerRequest, limits.browseAnswerBytesMax, async (ctx, told, { bytes }) => {
      const isAnswer = await inTransaction((tx) => browseAnswered(tx, ofDevice(ctx), bytes));
      if (isAnswer) metrics.commandEnded('browse', 'fault' in told ? 'failed' : 'completed');
      answer(ctx, {});
    }),
  );
}

function ofDevice(ctx: Context): OfDevice {
  const { tenantId: tenant, guid } = ctx.state.device!;
  return { tenant, guid, command: idParameter(ctx, 'command') };
}

function byOf(ctx: Context): By {
  const { tenantId: tenant, guid, deviceName: name } = ctx.state.device!;
  return { tenant, party: { kind: 'device', id: guid, name }, address: addressOf(ctx) };
}
