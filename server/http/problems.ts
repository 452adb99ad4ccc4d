/** The one place where an error becomes an answer: `application/problem+json` (RFC 9457), and nothing internal in it. */
import { constants, type ServerHttp2Stream } from 'node:http2';
import { Problem } from '../../protocol/problems.ts';
import { isPassingFault } from '../../storage/catalog/database.ts';
import { ObjectStoreFault } from '../../storage/objects/object-store.ts';
import { ClientGone } from './body-receiver.ts';
import type { Context } from './deps.ts';

/** Tells what a failure means for the caller. Anything unknown is `internal`, and nothing of it is told. */
export function problemOf(error: unknown): Problem {
  if (error instanceof Problem) return error;
  for (let cause: unknown = error, depth = 0; cause instanceof Error && depth < 5; cause = cause.cause, depth++) {
    if (isPassingFault(cause) || cause instanceof ObjectStoreFault) {
      return new Problem(
        'unavailable',
        'the database or the object store cannot be reached',
        { retryAfterSeconds: 5 },
        { cause: error },
      );
    }
  }
  return new Problem(
    'internal',
    'something went wrong inside the server; the request id names it in the log',
    {},
    { cause: error },
  );
}

/** Middleware: what is thrown below becomes the answer, or the end of one that has begun. */
export async function renderProblems(ctx: Context, next: () => Promise<unknown>): Promise<void> {
  try {
    await next();
  } catch (error) {
    ctx.state.failure = error;
    if (error instanceof ClientGone) cutAnswer(ctx);
    else if (ctx.headerSent) cutAnswer(ctx);
    else renderProblem(ctx, problemOf(error));
  }
}

export function renderProblem(ctx: Context, problem: Problem): void {
  if (problem.status >= 500) logFailure(ctx, problem);
  ctx.remove('ETag');
  ctx.remove('Content-Length');
  ctx.status = problem.status;
  ctx.body = JSON.stringify(problem.toJSON());
  ctx.set('Content-Type', 'application/problem+json');
  ctx.set('Cache-Control', 'no-store');
  if (problem.extras.retryAfterSeconds !== undefined) ctx.set('Retry-After', String(problem.extras.retryAfterSeconds));
  if (problem.status === 401) ctx.set('WWW-Authenticate', 'Bearer');
}

function logFailure(ctx: Context, problem: Problem): void {
  if (problem.code === 'internal') ctx.state.log.error({ err: problem.cause }, 'request failed');
  else if (problem.cause !== undefined) ctx.state.log.warn({ err: problem.cause }, problem.code);
}

/** Ends an answer so that nobody takes it for whole: a reset stream, a broken chunked body. */
export function cutAnswer(ctx: Context): void {
  ctx.respond = false;
  const { stream } = ctx.res as unknown as { stream?: ServerHttp2Stream };
  if (stream) {
    if (!stream.closed) stream.close(constants.NGHTTP2_INTERNAL_ERROR);
  } else ctx.res.destroy();
}
