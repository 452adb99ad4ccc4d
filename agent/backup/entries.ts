/** File states and deletions as a commit carries them: attributes sealed, everything under the agent's MAC. */
import { sha256 } from '../../protocol/hashes.ts';
import { seal, type VaultKeys, versionMac } from '../../protocol/sealing/index.ts';
import type { FileState } from '../files/types.ts';
import type { Cache, CachedFile, PendingFile } from '../state/cache.ts';
import type { Entry } from './committer.ts';
import { isStatTrustworthy } from './compare.ts';
import type { StoredContent } from './store-content.ts';

export interface EntryWorld {
  keys: VaultKeys;
  vault: number;
  archive: number;
  keyGeneration: number;
}

/** What the cache will remember of a file once its commit is acknowledged. */
export function pendingOf({ file, blocks, lists, readAtMs }: StoredContent): PendingFile {
  const { path, kind, size, mtimeMs, mtimeNs, ctimeNs, inode } = file;
  const trusted = isStatTrustworthy(file, readAtMs);
  return {
    path,
    deleted: false,
    kind,
    size,
    mtimeMs,
    mtimeNs,
    ctimeNs,
    inode,
    trusted,
    attributesDigest: sha256(file.attributes),
    blocks,
    lists,
  };
}

/** The record that a path is gone. */
export function deletionOf({ path, kind }: Pick<PendingFile, 'path' | 'kind'>, now: number): PendingFile {
  const none = Buffer.alloc(0);
  return {
    path,
    deleted: true,
    kind,
    size: 0,
    mtimeMs: now,
    mtimeNs: 0n,
    ctimeNs: 0n,
    inode: 0n,
    trusted: false,
    attributesDigest: none,
    blocks: none,
    lists: none,
  };
}

/** Whether the archive has the very same already. */
export function isSameVersion(cache: Cache, cached: CachedFile, now: PendingFile): boolean {
  return (
    cached.kind === now.kind &&
    cached.size === now.size &&
    cached.mtimeMs === now.mtimeMs &&
    cached.attributesDigest.equals(now.attributesDigest) &&
    cache.hasContent(cached.id, now)
  );
}

export function makeEntry(world: EntryWorld, pending: PendingFile, source: FileState | null): Entry {
  const { keys, vault, keyGeneration } = world;
  const none = Buffer.alloc(0);
  const attributes = source
    ? seal(keys, { type: 'attributes', vault, generation: keyGeneration }, source.attributes)
    : none;
  const { path, kind, size, mtimeMs: mtime, blocks, lists, deleted } = pending;
  const mac = versionMac(keys, world.archive, {
    path,
    kind,
    size,
    mtime,
    attributes,
    blocks,
    lists,
    deleted,
  });
  const version = {
    path,
    kind,
    size,
    mtime,
    attributes,
    mac,
    ...(blocks.byteLength > 0 ? { blocks } : {}),
    ...(lists.byteLength > 0 ? { lists } : {}),
    ...(deleted ? { deleted } : {}),
  };
  return { pending, version, source };
}
