/** What somebody may restore from a device as things stand: asked when it is planned, begun, and while it goes on. */
import { Problem } from '../../../protocol/problems.ts';
import { assertShown } from '../../../storage/archive/reading/shown-archive.ts';
import type { Storage } from '../../../storage/storage.ts';
import type { Directory } from '../directory.ts';
import type { Actor } from '../roles/may.ts';
import type { DeviceTarget } from '../targets.ts';
import { type Allowance, allowanceOf, assertWithin } from './allowance.ts';
import { assertMayBrowse } from './may-browse.ts';

/** @throws Problem forbidden, conflict, not_found */
export async function allowedOf(
  { directory, storage }: { directory: Pick<Directory, 'database'>; storage: Pick<Storage, 'database'> },
  actor: Actor,
  target: DeviceTarget,
): Promise<Allowance> {
  const { database } = directory;
  await assertMayBrowse(database, actor, target);
  await assertShown(storage.database, target);
  const allowance = await allowanceOf(database, actor, target);
  if (!allowance) throw new Problem('forbidden', 'this needs the permission restore.personal or restore.limited here');
  assertWithin(allowance, 0);
  return allowance;
}
