/** The one way to count references: commit, prune, purge and recount all use it, so that what one adds another takes away. */
import { hashCount, hashKeyAt } from '../../protocol/hashes.ts';

/** How many of these versions name each block: once per version, however often the version repeats it. Keys as hashKey(). */
export function countRefs(versions: readonly { blocks: Uint8Array }[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { blocks } of versions) {
    const named = new Set<string>();
    for (let i = 0; i < hashCount(blocks); i++) named.add(hashKeyAt(blocks, i));
    for (const key of named) counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  return counts;
}
