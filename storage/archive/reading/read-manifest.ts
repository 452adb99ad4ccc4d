/**
 * Everything an archive knows of its files, for reports: each version of each file with its path, size and times, deleted
 * or not, and nothing of their content. Ordered by file and then by version, which is not the order of paths.
 *
 * It is read as of a seq, so that what is committed meanwhile does not come in; what retention takes away meanwhile is not
 * there any more. Pages by key, each a statement of its own: nothing is held open, and it goes on behind any line.
 */
import { joinPath } from '../../../protocol/paths.ts';
import { Problem } from '../../../protocol/problems.ts';
import { readPathNames } from '../../catalog/deleting/deleting.ts';
import { type ManifestPlace, type ManifestRow, manifestPage } from '../../catalog/reading/manifest.ts';
import { findMoment } from '../../catalog/reading/reading.ts';
import type { ArchiveRef, Storage } from '../../storage.ts';
import { assertShown } from './shown-archive.ts';

export interface ManifestQuery {
  /** Null: the newest. Given again to go on with what was begun. */
  upTo: number | null;
  /** The last version that was received; null: from the beginning. */
  after: ManifestPlace | null;
  signal?: AbortSignal;
}

export interface ManifestVersion extends ManifestRow {
  path: Buffer;
}

const pageVersions = 1_000;

/**
 * @returns the seq it is read up to, and the versions
 * @throws Problem not_found; conflict when it has expired; out_of_bounds for a seq that has not been given out yet
 */
export async function readManifest(
  storage: Storage,
  ref: ArchiveRef,
  { upTo, after, signal }: ManifestQuery,
): Promise<{ upTo: number; versions: AsyncGenerator<ManifestVersion> }> {
  await assertShown(storage.database, ref);
  const moment = await findMoment(storage.database, ref, null);
  if (!moment) throw new Problem('not_found', 'there is no such archive');
  const seq = upTo ?? moment.seq;
  if (seq > moment.seq)
    throw new Problem('out_of_bounds', `the archive ends at ${moment.seq}`, { field: 'upTo', newest: moment.seq });
  return { upTo: seq, versions: versionsUpTo(storage, ref, seq, after, signal) };
}

async function* versionsUpTo(
  storage: Storage,
  ref: ArchiveRef,
  upTo: number,
  after: ManifestPlace | null,
  signal: AbortSignal | undefined,
): AsyncGenerator<ManifestVersion> {
  let place = after ?? { fileId: 0, seq: 0 };
  for (;;) {
    signal?.throwIfAborted();
    const page = await manifestPage(storage.database, ref, { after: place, upTo, limit: pageVersions });
    const files = [...new Set(page.map(({ fileId }) => fileId))];
    const names = await readPathNames(storage.database, ref, files);
    for (const row of page) {
      const parts = names.get(row.fileId);
      // Pruned since the page was read, with its file.
      if (parts) yield { ...row, path: joinPath(parts) };
    }
    const last = page.at(-1);
    if (!last || page.length < pageVersions) return;
    place = { fileId: last.fileId, seq: last.seq };
  }
}
