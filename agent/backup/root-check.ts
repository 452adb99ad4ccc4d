/**
 * Whether a root is still what it was. A disk that is not mounted, or another in its place, looks like a folder whose
 * files were all deleted; no run may record that. A suspicious root fails the run and nothing below it is touched.
 */
import type { RootIdentity } from '../state/cache.ts';
import { signed64 } from '../state/cache.ts';

export interface RootFacts extends RootIdentity {
  empty: boolean;
  /** Its parent is on another file system: something is mounted here. */
  mountPoint: boolean;
}

/**
 * Why the root is suspicious, in words; null when it is not.
 * @param last as the last run that went through it saw it; null for the first
 * @param hadFiles the archive holds files below it that were met on this disk
 */
export function rootSuspicion(last: RootIdentity | null, now: RootFacts, hadFiles: boolean): string | null {
  if (now.empty && hadFiles) return 'it is empty, and it was not at the last backup';
  if (last === null || isSameFolder(last, now)) return null;
  if (last.device !== signed64(now.device)) return 'it is on another file system than at the last backup';
  if (now.mountPoint) return 'another file system is mounted there than at the last backup';
  return null; // the folder was made anew in its place
}

/** The device number alone proves nothing: it changes with the order in which disks are found. */
function isSameFolder(last: RootIdentity, now: RootIdentity): boolean {
  const born = last.birthtimeNs !== 0n && now.birthtimeNs !== 0n;
  return (
    last.inode === signed64(now.inode) &&
    (born ? last.birthtimeNs === now.birthtimeNs : last.device === signed64(now.device))
  );
}
