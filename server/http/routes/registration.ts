/** A device's way in, and what it may know about itself. */
import type Router from '@koa/router';
import { DevicesRequest, RaiseRequest, RegisterRequest } from '../../../protocol/messages.ts';
import { archivesReadableBy, listReplaceable } from '../../directory/devices/access.ts';
import { registerDevice } from '../../directory/devices/register.ts';
import { keptKeysOf } from '../../directory/keys/raising/kept-keys.ts';
import { raiseKeyLevel } from '../../directory/keys/raising/raise.ts';
import { answer } from '../answers.ts';
import { message } from '../bodies.ts';
import { addressOf } from '../client-address.ts';
import type { AppDeps, RequestState } from '../deps.ts';
import { device, stranger } from '../device.ts';
import { readQuery } from '../parameters.ts';

/** A registration is a few hundred bytes; nobody has signed in yet. */
const registrationBytesMax = 16 * 1024;

export function registrationRoutes(router: Router<RequestState>, { directory }: AppDeps): void {
  router.post(
    '/v1/register',
    stranger,
    message(RegisterRequest, registrationBytesMax, async (ctx, request) => {
      answer(ctx, await registerDevice(directory, request, addressOf(ctx)), 201);
    }),
  );

  router.post(
    '/v1/devices/query',
    stranger,
    message(DevicesRequest, registrationBytesMax, async (ctx, request) => {
      answer(ctx, await listReplaceable(directory, request, addressOf(ctx)));
    }),
  );

  router.get('/v1/self', device(), async (ctx) => {
    readQuery(ctx, {});
    const { guid, deviceName, userName, vault, archive } = ctx.state.device!;
    const archives = await archivesReadableBy(directory, ctx.state.device!);
    const vaultKeys = await keptKeysOf(directory.database, vault);
    answer(ctx, { guid, deviceName, userName, vault, archive, archives, serverTime: Date.now(), vaultKeys });
  });

  router.post(
    '/v1/keys/raise',
    device('restore'),
    message(RaiseRequest, registrationBytesMax, async (ctx, request) => {
      answer(ctx, await raiseKeyLevel(directory, ctx.state.device!, request, addressOf(ctx)));
    }),
  );
}
