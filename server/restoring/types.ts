/** What is asked of a restore that the server assembles, and what it answers. */
import assert from 'node:assert';
import type { Attributes } from '../../protocol/attributes.ts';
import type { StoredVersion } from '../../protocol/messages.ts';
import type { ExportKey } from '../../protocol/sealed-export.ts';

export const restoreFormats = ['zip', 'tar', 'export'] as const;
export type RestoreFormat = (typeof restoreFormats)[number];

/** Paths of one restore; each is walked by itself. */
export const selectionPathsMax = 1_000;
/** Files up to this size are read whole before their entry is begun. */
export const verifyAheadBytes = 32 * 1024 * 1024;
/** Bytes of content that one restore holds: sealed ones on their way, and plain ones of the file that is being written. */
export const windowBytesDefault = 64 * 1024 * 1024;
/** Bytes that a restore keeps beside its window, whatever the manifest of an archive says. */
export const keptMaxDefault = {
  /** Names of files of which further ones may come; the oldest beyond it is forgotten, and its file written again. */
  linkBytes: 16 * 1024 * 1024,
  /** Each list of what was left out or renamed, as text; the rest is counted. */
  textBytes: 16 * 1024 * 1024,
  /** A zip's directory, compressed. A million entries with names of 32 random bytes take some 50 MiB. */
  directoryBytes: 64 * 1024 * 1024,
};
export type KeptMax = typeof keptMaxDefault;
/** Files left out, and changed names, of which a report tells; all of them are in the archive's last entries. */
export const reportedMax = 1_000;

export interface Selection {
  /** Paths of the archive, each with all below it. One that lies within another counts once. */
  paths: readonly Uint8Array[];
  /** The moment, as a plan named it. */
  seq: number;
  /** Files deleted by then too, as they last were. */
  deleted: boolean;
  /** Files to leave out because an earlier try broke off at them, and why. */
  leaveOut?: readonly { path: Uint8Array; reason: LeftOutReason }[];
}

/** reason -> what RESTORE-INCOMPLETE.txt says of it. One reason, one text: it must not tell how something was found. */
export const leftOutReasons = {
  content_damaged: 'its content is damaged in the store',
  content_not_authentic: 'its content was not sealed with a key of this archive',
  content_mismatch: 'its content is not as long as it should be',
  version_not_authentic: 'it was altered, or written with another key',
  version_thinned: 'retention keeps no version of it from before the moment asked for',
  version_gone: 'it was deleted, and no version with its content is kept any more',
  attributes_damaged: 'its attributes cannot be read',
  key_missing: 'it was sealed with a key that is not at hand',
  path_not_allowed: 'its path is none that an archive may hold',
  parent_not_folder: 'what has the name of its folder is no folder',
  name_too_long: 'its name is too long for a zip; a tar can hold it',
} as const;
export type LeftOutReason = keyof typeof leftOutReasons;

/** One file cannot be had; the rest goes on. */
export class LeftOut extends Error {
  readonly reason: LeftOutReason;

  constructor(reason: LeftOutReason, options?: ErrorOptions) {
    super(leftOutReasons[reason], options);
    this.name = 'LeftOut';
    this.reason = reason;
  }
}

/**
 * A file could not be gone on with after its entry had begun: what was sent is worth nothing, and the answer has to be
 * broken off. Damaged blocks are marked; a next try leaves the file out, by their rows or by `Selection.leaveOut`.
 */
export class ArchiveBroken extends Error {
  readonly path: Buffer;
  readonly reason: LeftOutReason;

  constructor(path: Buffer, reason: LeftOutReason, options?: ErrorOptions) {
    super(`the archive broke off in the middle of a file: ${leftOutReasons[reason]}`, options);
    this.name = 'ArchiveBroken';
    this.path = path;
    this.reason = reason;
  }
}

/** A version, and what it is. */
export interface Item {
  version: StoredVersion;
  /** Null: it stays sealed, and nobody has looked whether it is authentic. */
  attributes: Attributes | null;
}

/** Of one that was opened. */
export function attributesOf({ attributes }: Item): Attributes {
  assert(attributes, 'a sealed version was taken for an opened one');
  return attributes;
}

/** What a sealed export says of the archive beside what is in it. */
export interface ExportAbout {
  /** Of the archive's device. */
  guid: string;
  /** The moment as it was asked for, in milliseconds since the epoch. */
  at: number;
  keys: ExportKey[];
}

export interface RestoreCounts {
  files: number;
  folders: number;
  symlinks: number;
  /** Further names of files, where the format has them. They count as files too. */
  hardLinks: number;
  /** Plain bytes of files. */
  bytes: number;
  leftOut: number;
  namesChanged: number;
  /** Paths of the selection where nothing was. */
  missingPaths: number;
}

export interface AssembleReport {
  seq: number;
  /** The archive has its end: everything is in it, but for what `leftOut` counts. */
  ended: boolean;
  counts: RestoreCounts;
  /** The first `reportedMax` of each. */
  leftOut: { path: Buffer; reason: LeftOutReason }[];
  namesChanged: { path: Buffer; name: string }[];
  missingPaths: Buffer[];
  /** Blocks marked as damaged, or found so. */
  damagedBlocks: number;
  /** Bytes of the archive so far. */
  archiveBytes: number;
  /** Most bytes of content that were held at a time. */
  heldBytesMax: number;
}
