/**
 * What a restore would come to: counted from the archive as of a moment, which from then on is kept for it. Streams:
 * memory is a page of the archive, however many files there are.
 */
import { Problem } from '../../protocol/problems.ts';
import { keepMoment, lapsed, leasesMax, takeMoment } from '../../storage/archive/reading/moment-lease.ts';
import type { Transaction } from '../../storage/catalog/database.ts';
import { renewLease } from '../../storage/catalog/reading/leases.ts';
import type { ArchiveRef, Storage } from '../../storage/storage.ts';
import { wholeByRows } from './flow/block-rows.ts';
import { rootsOf, walkSelection } from './selection.ts';

/** Moments of an archive that are leased while one more is planned at: the other half is for restores by agents. */
export const plannedMomentsMax = leasesMax / 2;
/** How long a moment is kept while it is counted, renewed all the time, and after that: a plan that comes to nothing leaves no more. */
const countingLeaseMsMax = 2 * 60_000;

export interface RestorePlan {
  /** The moment; assembling is asked for with it, while its lease lasts. */
  seq: number;
  files: number;
  folders: number;
  /** Symlinks. */
  links: number;
  /** Plain bytes of files. */
  bytes: number;
  /** Files that by their rows cannot be given back; they count in `files` and `bytes` too. */
  damaged: number;
  /** Deleted files of which no content is kept; they count nowhere else. */
  gone: number;
  /** What was there at the moment, as far as is known, and retention has kept no version of up to it; counts nowhere else. */
  thinned: number;
  /** Paths asked for where nothing is at the moment. */
  missingPaths: Buffer[];
}

/**
 * The lease lasts for two minutes: whoever wants what was counted keeps it (keepPlanned), and what is refused holds no more.
 * @param asked.moment `at` null: now; `seq`: that one instead
 * @throws Problem not_found (archive), path_invalid, out_of_bounds, moment_lapsed, too_many_requests
 */
export async function planRestore(
  storage: Storage,
  ref: ArchiveRef,
  asked: { paths: readonly Uint8Array[]; moment: { at: Date | null } | { seq: number }; deleted: boolean },
  signal?: AbortSignal,
): Promise<RestorePlan> {
  const roots = rootsOf(asked.paths);
  const wanted = 'seq' in asked.moment ? { at: null, seq: asked.moment.seq } : { at: asked.moment.at, seq: null };
  const leaseMs = storage.settings.restoreLeaseMs;
  const counting: Storage = {
    ...storage,
    settings: { ...storage.settings, restoreLeaseMs: Math.min(leaseMs, countingLeaseMsMax) },
  };
  const moment = await takeMoment(counting, ref, { ...wanted, resumed: false, leasesMax: plannedMomentsMax });
  if (!moment) throw new Problem('not_found', 'there is no such archive');
  using kept = keepMoment(counting, ref, moment.seq);
  const plan: RestorePlan = {
    seq: moment.seq,
    files: 0,
    folders: 0,
    links: 0,
    bytes: 0,
    damaged: 0,
    gone: 0,
    thinned: 0,
    missingPaths: [],
  };
  for await (const page of walkSelection(counting, ref, { roots, seq: moment.seq, deleted: asked.deleted }, signal)) {
    if ('missing' in page) {
      plan.missingPaths.push(page.missing);
      continue;
    }
    const versions = page.found.flatMap(({ version }) => version ?? []);
    const thinned = page.found.filter((each) => each.thinned).length;
    plan.gone += page.found.length - versions.length - thinned;
    plan.thinned += thinned;
    const files = versions.filter((version) => version.kind === 'file');
    for (const version of versions) {
      if (version.kind === 'directory') plan.folders++;
      if (version.kind === 'symlink') plan.links++;
    }
    plan.files += files.length;
    for (const file of files) plan.bytes += file.size;
    const whole = await wholeByRows(storage, ref.vault, files, signal);
    plan.damaged += whole.filter((isWhole) => !isWhole).length;
  }
  await kept.assertKept();
  signal?.throwIfAborted();
  return plan;
}

/**
 * Keeps the moment of a plan that is within all limits from now on for as long as its restore may need it.
 * @throws Problem moment_lapsed
 */
export async function keepPlanned(db: Transaction, ref: ArchiveRef, seq: number, leaseMs: number): Promise<void> {
  if (!(await renewLease(db, ref, seq, leaseMs))) throw lapsed();
}
