/**
 * Whether deleting may go on, as anybody sees it who looks at catalog and bucket. Each worker decides for itself before
 * each batch and knows more (its own start, its own clock); what it found wrong it says in the alert, which is here too.
 */
import { compareNonces, fenceDefaults } from '../../storage/archive/checking/fence.ts';
import { type BucketSide, readBucketSide } from '../../storage/archive/checking/fence-object.ts';
import { listAlerts } from '../../storage/catalog/checking/alerts.ts';
import { type FenceRow, readFence } from '../../storage/catalog/checking/fence.ts';
import type { Storage } from '../../storage/storage.ts';
import { moment } from './shapes.ts';

export interface FenceReport {
  catalogId: string;
  /** False: something below stops it. */
  mayDelete: boolean;
  /** What stops it, in words. */
  stoppedBecause: string[];
  renewedAt: string | null;
  /** By the database's clock; null: never. */
  secondsSinceRenewal: number | null;
  /** When the bucket says its half was written. */
  bucketModifiedAt: string | null;
  /** Left in the bucket by a catalog that found another one there: `adopt` removes it. */
  mark: string | null;
}

/** Workers renew it every minute; after two they themselves call it stale. */
const staleMs = 2 * fenceDefaults.beatMs;

/** As often as a look is repeated because the fence was renewed meanwhile. */
const looksMax = 3;

export async function fenceReport(storage: Storage): Promise<FenceReport> {
  const { row, side } = await lookAtBoth(storage);
  const sinceMs = row.renewedAt && row.now.getTime() - row.renewedAt.getTime();
  const because: string[] = [];
  if (row.catalogId !== storage.catalogId)
    because.push('the catalog was given another prefix: start this server again');
  if (side.mark !== null) because.push('two catalogs use this bucket');
  const verdict = compareNonces(row, side.nonce);
  if (verdict === 'new') because.push('no worker has begun to renew it');
  if (verdict === 'foreign') because.push("the bucket's half is not this catalog's");
  if (verdict === 'behind') because.push("the bucket's half is not yet written");
  if (sinceMs !== null && sinceMs >= staleMs) because.push('nobody renews it: does a worker run?');
  for (const { kind, details } of await listAlerts(storage.database, 0, { reviewed: false, limit: 100 }))
    if (kind === 'deleting_stopped') because.push(`a worker says: ${String(details.detail ?? details.reason)}`);
  return {
    catalogId: storage.catalogId,
    mayDelete: because.length === 0,
    stoppedBecause: because,
    renewedAt: moment(row.renewedAt),
    secondsSinceRenewal: sinceMs === null ? null : Math.round(sinceMs / 1_000),
    bucketModifiedAt: moment(side.modifiedAt),
    mark: side.mark,
  };
}

/** Row and bucket of one time: renewing writes one after the other. */
async function lookAtBoth(storage: Storage): Promise<{ row: FenceRow; side: BucketSide }> {
  for (let looks = 1; ; looks++) {
    const before = await readFence(storage.database);
    const side = await readBucketSide(storage);
    const row = await readFence(storage.database);
    if (row.nonce === before.nonce || looks === looksMax) return { row, side };
  }
}
