/** Where links that are given out begin: as whoever asks reaches the server. */
import { isFromThisMachine } from '../client-address.ts';
import type { Context } from '../deps.ts';

export function origin(ctx: Context): string {
  const { publicUrl, tls } = ctx.state.deps.settings;
  return publicUrl ?? `${tls === null && isFromThisMachine(ctx) ? 'http' : 'https'}://${ctx.host}`;
}
