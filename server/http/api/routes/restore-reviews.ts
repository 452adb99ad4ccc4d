/** Those who restored unusually much of others' archives, and the word of somebody else on it. */
import { z } from 'zod';
import { findReviewTarget, listReviews, review } from '../../../directory/restores/thresholds/reviewing.ts';
import {
  ListRestoreReviewsQuery,
  RestoreReviewPage,
  RestoreReviewView,
  ReviewRestoresRequest,
} from '../../../directory/restores/thresholds/shapes.ts';
import type { ClientTarget, UserTarget } from '../../../directory/targets.ts';
import { idText } from '../finders.ts';
import { type ApiRoute, change, type Finder, read } from '../route.ts';

const tag = 'Restores';
const params = z.strictObject({ id: idText });

/** Whoever was stopped: their states are decided by whoever may change users. */
const askerOfReview: Finder<{ id: number }, unknown, unknown, UserTarget | ClientTarget> = (db, { actor, params }) =>
  findReviewTarget(db, actor.tenant, params.id);

export const restoreReviewRoutes: readonly ApiRoute[] = [
  read({
    path: '/v1/restore-reviews',
    tag,
    summary: 'List who was stopped for restoring unusually much',
    says: "Newest first: who would have restored more of others' archives within a day than `restoreAlerts.bytesPerDay` of the organization allows.",
    may: { permission: 'user.read', of: 'listing' },
    query: ListRestoreReviewsQuery,
    answer: RestoreReviewPage,
    read: ({ deps, caller, within, query }) =>
      listReviews(
        deps.directory.database,
        { tenant: caller.tenant!, within },
        query as z.output<typeof ListRestoreReviewsQuery>,
      ),
  }),
  change({
    method: 'POST',
    path: '/v1/restore-reviews/:id',
    tag,
    summary: 'Let somebody restore again who was stopped, or not',
    says: 'Not by whoever was stopped. Released, they are counted anew from now on; kept, they may still be released later.',
    may: { permission: 'user.update', target: askerOfReview },
    params,
    body: ReviewRestoresRequest,
    answer: RestoreReviewView,
    change: (tx, { by, target, params, body, expected }) =>
      review(tx, by, { ...body, tenant: target.tenant, review: params.id, expected }),
  }),
];
