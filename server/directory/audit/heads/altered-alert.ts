/** Tells a person that logs do not agree with what was signed of them. */
import { closeAlertsOf, raiseAlert } from '../../../../storage/catalog/checking/alerts.ts';
import type { Database } from '../../../../storage/catalog/database.ts';

const about = { vault: 0, kind: 'audit_log_altered' } as const;

/** One alert for all, closed when there is none any more. */
export async function tellAltered(db: Database, logs: readonly { tenant: number; detail: string }[]): Promise<void> {
  const [first] = logs;
  if (first) await raiseAlert(db, { ...about, details: { logs: logs.length, ...first } });
  else await closeAlertsOf(db, about, 'every log agrees with its signed heads');
}
