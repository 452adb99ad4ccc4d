/**
 * Whether a file is as it was stored, judged by its stat alone, and whether that judgement may be made next time.
 */
import type { CachedFile } from '../state/cache.ts';
import { signed64 } from '../state/cache.ts';

export interface StatFields {
  size: number;
  mtimeNs: bigint;
  ctimeNs: bigint;
  inode: bigint;
}

/** The device number is left out on purpose: it changes with the order in which disks are found. */
export function isUnchanged(file: StatFields, cached: CachedFile): boolean {
  return (
    cached.trusted &&
    cached.kind === 'file' &&
    cached.size === file.size &&
    cached.mtimeNs === file.mtimeNs &&
    cached.ctimeNs === file.ctimeNs &&
    cached.inode === signed64(file.inode)
  );
}

const secondNs = 1_000_000_000n;
/** File systems stamp changes with the kernel's tick (up to 10 ms), FAT with two seconds. */
const fineTickNs = 50_000_000n;
const coarseTickNs = 2_100_000_000n;

/**
 * Whether a later change is sure to show in the stat. A file written again within the tick of its last change, after
 * it was read, keeps its times: one that changed that shortly before it was read is read again by the next run.
 * @param readAtMs when reading began, ms since the epoch
 */
export function isStatTrustworthy(file: StatFields, readAtMs: number): boolean {
  const coarse = file.mtimeNs % secondNs === 0n && file.ctimeNs % secondNs === 0n;
  const changedNs = file.mtimeNs > file.ctimeNs ? file.mtimeNs : file.ctimeNs;
  return changedNs + (coarse ? coarseTickNs : fineTickNs) < BigInt(readAtMs) * 1_000_000n;
}
