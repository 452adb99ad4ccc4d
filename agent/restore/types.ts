/**
 * What a restore is asked and what it answers. A file is either restored with its right bytes, or named in `problems`;
 * whatever differs from what the archive says without being wrong is named in `notices`.
 */
import type { BlockFrame } from '../../protocol/block-frames.ts';
import type { StoredVersion } from '../../protocol/messages.ts';
import type { Keyring } from '../../protocol/sealing/index.ts';
import type { ThinnedInPlace } from '../../protocol/thinned.ts';
import type { Folder } from './folders.ts';

/** Where versions and blocks come from: the part of agent/client's Client that a restore needs. */
export interface RestoreSource {
  /** The state of `path` and everything below it as of a moment, depth first, parents before children. */
  versions(
    archive: number,
    query: { path?: Uint8Array; at?: number; seq?: number; deleted?: boolean },
    signal?: AbortSignal,
    onThinned?: (thinned: ThinnedInPlace) => void,
  ): Promise<{ seq: number; at: number; versions: AsyncIterable<StoredVersion> }>;
  /** Blocks by hash, each once, in any order; `bytes` null for one that cannot be had. */
  fetchBlocks(hashes: Uint8Array, signal?: AbortSignal): AsyncIterable<BlockFrame>;
  /** Lists by hash, in the same way; the bytes of a list are the hashes of its blocks. */
  fetchLists(hashes: Uint8Array, signal?: AbortSignal): AsyncIterable<BlockFrame>;
  /** All versions of one path, newest first, of those before `after`. Asked only for what was deleted. */
  history?(
    archive: number,
    query: { path: Uint8Array; after?: number; limit?: number },
  ): Promise<{ versions: StoredVersion[]; more: boolean }>;
}

/**
 * What to do with something else that stands where a file is to be restored. What is identical already is left.
 * rename: it is renamed aside (default); overwrite: it is replaced (a folder is renamed aside all the same);
 * keep: it stays, the archive's file is left out; fail: the restore stops.
 */
export type ExistingPolicy = 'rename' | 'overwrite' | 'keep' | 'fail';

export interface RestoreOptions {
  client: RestoreSource;
  keys: Keyring;
  archive: number;
  vault: number;
  /**
   * Archive path; it and all below it are restored. '/a/b' becomes DIR/b. Or several, in the order of an archive, which is that of
   * their names and not of their bytes ('/a/b' before '/a!'), none in another.
   */
  path: Buffer | readonly Buffer[];
  /**
   * The archive's folder that the target stands for: of '/a', '/a/b' becomes DIR/b, and of '/a/b' it becomes DIR itself, whose
   * mode and time are then set too. Default: the folder that the path lies in.
   */
  base?: Buffer;
  /** The folder to restore into; made when it is not there. Or what opens it (open-way.ts); the restore closes it. */
  to: string | (() => Promise<Folder>);
  /** A folder of ours where files grow when none can be made in the target: it may be there, and only what is in it ours. */
  stagingElsewhere?: string;
  /** What was deleted by then too, as it last was. */
  deleted?: boolean;
  /** Milliseconds since the epoch; default now. */
  at?: number;
  /** Pins the moment instead of `at`: an earlier restore's `seq`, so that a resumed one shows the same. */
  seq?: number;
  existing?: ExistingPolicy;
  /** Give files back to their owners, with setuid and setgid. Takes effect for root only. */
  owner?: boolean;
  /**
   * Where modes come from. archive: as they were (default). folder: as of any new file: the umask's mode, the group of a folder
   * that hands its own on, and for root the owner of the folder; what stands there already keeps its own.
   */
  permissions?: 'archive' | 'folder';
  /** Take a file of the right size and time (to the microsecond) for identical, without comparing its content. */
  trustTimes?: boolean;
  /**
   * fsync every file before it gets its name. Off by default, as for cp and tar: it costs a disk's turn per file, and
   * a restore repeated after a power cut finds what did not last, because it compares content.
   */
  fsync?: boolean;
  /** Whether names that differ only in case are two files in `to`; asked of the file system unless given. */
  caseSensitive?: boolean;
  /** Hold the target's folders open and step from them; where the system can, unless set to false. */
  folderHandles?: boolean;
  /** With `RestoreEnded` as its reason nothing is kept to go on with. */
  signal?: AbortSignal;
  /** Whether somebody goes on after such a failure, with the unfinished files that are kept then. Default: after every one. */
  goesOn?: (error: unknown) => boolean;
  /** Counted on, in place of new ones: of several restores that are one, and of one that fails. */
  counts?: RestoreCounts;
  onProgress?: (progress: RestoreProgress) => void;
  onEvent?: (event: RestoreProblem | RestoreNotice) => void;
}

