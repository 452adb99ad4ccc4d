/** `verify` and `recount`: what the jobs do bit by bit, at once and to the end, for an operator who wants to know now. */
import { parseArgs } from 'node:util';
import { fenceDefaults, openFence } from '../../storage/archive/checking/fence.ts';
import { recountDue } from '../../storage/archive/checking/recount.ts';
import { verifyDue } from '../../storage/archive/checking/verify.ts';
import { readCoverage, vaultsAfter } from '../../storage/catalog/checking/checking.ts';
import { abortOnInterrupt, withStorage } from './with-storage.ts';

export const verifyHelp = `usage: node server/main.ts verify [--older-than-hours N] [--rate BYTES] [--json]

Reads every object that was not read whole in the last N hours (0: every one, the default) and marks blocks whose bytes
are not theirs; the next backups send them again. --rate: bytes a second (default 50000000). Prints how much has been
verified and how long ago. Interrupted, it goes on where it was when N is not 0.
Exit codes: 0 all bytes are theirs, 1 damage was found or something could not be read, 2 wrong usage.`;

export const recountHelp = `usage: node server/main.ts recount [--lower] [--json]

Counts references anew in every vault. Counts that are too low are raised at once; those that are too high cost space
only, and are lowered with --lower. Either is a bug: please report it. Exit codes: 0 all counts were right, 1 some were
not, 2 wrong usage.`;

/** @returns the exit code */
export async function verifyCommand(args: string[], say: (line: string) => void): Promise<number> {
  let given: { 'older-than-hours'?: string; rate?: string; json?: boolean; help?: boolean };
  try {
    const flag = { type: 'boolean' } as const;
    const text = { type: 'string' } as const;
    given = parseArgs({ args, options: { 'older-than-hours': text, rate: text, json: flag, help: flag } }).values;
  } catch (error) {
    return wrongUsage(say, (error as Error).message, verifyHelp);
  }
  if (given.help) return help(say, verifyHelp);
  const hours = Number(given['older-than-hours'] ?? 0);
  const bytesPerSecond = Number(given.rate ?? 50_000_000);
  if (!(hours >= 0 && hours <= 1e6)) return wrongUsage(say, '--older-than-hours is a number of hours', verifyHelp);
  if (!(bytesPerSecond >= 1)) return wrongUsage(say, '--rate is a number of bytes', verifyHelp);

  const report = await withStorage(async (storage) => {
    const fence = openFence(storage, fenceDefaults);
    const signal = abortOnInterrupt();
    const passMs = Number.MAX_SAFE_INTEGER;
    const done = await verifyDue(storage, fence, { bytesPerSecond, everyMs: hours * 3_600_000, signal, passMs });
    const coverage = {
      objects: 0,
      bytes: 0,
      neverVerified: 0,
      neverVerifiedBytes: 0,
      oldestVerifiedAt: null as Date | null,
    };
    for (let after = 0; ; ) {
      const page = await vaultsAfter(storage.database, after, 100);
      for (const vault of page) {
        const of = await readCoverage(storage.database, vault);
        coverage.objects += of.verified;
        coverage.bytes += of.verifiedBytes;
        coverage.neverVerified += of.neverVerified;
        coverage.neverVerifiedBytes += of.neverVerifiedBytes;
        if (of.oldestVerifiedAt && !(coverage.oldestVerifiedAt && coverage.oldestVerifiedAt < of.oldestVerifiedAt))
          coverage.oldestVerifiedAt = of.oldestVerifiedAt;
      }
      if (page.length < 100) return { ...done, coverage };
      after = page.at(-1)!;
    }
  });
  const { coverage, ...done } = report;
  if (given.json) say(JSON.stringify(report));
  else {
    say(
      `read ${done.objects} objects, ${done.bytes} bytes: ${done.damagedBlocks} blocks and ${done.damagedFooters} footers damaged, ${done.unreadable} objects could not be read`,
    );
    if (done.stopped > 0)
      say('stopped: so much looks damaged that it may be something else, so nothing of it was marked; see the alert');
    const oldest = coverage.oldestVerifiedAt?.toISOString() ?? 'never';
    say(
      `verified so far: ${coverage.objects} objects, the longest ago ${oldest}; never verified: ${coverage.neverVerified}`,
    );
  }
  return done.damagedBlocks + done.damagedFooters + done.unreadable + done.stopped === 0 ? 0 : 1;
}

/** @returns the exit code */
export async function recountCommand(args: string[], say: (line: string) => void): Promise<number> {
  let given: { lower?: boolean; json?: boolean; help?: boolean };
  try {
    const flag = { type: 'boolean' } as const;
    given = parseArgs({ args, options: { lower: flag, json: flag, help: flag } }).values;
  } catch (error) {
    return wrongUsage(say, (error as Error).message, recountHelp);
  }
  if (given.help) return help(say, recountHelp);
  const lower = given.lower ?? false;
  const done = await withStorage((storage) => recountDue(storage, { lower, signal: abortOnInterrupt() }));
  const drifts = done.tooLow + done.tooHigh + done.absent + done.liveBytes;
  if (given.json) say(JSON.stringify(done));
  else if (drifts === 0) say(`${done.vaults} vaults: every count is right`);
  else {
    say(
      `${done.vaults} vaults: ${done.tooLow} counts too low, ${done.tooHigh} too high, ${done.absent} names without a row, ${done.liveBytes} objects with wrong live bytes`,
    );
    say(`${done.raised} raised, ${done.lowered} lowered. This is a bug of the server: please report it`);
  }
  return drifts === 0 ? 0 : 1;
}

function wrongUsage(say: (line: string) => void, why: string, text: string): number {
  say(`${why}\n\n${text}`);
  return 2;
}

function help(say: (line: string) => void, text: string): number {
  say(text);
  return 0;
}
