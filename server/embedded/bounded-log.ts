/**
 * A log file that cannot fill the disk: at its bound it becomes `<file>.1`, replacing the one before, and starts anew.
 * Written synchronously: what a dying process says last is on disk, and the volume is a few lines a minute.
 */
import { appendFileSync, renameSync, statSync } from 'node:fs';

export interface BoundedLog {
  append(bytes: Uint8Array): void;
}

/** @param bytesMax bytes of one file; two files are kept at most. Errors while writing are dropped: a log must not stop what it logs. */
export function openBoundedLog(file: string, bytesMax: number): BoundedLog {
  let size = sizeOf(file);
  return {
    append(bytes) {
      try {
        if (size > 0 && size + bytes.byteLength > bytesMax) {
          renameSync(file, `${file}.1`);
          size = 0;
        }
        appendFileSync(file, bytes, { mode: 0o600 });
        size += bytes.byteLength;
      } catch {
        // A full disk: PostgreSQL itself says so where it matters.
      }
    },
  };
}

function sizeOf(file: string): number {
  return statSync(file, { throwIfNoEntry: false })?.size ?? 0;
}
