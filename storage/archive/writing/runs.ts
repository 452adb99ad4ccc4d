/** A backup run from its start to its end. Every message may come twice: the second changes nothing. */
import { limits } from '../../../protocol/limits.ts';
import type {
  RunCounts,
  RunFinishRequest,
  RunProgressRequest,
  RunStartAnswer,
  RunStartRequest,
  RunsAnswer,
} from '../../../protocol/messages.ts';
import { Problem } from '../../../protocol/problems.ts';
import {
  closeRun,
  describeArchive,
  findOutcome,
  insertRun,
  insertSkipped,
  interruptStaleRuns,
  listRuns,
  updateRun,
} from '../../catalog/writing/runs.ts';
import type { ArchiveRef, Storage } from '../../storage.ts';
import { hasDamagedPaths } from '../checking/damage.ts';

/**
 * Starts a run, if the server knows the last commit the agent saw acknowledged. One that does not was set back in
 * time, and the agent's cache speaks of files the server has lost.
 * @throws Problem archive_rolled_back { nextSeq, purgeEpoch }, archive_not_active, not_found
 */
export async function startRun(storage: Storage, ref: ArchiveRef, request: RunStartRequest): Promise<RunStartAnswer> {
  const archive = await describeArchive(storage.database, ref, request.lastCommit);
  if (!archive) throw new Problem('not_found', 'there is no such archive');
  if (archive.state !== 'active')
    throw new Problem('archive_not_active', `this archive is ${archive.state} and takes no commits`);
  const { nextSeq, purgeEpoch } = archive;
  if (request.lastCommit && !archive.knowsCommit) {
    throw new Problem(
      'archive_rolled_back',
      'the server does not know your last commit: compare your cache with the tree, then start without lastCommit',
      {
        field: 'lastCommit',
        nextSeq,
        purgeEpoch,
      },
    );
  }
  const run = await storage.database.transaction((tx) => insertRun(tx, ref, request.roots));
  const damaged = archive.damaged && (await hasDamagedPaths(storage, ref));
  return { run, nextSeq, purgeEpoch, serverTime: archive.now.getTime(), damaged };
}

/** @throws Problem run_finished, not_found */
export async function progressRun(
  storage: Storage,
  ref: ArchiveRef & { run: number },
  request: RunProgressRequest,
): Promise<void> {
  await storage.database.transaction(async (tx) => {
    if (!(await updateRun(tx, ref, ref.run, request.counts))) {
      if ((await findOutcome(tx, ref, ref.run)) === undefined) throw new Problem('not_found', 'there is no such run');
      throw new Problem('run_finished', 'this run has ended; start another');
    }
    await insertSkipped(tx, ref, ref.run, request.skipped, limits.runSkippedKeptMax);
  });
}

/** @throws Problem run_finished when it had ended in another way, not_found */
export async function finishRun(
  storage: Storage,
  ref: ArchiveRef & { run: number },
  request: RunFinishRequest,
): Promise<void> {
  await storage.database.transaction(async (tx) => {
    if (await closeRun(tx, ref, ref.run, request))
      return insertSkipped(tx, ref, ref.run, request.skipped, limits.runSkippedKeptMax);
    const outcome = await findOutcome(tx, ref, ref.run);
    if (outcome === undefined) throw new Problem('not_found', 'there is no such run');
    if (outcome !== request.outcome) throw new Problem('run_finished', `this run has ended as ${outcome}`);
  });
}

/**
 * Runs of an archive, newest first: what a person chooses a moment by.
 * @param query.before the last run of the page before, or null for the first page
 */
export async function readRuns(
  storage: Storage,
  ref: ArchiveRef,
  query: { before: number | null; limit: number },
): Promise<RunsAnswer> {
  const page = { below: query.before ?? Number.MAX_SAFE_INTEGER, limit: query.limit + 1 };
  const rows = await listRuns(storage.database, ref, page);
  const runs = rows.slice(0, query.limit).map((row) => ({
    ...row,
    startedAt: row.startedAt.getTime(),
    finishedAt: row.finishedAt?.getTime() ?? null,
    counts: Object.keys(row.counts).length > 0 ? (row.counts as unknown as RunCounts) : null,
  }));
  return { runs, more: rows.length > query.limit };
}

/** Marks runs nothing was heard of for so long as interrupted. @returns how many */
export function abandonStaleRuns(storage: Storage, options: { olderThanMs: number }): Promise<number> {
  return interruptStaleRuns(storage.database, options.olderThanMs);
}
