/**
 * Forgets what sign-ins have left behind: bounded, in batches of their own, and harmless to repeat. What is kept for a
 * while past its end is kept so that the log can say why it was refused.
 */
import { type Database, type Statement, statement } from '../../../storage/catalog/database.ts';

const batchMax = 1_000;
const batchesMax = 100;

/** Rows are named by their place, so that the batch is found by the index on the time alone. */
const sweep = (table: string, past: string, order: string): Statement =>
  statement(
    `directory.sweep_${table}`,
    `DELETE FROM ${table} WHERE ctid = ANY (ARRAY(
       SELECT ctid FROM ${table} WHERE ${past} ORDER BY ${order} LIMIT ${batchMax} FOR UPDATE SKIP LOCKED)) RETURNING 1`,
  );

const sessionEnd = 'least(ends_at, refresh_until, ended_at)';

/** Tokens and codes before the sessions they name: one that is past its end by days has none in force, but perhaps not all are swept. */
const sweeps = [
  sweep('access_tokens', `expires_at < now() - interval '1 day'`, 'expires_at'),
  sweep('registration_codes', `expires_at < now() - interval '7 days'`, 'expires_at'),
  sweep(
    'sessions',
    `${sessionEnd} < now() - interval '7 days' AND NOT EXISTS (SELECT 1 FROM access_tokens t WHERE t.session_id = sessions.session_id)
        AND NOT EXISTS (SELECT 1 FROM registration_codes c WHERE c.session_id = sessions.session_id)`,
    sessionEnd,
  ),
  sweep(
    'sign_in_failures',
    `last_at < now() - interval '24 hours' AND (locked_until IS NULL OR locked_until < now())`,
    'last_at',
  ),
  sweep('sign_in_addresses', `last_at < now() - interval '90 days'`, 'last_at'),
  sweep('provider_sign_ins', `expires_at < now() - interval '1 day'`, 'expires_at'),
  sweep('invitations', `expires_at < now() - interval '30 days'`, 'expires_at'),
];

/** @returns rows forgotten; call again when there may be more */
export async function sweepSignIn(database: Database): Promise<number> {
  let swept = 0;
  for (const each of sweeps) {
    for (let batch = 0; batch < batchesMax; batch++) {
      const rows = await database.query(each);
      swept += rows.length;
      if (rows.length < batchMax) break;
    }
  }
  return swept;
}
