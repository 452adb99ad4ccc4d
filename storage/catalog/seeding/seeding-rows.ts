/**
 * Files, versions and sums of one seeded archive (seeding.ts says what they look like), each by one statement over all
 * of its rows.
 */
import type pg from 'pg';
import type { SeedPlan, SeedShape } from './seeding.ts';

export const versionsPerFile = 10;
/** The first six versions of an expiring file are of one week: the last of them stays. */
export const expiringPerFile = 5;
const filesPerFolder = 1_000;

/**
 * SQL: whether block `n` is one of those of its file that are freed. They are spread evenly, so that reclaim leaves
 * something of every object. Parameters: blocks of a file, and how many of them are freed.
 */
export const isFreed = (n: string, perFile: string, freed: string): string =>
  `(${n} % ${perFile}::int * ${freed}::int) % ${perFile}::int < ${freed}::int`;

/** What the ids of files are made of: 1 is the folder of all, then folders, then files in their order. */
const folderIds = `SELECT $3::bigint + $4::bigint AS files, ($3::bigint + $4::bigint - 1) / ${filesPerFolder} + 1 AS folders`;

/** The first moment of the week of the oldest versions: whole weeks since the epoch, as retention counts them. */
const firstWeek = "to_timestamp((extract(epoch FROM now() - interval '300 days')::bigint / 604800) * 604800)";

export async function insertFiles(
  client: pg.Client,
  of: { vault: number; archive: number; files: number; sparseObjects: number; expiring: number },
): Promise<void> {
  await client.query(
    `WITH ids AS (${folderIds})
     INSERT INTO files (vault_id, archive_id, file_id, parent_id, name, folder, implied, created_seq, prune_after)
     SELECT $1::bigint, $2::bigint, 1, 0, 'seed'::bytea, true, true, 1, NULL::timestamptz
     UNION ALL
     SELECT $1::bigint, $2::bigint, 1 + n, 1, convert_to('folder ' || n, 'UTF8'), true, true, 1, NULL FROM ids, generate_series(1, folders) n
     UNION ALL
     SELECT $1::bigint, $2::bigint, 2 + folders + f, 2 + f / ${filesPerFolder}, convert_to('file ' || f, 'UTF8'), false, false, 1,
            CASE WHEN f >= $3::bigint THEN NULL WHEN f < $5::bigint THEN now() - interval '1 hour'
                 ELSE ${firstWeek} + interval '365 days' END
       FROM ids, generate_series(0, files - 1) f`,
    [of.vault, of.archive, of.files, of.sparseObjects, of.expiring],
  );
}

export async function insertVersions(
  client: pg.Client,
  of: { vault: number; archive: number; shape: SeedShape; plan: SeedPlan; sparseFrom: number },
): Promise<void> {
  const { vault, archive, shape, plan, sparseFrom } = of;
  // `moment` orders the commits of an archive: tens are weeks, and what is between falls into the week that follows.
  await client.query(
    `WITH ids AS (${folderIds}),
     names AS (
       SELECT n / $5::int AS f, x.v, string_agg(hash, '' ORDER BY n) AS blocks
         FROM seed_blocks
        CROSS JOIN LATERAL (SELECT (n % $5::int)::int AS j OFFSET 0) b
        CROSS JOIN LATERAL (VALUES (b.j % 10), (CASE WHEN b.j < 10 THEN (b.j + 5) % 10 END)) x (v)
        WHERE n < $6::bigint AND NOT ${isFreed('n', '$5', '$7')} AND x.v IS NOT NULL GROUP BY 1, 2),
     states AS (
       SELECT f, v, CASE WHEN f < $8::bigint AND v < ${expiringPerFile} THEN 45 + v ELSE 10 * v END AS moment,
              coalesce(names.blocks, '') AS blocks
         FROM generate_series(0, $3::bigint - 1) f CROSS JOIN generate_series(0, ${versionsPerFile - 1}) v
         LEFT JOIN names USING (f, v)
       UNION ALL
       SELECT $3::bigint + (n - $6::bigint) / $9::int, 9, 90, string_agg(hash, '' ORDER BY n)
         FROM seed_blocks WHERE n >= $6::bigint GROUP BY 1)
     INSERT INTO versions (vault_id, archive_id, file_id, seq, committed_at, kind, deleted, size, mtime, attributes, mac, blocks)
     SELECT $1::bigint, $2::bigint, 2 + ids.folders + f, row_number() OVER (ORDER BY moment, f), at.committed, 'file', false,
            octet_length(blocks) / 32 * $10::bigint, extract(epoch FROM at.committed)::bigint * 1000,
            mac.bytes || mac.bytes || mac.bytes, mac.bytes, blocks
       FROM states CROSS JOIN ids
      CROSS JOIN LATERAL (SELECT ${firstWeek}
         + (moment + 9) / 10 * interval '7 days'
         + CASE WHEN moment % 10 = 0 THEN interval '84 hours' ELSE moment % 10 * interval '1 hour' END AS committed) at
      CROSS JOIN LATERAL (SELECT sha256(convert_to(format('%s version %s %s', $11::text, f, v), 'UTF8')) AS bytes OFFSET 0) mac`,
    [
      vault,
      archive,
      plan.files,
      shape.sparseObjects,
      plan.blocksPerFile,
      sparseFrom,
      plan.freedPerFile,
      plan.expiringFiles,
      plan.blocksPerObject,
      shape.blockBytes,
      shape.seed,
    ],
  );
}

/** What the engine keeps so that it need not count, a finished run, and the commit the agent would go on from. */
export async function insertSums(
  client: pg.Client,
  of: { vault: number; archive: number; files: number; retentionApplied: Uint8Array },
): Promise<void> {
  await client.query(
    `WITH counted AS (
       SELECT count(*) AS versions, sum(size) AS bytes, max(seq) AS last_seq, max(committed_at) AS last_at, max(file_id) AS last_file
         FROM versions WHERE vault_id = $1 AND archive_id = $2),
     used AS (
       UPDATE archives SET next_seq = last_seq + 1, next_file_id = last_file + 1, last_committed_at = last_at,
              version_count = versions, live_files = $3::bigint, retention_applied = $4
         FROM counted WHERE vault_id = $1 AND archive_id = $2),
     run AS (
       INSERT INTO runs (vault_id, archive_id, started_at, progressed_at, finished_at, outcome, roots, before_seq)
       SELECT $1::bigint, $2::bigint, last_at, last_at, last_at, 'completed', '/seed'::bytea, last_seq - $3::bigint FROM counted
       RETURNING run_id),
     committed AS (
       INSERT INTO commits (vault_id, archive_id, commit_id, run_id, body_sha256, first_seq, count, committed_at)
       SELECT $1::bigint, $2::bigint, substr(sha256(int8send($2::bigint)), 1, 16), run_id, sha256(int8send($2::bigint)), last_seq - $3::bigint + 1, $3::bigint, last_at FROM counted, run)
     INSERT INTO vault_usage (vault_id, logical_bytes, stored_bytes, referenced_bytes, object_bytes, versions)
     SELECT $1::bigint, bytes,
            (SELECT sum(byte_length) FROM blocks WHERE vault_id = $1), (SELECT sum(byte_length) FROM blocks WHERE vault_id = $1 AND refs > 0),
            (SELECT sum(size_bytes) FROM objects WHERE vault_id = $1), versions
       FROM counted`,
    [of.vault, of.archive, of.files, of.retentionApplied],
  );
}
