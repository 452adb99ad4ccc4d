/**
 * For orchestrators and monitors: is the process alive, can it serve, what does it count. Health is JSON with a line
 * per part; what a failed part says is for the log, not for whoever asks.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import type Router from '@koa/router';
import { Problem } from '../../../protocol/problems.ts';
import { isFromThisMachine } from '../client-address.ts';
import type { AppDeps, Context, ReadinessCheck, RequestState } from '../deps.ts';

/** A type of its own, as a title belongs to a type (RFC 9457, 3.1.4): a device's token is not asked for. */
const metricsToken = {
  type: 'urn:holdfast:problem:metrics_token',
  title: 'The metrics token is needed',
};

interface PartState {
  ok: boolean;
  ms: number;
  /** What the part says beside that it works. */
  told: object;
  error?: unknown;
}

export function probeRoutes(router: Router<RequestState>, deps: AppDeps): void {
  const checkAll = cached(deps.settings.readinessCacheMs, () => checkParts(deps));

  router.get('/livez', (ctx) => {
    json(ctx, 200, { status: 'ok' });
  });

  router.get('/readyz', async (ctx) => {
    const parts = await checkAll();
    const ready = !deps.requests.leaving && Object.values(parts).every((part) => part.ok);
    const shown = Object.fromEntries(
      Object.entries(parts).map(([name, { ok, ms, told }]) => [name, { ok, ms: Math.round(ms), ...told }]),
    );
    json(ctx, ready ? 200 : 503, {
      status: ready ? 'ok' : deps.requests.leaving ? 'shutting down' : 'not ready',
      parts: shown,
    });
  });

  router.get('/metrics', async (ctx) => {
    if (!mayReadMetrics(ctx, deps.settings.metricsToken))
      throw new Problem('unauthorized', 'metrics are for this machine, or for the metrics token', metricsToken);
    ctx.status = 200;
    ctx.body = await deps.metrics.render();
    ctx.set('Content-Type', deps.metrics.contentType);
    ctx.set('Cache-Control', 'no-store');
  });
}

function json(ctx: Context, status: number, body: object): void {
  ctx.status = status;
  ctx.body = JSON.stringify(body);
  ctx.set('Content-Type', 'application/json');
  ctx.set('Cache-Control', 'no-store');
}

async function checkParts(deps: AppDeps): Promise<Record<string, PartState>> {
  const names = Object.keys(deps.readiness);
  const states = await Promise.all(
    names.map((name) => checkPart(deps.readiness[name]!, deps.settings.readinessTimeoutMs)),
  );
  for (const [i, state] of states.entries())
    if (!state.ok) deps.log.warn({ part: names[i], err: state.error }, 'not ready');
  return Object.fromEntries(names.map((name, i) => [name, states[i]!]));
}

async function checkPart(check: ReadinessCheck, timeoutMs: number): Promise<PartState> {
  const startedAt = performance.now();
  const abort = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs);
  });
  try {
    const answer = await Promise.race([check(abort.signal), late]);
    return { ok: true, ms: performance.now() - startedAt, told: toldIn(answer) };
  } catch (error) {
    return { ok: false, ms: performance.now() - startedAt, told: {}, error };
  } finally {
    clearTimeout(timer);
    abort.abort();
  }
}

function toldIn(answer: unknown): object {
  const tell = (answer as { tell?: unknown } | null | undefined)?.tell;
  return typeof tell === 'object' && tell !== null ? tell : {};
}

/** Asks once for all who ask meanwhile and for a moment after, so that probes cannot become the load. */
function cached<T>(forMs: number, ask: () => Promise<T>): () => Promise<T> {
  let answer: Promise<T> | null = null;
  return () => {
    if (!answer) {
      answer = ask();
      const forget = (): void => {
        setTimeout(() => (answer = null), forMs).unref();
      };
      answer.then(forget, forget);
    }
    return answer;
  };
}

function mayReadMetrics(ctx: Context, token: string | null): boolean {
  const [scheme, given] = ctx.get('authorization').split(' ');
  if (token !== null && scheme?.toLowerCase() === 'bearer' && given)
    return timingSafeEqual(digest(given), digest(token));
  return isFromThisMachine(ctx);
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
