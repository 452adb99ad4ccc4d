/**
 * Paths longer than the system takes in one call. Linux stops at 4,096 bytes, but a path relative to an open folder
 * (/proc/self/fd/N/...) can go on from there. Elsewhere such a path fails with ENAMETOOLONG, and is reported.
 */
import { constants } from 'node:fs';
import { access, type FileHandle, open } from 'node:fs/promises';
import type { LocalPath } from './types.ts';
import { encodeWtf8 } from './wtf8.ts';

/** PATH_MAX of Linux is 4,096 with the closing NUL; room is left for a name behind a prefix. */
const pathBytesMax = 3_800;

let procFolders: Promise<boolean> | undefined;

/** Whether open folders can be walked from by number: Linux with /proc. */
export function hasFolderNumbers(): Promise<boolean> {
  procFolders ??=
    process.platform === 'linux'
      ? access('/proc/self/fd').then(
          () => true,
          () => false,
        )
      : Promise.resolve(false);
  return procFolders;
}

/** What lies in an open folder, by a path that no rename and no symlink above it can lead astray. */
export function underHandle(handle: { fd: number }, name?: Buffer): Buffer {
  const base = Buffer.from(`/proc/self/fd/${handle.fd}`);
  return name === undefined ? base : Buffer.concat([base, Buffer.of(0x2f), name]);
}

/**
 * Calls `use` with a path to the same place that the system takes. The path is good until `use` resolves.
 * Windows names that are not well-formed text go as bytes, which Node passes on as they are.
 */
export async function withReachable<T>(path: LocalPath, use: (path: LocalPath) => Promise<T>): Promise<T> {
  if (typeof path === 'string') return use(path.isWellFormed() ? path : encodeWtf8(path));
  if (path.byteLength <= pathBytesMax || !(await hasFolderNumbers())) return use(path);
  let at: FileHandle | undefined;
  let rest = path;
  try {
    while (rest.byteLength > pathBytesMax) {
      const cut = rest.lastIndexOf(0x2f, pathBytesMax);
      if (cut <= 0) break;
      const step = await openFolder(at ? underHandle(at, rest.subarray(0, cut)) : rest.subarray(0, cut));
      await at?.close();
      at = step;
      rest = rest.subarray(cut + 1);
    }
    return await use(at ? underHandle(at, rest) : rest);
  } finally {
    await at?.close();
  }
}

/** Flags that open a folder, and nothing else: not what a symlink leads to. Linux and macOS. */
export const folderFlags = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;

export function openFolder(path: Buffer): Promise<FileHandle> {
  return open(path, folderFlags);
}
