/** The one place where an error becomes an answer: `application/problem+json` (RFC 9457), and nothing internal in it. */
import { constants, type ServerHttp2Stream } from 'node:http2';
import { types } from 'node:util';
import { Problem } from '../../protocol/problems.ts';
import { isPassingFault } from '../../storage/catalog/database.ts';
import { ObjectStoreFault } from '../../storage/objects/object-store.ts';
import { ClientGone } from './body-receiver.ts';
import type { Context } from './deps.ts';

/** Tells what a failure means for the caller. Anything unknown is `internal`, and nothing of it is told. */
export function problemOf(error: unknown): Problem {
  if (error instanceof Problem) return error;
  for (const cause of causesOf(error)) {
    if (isPassingFault(cause) || cause instanceof ObjectStoreFault)
      return unavailable('the database or the object store cannot be reached', error);
    if (isShortage(cause)) return unavailable('the server is out of disk space or of another resource', error);
  }
  return new Problem(
    'internal',
    'something went wrong inside the server; the request id names it in the log',
    {},
    { cause: error },
  );
}

function unavailable(detail: string, cause: unknown): Problem {
  return new Problem('unavailable', detail, { retryAfterSeconds: 5 }, { cause });
}

/** An error and what caused it, outermost first. */
function causesOf(error: unknown): Error[] {
  const causes: Error[] = [];
  for (let cause = error; types.isNativeError(cause) && causes.length < 5; cause = cause.cause) causes.push(cause);
  return causes;
}

const shortages = new Set(['ENOSPC', 'EDQUOT', 'EMFILE', 'ENFILE', 'EIO', 'EROFS']);

/** A full or failing disk, or too many open files, here or in PostgreSQL (SQLSTATE class 53): an operator ends it. */
function isShortage(error: Error): boolean {
  const { code } = error as { code?: unknown };
  return typeof code === 'string' && (shortages.has(code) || /^53[0-9A-Z]{3}$/.test(code));
}

/** The client went away, or what was under way for it was stopped because it had. */
function isClientGone(ctx: Context, error: unknown): boolean {
  return causesOf(error).some(
    (cause) => cause instanceof ClientGone || (cause.name === 'AbortError' && ctx.state.signal.aborted),
  );
}

/** Middleware: what is thrown below becomes the answer, or the end of one that has begun. */
export async function renderProblems(ctx: Context, next: () => Promise<unknown>): Promise<void> {
  try {
    await next();
  } catch (error) {
    ctx.state.failure = error;
    if (isClientGone(ctx, error)) cutAnswer(ctx);
    else if (ctx.headerSent) cutAnswer(ctx);
    else renderProblem(ctx, problemOf(error));
  }
}

/** Headers of the answer that was being made: a cache must not take the problem for it, or for a part of it. */
const ofTheAnswerMeant = ['ETag', 'Content-Length', 'Content-Range', 'Accept-Ranges'];

export function renderProblem(ctx: Context, problem: Problem): void {
  if (problem.status >= 500) logFailure(ctx, problem);
  for (const name of ofTheAnswerMeant) ctx.remove(name);
  ctx.status = problem.status;
  ctx.body = JSON.stringify(problem.toJSON());
  ctx.set('Content-Type', 'application/problem+json');
  ctx.set('Cache-Control', 'no-store');
  if (problem.extras.retryAfterSeconds !== undefined) ctx.set('Retry-After', String(problem.extras.retryAfterSeconds));
  // RFC 9110, 15.5.17: what there is instead of the range.
  if (problem.code === 'range_not_satisfiable' && problem.extras.length !== undefined)
    ctx.set('Content-Range', `bytes */${problem.extras.length}`);
  // A route that takes something else than device tokens has said so.
  if (problem.status === 401 && !ctx.res.hasHeader('WWW-Authenticate')) ctx.set('WWW-Authenticate', 'Bearer');
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
