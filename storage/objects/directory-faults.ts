/**
 * What the system says about a disk, in the terms of the object store: a full, broken or read-only disk is the store's
 * fault, not a defect of the caller, and the next attempt a moment later will not fare better.
 */
import { ObjectStoreFault } from './object-store.ts';

/** Of the place as a whole, not of one key. EFBIG: a file may not grow so large, by a limit of the process or the file system. */
const placeCodes = new Set([
  'EDQUOT',
  'EFBIG',
  'EIO',
  'EMFILE',
  'ENFILE',
  'ENODEV',
  'ENOSPC',
  'ENXIO',
  'EROFS',
  'ESTALE',
]);

/** The error itself, or an `ObjectStoreFault` with the system's code for one that tells of the disk. */
export function directoryFault(call: string, error: unknown): unknown {
  const code = (error as NodeJS.ErrnoException | null)?.code;
  if (error instanceof ObjectStoreFault || code === undefined || !placeCodes.has(code)) return error;
  const message = `${call}: ${(error as Error).message}`;
  return new ObjectStoreFault(message, { retryable: false, code }, { cause: error });
}
