/** Backup runs of an archive: what an agent says of its progress, and which files it left out. */
import type { ArchiveRef } from '../../storage.ts';
import { type Database, statement, type Transaction } from '../database.ts';
import { packArray, packBytes } from './packing.ts';

const sql = {
  // Not locked: a start decides nothing that another commit could break. It tells the agent what the server knows.
  describeArchive: statement(
    'archives.describe',
    `SELECT a.next_seq AS "nextSeq", a.purge_epoch AS "purgeEpoch", a.state, now() AS now,
            EXISTS (SELECT 1 FROM damage d WHERE d.vault_id = $1) AS damaged,
            EXISTS (SELECT 1 FROM commits c WHERE c.vault_id = $1 AND c.archive_id = $2 AND c.commit_id = $3 AND c.first_seq = $4) AS "knowsCommit"
       FROM archives a WHERE a.vault_id = $1 AND a.archive_id = $2`,
  ),

  interruptOpen: statement(
    'runs.interruptOpen',
    `UPDATE runs SET finished_at = now(), outcome = 'interrupted', reason = 'another run of this device began'
      WHERE vault_id = $1 AND archive_id = $2 AND finished_at IS NULL`,
  ),

  insert: statement(
    'runs.insert',
    `INSERT INTO runs (vault_id, archive_id, roots, before_seq)
     SELECT $1, $2, $3, next_seq - 1 FROM archives WHERE vault_id = $1 AND archive_id = $2 RETURNING run_id AS run`,
  ),

  progress: statement(
    'runs.progress',
    'UPDATE runs SET progressed_at = now(), counts = $4 WHERE vault_id = $1 AND archive_id = $2 AND run_id = $3 AND finished_at IS NULL RETURNING run_id',
  ),

  // The second end of a run changes nothing: it is the first one's message again.
  finish: statement(
    'runs.finish',
    `UPDATE runs SET progressed_at = now(), counts = $4, finished_at = now(), outcome = $5, reason = $6
      WHERE vault_id = $1 AND archive_id = $2 AND run_id = $3 AND finished_at IS NULL RETURNING run_id`,
  ),

  find: statement(
    'runs.findOutcome',
    'SELECT outcome FROM runs WHERE vault_id = $1 AND archive_id = $2 AND run_id = $3',
  ),

  insertSkipped: statement(
    'runSkipped.insert',
    `INSERT INTO run_skipped (vault_id, archive_id, run_id, path_sha256, path, reason, detail)
     SELECT $1, $2, $3, sha256(p.path), p.path, x.reason, convert_from(substr($8::bytea, x.detail_offset, x.detail_length), 'UTF8')
       FROM unnest($5::int[], $6::int[], $7::text[], $9::int[], $10::int[])
              AS x (path_offset, path_length, reason, detail_offset, detail_length)
       CROSS JOIN LATERAL (SELECT substr($4::bytea, x.path_offset, x.path_length) AS path) p
      ORDER BY 4
      LIMIT greatest(0, $11::bigint - (SELECT count(*) FROM run_skipped WHERE vault_id = $1 AND archive_id = $2 AND run_id = $3))
     ON CONFLICT DO NOTHING`,
  ),

  list: statement(
    'runs.list',
    `SELECT run_id AS run, started_at AS "startedAt", finished_at AS "finishedAt", outcome, reason, counts,
            before_seq AS "beforeSeq", suspicious
       FROM runs WHERE vault_id = $1 AND archive_id = $2 AND run_id < $3 ORDER BY run_id DESC LIMIT $4`,
  ),

  abandon: statement(
    'runs.abandonStale',
    `UPDATE runs SET finished_at = now(), outcome = 'interrupted', reason = 'nothing was heard of it any more'
      WHERE vault_id = $1 AND finished_at IS NULL AND progressed_at < now() - $2 * interval '1 ms'
     RETURNING run_id`,
  ),

  // The one statement of this file that looks over all vaults: it finds where there is work, then each is done alone.
  vaultsWithStale: statement(
    'runs.vaultsWithStale',
    `SELECT DISTINCT vault_id AS vault FROM runs WHERE finished_at IS NULL AND progressed_at < now() - $1 * interval '1 ms' LIMIT 1000`,
  ),
};

