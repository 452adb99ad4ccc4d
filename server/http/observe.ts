/**
 * The outermost middleware: gives every request an id, a log and an end, and writes its one line and its metrics when
 * the answer has left or was cut.
 */
import { randomUUID } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { constants, type ServerHttp2Stream } from 'node:http2';
import { ClientGone } from './body-receiver.ts';
import type { AppDeps, Context } from './deps.ts';
import { cutAnswer } from './problems.ts';

const idShape = /^[A-Za-z0-9._:-]{8,64}$/;
/** How long an HTTP/1.1 client may go on sending a body that was answered without being read. */
const lingerMs = 5_000;

export function observe(deps: AppDeps) {
  return async (ctx: Context, next: () => Promise<unknown>): Promise<void> => {
    const startedAt = performance.now();
    const given = ctx.get('x-request-id');
    const requestId = idShape.test(given) ? given : randomUUID();
    const abort = new AbortController();
    ctx.state = { deps, requestId, log: deps.log.child({ requestId }), signal: abort.signal, bytesIn: 0, bytesOut: 0 };
    ctx.set('X-Request-Id', requestId);

    deps.requests.open.add(ctx);
    deps.metrics.inFlight(1);
    const http1 = ctx.req.httpVersionMajor === 1;
    let timer: NodeJS.Timeout | undefined;

    let handled = false;
    let closed = false;
    // A verb may go on for a moment after its client has gone; until it ends the request is in flight.
    const over = (): void => {
      if (!handled || !closed) return;
      deps.requests.open.delete(ctx);
      deps.metrics.inFlight(-1);
      report(ctx, { deps, startedAt });
    };
    ctx.res.once('close', () => {
      clearTimeout(timer);
      closed = true;
      abort.abort(new ClientGone());
      if (http1 && !ctx.req.complete) linger(ctx.req);
      over();
    });

    endUnreadBody(ctx);
    await next();
    handled = true;
    over();
    if (http1 && deps.requests.draining) ctx.set('Connection', 'close');
    const length = ctx.response.length;
    if (ctx.respond !== false && ctx.method !== 'HEAD' && length) ctx.state.bytesOut = length;
    // The answer is complete; who does not take it in twice the time of a slice is not reading.
    timer = setTimeout(() => cutAnswer(ctx), deps.settings.writeStallMs * 2).unref();
  };
}

/** HTTP/2: an answer that comes before the body has, tells the sender to stop (RFC 9113, 8.1). */
function endUnreadBody(ctx: Context): void {
  const { stream } = ctx.res as unknown as { stream?: ServerHttp2Stream };
  stream?.once('finish', () => {
    if (stream.readableEnded) return;
    // Of a request without a body there is nothing to stop: clients in Go before 1.20 would take it for a failure.
    if (!stream.closed && !stream.endAfterHeaders) stream.close(constants.NGHTTP2_NO_ERROR);
    stream.resume(); // what has come already must be let go, or the stream never closes
  });
}

function linger(request: IncomingMessage): void {
  setTimeout(() => {
    if (!request.complete) request.socket.destroy();
  }, lingerMs).unref();
}

function report(ctx: Context, { deps, startedAt }: { deps: AppDeps; startedAt: number }): void {
  const { device, repository, operator, bytesIn, bytesOut, failure, log } = ctx.state;
  const ms = performance.now() - startedAt;
  const route = routeOf(ctx);
  const method = knownMethods.has(ctx.method) ? ctx.method : 'other';
  const complete = isComplete(ctx);
  // 499: the client left before it had its answer. Nobody was told a status.
  const status = complete || ctx.headerSent ? ctx.res.statusCode : 499;
  deps.metrics.request({ method, route, status, seconds: ms / 1_000, bytesIn, bytesOut });

  const line = {
    method,
    route,
    status,
    ms: Math.round(ms * 10) / 10,
    bytesIn,
    bytesOut,
    ...(device ? { device: device.deviceId } : {}),
    ...(repository ? { repository: repository.deviceId, tokenId: repository.token } : {}),
    ...(operator ? { operator: operator.id } : {}),
    ...(complete ? {} : { cut: true, ...(failure instanceof Error ? { reason: failure.message } : {}) }),
  };
  if (probes.has(route)) log.debug(line, 'request');
  else log.info(line, 'request');
}

function isComplete(ctx: Context): boolean {
  const { stream } = ctx.res as unknown as { stream?: ServerHttp2Stream };
  return stream ? stream.writableFinished && stream.rstCode === constants.NGHTTP2_NO_ERROR : ctx.res.writableFinished;
}

const probes = new Set(['/livez', '/readyz', '/metrics']);
const knownMethods = new Set(['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS']);

/** The route's pattern, so that ids do not become labels. */
function routeOf(ctx: Context): string {
  const pattern = (ctx as { _matchedRoute?: unknown })._matchedRoute;
  return typeof pattern === 'string' ? pattern : 'none';
}
