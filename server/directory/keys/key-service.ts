/**
 * What seals vault keys of level `standard`, and whatever else the server has to use again (sealed/kinds.ts), so that the
 * database alone opens no backup and signs nobody in. One interface, because an operator may keep the sealing key in a file
 * or elsewhere. A record names the key that sealed it (records.ts), so that
 * several keys, and several services, are in use at once while one takes the place of another.
 */
import { Problem } from '../../../protocol/problems.ts';

export interface KeyService {
  /**
   * @param context what the secret is; unsealing under another context fails, so records cannot be swapped
   * @throws KeyServiceError unreachable, refused
   */
  seal(plain: Uint8Array, context: string): Promise<Buffer>;
  /** @throws KeyServiceError; `damaged` when it is not what was sealed under this context */
  unseal(record: Uint8Array, context: string): Promise<Buffer>;
  /** The names of the keys it opens with; the first is the one that seals. @throws KeyServiceError */
  keys(): Promise<readonly string[]>;
  /** @throws KeyServiceError when it could not seal now */
  check(): Promise<void>;
}

/** A service whose records begin with a byte of their own. */
export interface KeyHolder extends KeyService {
  readonly format: number;
}

/**
 * Why a key service did not do what it was asked:
 * `unreachable`: it passes by itself; `refused`: an operator has to mend it; `damaged`: the record is not what it was.
 * Messages are for the operator and never hold anything of a key.
 */
export class KeyServiceError extends Error {
  override name = 'KeyServiceError';
  readonly kind: 'unreachable' | 'refused' | 'damaged';

  constructor(kind: KeyServiceError['kind'], message: string, options?: ErrorOptions) {
    super(message, options);
    this.kind = kind;
  }
}

/**
 * Waits for a key service on behalf of a caller, who learns that keys cannot be had now, and nothing else.
 * @throws Problem unavailable, with the reason as its cause for the log; KeyServiceError damaged, which is no caller's
 */
export async function forCaller<T>(asked: Promise<T>): Promise<T> {
  try {
    return await asked;
  } catch (error) {
    if (!(error instanceof KeyServiceError) || error.kind === 'damaged') throw error;
    const detail = 'the keys of backups cannot be reached now; try again shortly';
    throw new Problem('unavailable', detail, { retryAfterSeconds: 5 }, { cause: error });
  }
}

/** What the key service is told a sealed vault key is: a record moved to another user's row does not open. */
export function vaultKeyContext(userId: number, generation: number): string {
  return `holdfast vault key, user ${userId}, generation ${generation}`;
}
