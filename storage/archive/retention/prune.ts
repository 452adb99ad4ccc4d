/**
 * Expires versions by retention. A look at what is due first counts what would go, without a lock; more than the cap is
 * an alert, and nothing is deleted. Then batches, each its own transaction, until nothing is due: what a crash leaves
 * undone is still due.
 *
 * Only files that have history and whose plan may have changed are looked at (files.prune_after), so that the cost
 * follows what there is to delete, and not the archive's size.
 */
import { closeAlertsOf, raiseAlert } from '../../catalog/checking/alerts.ts';
import type { FenceRow } from '../../catalog/checking/fence.ts';
import type { Transaction } from '../../catalog/database.ts';
import { lockArchiveForDeleting, readHoldsUnlocked } from '../../catalog/deleting/deleting.ts';
import {
  archivesWithDueFiles,
  type DueFile,
  dueFiles,
  endOverCap,
  filesWithHistory,
  makeFilesDue,
  type RetentionState,
  readRetentionState,
  setRetentionApplied,
} from '../../catalog/reading/histories.ts';
import { RefsDrift } from '../../catalog/refs.ts';
import type { ArchiveRef, Storage, StorageSettings } from '../../storage.ts';
import { DeletingStopped } from '../checking/fence.ts';
import {
  type Deleter,
  deleteVersionsBatch,
  pinVersions,
  readPins,
  readWholeHistories,
} from '../deleting/delete-versions.ts';
import { type ArchivePolicies, type NamedPolicy, planDigest, policiesByPath } from './policies.ts';
import { tellingUnreadable } from './policy-unreadable.ts';
import { planByAny, type Reason } from './retention.ts';

export interface PruneDeps {
  /**
   * Of an archive, as they are at one moment: read in the transaction that deletes, and in one statement of it
   * (docs/decisions/deleting.md).
   */
  readPolicies(tx: Transaction, ref: ArchiveRef): Promise<ArchivePolicies>;
  /** @throws DeletingStopped when nothing may be deleted now (the fence does not hold) */
  assertMayDelete(): Promise<void>;
  /**
   * Asked in the transaction that deletes, about the fence's row as that transaction reads it.
   * @throws DeletingStopped when it is of an older state of the catalog than assertMayDelete was asked in, or its time is
   *   not one that the clocks agree on
   */
  assertStillHeld(read: FenceRow): void;
}

export interface PrunedBatch {
  files: number;
  versions: number;
  bytes: number;
}

export interface PruneOptions {
  signal?: AbortSignal;
  onBatch?: (batch: PrunedBatch) => void;
}

export interface PruneResult extends PrunedBatch {
  batches: number;
  /** Why nothing, or not all, was deleted although there is something due. */
  refused: null | 'frozen' | 'over_cap' | 'drift';
}

/** Files planned in one transaction, at most. */
const filesPerBatch = 500;
/** Files made due in one transaction, when all have to be planned anew. */
const filesMadeDue = 5_000;

/**
 * Prunes every archive that has something due. An archive with a fault keeps no other from its turn.
 * @throws the first fault, at the end; DeletingStopped and an abort at once
 */
export async function pruneDue(
  storage: Storage,
  deps: PruneDeps,
  options: { signal?: AbortSignal; onProgress?: (soFar: Record<string, number>) => void } = {},
): Promise<Record<string, number>> {
  const { signal, onProgress } = options;
  const sum = { archives: 0, files: 0, versions: 0, bytes: 0, batches: 0, refused: 0 };
  const faults = new Faults(signal);
  for (const ref of await archivesWithDueFiles(storage.database)) {
    const onBatch = (batch: PrunedBatch): void => {
      sum.batches++;
      sum.files += batch.files;
      sum.versions += batch.versions;
      sum.bytes += batch.bytes;
      onProgress?.(sum);
    };
    const result = await pruneArchive(storage, ref, deps, { ...(signal && { signal }), onBatch }).catch(faults.keep);
    if (!result) continue;
    sum.archives++;
    sum.refused += Number(result.refused !== null);
  }
  faults.throwFirst();
  return sum;
}

/** Goes on past what is wrong with one archive. */
class Faults {
  private first: unknown;
  private readonly signal: AbortSignal | undefined;

  constructor(signal: AbortSignal | undefined) {
    this.signal = signal;
  }

  keep = (error: unknown): null => {
    this.signal?.throwIfAborted();
    if (error instanceof DeletingStopped) throw error;
    this.first ??= error;
    return null;
  };

  throwFirst(): void {
    if (this.first) throw this.first;
  }
}

function currentDigest(storage: Storage, ref: ArchiveRef, deps: Pick<PruneDeps, 'readPolicies'>): Promise<Buffer> {
  return storage.database.transaction(async (tx) =>
    planDigest(await deps.readPolicies(tx, ref), await readHoldsUnlocked(tx, ref.vault)),
  );
}

