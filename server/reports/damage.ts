/** What damaged blocks touch in one archive: which moments of which files cannot be restored, and which can. */
import { type DamageReport, describeDamage } from '../../storage/archive/checking/damage.ts';
import { assertShown } from '../../storage/archive/reading/shown-archive.ts';
import type { ArchiveRef, Storage } from '../../storage/storage.ts';
import { moment, type ShownPath, shownPath } from './shapes.ts';

export interface ShownMoment {
  seq: number;
  committedAt: string | null;
  /** It records that the file was deleted. */
  deleted: boolean;
  /** False: it can be restored. */
  damaged: boolean;
}

export interface ShownDamagedFile extends ShownPath {
  file: number;
  /** Whether its latest version is damaged: the next backup heals it, if the device still has the file as it was. */
  latestDamaged: boolean;
  /** Newest first; at most 1,000. */
  moments: ShownMoment[];
}

export interface ShownDamage {
  /** Of the whole vault, which the user's devices share: damaged blocks, and what was found and not yet looked up. */
  blocks: number;
  notLookedUp: number;
  oldestFoundAt: string | null;
  files: ShownDamagedFile[];
  /** `after` of the next page; null: there is none. */
  next: number | null;
}

/**
 * @param page.after the `file` that the page before ended with, or 0
 * @throws Problem conflict when the archive has expired
 */
export async function archiveDamage(
  storage: Storage,
  ref: ArchiveRef,
  page: { after: number; limit: number },
): Promise<ShownDamage> {
  await assertShown(storage.database, ref);
  const from = { archive: ref.archive, fileId: page.after };
  const report = await describeDamage(storage, ref.vault, { after: from, limit: page.limit });
  return {
    blocks: report.blocks,
    notLookedUp: report.unsearched,
    oldestFoundAt: moment(report.oldestFoundAt),
    files: report.files.filter(({ archive }) => archive === ref.archive).map(shownFile),
    next: report.next?.archive === ref.archive ? report.next.fileId : null,
  };
}

function shownFile({ fileId, path, moments, latestDamaged }: DamageReport['files'][number]): ShownDamagedFile {
  const shown = moments.map(({ committedAt, ...rest }) => ({ ...rest, committedAt: moment(committedAt) }));
  return { ...shownPath(path), file: fileId, latestDamaged, moments: shown };
}
