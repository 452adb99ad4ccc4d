/**
 * The one deleter of versions: whatever wants versions gone (today: retention) goes through here, so that there is one
 * place that honours holds and readers' leases, and one that counts references off.
 *
 * A batch is one transaction. It locks the vault (so that no hold is placed meanwhile), reads the holds, locks the
 * archive (so that nothing is committed meanwhile), reads policy, leases and the database's clock, and only then plans
 * the batch's files: a plan made before the locks may rest on a policy, a hold or an hour that is no longer so.
 *
 * It also reads the fence's row, in every attempt: the transaction may be repeated after the database has failed over
 * onto an older state, which knows neither the latest holds nor policies.
 *
 * A file's plan is carried out oldest first, so that what a crash or the batch's bounds leave undone is the newer part
 * of it: planning again gives the rest, and the record of a deletion never goes before what it hides.
 */
import assert from 'node:assert/strict';
import { joinPath } from '../../../protocol/paths.ts';
import { type FenceRow, readFence } from '../../catalog/checking/fence.ts';
import type { Transaction } from '../../catalog/database.ts';
import {
  countDeletedVersions,
  type DeletingArchive,
  deleteEmptyFiles,
  deleteVersionRows,
  type Lease,
  lockArchiveForDeleting,
  lockVaultAndReadHolds,
  readLeases,
  readPathNames,
  setPruneAfter,
} from '../../catalog/deleting/deleting.ts';
import { type HistoryRow, readHistories } from '../../catalog/reading/histories.ts';
import { takeListRefs, takeRefs } from '../../catalog/refs.ts';
import { addUsage } from '../../catalog/usage.ts';
import type { ArchiveRef, Storage } from '../../storage.ts';
import { countDeleted } from '../plain-files/count-figures.ts';
import { holdCovers, looksAtPaths } from '../retention/hold-policy.ts';
import type { FileVersion } from '../retention/retention.ts';
import { countRefs, toRefCounts } from '../writing/count-refs.ts';

/** What a caller decides about one file, from its versions, oldest first. */
export interface FileDecision {
  /** Seqs to delete, ascending. A pinned one among them is a fault of the caller. */
  expire: readonly number[];
  /** When, in ms, the file is worth planning again; null: never by itself. */
  nextChangeAt: number | null;
  /** What goes of it counts neither towards the budget nor towards what expired within a day. */
  isUncapped?: boolean;
}

export interface Decider {
  /** Whether it matters where a file is: paths are only read if so. */
  looksAtPaths: boolean;
  /** @param path null: not read, or not known */
  decide(versions: readonly FileVersion[], path: Buffer | null): FileDecision;
}

export interface Deleter {
  /**
   * Of the fence, which was asked just before, by what the transaction itself reads of it.
   * @throws DeletingStopped
   */
  assertStillHeld(read: FenceRow): void;
  /** Reads, inside the transaction and after the locks, what the decision rests on; null: nothing is deleted now. */
  prepare(tx: Transaction, archive: DeletingArchive, holds: readonly unknown[]): Promise<Decider | null>;
  /** The files to plan next, inside the transaction. */
  candidates(tx: Transaction): Promise<number[]>;
  /** At most so many versions go in this batch. */
  budget: number;
}

export interface BatchResult {
  /** Files planned; 0: there was nothing to do. */
  files: number;
  versions: number;
  /** Of these, the ones that count towards the budget. */
  capped: number;
  bytes: number;
  /** There was more to delete than the deleter's budget. */
  overBudget: boolean;
}

export const batchBounds = {
  /** Versions read, and deleted, in one transaction; a single file with more is read whole. */
  versionsMax: 2_000,
  /** Blocks and lists named by the versions that one transaction deletes; a single version may name more. */
  namesMax: 32_768,
};

/**
 * One batch.
 * @throws RefsDrift when counts do not close, and DeletingStopped: nothing was deleted
 */
