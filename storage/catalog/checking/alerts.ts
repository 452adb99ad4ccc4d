/** What a person has to look at: raised by the engine, reviewed by an administrator. */
import { type Database, statement, type Transaction } from '../database.ts';

const sql = {
  raise: statement(
    'alerts.raise',
    `INSERT INTO alerts AS a (vault_id, archive_id, kind, details) VALUES ($1, $2, $3, $4)
     ON CONFLICT (vault_id, archive_id, kind) WHERE reviewed_at IS NULL
     DO UPDATE SET count = a.count + 1, latest_at = now(),
       details = CASE WHEN $5 THEN a.details || jsonb_build_object('latest', excluded.details) ELSE excluded.details END`,
  ),
  list: statement(
    'alerts.list',
    `SELECT vault_id AS vault, alert_id AS alert, archive_id AS archive, kind, details, raised_at AS "raisedAt", latest_at AS "latestAt", count,
            reviewed_at AS "reviewedAt", reviewed_by AS "reviewedBy"
       FROM alerts WHERE vault_id = $1 AND (reviewed_at IS NULL OR $2) ORDER BY alert_id DESC LIMIT $3`,
  ),
  find: statement(
    'alerts.find',
    'SELECT archive_id AS archive FROM alerts WHERE vault_id = $1 AND alert_id = $2 AND reviewed_at IS NULL',
  ),
  review: statement(
    'alerts.review',
    `UPDATE alerts SET reviewed_at = now(), reviewed_by = $3 WHERE vault_id = $1 AND alert_id = $2 AND reviewed_at IS NULL
     RETURNING archive_id AS archive, kind, details`,
  ),
  close: statement(
    'alerts.close',
    `UPDATE alerts SET reviewed_at = now(), reviewed_by = $4 WHERE vault_id = $1 AND archive_id = $2 AND kind = $3 AND reviewed_at IS NULL`,
  ),
  isOpen: statement(
    'alerts.isOpen',
    `SELECT 1 FROM alerts WHERE vault_id = $1 AND archive_id = $2 AND kind = $3 AND reviewed_at IS NULL`,
  ),
  countOpen: statement(
    'alerts.countOpen',
    `SELECT kind, count(*)::int AS open FROM alerts WHERE reviewed_at IS NULL GROUP BY kind`,
  ),
};

/**
 * `suspicious_run`: a run changed or deleted an unusual share of the files; expiry is frozen. `expiry_cap`: a prune
 * would delete more than the cap; it deletes nothing. `refs_drift`: counts do not agree with what is counted, a bug.
 * `verify_suspicious`: more looks damaged than bit rot explains. `damaged`: blocks whose bytes are not theirs any more.
 * `deleting_stopped`: the fence does not hold. `retention_unreadable`: an archive's policy is none; nothing of it expires.
 * `audit_log_altered`: an audit log does not agree with what was signed of it. `unusual_restores`: somebody would have
 * restored more of others' archives within a day than is allowed; they restore nothing until it is reviewed.
 */
export type AlertKind =
  | 'suspicious_run'
  | 'expiry_cap'
  | 'refs_drift'
  | 'verify_suspicious'
  | 'damaged'
  | 'deleting_stopped'
  | 'retention_unreadable'
  | 'audit_log_altered'
  | 'unusual_restores';

export interface AlertRow {
  /** 0: about the whole catalog. */
  vault: number;
  alert: number;
  /** 0: about the whole vault. */
  archive: number;
  kind: AlertKind;
  details: Record<string, unknown>;
  raisedAt: Date;
  latestAt: Date;
  count: number;
  reviewedAt: Date | null;
  reviewedBy: string | null;
}

/**
 * Raises an alert, or counts it once more while nobody has reviewed it. The details are the latest; of a suspicious run
 * they stay the first's, for what was before that one is what somebody may want back.
 */
export async function raiseAlert(
  db: Transaction,
  alert: { vault: number; archive?: number; kind: AlertKind; details: Record<string, unknown> },
): Promise<void> {
  await db.query(sql.raise, [
    alert.vault,
    alert.archive ?? 0,
    alert.kind,
    JSON.stringify(alert.details),
    alert.kind === 'suspicious_run',
  ]);
}

/** Alerts of a vault (0: of the catalog), newest first. */
export async function listAlerts(
  db: Transaction,
  vault: number,
  options: { reviewed: boolean; limit: number },
): Promise<AlertRow[]> {
  return db.query<AlertRow>(sql.list, [vault, options.reviewed, options.limit]);
}

/** The archive an open alert is about (0: the whole vault); null when there is no such alert. */
export async function findOpenAlert(
  tx: Transaction,
  vault: number,
  alert: number,
): Promise<{ archive: number } | null> {
  const [row] = await tx.query<{ archive: number }>(sql.find, [vault, alert]);
  return row ?? null;
}

/** Closes an alert a person has looked at. @returns what it was about; null when there is none, or it is closed */
export async function closeAlert(
  tx: Transaction,
  vault: number,
  alert: number,
  reviewedBy: string,
): Promise<{ archive: number; kind: AlertKind; details: Record<string, unknown> } | null> {
  const [row] = await tx.query<{ archive: number; kind: AlertKind; details: Record<string, unknown> }>(sql.review, [
    vault,
    alert,
    reviewedBy,
  ]);
  return row ?? null;
}

/** Closes an alert whose cause has gone by itself. */
export async function closeAlertsOf(
  tx: Transaction,
  about: { vault: number; archive?: number; kind: AlertKind },
  by: string,
): Promise<void> {
  await tx.query(sql.close, [about.vault, about.archive ?? 0, about.kind, by]);
}

export async function hasOpenAlert(
  db: Transaction,
  about: { vault: number; archive?: number; kind: AlertKind },
): Promise<boolean> {
  return (await db.query(sql.isOpen, [about.vault, about.archive ?? 0, about.kind])).length > 0;
}

/** Open alerts by kind, over all vaults, for the metrics. */
export async function countOpenAlerts(db: Database): Promise<Record<string, number>> {
  const rows = await db.query<{ kind: string; open: number }>(sql.countOpen);
  return Object.fromEntries(rows.map((row) => [row.kind, row.open]));
}
