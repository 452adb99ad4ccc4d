/**
 * What can go wrong beside the problems the server itself names (protocol/problems.ts). Each message says what happened
 * and what to do.
 */

/** Documented in --help; scripts rely on them. */
export const exitCodes = { ok: 0, failed: 1, usage: 2, interrupted: 130 } as const;

/** The caller's mistake, told without a stack. Nothing was sent. */
export class UsageError extends Error {
  readonly code = 'wrong_usage';
  override name = 'UsageError';
}

/** It was answered, and what the answer says is that it cannot be done, or not all of it, or that there was nothing to do it to. */
export class NotAsAsked extends Error {
  readonly code = 'not_as_asked';
  override name = 'NotAsAsked';
}

/** No connection, or one that broke, or an answer that stayed away or was cut off. */
export class ConnectionLost extends Error {
  readonly code = 'connection_lost';
  override name = 'ConnectionLost';
  /** Something of the request may have arrived: whether it was done is not known. */
  readonly sent: boolean;

  constructor(message: string, options: ErrorOptions & { sent: boolean }) {
    super(message, options);
    this.sent = options.sent;
  }
}

/** The server showed another certificate than the pinned one, or one that nobody vouches for. Nothing was sent to it. */
export class CertificateRefused extends Error {
  readonly code = 'certificate_refused';
  override name = 'CertificateRefused';
}

/** The other side is reachable and is no Holdfast server with a JSON API. */
export class NotAServer extends Error {
  readonly code = 'not_a_server';
  override name = 'NotAServer';
}

/** Nobody is signed in, or not any more. */
export class SignInNeeded extends Error {
  readonly code = 'sign_in_needed';
  override name = 'SignInNeeded';
}
