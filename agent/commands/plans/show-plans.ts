/**
 * `plans`: what this device is told to back up, by whom, and when each plan is due next. Asks the server, and shows what it
 * told last where it cannot be asked. Changes nothing: it may be asked while `watch` is at work.
 */
import { existsSync } from 'node:fs';
import type { Command } from 'commander';
import { askPlans } from '../../plans/ask-plans.ts';
import { type KeptPlans, readKeptPlans } from '../../plans/kept-plans.ts';
import { findHere, originInWords, planKey, type ReadPlan, readPlan } from '../../plans/read-plan.ts';
import { type LastRun, nextDue, zoneOfMachine } from '../../plans/schedule.ts';
import { readRegistration } from '../../state/registration.ts';
import { createOutput, exitCodes, type Output, UsageError } from '../output.ts';
import { type CommonOptions, clientOf, explained, homeOf } from '../session.ts';
import { momentInWords } from '../words.ts';

/** A person waits. */
const askForMs = 10_000;

export function addPlans(program: Command): void {
  program
    .command('plans')
    .description("Show what this device's plans say, whose they are, and when each is due.")
    .addHelpText(
      'after',
      `
'backup' and 'watch' without a PATH follow these plans; an administrator makes them.

Example:
  npm run agent -- plans`,
    )
    .action(async (options: CommonOptions) => {
      process.exitCode = await plansCommand(options);
    });
}

async function plansCommand(options: CommonOptions): Promise<number> {
  const output = createOutput({ json: options.json ?? false });
  const home = homeOf(options);
  const registration = readRegistration(home);
  if (!registration) throw new UsageError(`this machine is not registered with a server (looked in ${home})`);
  const client = clientOf(registration, output, { retry: { giveUpAfterMs: askForMs } });
  try {
    const now = Date.now();
    const { kept, away } = await askPlans(client, readKeptPlans(home, registration), now);
    if (away) output.note(`The server cannot be asked: ${away.message}`);
    const since = away
      ? `as the server told them last, ${momentInWords(kept.askedAtMs)}`
      : 'as the server tells them now';
    output.say(kept.plans.length === 0 ? 'This device has no plan.' : `Plans, ${since}:`);
    const here = findHere();
    for (const plan of kept.plans) show(output, readPlan(plan, here), kept.runs.get(planKey(plan)) ?? null, now);
    output.emit('end', { plans: kept.plans.length, askedAt: kept.askedAtMs, fromServer: away === null });
    return exitCodes.ok;
  } catch (error) {
    throw explained(error, registration);
  } finally {
    client.destroy();
  }
}

function show(output: Output, read: ReadPlan, last: LastRun | null, now: number): void {
  const { plan, folders, elsewhere, faults } = read;
  const due = nextDue(plan, last, now, zoneOfMachine);
  const there = (folder: string): boolean => existsSync(folder);
  const missing = [...folders.filter((folder) => !there(folder)), ...elsewhere];
  const present = folders.filter(there);
  output.say(`${plan.name}: ${originInWords(plan)}, ${scheduleInWords(plan)}`);
  output.say(`  folders   ${present.join(', ') || 'none that is here'}`);
  if (missing.length > 0) output.say(`  not here  ${missing.join(', ')}`);
  if (plan.exclude.length > 0) output.say(`  left out  ${plan.exclude.join(', ')}`);
  output.say(`  begun     ${last === null ? 'never' : momentInWords(last.startedAtMs)}`);
  output.say(`  due       ${dueInWords(due, now)}`);
  for (const fault of faults) output.say(`  CANNOT BE FOLLOWED: ${fault}`);
  output.emit('plan', {
    ...plan,
    folders: present,
    missing,
    faults,
    lastRun: last === null ? null : { startedAt: last.startedAtMs, ended: last.ended },
    nextDue: due,
  });
}

function dueInWords(due: number | null, now: number): string {
  if (due === null) return 'never: its windows do not open';
  return due <= now ? 'now' : momentInWords(due);
}

const dayNames = ['Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat', 'Sun'];
const clock = (minute: number): string =>
  `${String(Math.floor(minute / 60)).padStart(2, '0')}:${String(minute % 60).padStart(2, '0')}`;

function scheduleInWords({ everyMinutes, windows }: ReadPlan['plan']): string {
  const words = windows.map(({ days, fromMinute, untilMinute }) => {
    const names = days.length === 7 ? 'daily' : days.toSorted((a, b) => a - b).map((day) => dayNames[day - 1]);
    return `${Array.isArray(names) ? names.join(' ') : names} ${clock(fromMinute)}-${clock(untilMinute)}`;
  });
  return `every ${everyMinutes} min${words.length > 0 ? `, within ${words.join(', ')}` : ''}`;
}

/** A line for `status`, from what is kept here; null when the server never told a plan. */
export function plansInALine(kept: KeptPlans | null, now: number): string | null {
  if (kept === null || kept.plans.length === 0) return null;
  const each = kept.plans.map((plan) => {
    const due = nextDue(plan, kept.runs.get(planKey(plan)) ?? null, now, zoneOfMachine);
    return `${plan.name} (due ${dueInWords(due, now)})`;
  });
  return `Plans, as told ${momentInWords(kept.askedAtMs)}: ${each.join(', ')}`;
}
