/** Who restored how much of whose archives in a period: what the history has of it, added up. */
import type { z } from 'zod';
import { Problem } from '../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../storage/catalog/database.ts';
import { type Within, withinValues } from '../users/pages.ts';
import type { RestoreTotals, RestoreTotalsQuery } from './shapes.ts';

/** A period is no longer than this. */
export const totalsDaysMax = 366;

const dayMs = 86_400_000;
/** What is more cannot be told exactly. */
const countMax = Number.MAX_SAFE_INTEGER;

// Those that were begun: what was planned and never begun gave nobody anything.
const totals = statement(
  'directory.totalsOfRestores',
  `SELECT t.asker_kind AS "askerKind", t.asker_id AS "askerId", t.user_id AS "user", w.name AS "userName", t.name AS "askerName",
          t.restores, t.files, t.bytes, t.latest
     FROM (SELECT r.asker_kind, r.asker_id, r.user_id, (array_agg(r.asker_name ORDER BY r.restore_id DESC))[1] AS name,
                  count(*)::int AS restores, least(sum(r.done_files), ${countMax})::bigint AS files,
                  least(sum(r.done_bytes), ${countMax})::bigint AS bytes,
                  max(r.created_at) AS latest
             FROM restore_requests r JOIN users u ON u.tenant_id = r.tenant_id AND u.user_id = r.user_id
             JOIN organizations o ON o.organization_id = u.organization_id
            WHERE r.tenant_id = $1 AND r.created_at >= $2 AND r.created_at < $3 AND r.begun_at IS NOT NULL
              AND ($4::bigint IS NULL OR o.path @> ARRAY[$4::bigint])
              AND ($5::bigint IS NULL OR (r.user_id = $5 AND r.asker_kind = 'user' AND r.asker_id = $5))
              AND ($6::boolean IS NOT TRUE OR r.asker_kind = 'client' OR r.asker_id <> r.user_id)
              AND (r.asker_kind, r.asker_id, r.user_id) > ($7, $8::bigint, $9::bigint)
            GROUP BY r.asker_kind, r.asker_id, r.user_id ORDER BY 1, 2, 3 LIMIT $10) t
     JOIN users w ON w.tenant_id = $1 AND w.user_id = t.user_id
    ORDER BY 1, 2, 3`,
);

interface Row {
  askerKind: 'user' | 'client';
  askerId: number;
  askerName: string;
  user: number;
  userName: string;
  restores: number;
  files: number;
  bytes: number;
  latest: Date;
}

/**
 * A page of it, by who asked and then by whose archive it is of.
 * @throws Problem out_of_bounds, field `since` or `after`
 */
export async function totalsOfRestores(
  db: Transaction,
  { tenant, within }: { tenant: number; within: Within },
  { since, until, othersOnly, after, limit }: z.output<typeof RestoreTotalsQuery>,
): Promise<z.output<typeof RestoreTotals>> {
  const [from, to] = [Date.parse(since), Date.parse(until)];
  if (!(from < to) || to - from > totalsDaysMax * dayMs)
    throw new Problem(
      'out_of_bounds',
      `a period is of up to ${totalsDaysMax} days, and \`since\` is before \`until\``,
      {
        field: 'since',
      },
    );
  const [kind, asker, user] = readPlace(after);
  const bounds = [...withinValues(within), othersOnly, kind, asker, user, limit + 1];
  const rows = await db.query<Row>(totals, [tenant, since, until, ...bounds]);
  const page = rows.slice(0, limit);
  const last = page.at(-1);
  return {
    items: page.map((row) => ({
      askedBy: { kind: row.askerKind, id: row.askerId, name: row.askerName },
      user: { id: row.user, name: row.userName },
      restores: row.restores,
      files: row.files,
      bytes: row.bytes,
      latestAt: row.latest.toISOString(),
    })),
    next: rows.length > limit && last ? writePlace([last.askerKind, last.askerId, last.user]) : null,
  };
}

type Place = [kind: string, asker: number, user: number];

function readPlace(cursor: string | undefined): Place {
  if (cursor === undefined) return ['', 0, 0];
  try {
    const place: unknown = JSON.parse(Buffer.from(cursor, 'base64url').toString('utf8'));
    const [kind, asker, user] = place as Place;
    const isPlace = (kind === 'user' || kind === 'client') && [asker, user].every(Number.isSafeInteger);
    if (isPlace && (place as unknown[]).length === 3) return [kind, asker, user];
  } catch {
    // Told below.
  }
  throw new Problem('out_of_bounds', '`after` is the `next` of a page, as it was given', { field: 'after' });
}

const writePlace = (place: Place): string => Buffer.from(JSON.stringify(place)).toString('base64url');
