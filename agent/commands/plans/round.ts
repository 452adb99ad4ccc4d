/**
 * A round: the plans whose turn it is, one after the other, in the order in which the server told them (the device's own first,
 * then those of the nearest organization, each by name). What must stay true:
 * - a folder that two of them name is gone through once, and a path in it is left out only if both leave it out;
 * - what is below a folder of any plan is recorded as deleted by that plan's run only: another's, whose folder lies above it,
 *   backs it up and leaves the deletions to it;
 * - a folder that is not on this device deletes nothing, and a plan that cannot be read runs not at all.
 */
import { lstat, realpath } from 'node:fs/promises';
import { limits } from '../../../protocol/limits.ts';
import type { PlanMessage } from '../../../protocol/messages.ts';
import { Problem } from '../../../protocol/problems.ts';
import { newProgress, runCounts } from '../../backup/progress.ts';
import { resolveArchivePath } from '../../files/roots.ts';
import { type Covering, combineExcludes } from '../../plans/combine-excludes.ts';
import { type KeptPlans, missingFolder, writeKeptPlans } from '../../plans/kept-plans.ts';
import { type Here, isForMany, originInWords, planKey, type ReadPlan, readPlan } from '../../plans/read-plan.ts';
import { type BackupRules, type BackupWorld, excludesFor, runBackup } from '../backup-run.ts';

export interface RoundOptions {
  signal: AbortSignal;
  here: Here;
  /** Milliseconds since the epoch. */
  now: () => number;
  quiet?: boolean;
  /** Told of an error that ended a plan's run; the next plan goes on unless it throws. */
  onError: (error: Error, plan: PlanMessage) => void;
}

/** `nothing`: none of its folders is on this device, which is all right for a plan that was written for many. */
export type PlanOutcome = 'completed' | 'failed' | 'interrupted' | 'nothing';

export interface PlanResult {
  plan: PlanMessage;
  outcome: PlanOutcome;
  filesSkipped: number;
}

/** A plan whose turn it is, and what of it is there. */
interface Turn extends ReadPlan, Covering {
  /** Folders that its run goes through, with their archive paths (latin1). */
  present: { folder: string; key: string }[];
  missing: string[];
}

/**
 * Runs the plans of `kept` whose key is in `keys`, and remembers in `kept`, and on disk, that they were.
 * @throws what `onError` throws
 */
export async function runRound(
  world: BackupWorld,
  kept: KeptPlans,
  keys: ReadonlySet<string>,
  rules: BackupRules,
  options: RoundOptions,
): Promise<PlanResult[]> {
  const turns: Turn[] = [];
  const named: Buffer[] = [];
  let isAnyHere = false;
  const places = new Map(kept.places);
  kept.places.clear(); // of folders that no plan names any more nothing is kept
  for (const plan of kept.plans) {
    const turn = await lookAt(world, readPlan(plan, options.here), rules, { before: places, now: kept.places });
    named.push(...turn.named);
    if (turn.present.length > 0 && turn.faults.length === 0) isAnyHere = true;
    if (keys.has(planKey(plan))) turns.push(turn);
  }
  tellMissing(world, kept, turns);

  const results: PlanResult[] = [];
  /** Folders that a run of this round went through whole. */
  const done = new Set<string>();
  for (const turn of turns) {
    if (options.signal.aborted) break;
    const key = planKey(turn.plan);
    const startedAtMs = options.now();
    const note = (ended: boolean): void => {
      kept.runs.set(key, { startedAtMs, ended });
      writeKeptPlans(world.home, world.registration, kept);
    };
    note(false);
    try {
      const others = turns.filter((other) => other !== turn && other.faults.length === 0);
      const result = await runTurn(world, turn, { others, named, done, rules, round: options });
      if (result.outcome === 'nothing' && !isAnyHere) await tellNothing(world, kept, turn);
      results.push(result);
      if (result.outcome !== 'interrupted') note(true);
    } catch (error) {
      if (options.signal.aborted) {
        results.push({ plan: turn.plan, outcome: 'interrupted', filesSkipped: 0 });
        break;
      }
      results.push({ plan: turn.plan, outcome: 'failed', filesSkipped: 0 });
      options.onError(error as Error, turn.plan);
    }
  }
  return results;
}

/** What of a plan is there. `named`: all its folders that can be read, there or not. */
async function lookAt(
  world: BackupWorld,
  read: ReadPlan,
  rules: BackupRules,
  places: { before: ReadonlyMap<string, string>; now: Map<string, string> },
): Promise<Turn & { named: Buffer[] }> {
  const present: Turn['present'] = [];
  const missing: string[] = [];
  const named: Buffer[] = [];
  const roots: Buffer[] = [];
  for (const folder of read.folders) {
    const path = await resolveArchivePath(folder).catch(() => null); // one that no archive holds fails by name in its run
    const before = places.before.get(folder);
    const place = (await isReached(folder)) ? path?.toString('latin1') : before;
    if (place !== undefined) {
      places.now.set(folder, place);
      named.push(Buffer.from(place, 'latin1'));
    }
    if (path !== null) named.push(path);
    if (isForMany(read.plan) && (await isMissing(folder))) missing.push(folder);
    else {
      present.push({ folder, key: path?.toString('latin1') ?? folder });
      if (path !== null) roots.push(path);
    }
  }
  const excludes =
    read.faults.length > 0
      ? { match: () => null, cacheTags: false }
      : excludesFor({ ...rules, exclude: [...read.plan.exclude, ...rules.exclude] }, world.home);
  return { ...read, present, missing: [...missing, ...read.elsewhere], roots, excludes, named };
}

