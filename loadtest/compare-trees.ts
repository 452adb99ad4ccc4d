/**
 * Two folders compared as a restore must get them right: names as bytes, kinds, contents byte for byte, link targets,
 * modes, and the times of files (to 2 ms). And a copy that keeps all of that, to compare with later.
 * Thousands of small files go several times faster in synchronous calls; after each folder a Ctrl-C gets its turn.
 */
import {
  chmodSync,
  closeSync,
  constants,
  copyFileSync,
  type Dirent,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
  type Stats,
  symlinkSync,
  utimesSync,
} from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';

export interface Comparison {
  files: number;
  folders: number;
  symlinks: number;
  /** Bytes of the files compared. */
  bytes: number;
  differences: number;
  /** The first of them, in words. */
  examples: string[];
}

const examplesMax = 20;
const pieceBytes = 1024 * 1024;
/** A copy's time is rounded to the millisecond, and what is restored may be cut to it. */
const timeToleranceMs = 2;
/** Windows keeps neither; what a link there needs to be made, not everybody has. */
const hasModes = process.platform !== 'win32';

/** @throws the file system's error for what cannot be read */
export async function compareTrees(expected: string, actual: string): Promise<Comparison> {
  const result: Comparison = { files: 0, folders: 0, symlinks: 0, bytes: 0, differences: 0, examples: [] };
  await compareFolder(Buffer.from(expected), Buffer.from(actual), result);
  return result;
}

async function compareFolder(expected: Buffer, actual: Buffer, result: Comparison): Promise<void> {
  const differ = (path: Buffer, what: string): void => {
    result.differences++;
    if (result.examples.length < examplesMax) result.examples.push(`${path}: ${what}`);
  };
  await nextTurn();
  const [left, right] = [entries(expected), entries(actual)];
  result.folders++;
  for (const [key, entry] of right) if (!left.has(key)) differ(below(actual, entry.name), 'should not be there');
  for (const [key, entry] of left) {
    const path = below(expected, entry.name);
    const other = below(actual, entry.name);
    if (!right.has(key)) {
      differ(path, 'is missing');
      continue;
    }
    const [wanted, got] = [lstatSync(path), lstatSync(other)];
    if (kindOf(wanted) !== kindOf(got)) {
      differ(path, `is a ${kindOf(wanted)}, came back as a ${kindOf(got)}`);
      continue;
    }
    if (wanted.isSymbolicLink()) {
      result.symlinks++;
      const target = readlinkSync(path, 'buffer');
      if (!target.equals(readlinkSync(other, 'buffer'))) differ(path, `does not point to ${target} any more`);
      continue; // a link's own mode means nothing
    }
    if (hasModes && (wanted.mode & 0o7777) !== (got.mode & 0o7777))
      differ(path, `has mode ${(wanted.mode & 0o7777).toString(8)}, came back with ${(got.mode & 0o7777).toString(8)}`);
    if (wanted.isDirectory()) {
      await compareFolder(path, other, result);
    } else {
      result.files++;
      result.bytes += wanted.size;
      if (!sameContent(path, other)) differ(path, 'has other contents');
      if (Math.abs(wanted.mtimeMs - got.mtimeMs) >= timeToleranceMs) differ(path, 'has another time');
    }
  }
}

function entries(folder: Buffer): Map<string, Dirent<Buffer>> {
  const list = readdirSync(folder, { withFileTypes: true, encoding: 'buffer' });
  return new Map(list.map((entry) => [entry.name.toString('latin1'), entry]));
}

function kindOf(stats: Stats): string {
  if (stats.isFile()) return 'file';
  if (stats.isDirectory()) return 'folder';
  return stats.isSymbolicLink() ? 'symlink' : 'special file';
}

function below(folder: Buffer, name: Uint8Array): Buffer {
  return Buffer.concat([folder, Buffer.from('/'), name]);
}

const pieces = [Buffer.allocUnsafe(pieceBytes), Buffer.allocUnsafe(pieceBytes)] as const;

function sameContent(first: Buffer, second: Buffer): boolean {
  const [a, b] = [openSync(first, 'r'), openSync(second, 'r')];
  try {
    if (fstatSync(a).size !== fstatSync(b).size) return false;
    for (let at = 0; ; ) {
      // Regular files give less than asked for only at their end.
      const read = readSync(a, pieces[0], 0, pieceBytes, at);
      const other = readSync(b, pieces[1], 0, pieceBytes, at);
      if (read !== other || !pieces[0].subarray(0, read).equals(pieces[1].subarray(0, read))) return false;
      if (read === 0) return true;
      at += read;
    }
  } finally {
    closeSync(a);
    closeSync(b);
  }
}

export interface CopyBounds {
  /** Files and bytes still to be copied at most; counted down. */
  filesLeft: number;
  bytesLeft: number;
  /** A larger file is left out. */
  fileBytesMax: number;
}

/** Copies a folder with modes, links and times, until the bounds are reached. Special files are left out. */
export async function copyTree(from: string | Buffer, to: string | Buffer, bounds: CopyBounds): Promise<void> {
  await nextTurn();
  const [source, target] = [Buffer.from(from), Buffer.from(to)];
  mkdirSync(target, { recursive: true });
  for (const [, { name }] of entries(source)) {
    if (bounds.filesLeft <= 0) break;
    const [path, copy] = [below(source, name), below(target, name)];
    const stats = lstatSync(path);
    if (stats.isDirectory()) await copyTree(path, copy, bounds);
    else if (stats.isSymbolicLink()) symlinkSync(readlinkSync(path, 'buffer'), copy);
    else if (stats.isFile() && stats.size <= Math.min(bounds.bytesLeft, bounds.fileBytesMax)) {
      bounds.filesLeft--;
      bounds.bytesLeft -= stats.size;
      copyFileSync(path, copy, constants.COPYFILE_FICLONE);
      utimesSync(copy, stats.atime, stats.mtime);
      if (hasModes) chmodSync(copy, stats.mode & 0o7777);
    }
  }
  if (hasModes) chmodSync(target, lstatSync(source).mode & 0o7777);
}

export const noBounds = (): CopyBounds => ({
  filesLeft: Number.POSITIVE_INFINITY,
  bytesLeft: Number.POSITIVE_INFINITY,
  fileBytesMax: Number.POSITIVE_INFINITY,
});
