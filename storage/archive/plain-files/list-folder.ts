/**
 * The files of a folder of a plain archive, in byte order of their names. A page at a time, each as of its own moment: a file
 * that is there all the while is listed, and one that was put before the listing began is there.
 */
import {
  findPlainFile,
  findPlainFolder,
  listPlainPage,
  type PlainFileRow,
  type PlainName,
} from '../../catalog/writing/plain-files.ts';
import type { ArchiveRef, Storage } from '../../storage.ts';

/** Names looked at in one statement, hidden or not: some milliseconds, and 100 KiB of answer. */
const pageNames = 1_000;

interface ListedFile {
  name: string;
  /** Bytes. */
  size: number;
}

/** Pages of files that are not hidden; a page may be empty. */
export async function* listFolder(
  storage: Storage,
  ref: ArchiveRef,
  folder: string,
  signal?: AbortSignal,
): AsyncGenerator<ListedFile[]> {
  const { database } = storage;
  const folderId = await findPlainFolder(database, ref, folder);
  if (folderId === null) return;
  for (let after: Buffer | undefined = Buffer.alloc(0); after; ) {
    signal?.throwIfAborted();
    const { looked, last, files } = await listPlainPage(database, ref, { folderId, after, limit: pageNames });
    yield (files ?? []).map(([name, size]) => ({ name, size }));
    after = looked < pageNames ? undefined : last!;
  }
}

/** What a file holds; null: there is none, or it is hidden. */
export function statFile(storage: Storage, ref: ArchiveRef, file: PlainName): Promise<PlainFileRow | null> {
  return findPlainFile(storage.database, ref, file);
}
