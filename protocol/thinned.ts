/**
 * What was there and is not kept, in its place among the versions that are. A name in which something has lain since may have
 * been a file or a folder: where anything below it comes it was a folder, and comes as one; else nothing of it does.
 */
import type { StoredVersion, ThinnedVersion } from './messages.ts';
import { comparePaths, isPathBelow } from './paths.ts';

/** `comes`: as a folder that what lies in it needs, without what was known of it. */
export type ThinnedInPlace = ThinnedVersion & { comes: boolean };

export const isThinned = (each: StoredVersion | ThinnedInPlace): each is ThinnedInPlace => 'comes' in each;

/** Of one listing, page after page. Holds no more than the folders above the place it has come to. */
export class ThinnedPlaces {
  /** Each lies below the one before it, and nothing has come of it so far. */
  #above: ThinnedVersion[] = [];

  /** Both of one stretch of the archive, and each in its order. */
  page(versions: readonly StoredVersion[], thinned: readonly ThinnedVersion[]): (StoredVersion | ThinnedInPlace)[] {
    const merged: (StoredVersion | ThinnedInPlace)[] = [];
    let next = 0;
    for (const version of versions) {
      for (; next < thinned.length && comparePaths(thinned[next]!.path, version.path) < 0; next++)
        this.#add(thinned[next]!, merged);
      this.#leave(version.path, merged);
      for (const folder of this.#above.splice(0)) merged.push({ ...folder, comes: true });
      merged.push(version);
    }
    for (; next < thinned.length; next++) this.#add(thinned[next]!, merged);
    return merged;
  }

  /** After the last page. */
  end(): ThinnedInPlace[] {
    return this.#above
      .splice(0)
      .reverse()
      .map((each) => ({ ...each, comes: false }));
  }

  #add(each: ThinnedVersion, merged: (StoredVersion | ThinnedInPlace)[]): void {
    this.#leave(each.path, merged);
    if (each.folder) this.#above.push(each);
    else merged.push({ ...each, comes: false });
  }

  #leave(path: Buffer, merged: (StoredVersion | ThinnedInPlace)[]): void {
    for (let top = this.#above.at(-1); top && !isPathBelow(path, top.path); top = this.#above.at(-1)) {
      merged.push({ ...top, comes: false });
      this.#above.pop();
    }
  }
}
