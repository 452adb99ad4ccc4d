/** Routes without an engine behind them, for tests of the shell itself. */
import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type Router from '@koa/router';
import { z } from 'zod';
import { streamed } from './answers.ts';
import { message, stream } from './bodies.ts';
import type { AppDeps, RequestState } from './deps.ts';
import { probeRoutes } from './routes/probes.ts';

const bytesType = 'application/octet-stream';
export const bytesMax = 33 * 1024 * 1024;

export function bytesRoutes(router: Router<RequestState>, deps: AppDeps): void {
  probeRoutes(router, deps);

  /** Like an upload: hashes as it reads, keeps every chunk until the end, and then takes a moment to store them. */
  router.post(
    '/sum',
    stream(bytesType, bytesMax, async (ctx, body) => {
      ctx.state.device = { deviceId: Number(ctx.get('x-device') || 1) } as never;
      const hash = createHash('sha256');
      const kept: Uint8Array[] = [];
      for await (const chunk of body) {
        hash.update(chunk);
        kept.push(chunk);
      }
      await sleep(20);
      const bytes = kept.reduce((sum, chunk) => sum + chunk.byteLength, 0);
      ctx.body = JSON.stringify({ bytes, chunks: kept.length, sha256: hash.digest('hex') });
    }),
  );

  router.post(
    '/echo',
    stream(bytesType, bytesMax, (ctx, body) => streamed(ctx, bytesType, body)),
  );

  router.post(
    '/message',
    message(z.strictObject({ n: z.int() }), 1_000, async (ctx, request) => {
      ctx.body = JSON.stringify(request);
    }),
  );

  router.get('/slow', async (ctx) => {
    // One that was cut keeps no process waiting.
    await sleep(Number(ctx.query.ms), undefined, { ref: false });
    ctx.body = 'done';
  });

  router.get('/endless', (ctx) => {
    async function* source(): AsyncGenerator<Uint8Array> {
      try {
        for (;;) yield Buffer.alloc(64 * 1024);
      } finally {
        deps.log.info('endless stream returned');
      }
    }
    return streamed(ctx, bytesType, source());
  });

  router.get('/breaks', (ctx) => {
    async function* source(): AsyncGenerator<Uint8Array> {
      for (let i = 0; i < Number(ctx.query.after); i++) yield Buffer.alloc(100_000);
      throw new Error('postgres://holdfast:hunter2@db/holdfast broke');
    }
    return streamed(ctx, bytesType, source());
  });
}