export interface RestoreProgress {
  /** Found in the archive so far; the total once `seenAll`. */
  filesSeen: number;
  bytesSeen: number;
  seenAll: boolean;
  /** Restored, identical already, or left out; the bytes also of files that are not whole yet. */
  filesDone: number;
  bytesDone: number;
  /** Sealed bytes received. */
  bytesFetched: number;
}

export const restoreProblemReasons = [
  'key_missing',
  'version_not_authentic',
  'attributes_damaged',
  'path_not_allowed',
  'parent_not_folder',
  'block_missing',
  'block_damaged',
  'content_mismatch',
  'target_refused',
  'version_gone',
  'version_thinned',
] as const;

/** A file that was left out. */
export interface RestoreProblem {
  type: 'problem';
  path: Buffer;
  reason: (typeof restoreProblemReasons)[number];
  detail: string;
}

/** Something done otherwise than the archive says, or to a file that was there. */
export interface RestoreNotice {
  type: 'notice';
  path: Buffer;
  what:
    | 'renamed_existing'
    | 'overwrote_existing'
    | 'kept_existing'
    | 'name_changed'
    | 'attributes_not_set'
    | 'hard_link_split';
  detail: string;
}

export interface RestoreReport {
  /** The moment restored. */
  seq: number;
  at: number;
  /** Nothing was left out. */
  complete: boolean;
  counts: RestoreCounts;
  /** The first `eventsKeptMax` of each; all go to `onEvent`. */
  problems: RestoreProblem[];
  notices: RestoreNotice[];
}

export interface RestoreCounts {
  filesRestored: number;
  /** Were there with the right content. */
  filesIdentical: number;
  /** Existing files that `keep` kept. */
  filesKept: number;
  folders: number;
  symlinks: number;
  hardLinks: number;
  bytesRestored: number;
  /** Bytes of files interrupted earlier that did not have to be fetched again. */
  bytesResumed: number;
  bytesFetched: number;
  blocksFetched: number;
  problems: number;
  notices: number;
}

export const eventsKeptMax = 1_000;

/** Of a list of problems with so many places those that this one may take: what was thinned out leaves half to others. */
export const placesFor = ({ reason }: Pick<RestoreProblem, 'reason'>, placesMax: number): number =>
  reason === 'version_thinned' ? placesMax / 2 : placesMax;

export const noCounts = (): RestoreCounts => ({
  filesRestored: 0,
  filesIdentical: 0,
  filesKept: 0,
  folders: 0,
  symlinks: 0,
  hardLinks: 0,
  bytesRestored: 0,
  bytesResumed: 0,
  bytesFetched: 0,
  blocksFetched: 0,
  problems: 0,
  notices: 0,
});

/** The reason of a signal after which nobody goes on with the restore. */
export class RestoreEnded extends Error {}

/** The restore cannot go on at all: the target is in use, refused or full, or `fail` met an existing file. */
export class RestoreError extends Error {
  readonly code: 'target_busy' | 'target_unsafe' | 'target_failed' | 'exists';

  constructor(code: RestoreError['code'], message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'RestoreError';
    this.code = code;
  }
}

/** One file is left out, for this reason; the restore goes on. */
export class LeftOut extends Error {
  readonly reason: RestoreProblem['reason'];

  constructor(reason: RestoreProblem['reason'], message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'LeftOut';
    this.reason = reason;
  }
}
