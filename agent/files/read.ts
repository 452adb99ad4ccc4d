/**
 * Reads one file so that the engine knows whether what it read was one state of it.
 * A file is opened only if it is still the one that was walked (device, inode, size, times); a symlink or a pipe put
 * in its place is never followed or waited for. Holes read as zeros: Node cannot ask where they are.
 */
import { type BigIntStats, constants } from 'node:fs';
import { decodeAttributes, encodeAttributes } from '../../protocol/attributes.ts';
import { inodeKey, splitNanoseconds } from './attributes.ts';
import { type Handle, lstat, open } from './calls.ts';
import { withReachable } from './reach.ts';
import { FileReadError, type FileState, type LocalPath, type OpenFile } from './types.ts';

/** Bytes of one read. As large as the average chunk: fewer, larger reads measured no faster. */
export const readBytes = 1024 * 1024;
/** Files up to this size are read in one go: below the least chunk size of all, so that each is one chunk. */
export const smallBytesMax = 256 * 1024;

/**
 * Opens a walked file for reading. At most `file.size` bytes are read, so a file that grows for ever ends all the same.
 * @throws FileReadError vanished, unreadable, or changed_while_read when it is no longer what was walked
 */
export async function openFile(file: FileState): Promise<OpenFile> {
  const handle = await openToRead(file.localPath, file.size <= smallBytesMax);
  try {
    if (!isSame(await handle.stat({ bigint: true }), file)) throw changed('it changed since it was found');
  } catch (error) {
    await handle.close();
    throw error instanceof FileReadError ? error : readError(error);
  }
  const readSome = async (buffer: Buffer, at: number, position: number): Promise<number> => {
    const { bytesRead } = await handle.read(buffer, at, buffer.byteLength - at, position).catch((error) => {
      throw readError(error);
    });
    if (bytesRead === 0) throw changed(`it ended ${file.size - position} bytes early`);
    return bytesRead;
  };
  return {
    async *chunks() {
      const buffer = Buffer.allocUnsafeSlow(Math.min(file.size, readBytes));
      for (let position = 0; position < file.size; ) {
        const piece = buffer.subarray(0, Math.min(buffer.byteLength, file.size - position));
        const bytesRead = await readSome(piece, 0, position);
        position += bytesRead;
        yield piece.subarray(0, bytesRead);
      }
    },
    whole: async () => {
      const buffer = Buffer.allocUnsafe(file.size);
      for (let at = 0; at < file.size; ) at += await readSome(buffer, at, at);
      return buffer;
    },
    changed: async () => !isSame(await handle.stat({ bigint: true }), file),
    close: () => handle.close(),
  };
}

/**
 * The state a file has now, for reading it once more after it changed.
 * @throws FileReadError vanished or unreadable, or changed_while_read when it is no longer a file
 */
export async function refreshFile(file: FileState): Promise<FileState> {
  const stat = await withReachable(file.localPath, lstat).catch((error) => {
    throw readError(error);
  });
  if (!stat.isFile()) throw new FileReadError('changed_while_read', 'it is no longer a file');
  const old = decodeAttributes(file.attributes);
  const [uid, gid] = [Number(stat.uid), Number(stat.gid)];
  const linked = stat.nlink > 1n;
  const attributes = encodeAttributes({
    mode: Number(stat.mode) & 0o7777,
    uid,
    gid,
    // The names are looked up once per walk; a new owner has its number only, until the next one.
    owner: uid === old.uid ? old.owner : undefined,
    group: gid === old.gid ? old.group : undefined,
    mtimeNs: splitNanoseconds(stat.mtimeNs).rest,
    inode: linked ? inodeKey(stat.dev, stat.ino) : undefined,
    links: linked ? Number(stat.nlink) : undefined,
    sparse: isSparse(stat),
  });
  return { ...file, ...statFields(stat), attributes };
}

/** Blocks are counted in 512 bytes whatever the file system's own are (stat(2)); a tail of less is no hole. */
export function isSparse(stat: BigIntStats): true | undefined {
  return stat.isFile() && stat.blocks * 512n + 4096n <= stat.size ? true : undefined;
}

/** The part of a FileState that comes from lstat alone. */
export function statFields(
  stat: BigIntStats,
): Pick<FileState, 'size' | 'mtimeMs' | 'mtimeNs' | 'ctimeNs' | 'inode' | 'device' | 'links'> {
  return {
    size: stat.isFile() ? Number(stat.size) : 0,
    mtimeMs: splitNanoseconds(stat.mtimeNs).ms,
    mtimeNs: stat.mtimeNs,
    ctimeNs: stat.ctimeNs,
    inode: stat.ino,
    device: stat.dev,
    links: Number(stat.nlink),
  };
}

async function openToRead(localPath: LocalPath, small: boolean): Promise<Handle> {
  // O_NONBLOCK: a pipe put in the file's place must not make us wait for a writer.
  const flags = constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0);
  const quiet = constants.O_NOATIME ?? 0;
  try {
    return await withReachable(localPath, async (path) => {
      try {
        return await open(path, flags | quiet, { small });
      } catch (error) {
        // Only a file's owner and root may leave its access time alone (open(2)).
        if (quiet !== 0 && (error as NodeJS.ErrnoException).code === 'EPERM') return await open(path, flags, { small });
        throw error;
      }
    });
  } catch (error) {
    throw readError(error);
  }
}

function isSame(stat: BigIntStats, file: FileState): boolean {
  return (
    stat.isFile() &&
    stat.dev === file.device &&
    stat.ino === file.inode &&
    Number(stat.size) === file.size &&
    stat.mtimeNs === file.mtimeNs &&
    stat.ctimeNs === file.ctimeNs
  );
}

function changed(message: string): FileReadError {
  return new FileReadError('changed_while_read', message);
}

/** What a failed system call means for a file. */
export function readError(error: unknown): FileReadError {
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === 'ENOENT' || code === 'ENOTDIR') return new FileReadError('vanished', 'it went away', { cause: error });
  if (code === 'ELOOP')
    return new FileReadError('changed_while_read', 'a symbolic link took its place', { cause: error });
  return new FileReadError('unreadable', code ?? message, { cause: error });
}