/**
 * Makes every file with history due when the archive's policy or holds are others than its files were last planned with.
 * @returns whether they were
 */
export async function applyPolicy(
  storage: Storage,
  ref: ArchiveRef,
  deps: Pick<PruneDeps, 'readPolicies'>,
): Promise<boolean> {
  return applyDigest(storage, ref, await currentDigest(storage, ref, deps));
}

/** Under the archive's lock: a batch planned with the old policy is over by then, or sees that it changed. */
async function applyDigest(storage: Storage, ref: ArchiveRef, digest: Buffer): Promise<boolean> {
  const applied = (await readRetentionState(storage.database, ref))?.applied;
  if (applied === undefined || applied?.equals(digest)) return false;
  for (let made = filesMadeDue; made > 0; ) {
    made = await storage.database.transaction(async (tx) => {
      await lockArchiveForDeleting(tx, ref);
      const due = await makeFilesDue(tx, ref, filesMadeDue);
      if (due === 0) await setRetentionApplied(tx, ref, digest);
      return due;
    });
  }
  return true;
}

/** The most versions that prunes may take from an archive of so many within a day, unasked. */
export function expiryCap(
  settings: Pick<StorageSettings, 'expiryShareMax' | 'expiryVersionsMin'>,
  versionCount: number,
): number {
  return Math.max(settings.expiryVersionsMin, Math.floor(settings.expiryShareMax * versionCount));
}

/**
 * @throws DeletingStopped, and what `deps.readPolicies` throws; of a policy that cannot be read an administrator is told
 */
export function pruneArchive(
  storage: Storage,
  ref: ArchiveRef,
  deps: PruneDeps,
  options: PruneOptions = {},
): Promise<PruneResult> {
  return tellingUnreadable(storage, ref, () => pruneReadable(storage, ref, deps, options));
}

async function pruneReadable(
  storage: Storage,
  ref: ArchiveRef,
  deps: PruneDeps,
  options: PruneOptions,
): Promise<PruneResult> {
  const { database } = storage;
  const result: PruneResult = { files: 0, versions: 0, bytes: 0, batches: 0, refused: null };
  options.signal?.throwIfAborted();
  await deps.assertMayDelete();
  const digest = await currentDigest(storage, ref, deps);
  await applyDigest(storage, ref, digest);
  const state = await readRetentionState(database, ref);
  if (!state) return result;
  if (state.frozen) return { ...result, refused: 'frozen' };

  const allowed = await allowance(storage, ref, deps, { state, digest }, options);
  if (!allowed) return { ...result, refused: 'over_cap' };
  let capped = 0;
  for (;;) {
    options.signal?.throwIfAborted();
    await deps.assertMayDelete();
    const deleter = retentionDeleter(ref, deps, { digest, budget: allowed.versions - capped });
    const batch = await deleteVersionsBatch(storage, ref, deleter).catch(async (error: unknown) => {
      if (!(error instanceof RefsDrift)) throw error;
      await raiseAlert(database, { ...ref, kind: 'refs_drift', details: { found: 'prune', message: error.message } });
      return null;
    });
    if (!batch) return { ...result, refused: 'drift' };
    if (batch.files === 0) break;
    result.batches++;
    result.files += batch.files;
    result.versions += batch.versions;
    capped += batch.capped;
    result.bytes += batch.bytes;
    options.onBatch?.(batch);
    if (batch.overBudget) {
      await tellOverCap(storage, ref, { state, digest, expiring: capped + 1 });
      return { ...result, refused: 'over_cap' };
    }
  }
  if (allowed.byLeave) await endOverCap(database, ref, true);
  return result;
}

function retentionDeleter(ref: ArchiveRef, deps: PruneDeps, run: { digest: Buffer; budget: number }): Deleter {
  return {
    budget: run.budget,
    assertStillHeld: (read) => deps.assertStillHeld(read),
    async prepare(tx, archive, holds) {
      if (archive.frozen) return null;
      const policies = await deps.readPolicies(tx, ref);
      // Other policies than those whose effect was counted against the cap: begin again, with a new look.
      if (!planDigest(policies, holds).equals(run.digest)) return null;
      const now = archive.now.getTime();
      const policiesOf = policiesByPath(policies);
      return {
        looksAtPaths: policies.folders.length > 0,
        decide(versions, path) {
          const named = policiesOf(path);
          const of = named.map(({ policy }) => policy);
          const { decisions, nextChangeAt } = planByAny(versions, of, now);
          const expire = decisions.filter((each) => !each.keep).map((each) => each.seq);
          return { expire, nextChangeAt, isUncapped: isUncapped(named) };
        },
      };
    },
    candidates: async (tx) => (await dueFiles(tx, ref, null, filesPerBatch)).map((file) => file.fileId),
  };
}

const isUncapped = (policies: readonly NamedPolicy[]): boolean => policies.every((each) => each.isUncapped === true);

