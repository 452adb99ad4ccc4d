/**
 * A reader's hold on a moment of an archive. What was current then stays until the reader has ended, or has been silent
 * for `restoreLeaseMs`; and a reader whose lease has lapsed is told so, instead of being given what is left.
 */
import { Problem } from '../../../protocol/problems.ts';
import { countLeases, leaseMoment, renewLease } from '../../catalog/reading/leases.ts';
import { findMoment } from '../../catalog/reading/reading.ts';
import { lockArchive } from '../../catalog/writing/commits.ts';
import type { ArchiveRef, Storage } from '../../storage.ts';

/** Moments of one archive that readers may hold at a time: each makes prune look at more. */
export const leasesMax = 1_000;

/** How much of a lease passes before it is renewed. */
const renewShare = 0.25;

export interface Moment {
  seq: number;
  at: Date;
}

/**
 * Chooses the seq to read at and leases it, under the archive's lock: a batch of deletions is over by then, or begins
 * afterwards and sees the lease.
 * @param query.at null: now. `seq`: that one instead; `resumed`: the reader had it before, so its lease must be live
 * @param query.leasesMax fewer moments than all, so that who asks for many leaves some to others
 * @returns null when there is no such archive
 * @throws Problem moment_lapsed, out_of_bounds, too_many_requests
 */
export function takeMoment(
  { database, settings }: Storage,
  ref: ArchiveRef,
  query: { at: Date | null; seq: number | null; resumed: boolean; leasesMax?: number },
): Promise<Moment | null> {
  return database.transaction(async (tx) => {
    if (!(await lockArchive(tx, ref))) return null;
    const newest = await findMoment(tx, ref, null);
    const moment = query.at && query.seq === null ? await findMoment(tx, ref, query.at) : newest;
    if (!newest || !moment) return null;
    const seq = query.seq ?? moment.seq;
    if (seq > newest.seq)
      throw new Problem('out_of_bounds', `the archive's newest seq is ${newest.seq}`, { field: 'seq' });
    // One more reader of a moment that is kept costs nothing, however many moments are.
    if (await renewLease(tx, ref, seq, settings.restoreLeaseMs)) return { seq, at: query.at ?? moment.at };
    if (query.resumed) throw lapsed();
    const max = query.leasesMax ?? leasesMax;
    if ((await countLeases(tx, ref, max)) >= max)
      throw new Problem('too_many_requests', 'too many moments of this archive are being read', {
        retryAfterSeconds: 600,
      });
    await leaseMoment(tx, ref, seq, settings.restoreLeaseMs);
    return { seq, at: query.at ?? moment.at };
  });
}

export interface KeptMoment extends Disposable {
  /** Asked after reading and before giving away. @throws Problem moment_lapsed */
  assertKept(): Promise<void>;
}

/** Renews the lease while the reader lives, however slowly it reads. */
export function keepMoment({ database, settings }: Storage, ref: ArchiveRef, seq: number): KeptMoment {
  const { restoreLeaseMs } = settings;
  const renewMs = restoreLeaseMs * renewShare;
  let renewedAt = performance.now();
  let isLapsed = false;
  const renew = async (): Promise<void> => {
    const begun = performance.now();
    if (await renewLease(database, ref, seq, restoreLeaseMs)) renewedAt = begun;
    else isLapsed = true;
  };
  // A failure is tried again the next time, and in the end by assertKept.
  const timer = setInterval(() => void renew().catch(() => {}), Math.min(renewMs, 2 ** 31 - 1));
  timer.unref();
  return {
    async assertKept() {
      if (!isLapsed && performance.now() - renewedAt > renewMs) await renew();
      if (isLapsed) throw lapsed();
    },
    [Symbol.dispose]: () => clearInterval(timer),
  };
}

export function lapsed(): Problem {
  return new Problem(
    'moment_lapsed',
    'nothing was read for too long, and what was current then may be gone: begin again with a moment of your choice',
    { field: 'seq' },
  );
}
