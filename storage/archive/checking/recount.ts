/**
 * Counts references anew and compares. A count that is not right is a bug of ours and is told as one: an alert with the
 * numbers. One that is too low would delete what is in use, so it is raised at once; one that is too high only costs
 * space, and is lowered when a person says so, after the bug is understood.
 */
import { joinHashes } from '../../../protocol/hashes.ts';
import { raiseAlert } from '../../catalog/checking/alerts.ts';
import { vaultsAfter } from '../../catalog/checking/checking.ts';
import {
  type Drift,
  type Drifts,
  type FigureDrift,
  lockToRecount,
  raiseRefs,
  recountHiddenBytes,
  recountLiveBytes,
  recountPlainFigures,
  recountRefs,
} from '../../catalog/checking/recounting.ts';
import type { Transaction } from '../../catalog/database.ts';
import { addFigures } from '../../catalog/plain-figures.ts';
import { takeListRefs, takeRefs } from '../../catalog/refs.ts';
import { addUsage } from '../../catalog/usage.ts';
import { lockArchive } from '../../catalog/writing/commits.ts';
import type { Storage } from '../../storage.ts';

export interface RecountOptions {
  /** Also lower counts that are too high. */
  lower?: boolean;
  /** The longest that one of the counting statements may take. Default 10 min. */
  timeoutMs?: number;
}

export type RecountResult = {
  /** Blocks and lists whose count was too low, too high, or that are named and not there. */
  tooLow: number;
  tooHigh: number;
  absent: number;
  /** Objects whose live bytes were not the sum of their blocks. They only choose what is compacted. */
  liveBytes: number;
  /** Figures of plain archives, and of what is hidden in the vault, that were not what their files and blocks come to. They are corrected: they delete nothing. */
  figures: number;
  raised: number;
  lowered: number;
};

/** Drifts looked at in one go. When there are more, the next recount goes on. */
const driftsMax = 10_000;
const vaultsPage = 100;

export async function recount(
  storage: Storage,
  vault: number,
  { lower = false, timeoutMs = 600_000 }: RecountOptions = {},
): Promise<RecountResult> {
  const limits = { limit: driftsMax, timeoutMs };
  const { database } = storage;
  const result: RecountResult = { tooLow: 0, tooHigh: 0, absent: 0, liveBytes: 0, figures: 0, raised: 0, lowered: 0 };
  const examples: Record<string, object> = {};
  for (const table of ['lists', 'blocks'] as const) {
    // Counted in the transaction that corrects: repeated after a COMMIT of unknown outcome it finds nothing to correct.
    const done = await database.transaction(async (tx) => {
      const drifts = await recountRefs(tx, vault, table, limits);
      await lockToRecount(tx, vault, table, joinHashes(drifts.first.map((drift) => drift.hash)));
      const raised = await raise(tx, vault, table, drifts.first.filter(isTooLow));
      const lowered = lower ? await lowerAgain(storage, tx, vault, table, drifts.first.filter(isTooHigh)) : 0;
      return { drifts, raised, lowered };
    });
    const { first } = done.drifts;
    result.tooLow += first.filter(isTooLow).length;
    result.tooHigh += first.filter(isTooHigh).length;
    result.absent += first.filter((drift) => drift.refs === null).length;
    result.raised += done.raised;
    result.lowered += done.lowered;
    if (first[0]) examples[table] = { ...first[0], hash: first[0].hash.toString('hex'), total: done.drifts.total };
  }
  const liveBytes = await database.transaction((tx) => recountLiveBytes(tx, vault, limits));
  result.liveBytes = liveBytes.total;
  if (liveBytes.first[0]) examples.objects = liveBytes.first[0];
  const figures = await database.transaction((tx) => correctFigures(tx, vault, limits));
  result.figures = figures.total;
  if (figures.first[0]) examples.figures = figures.first[0];
  const hiddenBytes = await database.transaction(async (tx) => {
    const missing = await recountHiddenBytes(tx, vault);
    await addUsage(tx, vault, { hiddenBytes: missing });
    return missing;
  });
  result.figures += Number(hiddenBytes !== 0);
  if (hiddenBytes !== 0) examples.hiddenBytes = { missing: hiddenBytes };
  if (Object.keys(examples).length > 0)
    await raiseAlert(database, { vault, kind: 'refs_drift', details: { found: 'recount', ...result, examples } });
  return result;
}

/** Every vault in turn. */
export async function recountDue(
  storage: Storage,
  {
    signal,
    onProgress,
    ...options
  }: { signal?: AbortSignal; onProgress?: (soFar: RecountResult & { vaults: number }) => void } & RecountOptions = {},
): Promise<RecountResult & { vaults: number }> {
  const total = { vaults: 0, tooLow: 0, tooHigh: 0, absent: 0, liveBytes: 0, figures: 0, raised: 0, lowered: 0 };
  for (let after = 0; ; ) {
    const page = await vaultsAfter(storage.database, after, vaultsPage);
    for (const vault of page) {
      if (signal?.aborted) return total;
      const done = await recount(storage, vault, options);
      total.vaults++;
      for (const key of Object.keys(done) as (keyof RecountResult)[]) total[key] += done[key];
      onProgress?.(total);
    }
    if (page.length < vaultsPage) return total;
    after = page.at(-1)!;
  }
}

/**
 * Adds what is missing to the figures of plain archives. A difference found in one snapshot is right later too: everybody else
 * only adds and subtracts. Lock order: the archives by id, then their figures, as whoever changes a file.
 */
async function correctFigures(
  tx: Transaction,
  vault: number,
  limits: { limit: number; timeoutMs: number },
): Promise<Drifts<FigureDrift>> {
  const drifts = await recountPlainFigures(tx, vault, limits);
  const archives = new Set(drifts.first.map(({ archive }) => archive));
  for (const archive of [...archives].sort((a, b) => a - b))
    if (!(await lockArchive(tx, { vault, archive }))) archives.delete(archive); // ended since it was counted, its figures with it
  for (const { archive, folder, ...missing } of drifts.first)
    if (archives.has(archive)) await addFigures(tx, { vault, archive }, new Map([[folder, missing]]));
  return drifts;
}

const isTooLow = (drift: Drift): boolean => drift.refs !== null && drift.refs < drift.counted;
const isTooHigh = (drift: Drift): boolean => drift.refs !== null && drift.refs > drift.counted;

async function raise(
  tx: Transaction,
  vault: number,
  table: 'blocks' | 'lists',
  drifts: readonly Drift[],
): Promise<number> {
  let raised = 0;
  for (const [by, members] of Map.groupBy(drifts, (drift) => drift.counted - drift.refs!)) {
    const hashes = joinHashes(members.map((drift) => drift.hash));
    raised += await raiseRefs(tx, vault, table, { hashes, by });
  }
  return raised;
}

/** As if what was counted too much were deleted now: what falls to 0 is freed as always. */
async function lowerAgain(
  { settings }: Storage,
  tx: Transaction,
  vault: number,
  table: 'blocks' | 'lists',
  drifts: readonly Drift[],
): Promise<number> {
  const refs = {
    hashes: joinHashes(drifts.map((drift) => drift.hash)),
    counts: drifts.map((drift) => drift.refs! - drift.counted),
  };
  const keepForMs = settings.claimWindowMs + settings.freedMarginMs;
  if (table === 'lists') await takeListRefs(tx, vault, refs, keepForMs);
  else await addUsage(tx, vault, { referencedBytes: -(await takeRefs(tx, vault, refs, keepForMs)).bytes });
  return drifts.length;
}