interface Looked {
  state: RetentionState;
  digest: Buffer;
}

/**
 * How many versions may go now: a mistake in a policy, a clock, or somebody's malice should meet a person before it
 * meets the history.
 * @returns null: more would go than the cap allows, and nobody has agreed to that; nothing is deleted
 */
async function allowance(
  storage: Storage,
  ref: ArchiveRef,
  deps: PruneDeps,
  { state, digest }: Looked,
  options: { signal?: AbortSignal },
): Promise<{ versions: number; byLeave: boolean } | null> {
  const { database } = storage;
  let expiring = 0;
  for await (const file of planFiles(storage, ref, deps, { dueOnly: true, ...options }))
    if (!isUncapped(file.policies)) expiring += file.decisions.filter((each) => !each.keep).length;
  const left = capLeft(storage, state);
  const leave = state.overCapVersions;
  if (expiring <= left) {
    await closeAlertsOf(database, { ...ref, kind: 'expiry_cap' }, 'within the cap again');
    return { versions: left, byLeave: false };
  }
  if (leave > 0 && expiring <= leave + left && state.overCapDigest?.equals(digest))
    return { versions: leave + left, byLeave: true };
  if (leave > 0) await endOverCap(database, ref, false); // it was given for something else
  await tellOverCap(storage, ref, { state, digest, expiring });
  return null;
}

/** What the cap still allows today. */
export function capLeft(storage: Pick<Storage, 'settings'>, state: RetentionState): number {
  return Math.max(0, expiryCap(storage.settings, state.versionCount + state.expiredToday) - state.expiredToday);
}

function tellOverCap(storage: Storage, ref: ArchiveRef, found: Looked & { expiring: number }): Promise<void> {
  const { state, digest, expiring } = found;
  const { versionCount, expiredToday } = state;
  const details = {
    cap: capLeft(storage, state),
    versionCount,
    expiredToday,
    expiring,
    digest: digest.toString('hex'),
  };
  return raiseAlert(storage.database, { ...ref, kind: 'expiry_cap', details });
}

export interface PlannedVersion {
  seq: number;
  /** ms since the epoch, by the database's clock. */
  committedAt: number;
  deleted: boolean;
  size: number;
  keep: boolean;
  reason: Reason;
  /** Whose reason that is. */
  by: NamedPolicy;
}

export interface PlannedFile {
  /** Empty where nobody asked for it. */
  path: Buffer;
  /** Those that the file has: what any of them keeps stays. */
  policies: readonly NamedPolicy[];
  decisions: PlannedVersion[];
}

/**
 * What pruning would do now, file by file, and why: a look without locks, which changes nothing. Files with one version
 * that lives are left out; nothing of them can expire.
 * @param options.dueOnly only files whose plan may have changed since they were last planned
 */
export async function* planFiles(
  storage: Storage,
  ref: ArchiveRef,
  deps: Pick<PruneDeps, 'readPolicies'>,
  options: { dueOnly: boolean; withPaths?: boolean; policies?: ArchivePolicies; signal?: AbortSignal },
): AsyncGenerator<PlannedFile> {
  const { database } = storage;
  let last: DueFile | null = null;
  let lastId = 0;
  for (;;) {
    options.signal?.throwIfAborted();
    const page: DueFile[] = options.dueOnly
      ? await dueFiles(database, ref, last, filesPerBatch)
      : (await filesWithHistory(database, ref, lastId, filesPerBatch)).map((fileId) => ({ fileId, after: '' }));
    if (page.length === 0) return;
    const ids = page.map((file) => file.fileId);
    const planned = await database.transaction(async (tx) => {
      const state = await readRetentionState(tx, ref);
      const policies = options.policies ?? (await deps.readPolicies(tx, ref));
      const policiesOf = policiesByPath(policies);
      const histories = await readWholeHistories(tx, ref, ids);
      const fileIds = [...histories.keys()];
      const pins = await readPins(tx, ref, {
        holds: await readHoldsUnlocked(tx, ref.vault),
        fileIds,
        paths: options.withPaths === true || policies.folders.length > 0,
      });
      const files = fileIds.map((fileId): PlannedFile => {
        const rows = histories.get(fileId)!;
        const path = pins.paths.get(fileId) ?? null;
        const of = policiesOf(path);
        const { decisions } = planByAny(
          pinVersions(rows, pins),
          of.map(({ policy }) => policy),
          state?.now.getTime() ?? 0,
        );
        return {
          path: path ?? Buffer.alloc(0),
          policies: of,
          decisions: decisions.map((decision, i) => {
            const { committedAt, deleted, size } = rows[i]!;
            return { ...decision, by: of[decision.by]!, committedAt: committedAt.getTime(), deleted, size };
          }),
        };
      });
      return { files, read: fileIds.length };
    });
    yield* planned.files;
    last = page[planned.read - 1] ?? null;
    lastId = last?.fileId ?? lastId;
  }
}
