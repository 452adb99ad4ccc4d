/** Which failures of a restore pass by themselves, and what the others are in words. */
import { Problem } from '../../protocol/problems.ts';
import { CertificateRefused, ConnectionLost, NotAServer } from '../client/errors.ts';
import { RestoreError } from '../restore/types.ts';

/**
 * Whether the same may go well later: the network or the server is away, the server does not let this device in at present,
 * or another restore works in the same folder.
 */
export function isPassing(error: unknown): boolean {
  if (error instanceof ConnectionLost || error instanceof CertificateRefused || error instanceof NotAServer)
    return true;
  if (error instanceof RestoreError) return error.code === 'target_busy';
  if (!(error instanceof Problem)) return false;
  if (error.status === 401 || error.status === 408 || error.status === 429) return true;
  return error.status >= 500;
}

export function failureInWords(error: unknown): string {
  if (error instanceof Problem && error.code === 'moment_lapsed')
    return 'the moment that was to be restored is not kept any more; restore anew';
  return error instanceof Error ? error.message : String(error);
}