/** It is there, and so is all that its path leads over. */
function isReached(folder: string): Promise<boolean> {
  return realpath(folder).then(
    () => true,
    () => false,
  );
}

function isMissing(folder: string): Promise<boolean> {
  return lstat(folder).then(
    () => false,
    ({ code }: NodeJS.ErrnoException) => code === 'ENOENT' || code === 'ENOTDIR',
  );
}

async function runTurn(
  world: BackupWorld,
  turn: Turn,
  {
    others,
    named,
    done,
    rules,
    round,
  }: { others: Turn[]; named: Buffer[]; done: Set<string>; rules: BackupRules; round: RoundOptions },
): Promise<PlanResult> {
  const { plan, faults, present } = turn;
  const { output } = world;
  const as = (outcome: PlanOutcome, filesSkipped = 0): PlanResult => ({ plan, outcome, filesSkipped });
  if (faults.length > 0) {
    await failUnreadable(world, turn);
    return as('failed');
  }
  if (present.length === 0) {
    output.note(`Plan ${plan.name}: none of its folders is on this device.`);
    return as('nothing');
  }
  const left = present.filter(({ key }) => !done.has(key));
  if (left.length === 0) {
    output.note(`Plan ${plan.name}: its folders were backed up just now, with another plan's.`);
    return as('completed');
  }
  output.note(`Plan ${plan.name} (${originInWords(plan)}):`);
  const result = await runBackup(
    world,
    left.map(({ folder }) => folder),
    rules,
    {
      signal: round.signal,
      quiet: round.quiet,
      plan: { name: plan.name, excludes: combineExcludes(turn, others), untouched: named },
    },
  );
  if (result.outcome === 'completed') for (const { key } of left) done.add(key);
  return as(result.outcome, result.counts.filesSkipped);
}

/** Tells of folders that are not here: of each once, and again when it was back in between. */
function tellMissing({ output }: BackupWorld, kept: KeptPlans, turns: readonly Turn[]): void {
  for (const { plan, present, missing } of turns) {
    for (const { folder } of present) kept.told.delete(missingFolder(plan, folder));
    if (present.length > 0) kept.told.delete(missingFolder(plan, nothingHere));
    for (const folder of missing) {
      if (kept.told.has(missingFolder(plan, folder))) continue;
      kept.told.add(missingFolder(plan, folder));
      output.note(
        `Plan ${plan.name} names ${folder}, which is not on this device. What the archive holds of it stays as it is. (Told once.)`,
      );
      output.emit('plan_folder_missing', { plan: plan.name, folder });
    }
  }
}

/** Nothing of the plan is run. The person here is told, and the server: whoever wrote it looks there. */
async function failUnreadable(world: BackupWorld, { plan, faults }: Turn): Promise<void> {
  const { output } = world;
  const reason = `the plan ${plan.name} cannot be followed: ${faults.join('; ')}`.slice(0, limits.textMax);
  output.note(`Nothing was backed up: ${reason}`);
  output.emit('plan_unreadable', { plan: plan.name, faults });
  await tellFailed(world, reason);
}

/**
 * A device of which no plan finds anything backs up nothing, and looks as if it had nothing to do: the server is told once,
 * as of a run that failed, and again when something was there in between.
 */
async function tellNothing(world: BackupWorld, kept: KeptPlans, { plan, missing }: Turn): Promise<void> {
  if (kept.told.has(missingFolder(plan, nothingHere))) return;
  const reason = `none of the folders of the plan ${plan.name}, nor of any other, is on this device: ${missing.join(', ')}`;
  await tellFailed(world, reason.slice(0, limits.textMax));
  kept.told.add(missingFolder(plan, nothingHere));
}

/** In the place of a folder. */
const nothingHere = '';

/** A run that failed before it began. */
async function tellFailed({ client, cache, registration }: BackupWorld, reason: string): Promise<void> {
  const generation = cache.beginRun([], Date.now());
  const counts = newProgress().counts;
  cache.endRun(generation, { now: Date.now(), outcome: 'failed', reason, counts });
  const { archive } = registration;
  const { lastCommit } = cache.archiveMark();
  const begin = (known: typeof lastCommit) => client.startRun(archive, { lastCommit: known, roots: [] });
  const { run } = await begin(lastCommit).catch((error: unknown) => {
    // Which run there is to end is all that is asked; the next one compares.
    if (!(error instanceof Problem && error.code === 'archive_rolled_back')) throw error;
    return begin(null);
  });
  await client.finishRun(archive, run, { outcome: 'failed', reason, counts: runCounts(counts), skipped: [] });
}
