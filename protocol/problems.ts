/**
 * The errors a caller can act on (RFC 9457): one table, so that a code means one thing everywhere.
 * Agents decide by `code`; people read `detail`.
 */

/** code -> [HTTP status, title]. */
export const problemTable = {
  malformed_request: [400, 'The request does not have the expected form'],
  out_of_bounds: [400, 'A value is outside its bounds'],
  path_invalid: [400, 'A path is not one the archive can hold'],
  path_repeated: [400, 'A path is named twice in one commit'],
  unauthorized: [401, 'A valid device token is needed'],
  sign_in_failed: [401, 'The registration key, user name or password is not right'],
  device_deauthorized: [401, 'This device may no longer back up or restore'],
  second_factor_needed: [401, 'A code of the second factor is needed'],
  password_change_needed: [401, 'A new password has to be set first'],
  forbidden: [403, 'This is not allowed here'],
  restores_blocked: [403, 'Nothing is restored for you until somebody has reviewed what you restored'],
  not_found: [404, 'There is no such thing here'],
  method_not_allowed: [405, 'This method is not allowed here'],
  request_timeout: [408, 'The request took too long to arrive'],
  archive_rolled_back: [409, 'The server does not know the last commit this device saw acknowledged'],
  archive_changed: [409, 'Paths were purged from this archive since the agent last looked'],
  archive_not_active: [409, 'This archive takes no commits in its present state'],
  blocks_missing: [409, 'Some blocks or lists have to be sent (again) first'],
  commit_id_reused: [409, 'This commitId was used with another body'],
  run_finished: [409, 'This run has ended'],
  conflict: [409, 'This does not go together with what is there'],
  device_away: [409, 'The device is not connected, or does not answer'],
  moment_lapsed: [410, 'The moment is not kept for this reader any more'],
  length_required: [411, 'A Content-Length is needed'],
  precondition_failed: [412, 'It was changed since it was looked at'],
  body_too_large: [413, 'The body is larger than this endpoint takes'],
  unsupported_media_type: [415, 'The body is in a format this endpoint does not take'],
  range_not_satisfiable: [416, 'The range lies outside the block'],
  block_corrupt: [422, 'A block does not hash to its name'],
  list_corrupt: [422, 'A list does not hash to its name'],
  idempotency_key_reused: [422, 'This Idempotency-Key was used with another request'],
  too_many_requests: [429, 'Too many attempts; try again later'],
  internal: [500, 'The server failed; the request can be repeated'],
  overloaded: [503, 'The server has more to do than it can take on; try again shortly'],
  unavailable: [503, 'The server cannot reach its database or object store; try again shortly'],
  shutting_down: [503, 'The server is shutting down; try again shortly'],
  quota_exceeded: [507, 'A quota is used up'],
} as const satisfies Record<string, readonly [status: number, title: string]>;

export type ProblemCode = keyof typeof problemTable;

/** What a problem carries beside its code: `field` names the input at fault, the rest is per code (docs/protocol.md). */
export interface ProblemExtras {
  field?: string;
  retryAfterSeconds?: number;
  [key: string]: unknown;
}

/** An error the caller can act on. Thrown anywhere below the HTTP layer, rendered in one place there. */
export class Problem extends Error {
  readonly code: ProblemCode;
  readonly status: number;
  readonly extras: ProblemExtras;

  constructor(code: ProblemCode, detail: string, extras: ProblemExtras = {}, options?: ErrorOptions) {
    super(detail, options);
    this.name = 'Problem';
    this.code = code;
    this.status = problemTable[code][0];
    this.extras = extras;
  }

  /** The `application/problem+json` document. */
  toJSON(): Record<string, unknown> {
    const [status, title] = problemTable[this.code];
    const { retryAfterSeconds: _, ...members } = this.extras;
    return {
      type: `urn:holdfast:problem:${this.code}`,
      title,
      status,
      code: this.code,
      detail: this.message,
      ...members,
    };
  }
}

/** Reads a problem back from a response body, or makes the nearest one of a response that holds none. */
export function problemFromResponse(status: number, body: Uint8Array, retryAfter?: string): Problem {
  const retry = retryAfter && /^\d+$/.test(retryAfter) ? { retryAfterSeconds: Number(retryAfter) } : {};
  try {
    const parsed = JSON.parse(Buffer.from(body).toString('utf8')) as Record<string, unknown>;
    if (typeof parsed.code === 'string' && parsed.code in problemTable) {
      const { type: _type, title: _title, status: _status, code, detail, ...extras } = parsed;
      return new Problem(code as ProblemCode, String(detail ?? ''), { ...extras, ...retry });
    }
  } catch {
    // Not ours: an ingress or a proxy answered. Its status still tells whether to try again.
  }
  const code =
    Object.entries(problemTable).find(([, [s]]) => s === status)?.[0] ??
    (status >= 500 ? 'unavailable' : 'malformed_request');
  return new Problem(code as ProblemCode, `the server answered ${status}`, retry);
}
