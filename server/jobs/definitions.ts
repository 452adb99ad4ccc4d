/**
 * Every job there is: on which queue, how often it runs, and what it does. A job carries ids, never facts: it can run
 * twice, be lost or run after a crash, and that costs time only, because what must happen is a row.
 */
import { z } from 'zod';
import type { PaceClock } from '../../storage/archive/checking/byte-pace.ts';
import { compareBucket } from '../../storage/archive/checking/compare-bucket.ts';
import { findDamageUsers } from '../../storage/archive/checking/damage.ts';
import { DeletingStopped, type Fence } from '../../storage/archive/checking/fence.ts';
import { recountDue } from '../../storage/archive/checking/recount.ts';
import { verifyDue } from '../../storage/archive/checking/verify.ts';
import { compactDue } from '../../storage/archive/deleting/compact.ts';
import { deleteDeadObjects } from '../../storage/archive/deleting/delete-objects.ts';
import { expireArchives } from '../../storage/archive/deleting/expire-archives.ts';
import {
  foldUsage,
  forgetDeleteDays,
  forgetLapsedLeases,
  trimCommits,
} from '../../storage/archive/deleting/housekeeping.ts';
import { inBackground } from '../../storage/archive/deleting/in-background.ts';
import { reclaimDue, settleDue } from '../../storage/archive/deleting/reclaim.ts';
import { applyPolicies } from '../../storage/archive/retention/apply-policies.ts';
import { pruneDue } from '../../storage/archive/retention/prune.ts';
import { abandonStaleRuns } from '../../storage/archive/writing/runs.ts';
import type { Storage } from '../../storage/storage.ts';
import type { AuditKeys } from '../directory/audit/heads/audit-key.ts';
import { expireLogs } from '../directory/audit/heads/expire-logs.ts';
import { signHeads } from '../directory/audit/heads/sign-heads.ts';
import { tellRepeats } from '../directory/audit/tell-repeats.ts';
import { forgetHeldKeys } from '../directory/keys/raising/forget-held.ts';
import { forgetRequestsMade } from '../directory/requests-made.ts';
import { forgetRestores } from '../directory/restores/history-forgetting.ts';
import { keepMomentsOfPushed, lapsePushed } from '../directory/restores/pushing/lapsing.ts';
import { deleteStaged } from '../directory/restores/staging/delete-staged.ts';
import type { StagingParts } from '../directory/restores/staging/stage.ts';
import { stageOne, startDue } from '../directory/restores/staging/stage-due.ts';
import { pruneDeps } from '../directory/retention.ts';
import { sweepSignIn } from '../directory/sign-in/sweep.ts';
import { deleteTenants } from '../directory/tenants/deleting/delete-tenants.ts';

const minute = 60_000;
const hour = 60 * minute;
const day = 24 * hour;

/** A freed block's row is to be gone within an hour of the end of its claim: reclaim that is late takes what it needs. */
const reclaimRestsMs = 15 * minute;

/** No agent comes again with a commit it sent so long ago. */
const keepCommitsMs = 30 * day;

/** Nor does a caller of the API with the key of a request. */
const keepRequestsMs = day;

export const queueNames = ['housekeeping', 'deleting', 'checking', 'restoring'] as const;
/**
 * Apart, so that long work never keeps short work waiting. `housekeeping` takes seconds; `deleting` takes versions,
 * blocks and objects away; `checking` reads what there is, and compares; `restoring` stages restores.
 */
export type QueueName = (typeof queueNames)[number];

