/** The one error that opening sealed bytes can end in, whatever the bytes are. Agents decide by `reason`. */

/** reason -> what it says about the input. */
export const sealReasons = {
  malformed: 'the bytes do not have the form of sealed bytes',
  unsupported_format: 'sealed by a newer program, or not sealed bytes at all',
  wrong_type: 'sealed as another type than the one expected here',
  wrong_vault: 'sealed for another vault',
  wrong_generation: 'sealed under another key generation',
  not_authentic: 'changed since it was sealed, or sealed with another key',
  bad_payload: 'sealed by somebody who holds the key, but against the rules of the format',
  too_large: 'beyond the bound on plain or sealed bytes',
  bad_record: 'a wrapped key that is damaged or has parameters outside the bounds',
  wrong_password: 'the password is another one, or the wrapped key was altered',
} as const;

export type SealReason = keyof typeof sealReasons;

export class SealError extends Error {
  readonly reason: SealReason;

  constructor(reason: SealReason, detail: string, options?: ErrorOptions) {
    super(detail, options);
    this.name = 'SealError';
    this.reason = reason;
  }
}