export interface ArchiveDescription {
  nextSeq: number;
  purgeEpoch: number;
  state: string;
  now: Date;
  /** Blocks of the vault were found damaged: the agent should ask which of its files are touched. */
  damaged: boolean;
  /** Whether the commit asked about is one this catalog made, at that seq. */
  knowsCommit: boolean;
}

export async function describeArchive(
  db: Database,
  ref: ArchiveRef,
  commit: { commitId: Buffer; seq: number } | null,
): Promise<ArchiveDescription | null> {
  const [row] = await db.query<ArchiveDescription>(sql.describeArchive, [
    ref.vault,
    ref.archive,
    commit?.commitId ?? null,
    commit?.seq ?? null,
  ]);
  return row ?? null;
}

/** Starts a run; one that the same archive had open has ended without saying so. */
export async function insertRun(tx: Transaction, ref: ArchiveRef, roots: readonly Buffer[]): Promise<number> {
  await tx.query(sql.interruptOpen, [ref.vault, ref.archive]);
  const joined = Buffer.concat(roots.flatMap((root, i) => (i === 0 ? [root] : [Buffer.of(0), root])));
  const [row] = await tx.query<{ run: number }>(sql.insert, [ref.vault, ref.archive, joined]);
  return row!.run;
}

/** @returns whether the run is open */
export async function updateRun(tx: Transaction, ref: ArchiveRef, run: number, counts: object): Promise<boolean> {
  return (await tx.query(sql.progress, [ref.vault, ref.archive, run, JSON.stringify(counts)])).length > 0;
}

/** @returns whether the run was open until now */
export async function closeRun(
  tx: Transaction,
  ref: ArchiveRef,
  run: number,
  end: { counts: object; outcome: string; reason: string },
): Promise<boolean> {
  return (
    (await tx.query(sql.finish, [ref.vault, ref.archive, run, JSON.stringify(end.counts), end.outcome, end.reason]))
      .length > 0
  );
}

/** How a run ended; null while it is open, undefined when there is none. */
export async function findOutcome(tx: Transaction, ref: ArchiveRef, run: number): Promise<string | null | undefined> {
  const [row] = await tx.query<{ outcome: string | null }>(sql.find, [ref.vault, ref.archive, run]);
  return row?.outcome;
}

/** Notes files a run left out, up to `keepMax` of them for the whole run; a file noted before is left as it is. */
export async function insertSkipped(
  tx: Transaction,
  ref: ArchiveRef,
  run: number,
  skipped: readonly { path: Buffer; reason: string; detail: string }[],
  keepMax: number,
): Promise<void> {
  if (skipped.length === 0) return;
  const paths = packBytes(skipped.map((file) => file.path));
  // PostgreSQL's text holds no NUL.
  const details = packBytes(skipped.map((file) => Buffer.from(file.detail.replaceAll('\0', '\ufffd').toWellFormed())));
  await tx.query(sql.insertSkipped, [
    ref.vault,
    ref.archive,
    run,
    paths.bytes,
    paths.offsets,
    paths.lengths,
    packArray(skipped.map((file) => file.reason)),
    details.bytes,
    details.offsets,
    details.lengths,
    keepMax,
  ]);
}

export interface RunRow {
  run: number;
  startedAt: Date;
  finishedAt: Date | null;
  outcome: 'completed' | 'failed' | 'interrupted' | null;
  reason: string;
  /** As the agent last told them; empty when it never did. */
  counts: Record<string, number>;
  beforeSeq: number;
  suspicious: boolean;
}

/** Runs of an archive below a number, newest first. */
export function listRuns(db: Database, ref: ArchiveRef, page: { below: number; limit: number }): Promise<RunRow[]> {
  return db.query<RunRow>(sql.list, [ref.vault, ref.archive, page.below, page.limit]);
}

/** Ends the runs nothing was heard of for so long. @returns how many */
export async function interruptStaleRuns(db: Database, olderThanMs: number): Promise<number> {
  let ended = 0;
  for (const { vault } of await db.query<{ vault: number }>(sql.vaultsWithStale, [olderThanMs])) {
    ended += (await db.query(sql.abandon, [vault, olderThanMs])).length;
  }
  return ended;
}
