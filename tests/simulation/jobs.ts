/** What workers run, picked at random again and again, two at a time in each worker; and what an operator does. */
import { Problem } from '../../protocol/problems.ts';
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
import { reviewAlert } from '../../storage/archive/retention/review-alert.ts';
import { abandonStaleRuns } from '../../storage/archive/writing/runs.ts';
import { listAlerts } from '../../storage/catalog/checking/alerts.ts';
import { statement } from '../../storage/catalog/database.ts';
import type { Storage } from '../../storage/storage.ts';
import { Violation } from './check.ts';
import { day, minute } from './settings.ts';
import { type Machine, NetworkError, type World } from './world.ts';

const pruneDeps = (world: World, fence: Fence): PruneDeps => ({
  readPolicy: async (_, ref) => world.policyOf(ref.archive),
  assertMayDelete: () => fence.assertHeld(),
  assertStillHeld: (now) => fence.assertStillHeld(now),
});

type Job = (world: World, storage: Storage, fence: Fence) => Promise<unknown>;

/** Name, how often it is picked, and the work. The names are those of the coverage table. */
const jobTable: Record<string, { weight: number; work: Job }> = {
  'apply policies': { weight: 1, work: (world, storage, fence) => applyPolicies(storage, pruneDeps(world, fence)) },
  prune: { weight: 4, work: (world, storage, fence) => pruneDue(storage, pruneDeps(world, fence)) },
  reclaim: { weight: 4, work: (_, storage) => reclaimDue(storage) },
  settle: { weight: 2, work: (_, storage) => settleDue(storage) },
  compact: { weight: 3, work: (_, storage) => compactDue(storage) },
  'delete objects': { weight: 3, work: (_, storage, fence) => deleteDeadObjects(storage, fence) },
  verify: {
    weight: 6,
    work: (world, storage, fence) =>
      verifyDue(storage, fence, {
        bytesPerSecond: 1e9,
        everyMs: 2 * minute,
        random: world.random.next,
        clock: { nowMs: () => world.trueMs, sleep: () => world.scheduler.gate('pace') },
      }),
  },
  'find damage': { weight: 1, work: (_, storage) => findDamageUsers(storage) },
  'compare bucket': { weight: 3, work: (_, storage, fence) => compareBucket(storage, fence, { pageMax: 5 }) },
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

const urn = Object.entries(jobTable).flatMap(([name, { weight }]) => Array<string>(weight).fill(name));

/** One of a worker's two places for jobs, until the worker is killed. */
export async function runWorker(world: World, worker: Machine): Promise<void> {
  for (;;) {
    for (let wait = world.random.below(25); wait >= 0; wait--) await world.scheduler.gate('idle');
    await runJob(world, worker, world.random.pick(urn));
  }
}

/** A job, once; what it may throw is what its schedule repeats it for. */
export async function runJob(world: World, { storage, fence }: Machine, name: string): Promise<boolean> {
  try {
    await world.operation(name, () => jobTable[name]!.work(world, storage, fence!));
    return true;
  } catch (error) {
    if (error instanceof Violation) throw error;
    const seen = world.classify(error);
    if (!(seen instanceof NetworkError) && !(seen instanceof DeletingStopped))
      throw new Violation(`${name} failed: ${seen.message}`, { cause: error });
    world.scheduler.say(`${name}: ${seen.message}`);
    return false;
  }
}

/** The worker's minute: its fence beats for as long as it lives. */
export async function runBeats(world: World, worker: Machine): Promise<void> {
  for (;;) {
    await world.scheduler.gate('between beats');
    await world.operation('beat', () => worker.fence!.beat());
    for (let wait = 1 + world.random.below(4); wait > 0; wait--) await world.scheduler.gate('between beats');
  }
}

const operatorSql = {
  lockVault: statement('simulation.lockVault', 'UPDATE vaults SET hold_epoch = hold_epoch + 1 WHERE vault_id = $1'),
  placeHold: statement('simulation.placeHold', 'INSERT INTO holds (vault_id, policy) VALUES ($1, $2)'),
  releaseHolds: statement(
    'simulation.releaseHolds',
    `UPDATE holds SET release_effective_at = now() + $2 * interval '1 ms' WHERE vault_id = $1 AND release_effective_at IS NULL`,
  ),
};

/**
 * Legal holds as the product will place them: first the vault's row, then whatever else belongs to a hold, then the hold.
 * @param meanwhile what happens between the two
 */
export function placeHold(
  storage: Storage,
  vault: number,
  policy: object,
  meanwhile: () => Promise<void> = async () => {},
): Promise<void> {
  return storage.database.transaction(async (tx) => {
    await tx.query(operatorSql.lockVault, [vault]);
    await meanwhile();
    await tx.query(operatorSql.placeHold, [vault, JSON.stringify(policy)]);
  });
}

export function releaseHolds(storage: Storage, vault: number, delayMs: number): Promise<void> {
  return storage.database.transaction(async (tx) => {
    await tx.query(operatorSql.lockVault, [vault]);
    await tx.query(operatorSql.releaseHolds, [vault, delayMs]);
  });
}

/** An administrator looks at every open alert of a vault, and lets what it stopped go on. @returns how many */
export async function reviewAlerts(storage: Storage, vault: number): Promise<number> {
  const open = await listAlerts(storage.database, vault, { reviewed: false, limit: 100 });
  for (const { alert } of open) await reviewAlert(storage, { vault, alert, by: 'simulation' });
  // Damage is told for as long as it is there, and agents heal it, not reviews.
  return open.filter(({ kind }) => kind !== 'damaged').length;
}

/** What a deleter of versions does first in its transaction. */
const deleterBegins = 'vaults.lock';

/**
 * Places and releases holds, edits policies and looks at alerts, for ever. What an operator says matters most to a
 * deleter that has begun and not yet locked the vault: a hold is then often placed, to be met there or waited for.
 */
export async function runOperator(world: World): Promise<void> {
  const { random, scheduler } = world;
  const isDeleterAtTheDoor = (): boolean => scheduler.parked.some(({ label }) => label === deleterBegins);
  for (;;) {
    const isDue = (wait: number): boolean => wait <= 0 || (isDeleterAtTheDoor() && random.chance(0.7));
    for (let wait = 10 + random.below(60); !isDue(wait); wait--) await scheduler.gate('operator');
    const { vault, archive } = random.pick(world.devices);
    const dice = isDeleterAtTheDoor() ? 0.4 : random.next();
    try {
      if (dice < 0.2) await world.request('review', (storage) => reviewAlerts(storage, vault));
      else if (dice < 0.45) {
        const policy = random.pick([
          {},
          {},
          { paths: ['/folder1'] },
          { until: new Date(world.databaseMs).toISOString() },
        ]);
        const gates = random.below(12);
        const meanwhile = async (): Promise<void> => {
          for (let i = 0; i < gates; i++) await scheduler.gate('placing a hold');
        };
        await world.request('hold', (storage) => placeHold(storage, vault, policy, meanwhile));
      } else if (dice < 0.85) {
        await world.request('hold', (storage) => releaseHolds(storage, vault, random.pick([0, 0, 30_000])));
      } else world.setPolicy(archive, world.somePolicy());
    } catch (error) {
      if (!(error instanceof NetworkError) && !(error instanceof Problem)) throw error;
    }
  }
}
