/** What is known of archives as wholes, for those who look after many: a step or two along an index for each. */
import type { ArchiveRef } from '../../storage.ts';
import { statement, type Transaction } from '../database.ts';
import { packArray } from '../writing/packing.ts';

const runColumns = `r.run_id AS run, r.started_at, r.progressed_at, r.finished_at, r.outcome, r.reason, r.counts`;

const sql = {
  facts: statement(
    'archives.facts',
    `SELECT x.vault, x.archive, a.state, a.cold_until AS "coldUntil", a.expired_at AS "expiredAt", a.created_at AS "createdAt",
            a.last_committed_at AS "lastCommittedAt", a.version_count AS versions, a.live_files AS "liveFiles", now() AS now,
            to_jsonb(latest) AS latest, to_jsonb(completed) AS completed
       FROM unnest($1::bigint[], $2::bigint[]) WITH ORDINALITY AS x (vault, archive, ordinal)
      CROSS JOIN LATERAL (
        SELECT * FROM archives a WHERE a.vault_id = x.vault AND a.archive_id = x.archive OFFSET 0) a
       LEFT JOIN LATERAL (
        SELECT ${runColumns} FROM runs r WHERE r.vault_id = x.vault AND r.archive_id = x.archive
         ORDER BY r.run_id DESC LIMIT 1) latest ON true
       LEFT JOIN LATERAL (
        SELECT ${runColumns} FROM runs r WHERE r.vault_id = x.vault AND r.archive_id = x.archive AND r.outcome = 'completed'
         ORDER BY r.run_id DESC LIMIT 1) completed ON true
      ORDER BY x.ordinal`,
  ),

  standing: statement(
    'archives.standing',
    'SELECT state, version_count AS versions FROM archives WHERE vault_id = $1 AND archive_id = $2',
  ),

  skipped: statement(
    'runSkipped.page',
    `SELECT path, reason, detail, path_sha256 AS "pathSha256" FROM run_skipped
      WHERE vault_id = $1 AND archive_id = $2 AND run_id = $3 AND path_sha256 > $4 AND ($6::text IS NULL OR reason = $6)
      ORDER BY path_sha256 LIMIT $5`,
  ),

  skippedByReason: statement(
    'runSkipped.byReason',
    `SELECT reason, count(*)::int AS files FROM run_skipped WHERE vault_id = $1 AND archive_id = $2 AND run_id = $3
      GROUP BY reason ORDER BY reason`,
  ),
};

export interface RunFacts {
  run: number;
  startedAt: Date;
  /** When something was last heard of it. */
  progressedAt: Date;
  finishedAt: Date | null;
  outcome: 'completed' | 'failed' | 'interrupted' | null;
  reason: string;
  /** As the agent last told them; empty when it never did. */
  counts: Record<string, number>;
}

export interface ArchiveFacts extends ArchiveRef {
  state: 'active' | 'cold' | 'expired';
  coldUntil: Date | null;
  expiredAt: Date | null;
  createdAt: Date;
  lastCommittedAt: Date | null;
  versions: number;
  /** Files that exist and have content. */
  liveFiles: number;
  /** Its newest run, whatever became of it. */
  latest: RunFacts | null;
  /** The newest that ended well. */
  completed: RunFacts | null;
  /** The database's. */
  now: Date;
}

/** Whether an archive is in use, and has anything. Null: there is none. */
export async function readArchiveStanding(
  tx: Transaction,
  ref: ArchiveRef,
): Promise<Pick<ArchiveFacts, 'state' | 'versions'> | null> {
  const [row] = await tx.query<Pick<ArchiveFacts, 'state' | 'versions'>>(sql.standing, [ref.vault, ref.archive]);
  return row ?? null;
}

interface RunJson {
  run: number;
  started_at: string;
  progressed_at: string;
  finished_at: string | null;
  outcome: RunFacts['outcome'];
  reason: string;
  counts: Record<string, number>;
}

function runOf(json: RunJson | null): RunFacts | null {
  if (!json) return null;
  const { run, outcome, reason, counts } = json;
  return {
    run,
    startedAt: new Date(json.started_at),
    progressedAt: new Date(json.progressed_at),
    finishedAt: json.finished_at === null ? null : new Date(json.finished_at),
    outcome,
    reason,
    counts,
  };
}

/** Of each archive that there is, in the order asked. */
export async function readArchiveFacts(tx: Transaction, refs: readonly ArchiveRef[]): Promise<ArchiveFacts[]> {
  type Row = Omit<ArchiveFacts, 'latest' | 'completed'> & { latest: RunJson | null; completed: RunJson | null };
  const rows = await tx.query<Row>(sql.facts, [
    packArray(refs.map(({ vault }) => vault)),
    packArray(refs.map(({ archive }) => archive)),
  ]);
  return rows.map((row) => ({ ...row, latest: runOf(row.latest), completed: runOf(row.completed) }));
}

export interface SkippedRow {
  path: Buffer;
  reason: string;
  detail: string;
  pathSha256: Buffer;
}

/** What a run left out, in the order of the digests of the paths. @param page.after a digest; empty: from the first */
export function listSkipped(
  tx: Transaction,
  of: ArchiveRef & { run: number },
  page: { after: Buffer; limit: number; reason: string | null },
): Promise<SkippedRow[]> {
  return tx.query<SkippedRow>(sql.skipped, [of.vault, of.archive, of.run, page.after, page.limit, page.reason]);
}

/** How many files a run left out, by reason. At most `limits.runSkippedKeptMax` were kept. */
export function countSkipped(
  tx: Transaction,
  of: ArchiveRef & { run: number },
): Promise<{ reason: string; files: number }[]> {
  return tx.query(sql.skippedByReason, [of.vault, of.archive, of.run]);
}
