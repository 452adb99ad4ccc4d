/**
 * The word of a person that they have looked at an alert, and its act: what it stopped goes on.
 *
 * Lock order: the archive (review-alert.ts), the alert, the audit log's head.
 */
import { reviewAlertIn } from '../../storage/archive/retention/review-alert.ts';
import type { AlertKind } from '../../storage/catalog/checking/alerts.ts';
import type { Transaction } from '../../storage/catalog/database.ts';
import type { By } from '../directory/audit/act.ts';
import { record } from '../directory/audit/record.ts';

export interface ReviewedAlert {
  vault: number;
  alert: number;
  kind: AlertKind;
  reviewedBy: string;
}

/**
 * @param of.owner whose vault it is, and the organization they are in; null: it is about the whole server
 * @throws Problem not_found when there is no such open alert
 */
export async function reviewAndRecord(
  tx: Transaction,
  by: By,
  { vault, alert, owner }: { vault: number; alert: number; owner: { user: number; organization: number } | null },
): Promise<ReviewedAlert> {
  const reviewedBy = by.party.name;
  const { kind, archive } = await reviewAlertIn(tx, { vault, alert, by: reviewedBy });
  await record(tx, by, {
    action: 'alert.review',
    target: { kind: 'alert', id: `${vault}/${alert}`, name: kind },
    organization: owner?.organization ?? null,
    result: 'done',
    details: { kind, ...(owner && { user: owner.user }), ...(archive !== 0 && { archive }) },
  });
  return { vault, alert, kind, reviewedBy };
}
