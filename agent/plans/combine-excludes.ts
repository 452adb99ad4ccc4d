/**
 * What a run leaves out where several plans have their turn together. A path is left out only if every one of them that covers
 * it leaves it out; a plan covers what lies at and below its folders, and leaves out whatever lies in a folder that it leaves
 * out, though the run goes in for another plan's sake.
 */
import type { FileKind } from '../../protocol/messages.ts';
import { excludedBy } from '../files/excludes.ts';
import { isAtOrBelow } from '../files/path-rules.ts';
import type { Excludes } from '../files/types.ts';

export interface Covering {
  /** The archive paths of its folders. */
  roots: readonly Buffer[];
  excludes: Excludes;
}

/** Excludes for a run of `own`, which has its turn together with `others`. */
export function combineExcludes(own: Covering, others: readonly Covering[]): Excludes {
  const meeting = others.filter(({ roots }) =>
    roots.some((root) => own.roots.some((mine) => isAtOrBelow(root, mine) || isAtOrBelow(mine, root))),
  );
  if (meeting.length === 0) return own.excludes;
  const all = [own, ...meeting];
  return {
    cacheTags: own.excludes.cacheTags,
    match: (path, kind) => leftOutBy(all, { path, kind })?.rule ?? null,
  };
}

/**
 * What keeps a path out of every plan that covers it: the outermost folder on the way to it, or the path itself, that the first
 * of them leaves out, and by which rule. Null when one of them backs it up, or none covers it.
 */
export function leftOutBy(
  plans: readonly Covering[],
  { path, kind }: { path: Buffer; kind: FileKind },
): { path: Buffer; rule: string } | null {
  let first: { path: Buffer; rule: string } | null = null;
  for (const { roots, excludes } of plans) {
    const root = deepest(roots, path);
    if (root === null) continue;
    const found = excludedBy(excludes, { root, path, kind });
    if (found === null) return null;
    first ??= found;
  }
  return first;
}

/** Of the folders that a path lies in or is, the nearest: its own turn begins anew there. */
export function deepest(roots: readonly Buffer[], path: Buffer): Buffer | null {
  let found: Buffer | null = null;
  for (const root of roots)
    if (isAtOrBelow(path, root) && (found === null || root.byteLength > found.byteLength)) found = root;
  return found;
}
