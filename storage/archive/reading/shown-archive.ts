/**
 * Whether an archive may be read at all. One that has expired is shown to nobody, whoever asks and however much they may:
 * its versions are on their way out, and none of them may look as if it were kept. Whatever shows names, versions or moments
 * of an archive to people asks here first. (A device does not get that far: one whose archive is out of use is deactivated.)
 */
import { Problem } from '../../../protocol/problems.ts';
import type { Transaction } from '../../catalog/database.ts';
import { readArchiveStanding } from '../../catalog/reading/archive-facts.ts';
import type { ArchiveRef } from '../../storage.ts';

/** Whether an archive is there, and has not expired. */
export async function isShown(db: Transaction, ref: ArchiveRef): Promise<boolean> {
  const standing = await readArchiveStanding(db, ref);
  return standing !== null && standing.state !== 'expired';
}

/** @throws Problem not_found; conflict { state: 'expired' }, which says how it is recovered */
export async function assertShown(db: Transaction, ref: ArchiveRef): Promise<void> {
  const standing = await readArchiveStanding(db, ref);
  if (!standing) throw new Problem('not_found', 'there is no such archive');
  const { state, versions } = standing;
  if (state !== 'expired') return;
  const recovered =
    versions === 0
      ? 'its versions were deleted'
      : 'give it a later date to be kept until (cold-until of its device), and it can be read again';
  throw new Problem('conflict', `this archive has expired, and is shown to nobody: ${recovered}`, { state });
}