/** What jobs work on. */
export interface JobContext {
  storage: Storage;
  /** Nothing is deleted unless it holds. The worker keeps it beating. */
  fence: Fence;
  /** After this long without a word from its agent, a run is abandoned. */
  runSilenceMs: number;
  /** Of its time, what work that can wait has at most: above 0, and 1 for no rests. */
  backgroundShare: number;
  /** What rests are measured and slept by. Left out: the system's. */
  paceClock?: PaceClock;
  verifyBytesPerSecond: number;
  verifyEveryMs: number;
  /** How long restores stay in the history. Left out: two years. */
  restoreHistoryMs?: number;
  /** Null: there are none, so heads of the audit log are not signed. */
  auditKeys: AuditKeys | null;
  /** What restores are staged with. Null: this process cannot open the keys of backups. */
  staging: Pick<StagingParts, 'directory' | 'settings' | 'onFault'> | null;
  /** Puts a job in, unless the same one waits or goes on already. */
  startJob(name: 'restore', ids: Record<string, number>): Promise<void>;
}

/** What a job did, in numbers: for its record, the log and the metrics. */
export type JobResult = Record<string, number>;

export interface JobRun {
  /** The work ends soon after it, by returning or by throwing. */
  signal: AbortSignal;
  /** Tells how far it has come; may be called often. */
  progress(numbers: JobResult): void;
  /** What the job's data names. */
  ids: Readonly<Record<string, number>>;
}

/** Thrown by work that may not be done now, for a reason that is told elsewhere: no failure, and no success either. */
export class NotNow extends Error {
  override name = 'NotNow';
}

export interface JobDefinition<Context = JobContext> {
  queue: QueueName;
  /** Milliseconds between two runs. */
  everyMs: number;
  /**
   * The longest that one run works; the next goes on where it stopped. Null for work that would begin anew, and may
   * take as long as it takes.
   */
  sliceMs: number | null;
  /** What its data may be. Anything else is refused before any work. Left out: no data. */
  ids?: z.ZodType<Readonly<Record<string, number>>>;
  /** Done again from wherever it may have stopped. */
  work(context: Context, run: JobRun): Promise<JobResult>;
}

export type JobName =
  | 'abandon-stale-runs'
  | 'fold-usage'
  | 'forget-leases'
  | 'trim-commits'
  | 'apply-policies'
  | 'prune'
  | 'reclaim'
  | 'settle'
  | 'compact'
  | 'delete-objects'
  | 'expire-archives'
  | 'delete-tenants'
  | 'verify'
  | 'find-damage'
  | 'compare-bucket'
  | 'recount'
  | 'sweep-sign-in'
  | 'forget-requests'
  | 'tell-repeated-acts'
  | 'sign-audit-heads'
  | 'expire-acts'
  | 'end-commands'
  | 'keep-pushed-moments'
  | 'forget-held-keys'
  | 'forget-restores'
  | 'restore'
  | 'stage-restores'
  | 'delete-staged';

