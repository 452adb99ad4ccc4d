/** For tests of devices: what their runs said, and how long ago. */
import type { PeopleWorld, TestDevice } from '../users/testing.ts';

export interface TestRun {
  outcome: 'completed' | 'failed' | 'interrupted' | null;
  daysAgo: number;
  counts?: object;
  reason?: string;
}

/** Enters a run of a device as it would stand there. @returns its number */
export async function insertTestRun(
  { sql }: PeopleWorld,
  { vault, archive }: TestDevice,
  { outcome, daysAgo, counts = {}, reason = '' }: TestRun,
): Promise<number> {
  const [row] = await sql<{ run: number }>(
    `INSERT INTO runs (vault_id, archive_id, roots, outcome, reason, counts, started_at, progressed_at, finished_at)
     SELECT $1, $2, '', $3::text, $4, $5::jsonb, t.at, t.at, CASE WHEN $3::text IS NOT NULL THEN t.at END
       FROM (SELECT now() - $6::float8 * interval '1 day' AS at) t RETURNING run_id AS run`,
    [vault, archive, outcome, reason, JSON.stringify(counts), daysAgo],
  );
  return row!.run;
}
