/**
 * The names of one file are read once: a second name with the same inode, size and times has the same content.
 * Remembers a bounded number of inodes; one that was forgotten is read again, nothing worse.
 */
import type { FileState } from '../files/types.ts';
import type { StoredContent } from './store-content.ts';

const inodesMax = 20_000;

export class HardLinks {
  readonly #contents = new Map<string, Promise<StoredContent>>();

  /** The content of a file, from the reading of another of its names where there was one. */
  async contentOf(file: FileState, read: () => Promise<StoredContent>): Promise<StoredContent> {
    if (file.links <= 1) return read();
    const key = `${file.device}:${file.inode}:${file.size}:${file.mtimeNs}:${file.ctimeNs}`;
    const known = await this.#contents.get(key)?.catch(() => null); // its own reading reports why
    if (known && known.file.mtimeNs === file.mtimeNs && known.file.ctimeNs === file.ctimeNs) return { ...known, file };
    const reading = read();
    reading.catch(() => undefined);
    if (this.#contents.size >= inodesMax) this.#contents.delete(this.#contents.keys().next().value!);
    this.#contents.set(key, reading);
    return reading;
  }
}
