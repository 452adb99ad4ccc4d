/** A person has looked at an alert: what it stopped goes on, in the transaction that closes it. */
import { Problem } from '../../../protocol/problems.ts';
import { type AlertKind, closeAlert, findOpenAlert } from '../../catalog/checking/alerts.ts';
import type { Transaction } from '../../catalog/database.ts';
import { lockArchiveForDeleting } from '../../catalog/deleting/deleting.ts';
import { allowOverCap, unfreezeArchive } from '../../catalog/reading/histories.ts';
import type { Storage } from '../../storage.ts';

export interface Review {
  /** 0: the alert is about the whole server. */
  vault: number;
  alert: number;
  by: string;
}

/**
 * `suspicious_run`: retention deletes again. `expiry_cap`: as many versions as the alert says may go over the cap, once,
 * under the policy and holds it was raised for. Every other alert is closed, and raised again if its cause is still there.
 * @throws Problem not_found when there is no such open alert
 */
export async function reviewAlert(storage: Storage, review: Review): Promise<{ kind: AlertKind; archive: number }> {
  return storage.database.transaction((tx) => reviewAlertIn(tx, review));
}

/** The same in a transaction of the caller's, who locks nothing after it but what comes after an archive. */
export async function reviewAlertIn(
  tx: Transaction,
  { vault, alert, by }: Review,
): Promise<{ kind: AlertKind; archive: number }> {
  const found = await findOpenAlert(tx, vault, alert);
  // The archive first, as a commit does that raises an alert under its lock.
  if (found && found.archive !== 0) await lockArchiveForDeleting(tx, { vault, archive: found.archive });
  const closed = found && (await closeAlert(tx, vault, alert, by));
  if (!closed) throw new Problem('not_found', 'there is no such open alert');
  const { kind, archive, details } = closed;
  if (kind === 'suspicious_run') await unfreezeArchive(tx, { vault, archive });
  if (kind === 'expiry_cap') await allowOverCap(tx, { vault, archive }, overCapIn(details));
  return { kind, archive };
}

/** What the alert was about is what is agreed to, and no more. */
function overCapIn(details: Record<string, unknown>): { versions: number; digest: Buffer } {
  const { expiring, digest } = details;
  const known = Number.isSafeInteger(expiring) && typeof digest === 'string';
  return known
    ? { versions: expiring as number, digest: Buffer.from(digest, 'hex') }
    : { versions: 0, digest: Buffer.alloc(0) };
}
