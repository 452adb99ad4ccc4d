/** `backup` and `watch` without paths: what this device's plans say, in place of a command line. */
import { askPlans, isWithoutPlans } from '../../plans/ask-plans.ts';
import { readKeptPlans, writeKeptPlans } from '../../plans/kept-plans.ts';
import { findHere, planKey } from '../../plans/read-plan.ts';
import { zoneOfMachine } from '../../plans/schedule.ts';
import type { BackupRules, BackupWorld } from '../backup-run.ts';
import { KeysRaised } from '../keys/kept-keys.ts';
import { exitCodes, UsageError } from '../output.ts';
import { explained } from '../session.ts';
import { type PlanResult, runRound } from './round.ts';
import { machineClock, type WatchPlansOptions, watchPlans } from './watch-plans.ts';

/**
 * Runs every plan once, whenever it would be due.
 * @returns the exit code
 * @throws UsageError when there is no plan; what kept the server from being asked
 */
export async function backUpPlans(
  world: BackupWorld,
  rules: BackupRules & { strict?: boolean },
  signal: AbortSignal,
): Promise<number> {
  const { client, home, registration, output } = world;
  const asked = askPlans(client, readKeptPlans(home, registration), Date.now());
  const { kept, away } = await asked.catch((error: unknown) => {
    throw isWithoutPlans(error) ? noPlans('knows no plans') : error;
  });
  if (away) output.note(`The server was not asked for the plans: ${away.message}. Following those it told last.`);
  writeKeptPlans(home, registration, kept);
  if (kept.plans.length === 0) throw noPlans('gives this device none');
  const results = await runRound(world, kept, new Set(kept.plans.map(planKey)), rules, {
    signal,
    here: findHere(),
    now: Date.now,
    onError: (error, plan) => {
      throwIfForPeople(world, error);
      output.note(`Plan ${plan.name} failed: ${error.message}`);
      output.emit('plan_failed', { plan: plan.name, message: error.message });
    },
  });
  return exitCodeOf(world, results, rules.strict ?? false);
}

/** Follows the plans until the signal. @throws KeysRaised, and what else needs a person */
export async function followPlans(world: BackupWorld, rules: BackupRules, signal: AbortSignal): Promise<void> {
  await watchPlans(world, rules, {
    signal,
    clock: machineClock(zoneOfMachine),
    here: () => findHere(),
    ...watchErrors(world),
  });
}

/** What becomes of errors while plans are followed: what needs a person ends it, all else is told. */
export function watchErrors(
  world: Pick<BackupWorld, 'output' | 'registration'>,
): Pick<WatchPlansOptions, 'onAskError' | 'onRunError'> {
  const { output } = world;
  const onRunError = (error: Error): void => {
    throwIfForPeople(world, error);
    output.note(`This pass failed: ${error.message}`);
    output.emit('pass_failed', { message: error.message });
  };
  return {
    onRunError,
    onAskError: (error) => {
      if (isWithoutPlans(error)) throw noPlans('knows no plans');
      onRunError(error);
    },
  };
}

/** Trying again does not help: somebody has to do something here. */
function throwIfForPeople({ registration }: Pick<BackupWorld, 'registration'>, error: Error): void {
  const told = explained(error, registration);
  if (told !== error || error instanceof KeysRaised) throw told;
}

function noPlans(why: string): UsageError {
  return new UsageError(
    `No PATH was named, and the server ${why}. Name what to back up, or have an administrator make a plan.`,
  );
}

function exitCodeOf({ output }: BackupWorld, results: readonly PlanResult[], strict: boolean): number {
  const has = (wanted: PlanResult['outcome']): boolean => results.some(({ outcome }) => outcome === wanted);
  if (has('interrupted') || results.length === 0) return exitCodes.interrupted;
  if (has('failed')) return exitCodes.failed;
  if (!has('completed')) {
    output.note('Nothing was backed up: none of the folders of the plans is on this device.');
    return exitCodes.failed;
  }
  return strict && results.some(({ filesSkipped }) => filesSkipped > 0) ? exitCodes.incomplete : exitCodes.ok;
}
