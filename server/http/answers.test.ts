/** What becomes of an answer whose reader goes while it is others' turn. */
import { once } from 'node:events';
import { connect, createServer, type Http2Server, type Http2ServerResponse } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { afterEach, expect, test } from '@jest/globals';
import Koa from 'koa';
import { breathe } from '../restoring/flow/breathe.ts';
import { streamed } from './answers.ts';
import { ClientGone } from './body-receiver.ts';
import type { Context } from './deps.ts';

let server: Http2Server;
afterEach(() => {
  server.close();
});

/** Works for so long, without a pause. */
function spin(ms: number): void {
  for (const until = performance.now() + ms; performance.now() < until; );
}

test('it ends at once, and not when it would have stalled', async () => {
  const { promise: ended, resolve: end } = Promise.withResolvers<unknown>();
  async function* source({ stream }: Http2ServerResponse): AsyncGenerator<Uint8Array> {
    yield Buffer.from('first');
    // Others of us, whose turns come first: the reader goes meanwhile.
    for (let i = 0; i < 40; i++) void Promise.resolve(breathe()).then(() => spin(5));
    setTimeout(() => stream.destroy(), 20);
    yield Buffer.from('second');
  }
  const app = new Koa();
  app.use(async (ctx) => {
    const gone = new AbortController();
    ctx.res.once('close', () => gone.abort());
    Object.assign(ctx.state, {
      signal: gone.signal,
      bytesOut: 0,
      deps: { settings: { writeStallMs: 60_000 } },
    });
    await streamed(ctx as unknown as Context, 'text/plain', source(ctx.res as never)).then(end, end);
  });
  server = createServer(app.callback());
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const session = connect(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  const stream = session.request({ ':path': '/' });
  stream.on('error', () => {}).resume();
  expect(await ended).toBeInstanceOf(ClientGone);
  session.destroy();
}, 20_000);
