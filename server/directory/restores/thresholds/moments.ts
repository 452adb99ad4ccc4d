/**
 * How many moments of an archive one asker has kept for their restores: an archive has only so many (plan.ts), and everybody
 * who restores from it shares them. A moment is held as long as its lease lasts, whatever became of the restore, since there
 * is no way to end a lease early; and one that they hold already costs nothing more.
 */
import { Problem } from '../../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../../storage/catalog/database.ts';
import { keepPlanned } from '../../../restoring/plan.ts';
import type { By } from '../../audit/act.ts';
import { askerOf, countedFor } from './askers.ts';
import { lockMeter } from './charging.ts';

/** Of one archive, by one user or API client. */
export const heldMomentsMax = 20;

// What is staged is kept for longer than its moment, whose lease nobody renews when it has been made.
const held = statement(
  'directory.momentsOfAsker',
  `SELECT seq, max(until) AS until
     FROM restore_requests CROSS JOIN LATERAL (
       SELECT CASE WHEN kind = 'staged' THEN least(lapses_at, ended_at + $6 * interval '1 ms') ELSE lapses_at END AS until) held
    WHERE tenant_id = $1 AND asker_kind = $2 AND asker_id = $3 AND vault_id = $4 AND archive_id = $5 AND lapses_at > now()
      AND until > now()
    GROUP BY seq ORDER BY until LIMIT ${heldMomentsMax + 1}`,
);

/**
 * Keeps the moment of a plan for as long as its restore may need it, in the transaction that makes its row, and before that.
 * Lock order: the asker's meter, so that two who plan at once do not each see room; then the lease.
 * @throws Problem too_many_requests, when this would be one moment more than one may hold; moment_lapsed
 */
export async function holdMoment(
  tx: Transaction,
  by: By,
  moment: { vault: number; archive: number; seq: number; leaseMs: number },
): Promise<void> {
  const { vault, archive, seq, leaseMs } = moment;
  const { kind, id } = askerOf(by);
  await lockMeter(tx, await countedFor(tx, by));
  const moments = await tx.query<{ seq: number; until: Date }>(held, [by.tenant, kind, id, vault, archive, leaseMs]);
  if (moments.length >= heldMomentsMax && !moments.some((each) => each.seq === seq)) {
    const until = moments[0]!.until;
    throw new Problem(
      'too_many_requests',
      `you have ${moments.length} moments of this archive kept for your restores: restore as of one of those, or wait until ${until.toISOString()}`,
      { retryAfterSeconds: Math.max(1, Math.ceil((until.getTime() - Date.now()) / 1_000)), momentsMax: heldMomentsMax },
    );
  }
  await keepPlanned(tx, { vault, archive }, seq, leaseMs);
}
