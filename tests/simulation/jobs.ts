/** What workers run, picked at random again and again, two at a time in each worker. */
import { compareBucket } from '../../storage/archive/checking/compare-bucket.ts';
import { findDamageUsers } from '../../storage/archive/checking/damage.ts';
import { DeletingStopped, type Fence } from '../../storage/archive/checking/fence.ts';
import { recountDue } from '../../storage/archive/checking/recount.ts';
import { verifyDue } from '../../storage/archive/checking/verify.ts';
import { compactDue } from '../../storage/archive/deleting/compact.ts';
import { deleteDeadObjects } from '../../storage/archive/deleting/delete-objects.ts';
import { foldUsage, forgetLapsedLeases, trimCommits } from '../../storage/archive/deleting/housekeeping.ts';
import { reclaimDue, settleDue } from '../../storage/archive/deleting/reclaim.ts';
import { applyPolicies } from '../../storage/archive/retention/apply-policies.ts';
import { type PruneDeps, pruneDue } from '../../storage/archive/retention/prune.ts';
import { abandonStaleRuns } from '../../storage/archive/writing/runs.ts';
import type { Storage } from '../../storage/storage.ts';
import { Violation } from './check.ts';
import { day, minute } from './settings.ts';
import { betweenBeats, type Machine, NetworkError, type World } from './world.ts';

const pruneDeps = (world: World, fence: Fence): PruneDeps => ({
  readPolicies: async (_, ref) => world.policiesOf(ref.archive),
  assertMayDelete: () => fence.assertHeld(),
  assertStillHeld: (now) => fence.assertStillHeld(now),
});

type Job = (world: World, storage: Storage, fence: Fence) => Promise<unknown>;

/** Name, how often it is picked, and the work. The names are those of the coverage table. */
const jobTable: Record<string, { weight: number; work: Job }> = {
  'apply policies': { weight: 1, work: (world, storage, fence) => applyPolicies(storage, pruneDeps(world, fence)) },
  prune: { weight: 12, work: (world, storage, fence) => pruneDue(storage, pruneDeps(world, fence)) },
  reclaim: { weight: 8, work: (_, storage) => reclaimDue(storage) },
  settle: { weight: 2, work: (_, storage) => settleDue(storage) },
  compact: { weight: 4, work: (_, storage) => compactDue(storage) },
  'delete objects': { weight: 5, work: (_, storage, fence) => deleteDeadObjects(storage, fence) },
  verify: {
    weight: 3,
    work: (world, storage, fence) =>
      verifyDue(storage, fence, {
        bytesPerSecond: 1e9,
        everyMs: 2 * minute,
        random: world.random.next,
        clock: { nowMs: () => world.trueMs, sleep: () => world.scheduler.gate('pace') },
      }),
  },
  'find damage': { weight: 1, work: (_, storage) => findDamageUsers(storage) },
  'compare bucket': { weight: 2, work: (_, storage, fence) => compareBucket(storage, fence, { pageMax: 5 }) },
  recount: {
    weight: 1,
    work: async (_, storage) => {
      const { tooLow, tooHigh, absent, liveBytes } = await recountDue(storage);
      if (tooLow + tooHigh + absent + liveBytes > 0)
        throw new Violation(`recount says ${JSON.stringify({ tooLow, tooHigh, absent, liveBytes })}`);
    },
  },
  'fold usage': { weight: 1, work: (_, storage) => foldUsage(storage) },
  'forget leases': { weight: 1, work: (_, storage) => forgetLapsedLeases(storage) },
  'trim commits': { weight: 1, work: (_, storage) => trimCommits(storage, { keepMs: 30 * day }) },
  'abandon runs': { weight: 1, work: (_, storage) => abandonStaleRuns(storage, { olderThanMs: day }) },
};

/** Those that take something away, or find out what is left: run over and over until there is nothing to do. */
export const settlingJobs = [
  'apply policies',
  'prune',
  'reclaim',
  'settle',
  'compact',
  'delete objects',
  'verify',
  'find damage',
  'compare bucket',
  'fold usage',
] as const;

const needFence = new Set(['prune', 'delete objects', 'compare bucket']);
const waitsForBeat = new Set<string | null>(['starting', 'stale']);

const urn = Object.entries(jobTable).flatMap(([name, { weight }]) => Array<string>(weight).fill(name));

/** One of a worker's two places for jobs, until the worker is killed. */
export async function runWorker(world: World, worker: Machine): Promise<void> {
  for (;;) {
    await world.scheduler.sleep('idle', world.random.below(60));
    const name = world.random.pick(urn);
    // While a beat is all that deleting waits for it is mostly not tried, so that there is time for what can be done.
    const { reason } = worker.fence!.state();
    if (needFence.has(name) && waitsForBeat.has(reason) && world.random.chance(0.8)) continue;
    await runJob(world, worker, name);
  }
}

/** A job, once; what it may throw is what its schedule repeats it for. */
export async function runJob(world: World, { storage, fence }: Machine, name: string): Promise<boolean> {
  try {
    await world.operation(name, () => jobTable[name]!.work(world, storage, fence!));
    world.coverage.ended(name, 'done');
    return true;
  } catch (error) {
    if (error instanceof Violation) throw error;
    const seen = world.classify(error);
    if (!(seen instanceof NetworkError) && !(seen instanceof DeletingStopped))
      throw new Violation(`${name} failed: ${seen.message}`, { cause: error });
    world.coverage.ended(name, seen instanceof DeletingStopped ? seen.reason : 'lost');
    world.scheduler.say(`${name}: ${seen.message}`);
    return false;
  }
}

/** The worker's minute: its fence beats for as long as it lives. */
export async function runBeats(world: World, worker: Machine): Promise<void> {
  for (;;) {
    await world.operation('beat', () => worker.fence!.beat());
    await world.scheduler.sleep(betweenBeats, world.random.below(worker.fence!.state().held ? 600 : 10));
  }
}