export const jobDefinitions: Readonly<Record<JobName, JobDefinition>> = {
  'abandon-stale-runs': {
    queue: 'housekeeping',
    everyMs: minute,
    sliceMs: minute,
    work: async ({ storage, runSilenceMs }) => ({
      abandoned: await abandonStaleRuns(storage, { olderThanMs: runSilenceMs }),
    }),
  },
  'fold-usage': {
    queue: 'housekeeping',
    everyMs: minute,
    sliceMs: minute,
    work: ({ storage }, { signal }) => foldUsage(storage, { signal }),
  },
  'forget-leases': {
    queue: 'housekeeping',
    everyMs: 10 * minute,
    sliceMs: minute,
    work: ({ storage }) => forgetLapsedLeases(storage),
  },
  'trim-commits': {
    queue: 'housekeeping',
    everyMs: 6 * hour,
    sliceMs: 5 * minute,
    work: async ({ storage }, { signal }) => ({
      ...(await trimCommits(storage, { keepMs: keepCommitsMs, signal })),
      ...(await forgetDeleteDays(storage)),
    }),
  },

  // Prune looks where something is due. Under another policy that may be files that were not.
  'apply-policies': {
    queue: 'deleting',
    everyMs: hour,
    sliceMs: null,
    work: (context, { signal }) => applyPolicies(resting(context, signal), pruneDeps(context.fence), { signal }),
  },
  prune: {
    queue: 'deleting',
    everyMs: 5 * minute,
    sliceMs: 6 * hour,
    work: (context, { signal, progress }) => {
      const options = { signal, onProgress: progress };
      return unlessStopped(pruneDue(resting(context, signal), pruneDeps(context.fence), options));
    },
  },
  reclaim: {
    queue: 'deleting',
    everyMs: 5 * minute,
    sliceMs: hour,
    work: (context, { signal, progress }) =>
      reclaimDue(resting(context, signal, reclaimRestsMs), { signal, onProgress: progress }),
  },
  settle: {
    queue: 'deleting',
    everyMs: 30 * minute,
    sliceMs: hour,
    work: (context, { signal, progress }) =>
      settleDue(resting(context, signal, reclaimRestsMs), { signal, onProgress: progress }),
  },
  compact: {
    queue: 'deleting',
    everyMs: 10 * minute,
    sliceMs: 6 * hour,
    work: (context, { signal, progress }) => compactDue(resting(context, signal), { signal, onProgress: progress }),
  },
  'delete-objects': {
    queue: 'deleting',
    everyMs: 5 * minute,
    sliceMs: hour,
    work: ({ storage, fence }, { signal, progress }) =>
      unlessStopped(deleteDeadObjects(storage, fence, { signal, onProgress: progress })),
  },

  // Cold archives past their date, and expired ones whose days are over.
  'expire-archives': {
    queue: 'deleting',
    everyMs: day,
    sliceMs: 6 * hour,
    work: (context, { signal, progress }) =>
      unlessStopped(
        expireArchives(resting(context, signal), pruneDeps(context.fence), { signal, onProgress: progress }),
      ),
  },

  // What tenants that have left still have. What its blocks and objects wait for takes days, so most runs find little.
  'delete-tenants': {
    queue: 'deleting',
    everyMs: hour,
    sliceMs: 6 * hour,
    work: (context, { signal, progress }) =>
      unlessStopped(
        deleteTenants(resting(context, signal), pruneDeps(context.fence), { signal, onProgress: progress }),
      ),
  },

  verify: {
    queue: 'checking',
    everyMs: minute,
    sliceMs: hour,
    work: ({ storage, fence, verifyBytesPerSecond, verifyEveryMs }, { signal, progress }) => {
      const rate = { bytesPerSecond: verifyBytesPerSecond, everyMs: verifyEveryMs };
      return verifyDue(storage, fence, { ...rate, signal, onProgress: progress });
    },
  },
  // Whoever marks damage looks for it at once; this is for one that was stopped meanwhile, and for what has healed.
  'find-damage': {
    queue: 'checking',
    everyMs: 10 * minute,
    sliceMs: null,
    work: ({ storage }, { signal }) => findDamageUsers(storage, { signal }),
  },
  'compare-bucket': {
    queue: 'checking',
    everyMs: day,
    sliceMs: null,
    work: ({ storage, fence }, { signal, progress }) =>
      unlessStopped(compareBucket(storage, fence, { signal, onProgress: progress })),
  },
  recount: {
    queue: 'checking',
    everyMs: 7 * day,
    sliceMs: null,
    work: (context, { signal, progress }) => recountDue(resting(context, signal), { signal, onProgress: progress }),
  },

  'sweep-sign-in': {
    queue: 'housekeeping',
    everyMs: hour,
    sliceMs: 5 * minute,
    work: async ({ storage }) => ({ swept: await sweepSignIn(storage.database) }),
  },
  'forget-requests': {
    queue: 'housekeeping',
    everyMs: hour,
    sliceMs: 5 * minute,
    work: async ({ storage }) => ({ forgotten: await forgetRequestsMade(storage.database, keepRequestsMs) }),
  },
  'tell-repeated-acts': {
    queue: 'housekeeping',
    everyMs: minute,
    sliceMs: minute,
    work: async ({ storage }, { signal }) => ({ told: await tellRepeats(storage.database, { signal }) }),
  },
  'sign-audit-heads': {
    queue: 'checking',
    everyMs: hour,
    sliceMs: null,
    work: ({ storage, fence, auditKeys }, { signal }) =>
      unlessStopped(signHeads(storage, signing(auditKeys), fence, { signal })),
  },
  'expire-acts': {
    queue: 'deleting',
    everyMs: day,
    sliceMs: hour,
    work: ({ storage, fence, auditKeys }, { signal }) =>
      unlessStopped(expireLogs(storage, signing(auditKeys), fence, { signal })),
  },

  // What devices were told to do: what none came for ends, and what ended is forgotten.
  'end-commands': {
    queue: 'housekeeping',
    everyMs: minute,
    sliceMs: minute,
    work: ({ storage }, { signal }) => lapsePushed(storage.database, { signal }),
  },
  // Restores that wait for their devices, or go on there: what was current at their moments stays.
  'keep-pushed-moments': {
    queue: 'housekeeping',
    everyMs: 10 * minute,
    sliceMs: 5 * minute,
    work: ({ storage }, { signal }) =>
      keepMomentsOfPushed(storage.database, { leaseMs: storage.settings.restoreLeaseMs, signal }),
  },

  // Keys that were kept for a hold, after its release.
  'forget-held-keys': {
    queue: 'housekeeping',
    everyMs: hour,
    sliceMs: 5 * minute,
    work: ({ storage }, { signal }) => forgetHeldKeys(storage.database, { signal }),
  },

  'forget-restores': {
    queue: 'housekeeping',
    everyMs: 6 * hour,
    sliceMs: 5 * minute,
    work: ({ storage, restoreHistoryMs = 730 * day }, { signal }) =>
      forgetRestores(storage.database, { keepMs: restoreHistoryMs, signal }),
  },

  // One that was just planned, by its number, so that nobody waits for the next look. The schedule's own has none.
  restore: {
    queue: 'restoring',
    everyMs: day,
    sliceMs: null,
    ids: z.strictObject({ restore: z.int().positive().optional() }) as unknown as z.ZodType<Record<string, number>>,
    work: async (context, { signal, ids }) =>
      ids.restore === undefined ? {} : stageOne(stagingParts(context), ids.restore, signal),
  },
  // A job for each that is due, whatever became of the one it had. Apart from them, since it must not wait for any.
  'stage-restores': {
    queue: 'housekeeping',
    everyMs: minute,
    sliceMs: minute,
    work: ({ storage, startJob }) => startDue(storage.database, (restore) => startJob('restore', { restore })),
  },
  'delete-staged': {
    queue: 'deleting',
    everyMs: minute,
    sliceMs: 5 * minute,
    work: ({ storage, fence }, { signal, progress }) =>
      unlessStopped(deleteStaged(storage, fence, { signal, onProgress: progress })),
  },
};

