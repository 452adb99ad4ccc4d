/**
 * What becomes of those who restored unusually much (charging.ts): looked at by somebody else, who releases them or keeps
 * it so. What must stay true: nobody reviews what counts for themselves, and an API client not what counts for its maker.
 *
 * Lock order: the asker's meter, the block, the alert, the head of the audit log.
 */
import type { z } from 'zod';
import { Problem } from '../../../../protocol/problems.ts';
import { closeAlertsOf } from '../../../../storage/catalog/checking/alerts.ts';
import { statement, type Transaction } from '../../../../storage/catalog/database.ts';
import type { By } from '../../audit/act.ts';
import { record } from '../../audit/record.ts';
import { type ClientTarget, findClientTarget, findUserTarget, type UserTarget } from '../../targets.ts';
import { assertExpected } from '../../users/locks.ts';
import { pageOf, readCursor, type Within, withinValues } from '../../users/pages.ts';
import { countedFor } from './askers.ts';
import { lockMeter, writeMeter } from './charging.ts';
import type {
  ListRestoreReviewsQuery,
  RestoreReviewPage,
  RestoreReviewViewed,
  ReviewRestoresRequest,
  ReviewState,
} from './shapes.ts';

const columns = `b.block_id AS id, b.asker_kind AS "askerKind", b.asker_id AS "askerId", b.asker_name AS "askerName",
  b.restore_id AS restore, b.user_id AS "user", w.name AS "userName", b.vault_id AS vault, b.archive_id AS archive,
  b.restored_bytes AS "restoredBytes", b.asked_bytes AS "askedBytes", b.threshold_bytes AS "thresholdBytes", b.since, b.state,
  b.reviewer_kind AS "reviewerKind", b.reviewer_id AS "reviewerId", b.reviewer_name AS "reviewerName",
  b.reviewed_at AS "reviewedAt", b.review_reason AS reason, b.version`;
const joined = `FROM restore_blocks b LEFT JOIN users w ON w.tenant_id = b.tenant_id AND w.user_id = b.user_id
  LEFT JOIN users u ON b.asker_kind = 'user' AND u.tenant_id = b.tenant_id AND u.user_id = b.asker_id
  LEFT JOIN api_clients c ON b.asker_kind = 'client' AND c.tenant_id = b.tenant_id AND c.client_id = b.asker_id
  LEFT JOIN organizations o ON o.organization_id = coalesce(u.organization_id, c.organization_id)`;

const sql = {
  list: statement(
    'directory.listRestoreBlocks',
    `SELECT ${columns} ${joined} WHERE b.tenant_id = $1 AND b.block_id < $2
        AND ($4::bigint IS NULL OR o.path @> ARRAY[$4::bigint])
        AND ($5::bigint IS NULL OR (b.asker_kind = 'user' AND b.asker_id = $5))
        AND ($6::text IS NULL OR b.state = $6)
      ORDER BY b.block_id DESC LIMIT $3`,
  ),
  read: statement(
    'directory.readRestoreBlock',
    `SELECT ${columns} ${joined} WHERE b.tenant_id = $1 AND b.block_id = $2`,
  ),
  lock: statement(
    'directory.lockRestoreBlock',
    `SELECT ${columns} ${joined} WHERE b.tenant_id = $1 AND b.block_id = $2 FOR UPDATE OF b`,
  ),
  decide: statement(
    'directory.reviewRestoreBlock',
    `UPDATE restore_blocks SET state = $3, reviewer_kind = $4, reviewer_id = $5, reviewer_name = $6, reviewed_at = now(),
            review_reason = $7, version = version + 1 WHERE tenant_id = $1 AND block_id = $2`,
  ),
  others: statement(
    'directory.otherRestoreBlocksOfArchive',
    `SELECT 1 FROM restore_blocks WHERE tenant_id = $1 AND vault_id = $2 AND archive_id = $3 AND state = 'open' LIMIT 1`,
  ),
};

interface Row {
  id: number;
  askerKind: 'user' | 'client';
  askerId: number;
  askerName: string;
  restore: number | null;
  user: number;
  userName: string | null;
  vault: number;
  archive: number;
  restoredBytes: number;
  askedBytes: number;
  thresholdBytes: number;
  since: Date;
  state: ReviewState;
  reviewerKind: string | null;
  reviewerId: number | null;
  reviewerName: string | null;
  reviewedAt: Date | null;
  reason: string | null;
  version: number;
}

