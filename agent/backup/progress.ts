/** What a run has done so far: what people watch, what the server is told and what is remembered of the run. */
import type { RunCounts } from '../../protocol/messages.ts';

/** Files here are everything but folders. Bytes are plain, except `bytesSent`: sealed and acknowledged. */
export interface Counts extends RunCounts {
  foldersSeen: number;
  filesUnchanged: number;
  filesExcluded: number;
  /** Read, and not sent because the vault had the block or this run sent it before. */
  bytesKnown: number;
  blocksSent: number;
  blocksKnown: number;
  /** Lists of large files. */
  listsSent: number;
  listsKnown: number;
}

export type Phase = 'starting' | 'comparing' | 'backing_up' | 'deletions' | 'ending';

export interface Progress {
  phase: Phase;
  /** Bytes of files dealt with: unchanged ones and the parts read of others. */
  bytesDone: number;
  /** The path looked at last. */
  path: Buffer;
  counts: Counts;
}

export function newProgress(): Progress {
  return {
    phase: 'starting',
    bytesDone: 0,
    path: Buffer.from('/'),
    counts: {
      filesSeen: 0,
      filesChanged: 0,
      filesDeleted: 0,
      filesSkipped: 0,
      bytesSeen: 0,
      bytesRead: 0,
      bytesSent: 0,
      foldersSeen: 0,
      filesUnchanged: 0,
      filesExcluded: 0,
      bytesKnown: 0,
      blocksSent: 0,
      blocksKnown: 0,
      listsSent: 0,
      listsKnown: 0,
    },
  };
}

/** The counts as the server takes them. */
export function runCounts(counts: Counts): RunCounts {
  const { filesSeen, filesChanged, filesDeleted, filesSkipped, bytesSeen, bytesRead, bytesSent } = counts;
  return { filesSeen, filesChanged, filesDeleted, filesSkipped, bytesSeen, bytesRead, bytesSent };
}
