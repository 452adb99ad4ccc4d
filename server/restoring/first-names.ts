/**
 * Files with several names, for a format that writes the second as a link to the first. This map alone decides which first
 * name is forgotten, and whoever has a `FirstName` in hand keeps it: so a name that is taken for a link always has its
 * first one, and one that was forgotten is written again, never left out.
 */
import { sha256 } from '../../protocol/hashes.ts';
import { attributesOf, type Item, type LeftOutReason } from './types.ts';

export interface FirstName {
  /** Raw bytes, as latin1. */
  readonly path: string;
  /** Why its content could not be had; null: it is written by the time the next name comes. */
  leftOut: LeftOutReason | null;
}

/** What an entry takes beside its path, about. */
const entryBytes = 300;

export class FirstNames {
  readonly #bytesMax: number;
  readonly #known = new Map<string, { first: FirstName; left: number }>();
  #bytes = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** The first name of a file, when it came before; with its last name it is forgotten. */
  take(item: Item): FirstName | null {
    const key = keyOf(item);
    const known = key === null ? undefined : this.#known.get(key);
    if (!known) return null;
    if (--known.left <= 0) this.#forget(key!);
    return known.first;
  }

  /** @returns what its other names will be given; null when it has none */
  add(item: Item): FirstName | null {
    const key = keyOf(item);
    if (key === null) return null;
    const first: FirstName = { path: item.version.path.toString('latin1'), leftOut: null };
    this.#known.set(key, { first, left: (attributesOf(item).links ?? 2) - 1 });
    this.#bytes += entryBytes + first.path.length;
    while (this.#bytes > this.#bytesMax) this.#forget(this.#known.keys().next().value!);
    return first;
  }

  /** Bytes that it takes, about. */
  get bytes(): number {
    return this.#bytes;
  }

  #forget(key: string): void {
    this.#bytes -= entryBytes + this.#known.get(key)!.first.path.length;
    this.#known.delete(key);
  }
}

/** Names of one inode backed up at different moments may differ in content: those are two files. */
function keyOf(item: Item): string | null {
  const { inode } = attributesOf(item);
  if (!inode) return null;
  const { size, blocks, lists } = item.version;
  const lengths = Buffer.from(`${inode.byteLength} ${size} ${blocks.byteLength} `);
  return sha256(Buffer.concat([lengths, inode, blocks, lists])).toString('latin1');
}
