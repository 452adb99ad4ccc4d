/** The one way to count references: commit, prune, lists and recount all use it, so that what one adds another takes away. */
import { hashCount, hashFromKey, hashKeyAt, joinHashes } from '../../../protocol/hashes.ts';
import type { RefCounts } from '../../catalog/refs.ts';

/**
 * How many of these strings of hashes name each hash: once per string, however often it repeats it. A string is the
 * blocks of a version, the lists of a version, or the blocks of a list. Keys as hashKey().
 */
export function countRefs(named: Iterable<Uint8Array>): Map<string, number> {
  const counts = new Map<string, number>();
  for (const hashes of named) {
    const distinct = new Set<string>();
    for (let i = 0; i < hashCount(hashes); i++) distinct.add(hashKeyAt(hashes, i));
    for (const key of distinct) counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  return counts;
}

export function toRefCounts(counts: ReadonlyMap<string, number>): RefCounts {
  return { hashes: joinHashes([...counts.keys()].map(hashFromKey)), counts: [...counts.values()] };
}