export async function deleteVersionsBatch(storage: Storage, ref: ArchiveRef, deleter: Deleter): Promise<BatchResult> {
  const { claimWindowMs, freedMarginMs } = storage.settings;
  return storage.database.transaction(async (tx) => {
    const holds = await lockVaultAndReadHolds(tx, ref.vault);
    const archive = await lockArchiveForDeleting(tx, ref);
    // Locks nothing: what it proves is in which catalog this transaction is, and a beat need not wait for that.
    deleter.assertStillHeld(await readFence(tx));
    const nothing = { files: 0, versions: 0, capped: 0, bytes: 0, overBudget: false };
    if (!archive) return nothing;
    const decider = await deleter.prepare(tx, archive, holds);
    if (!decider) return nothing;
    const histories = await readWholeHistories(tx, ref, await deleter.candidates(tx));
    if (histories.size === 0) return nothing;

    const pins = await readPins(tx, ref, { holds, fileIds: [...histories.keys()], paths: decider.looksAtPaths });
    const { doomed, planned, capped, overBudget } = planBatch(histories, pins, decider, deleter.budget);
    if (archive.kind === 'plain') await countOffFigures(tx, ref, histories, doomed);
    const deleted = doomed.length === 0 ? [] : await deleteVersionRows(tx, ref, doomed);
    await takeListRefs(
      tx,
      ref.vault,
      toRefCounts(countRefs(deleted.map((version) => version.lists))),
      claimWindowMs + freedMarginMs,
    );
    const freed = await takeRefs(
      tx,
      ref.vault,
      toRefCounts(countRefs(deleted.map((version) => version.blocks))),
      claimWindowMs + freedMarginMs,
    );
    await setPruneAfter(tx, ref, planned);
    const touched = [...new Set(doomed.map((version) => version.fileId))];
    const empty = [...histories.keys()].filter((fileId) => histories.get(fileId)!.length === 0);
    await deleteEmptyFiles(tx, ref, [...touched, ...empty]);
    const liveFiles = liveFilesGone(histories, doomed);
    await countDeletedVersions(tx, ref, { versions: deleted.length, capped, liveFiles });
    const bytes = deleted.reduce((sum, version) => sum + version.size, 0);
    await addUsage(tx, ref.vault, {
      logicalBytes: -bytes,
      referencedBytes: -freed.bytes,
      versions: -deleted.length,
    });
    return { files: histories.size, versions: deleted.length, capped, bytes, overBudget };
  });
}

/** While the files still have their names: a file whose last version goes has none afterwards. */
async function countOffFigures(
  tx: Transaction,
  ref: ArchiveRef,
  histories: ReadonlyMap<number, HistoryRow[]>,
  doomed: readonly { fileId: number; seq: number }[],
): Promise<void> {
  const byFile = Map.groupBy(doomed, ({ fileId }) => fileId);
  const names = await readPathNames(tx, ref, [...byFile.keys()]);
  const files = [...byFile].map(([fileId, seqs]) => ({
    names: names.get(fileId)!,
    history: histories.get(fileId)!,
    gone: new Set(seqs.map(({ seq }) => seq)),
  }));
  await countDeleted(tx, ref, files);
}

/** Files whose latest version had content, less those of which that is so of what is left. */
function liveFilesGone(
  histories: ReadonlyMap<number, HistoryRow[]>,
  doomed: readonly { fileId: number; seq: number }[],
): number {
  const seqs = new Map<number, Set<number>>();
  for (const { fileId, seq } of doomed) seqs.set(fileId, (seqs.get(fileId) ?? new Set()).add(seq));
  const isLive = (row: HistoryRow | undefined): number => Number((row?.size ?? 0) > 0);
  let gone = 0;
  for (const [fileId, of] of seqs) {
    const rows = histories.get(fileId)!;
    gone += isLive(rows.at(-1)) - isLive(rows.findLast((row) => !of.has(row.seq)));
  }
  return gone;
}

/** All versions of as many of the files as fit the batch, and of one at least. A file without any is in it, too. */
export async function readWholeHistories(
  tx: Transaction,
  ref: ArchiveRef,
  fileIds: readonly number[],
): Promise<Map<number, HistoryRow[]>> {
  if (fileIds.length === 0) return new Map();
  const rows = await readHistories(tx, ref, fileIds, batchBounds.versionsMax + 1);
  const cut = rows.length > batchBounds.versionsMax;
  const read = cut ? fileIds.slice(0, fileIds.indexOf(rows.at(-1)!.fileId)) : fileIds;
  if (read.length === 0) {
    const first = fileIds[0]!;
    return new Map([[first, await readHistories(tx, ref, [first], Number.MAX_SAFE_INTEGER)]]);
  }
  const histories = new Map<number, HistoryRow[]>(read.map((fileId) => [fileId, []]));
  for (const row of rows) histories.get(row.fileId)?.push(row);
  return histories;
}

export interface Pins {
  /** Policies of the holds on the vault. */
  holds: readonly unknown[];
  /** Ascending by seq. */
  leases: readonly Lease[];
  /** Of the files, where a hold or the caller asks for them. */
  paths: ReadonlyMap<number, Buffer>;
}