/** A page of them, newest first, as far as the reader reaches whoever was stopped. */
export async function listReviews(
  db: Transaction,
  { tenant, within }: { tenant: number; within: Within },
  { state, after, limit }: z.output<typeof ListRestoreReviewsQuery>,
): Promise<z.output<typeof RestoreReviewPage>> {
  const from = readCursor(after) || Number.MAX_SAFE_INTEGER;
  const values = [tenant, from, limit + 1, ...withinValues(within), state ?? null];
  const rows = await db.query<Row>(sql.list, values);
  return pageOf(rows, limit, { id: (row) => row.id, item: viewOf });
}

/** Whom a review is about. @returns null: there is no such review in the tenant */
export async function findReviewTarget(
  db: Transaction,
  tenant: number,
  review: number,
): Promise<UserTarget | ClientTarget | null> {
  const [row] = await db.query<Row>(sql.read, [tenant, review]);
  if (!row) return null;
  return row.askerKind === 'user' ? findUserTarget(db, tenant, row.askerId) : findClientTarget(db, tenant, row.askerId);
}

/**
 * Releases whoever was stopped, and counts anew from now on; or keeps it so, which somebody may change later.
 * @throws Problem not_found; forbidden for whoever it counts for; conflict when they were released; precondition_failed
 */
export async function review(
  tx: Transaction,
  by: By,
  asked: z.output<typeof ReviewRestoresRequest> & { tenant: number; review: number; expected: number | null },
): Promise<RestoreReviewViewed> {
  const { tenant, decision } = asked;
  const [found] = await tx.query<Row>(sql.read, [tenant, asked.review]);
  if (!found) throw new Problem('not_found', 'there is no such review');
  const asker = { tenant, kind: found.askerKind, id: found.askerId };
  const reviewer = await countedFor(tx, by);
  if (reviewer.kind === asker.kind && reviewer.id === asker.id)
    throw new Problem('forbidden', 'this is about what you restored: somebody else has to review it');
  const meter = await lockMeter(tx, asker);
  const row = (await tx.query<Row>(sql.lock, [tenant, asked.review]))[0]!;
  assertExpected(row.version, asked.expected);
  if (row.state === 'released') throw new Problem('conflict', 'they were released already', { state: row.state });
  const state = decision === 'release' ? 'released' : 'kept';
  const reason = asked.reason.trim();
  const { kind, id, name } = by.party;
  await tx.query(sql.decide, [tenant, row.id, state, kind, id, name, reason]);
  if (state === 'released') await writeMeter(tx, asker, { epoch: meter.epoch + 1, hours: [] });
  const about = { vault: row.vault, archive: row.archive };
  const others = await tx.query(sql.others, [tenant, row.vault, row.archive]);
  if (others.length === 0) await closeAlertsOf(tx, { ...about, kind: 'unusual_restores' }, name);
  const target = { kind: asker.kind, id: asker.id, name: row.askerName };
  const organization = (await findReviewTarget(tx, tenant, row.id))?.organizationPath.at(-1) ?? null;
  await record(tx, by, {
    action: 'restore.review',
    target,
    organization,
    result: 'done',
    details: { review: row.id, decision, reason, restoredBytes: row.restoredBytes, before: row.state },
  });
  return viewOf((await tx.query<Row>(sql.read, [tenant, row.id]))[0]!);
}

function viewOf(row: Row): RestoreReviewViewed {
  const { reviewerKind, reviewerId, reviewerName } = row;
  return {
    id: row.id,
    asker: { kind: row.askerKind, id: row.askerId, name: row.askerName },
    since: row.since.toISOString(),
    state: row.state,
    restore: row.restore,
    user: { id: row.user, name: row.userName },
    restoredBytes: row.restoredBytes,
    askedBytes: row.askedBytes,
    thresholdBytes: row.thresholdBytes,
    reviewedBy:
      reviewerKind === null || reviewerId === null
        ? null
        : { kind: reviewerKind, id: reviewerId, name: reviewerName ?? '' },
    reviewedAt: row.reviewedAt?.toISOString() ?? null,
    reason: row.reason,
    version: row.version,
  };
}