/** @throws NotNow when there are no keys to open backups with, which the worker has said at its start */
function stagingParts({ staging, storage, fence }: JobContext): StagingParts {
  if (staging) return { ...staging, storage, fence };
  throw new NotNow('this worker cannot open the keys of backups: set HOLDFAST_KEY_FILE or HOLDFAST_KEY_SERVICE');
}

/** The storage for work that can wait, so that backups beside it keep their speed. */
function resting(
  { storage, backgroundShare, paceClock }: JobContext,
  signal: AbortSignal,
  restsForMs?: number,
): Storage {
  return inBackground(storage, {
    share: backgroundShare,
    signal,
    ...(restsForMs !== undefined && { restsForMs }),
    ...(paceClock && { clock: paceClock }),
  });
}

/** @throws NotNow when there is no key to sign with, which the server has said at its start */
function signing(keys: AuditKeys | null): AuditKeys {
  if (keys?.signer) return keys;
  throw new NotNow('there is no audit key: set HOLDFAST_AUDIT_KEY_FILE');
}

/** Why deleting is stopped is told by the fence: in alerts, in /readyz and in the metrics. */
async function unlessStopped<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (error instanceof DeletingStopped) throw new NotNow(error.message, { cause: error });
    throw error;
  }
}

/** The data of a job that has none. */
export const noIds = z.strictObject({});
