/** Looks at a root the walk is about to enter, and remembers it when it is as it should be. */
import { stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { WalkEvent } from '../files/types.ts';
import type { Cache } from '../state/cache.ts';
import { rootSuspicion } from './root-check.ts';

/**
 * Why the root must not be trusted, in words; null when it may.
 * @param acceptAnyway the user says that it is as it should be
 */
export async function acceptRoot(
  cache: Cache,
  root: WalkEvent & { type: 'root' },
  acceptAnyway: boolean,
): Promise<string | null> {
  if (root.kind === 'file') return null;
  const now = await stat(root.localPath, { bigint: true });
  const facts = {
    device: now.dev,
    inode: now.ino,
    birthtimeNs: now.birthtimeNs,
    empty: root.empty,
    mountPoint: await isMountPoint(root.localPath, now.dev),
  };
  const suspicion = rootSuspicion(cache.rootIdentity(root.path), facts, cache.hasFilesBelow(root.path));
  if (suspicion !== null && !acceptAnyway) return suspicion;
  cache.setRootIdentity(root.path, facts);
  return null;
}

async function isMountPoint(path: Buffer | string, device: bigint): Promise<boolean> {
  // latin1 keeps every byte of a name through dirname.
  const parent = typeof path === 'string' ? dirname(path) : Buffer.from(dirname(path.toString('latin1')), 'latin1');
  return stat(parent, { bigint: true }).then(
    (above) => above.dev !== device,
    () => false,
  );
}
