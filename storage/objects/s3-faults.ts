/**
 * What an error of the AWS SDK means to the engine. The whole classification stands here, so that it can be read and
 * tested as one table. Codes: Amazon S3 API Reference, "Error responses".
 */
import { ObjectStoreFault } from './object-store.ts';

/** 4xx codes that a later attempt may not meet again. */
const retryableCodes = new Set([
  'SlowDown',
  'Throttling',
  'ThrottlingException',
  'TooManyRequests',
  'RequestTimeout',
  'RequestTimeoutException',
  'OperationAborted',
  // The SDK learns the store's clock from this answer and signs the next attempt by it.
  'RequestTimeTooSkewed',
  // A body cut short on its way; also what Swift's s3api says when the connection to the client broke.
  'IncompleteBody',
  'BadDigest',
  'XAmzContentSHA256Mismatch',
]);

/** Faults below HTTP. `TimeoutError` is the SDK's own; the others are codes of Node's sockets and of name resolution. */
const networkCodes = new Set([
  'TimeoutError',
  'ECONNRESET',
  'ECONNREFUSED',
  'ECONNABORTED',
  'EPIPE',
  'ETIMEDOUT',
  'ENETUNREACH',
  'EHOSTUNREACH',
  'ENETDOWN',
  'EAI_AGAIN',
  'ENOTFOUND',
  'ERR_STREAM_PREMATURE_CLOSE',
  'HPE_INVALID_CONSTANT',
]);

interface SdkError extends Error {
  code?: unknown;
  $metadata?: { httpStatusCode?: number };
  $response?: { statusCode?: number; headers?: Record<string, string> };
}

/** The status and code of an SDK error, as far as there was an answer. */
export function answerOf(error: unknown): { status: number | undefined; code: string } {
  const sdkError = error as SdkError;
  const status = sdkError.$metadata?.httpStatusCode ?? sdkError.$response?.statusCode;
  return { status, code: typeof sdkError.code === 'string' ? sdkError.code : (sdkError.name ?? 'Error') };
}

/** The answer says of this very key that it is not there, by the body's code. A 404 alone may be a missing bucket or a proxy. */
export function saysNoSuchKey(error: unknown): boolean {
  return (error as Error).name === 'NoSuchKey';
}

/** A request that got no answer: what the HTTP client threw. */
export function networkFault(error: unknown): ObjectStoreFault {
  const { code, name, message } = error as SdkError;
  const told = typeof code === 'string' ? code : name;
  const retryable = networkCodes.has(told) || networkCodes.has(name);
  return new ObjectStoreFault(message || told, { retryable, code: told }, { cause: error });
}

/** Classifies what the SDK threw while doing `what`. An aborted call's reason is rethrown by the caller, not here. */
export function faultOf(what: string, error: unknown): ObjectStoreFault {
  if (error instanceof ObjectStoreFault) {
    const { retryable, code, retryAfterMs } = error;
    const details = { retryable, ...(code && { code }), ...(retryAfterMs !== undefined && { retryAfterMs }) };
    return new ObjectStoreFault(`${what}: ${error.message}`, details, { cause: error });
  }
  const { status, code } = answerOf(error);
  if (status === undefined) return faultOf(what, networkFault(error));
  const { name, message, $response } = error as SdkError;
  const retryable = status >= 500 || status === 429 || status === 408 || retryableCodes.has(name);
  const retryAfterMs = retryAfterOf($response?.headers);
  return new ObjectStoreFault(
    `${what}: ${message || name} (${status} ${name})`,
    { retryable, code, status, ...(retryAfterMs !== undefined && { retryAfterMs }) },
    { cause: error },
  );
}

/** `Retry-After` in seconds (RFC 9110 10.2.3); its other form, a date, would need the store's clock and is ignored. */
function retryAfterOf(headers: Record<string, string> | undefined): number | undefined {
  const value = headers?.['retry-after'];
  return value && /^\d{1,6}$/.test(value) ? Number(value) * 1_000 : undefined;
}
