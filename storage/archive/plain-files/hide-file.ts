/** Hides a file of a plain archive: its content stays behind the record of its deletion for as long as retention says. */
import type { ArchiveRef, Storage } from '../../storage.ts';
import { commitPlain, type PlainChanged, type PlainName } from './commit-plain.ts';

/** @returns what it was; null: there is no such file, or it is hidden already */
export async function hideFile(storage: Storage, ref: ArchiveRef, file: PlainName): Promise<PlainChanged | null> {
  const [hidden] = await storage.database.transaction((tx) => commitPlain(tx, ref, [{ file, content: null }]));
  return hidden ?? null;
}