/** @param of.paths read the files' paths, also where no hold asks for them */
export async function readPins(
  tx: Transaction,
  ref: ArchiveRef,
  of: { holds: readonly unknown[]; fileIds: readonly number[]; paths: boolean },
): Promise<Pins> {
  const { holds, fileIds } = of;
  const leases = await readLeases(tx, ref);
  const wanted = of.paths || holds.some(looksAtPaths);
  const names = wanted ? await readPathNames(tx, ref, fileIds) : new Map<number, Buffer[]>();
  return { holds, leases, paths: new Map([...names].map(([fileId, parts]) => [fileId, joinPath(parts)])) };
}

/** The versions of a file, with those pinned that a hold covers or a reader's lease needs. */
export function pinVersions(rows: readonly HistoryRow[], pins: Pins): FileVersion[] {
  const leased = leasedVersions(rows, pins.leases);
  const path = rows[0] ? (pins.paths.get(rows[0].fileId) ?? null) : null;
  return rows.map((row, i) => {
    const committedAt = row.committedAt.getTime();
    const lifetime = { committedAt, replacedAt: rows[i + 1]?.committedAt.getTime() ?? null };
    const version: FileVersion = { seq: row.seq, committedAt, deleted: row.deleted };
    if (pins.holds.some((policy) => holdCovers(policy, lifetime, path))) return { ...version, pinned: 'hold' };
    return leased.has(row.seq) ? { ...version, pinned: 'restore' } : version;
  });
}

/** The versions that were current at a leased moment, with the end of the last lease on each. */
function leasedVersions(rows: readonly HistoryRow[], leases: readonly Lease[]): Map<number, number> {
  const until = new Map<number, number>();
  let i = -1;
  for (const lease of leases) {
    while (i + 1 < rows.length && rows[i + 1]!.seq <= lease.seq) i++;
    if (i >= 0) until.set(rows[i]!.seq, Math.max(until.get(rows[i]!.seq) ?? 0, lease.until.getTime()));
  }
  return until;
}

interface Batch {
  overBudget: boolean;
  /** How many of the doomed count towards the budget. */
  capped: number;
  doomed: { fileId: number; seq: number }[];
  planned: { fileId: number; afterMs: number | null }[];
}

function planBatch(histories: ReadonlyMap<number, HistoryRow[]>, pins: Pins, decider: Decider, budget: number): Batch {
  const batch: Batch = { doomed: [], planned: [], capped: 0, overBudget: false };
  let names = 0;
  for (const [fileId, rows] of histories) {
    const versions = pinVersions(rows, pins);
    const { expire, nextChangeAt, isUncapped = false } = decider.decide(versions, pins.paths.get(fileId) ?? null);
    const bySeq = new Map(rows.map((row) => [row.seq, row]));
    const pinned = new Set(versions.filter((version) => version.pinned).map((version) => version.seq));
    assert(!expire.some((seq) => pinned.has(seq)), 'a version under a hold or a lease was to be deleted');
    let done = 0;
    for (const seq of expire) {
      batch.overBudget = !isUncapped && batch.capped >= budget;
      if (batch.overBudget) break;
      const more = bySeq.get(seq)!.names;
      const full = batch.doomed.length >= batchBounds.versionsMax || names + more > batchBounds.namesMax;
      if (full && batch.doomed.length > 0) break;
      batch.doomed.push({ fileId, seq });
      batch.capped += Number(!isUncapped);
      names += more;
      done++;
    }
    // A file whose plan did not fit stays due; so do those behind it.
    if (done < expire.length) break;
    const gone = new Set(expire);
    const left = versions.filter((version) => !gone.has(version.seq));
    batch.planned.push({ fileId, afterMs: planAgainAt(left, nextChangeAt, leasedVersions(rows, pins.leases)) });
  }
  return batch;
}

/** A hold that begins or ends is a reason to plan all files anew (prune.ts), so it is none to come back here. */
function planAgainAt(
  left: readonly FileVersion[],
  nextChangeAt: number | null,
  leasedUntil: ReadonlyMap<number, number>,
): number | null {
  if (left.length === 0 || (left.length === 1 && !left[0]!.deleted)) return null;
  const leases = left.filter((version) => version.pinned === 'restore').map((version) => leasedUntil.get(version.seq)!);
  return Math.min(...leases, nextChangeAt ?? Number.POSITIVE_INFINITY);
}
