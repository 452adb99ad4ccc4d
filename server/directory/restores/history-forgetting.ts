/**
 * Takes restores out of the history when they are old: those that were begun, as long after they ended as the operator says;
 * those that never were, a month after they lapsed. What happened stays in the audit log for as long as that is kept. One
 * with bytes that are still staged, or with a command that is still open, stays until those are gone.
 */
import { type Database, statement } from '../../../storage/catalog/database.ts';
import { windowHours } from './thresholds/window.ts';

const batchRows = 1_000;
const dayMs = 86_400_000;
const neverBegunMs = 30 * dayMs;

const isLetGo = `NOT EXISTS (SELECT 1 FROM staged_archives s WHERE s.restore_id = r.restore_id)
        AND NOT EXISTS (SELECT 1 FROM device_commands c WHERE c.restore_id = r.restore_id)`;
const forget = (which: string): string =>
  `DELETE FROM restore_requests WHERE restore_id = ANY (ARRAY(
     SELECT r.restore_id FROM restore_requests r WHERE ${which} AND ${isLetGo} LIMIT ${batchRows} FOR UPDATE SKIP LOCKED)) RETURNING 1`;

const sql = {
  begun: statement(
    'directory.forgetRestores',
    forget(`r.begun_at IS NOT NULL AND coalesce(r.ended_at, r.seen_at, r.begun_at) < now() - $1 * interval '1 ms'`),
  ),
  neverBegun: statement(
    'directory.forgetRestoresNeverBegun',
    forget(`r.begun_at IS NULL AND r.lapses_at < now() - $1 * interval '1 ms'`),
  ),
  // Of those whose end nobody wrote down: they count no more.
  charges: statement(
    'directory.forgetRestoreCharges',
    `DELETE FROM restore_charges WHERE (tenant_id, restore_id) IN (
       SELECT tenant_id, restore_id FROM restore_charges
        WHERE hour < floor(extract(epoch FROM now()) / 3600)::bigint - $1 ORDER BY hour LIMIT ${batchRows} FOR UPDATE SKIP LOCKED) RETURNING 1`,
  ),
};

/** @returns how many rows of each */
export async function forgetRestores(
  database: Database,
  { keepMs, signal }: { keepMs: number; signal?: AbortSignal },
): Promise<{ restores: number; neverBegun: number }> {
  const all = async (which: keyof typeof sql, bound: number): Promise<number> => {
    for (let forgotten = 0; ; ) {
      signal?.throwIfAborted();
      const { length } = await database.query(sql[which], [bound]);
      forgotten += length;
      if (length < batchRows) return forgotten;
    }
  };
  const restores = await all('begun', keepMs);
  const neverBegun = await all('neverBegun', neverBegunMs);
  await all('charges', windowHours);
  return { restores, neverBegun };
}
