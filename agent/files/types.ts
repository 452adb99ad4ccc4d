/**
 * What walking a tree tells the backup engine, and what reading a file promises it.
 * Nothing is left out in silence: whatever is not a `file` event is a `skipped` or a `root-failed` one, with a reason.
 */
import type { FileKind, SkipReason } from '../../protocol/messages.ts';

/** The platforms whose rules for names and paths we know; any other Unix follows the rules of Linux. */
export type Platform = 'linux' | 'darwin' | 'win32';

/** A path as the local file system takes it: bytes on Linux and macOS, where names need not be text; a string on Windows. */
export type LocalPath = Buffer | string;

export interface FileState {
  /** As the archive holds it: '/home/me/a', on Windows '/C:/Users/me/a'. */
  path: Buffer;
  localPath: LocalPath;
  kind: FileKind;
  /** Plain bytes of a file; 0 for everything else. */
  size: number;
  /** Milliseconds since the Unix epoch, rounded down, as a version carries it. */
  mtimeMs: number;
  mtimeNs: bigint;
  ctimeNs: bigint;
  inode: bigint;
  device: bigint;
  /** Names of this inode in its file system. Above 1 the content may have been read under another name already. */
  links: number;
  /** Plain attributes (see attributes.ts), before sealing. */
  attributes: Buffer;
}

/** Why a root could not be walked at all. */
export const rootFailures = [
  'missing',
  'unreadable',
  'not_a_folder_or_file',
  'symbolic_link',
  'name_not_storable',
] as const;
export type RootFailure = (typeof rootFailures)[number];

export type WalkEvent =
  /**
   * Opens a root, before anything in it. The engine compares `device` and `empty` with the last run's before it lets
   * this run record deletions below `path`.
   */
  | { type: 'root'; path: Buffer; localPath: LocalPath; kind: 'file' | 'directory'; device: bigint; empty: boolean }
  /** A file, folder or symlink; a folder comes before what lies in it. A root's ancestors come first, as folders. */
  | { type: 'file'; file: FileState }
  /** `subtree`: nothing below `path` was looked at either, so what the archive holds there must not be taken as deleted. */
  | { type: 'skipped'; path: Buffer; reason: SkipReason; detail: string; subtree: boolean }
  | { type: 'root-failed'; path: Buffer; reason: RootFailure; detail: string };

export interface WalkOptions {
  excludes: Excludes;
  /** Do not enter folders on another file system than their root's. */
  oneFileSystem: boolean;
  /** Step from open folders instead of by whole paths; where the system can, unless set to false. */
  folderHandles?: boolean;
  signal?: AbortSignal;
}

/** Which paths a backup leaves out (see excludes.ts). */
export interface Excludes {
  /** The rule that leaves this path out, in words for people; null when none does. Asks about this path only, not about its parents. */
  match(path: Buffer, kind: FileKind): string | null;
  /** Leave out what lies in folders marked by a CACHEDIR.TAG (https://bford.info/cachedir/). */
  cacheTags: boolean;
}

/** A file held open while it is read. */
export interface OpenFile {
  /**
   * The content from its start, once, in pieces of at most 1 MiB. Each is the caller's until the next one is asked for.
   * @throws FileReadError
   */
  chunks(): AsyncGenerator<Buffer>;
  /** The content at once, instead of `chunks`: for small files. The buffer is the caller's to keep. @throws FileReadError */
  whole(): Promise<Buffer>;
  /** Whether the file is another one than `FileState` says, or changed since: what was read may then be torn. */
  changed(): Promise<boolean>;
  close(): Promise<void>;
}

/** A file could not be opened or read; `reason` is what the run reports. */
export class FileReadError extends Error {
  readonly reason: SkipReason;

  constructor(reason: SkipReason, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'FileReadError';
    this.reason = reason;
  }
}
