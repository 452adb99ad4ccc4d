/** What the commands that write files have in common: how they are told to, and how they say what came of it. */
import { type Command, Option } from 'commander';
import type { ExistingPolicy, RestoreProblem, RestoreReport } from '../restore/types.ts';
import type { Output } from './output.ts';
import { bytesInWords, countInWords, durationInWords, pathInWords } from './words.ts';

export interface WritingOptions {
  existing: ExistingPolicy;
  owner?: boolean;
  trustTimes?: boolean;
  fsync?: boolean;
}

/** Files named in the report of each kind. */
export const shownMax = 20;

export function withWritingOptions(command: Command): Command {
  return command
    .addOption(
      new Option(
        '--existing <what>',
        'a different file that is there already: rename it, overwrite it, keep it, or fail',
      )
        .choices(['rename', 'overwrite', 'keep', 'fail'])
        .default('rename'),
    )
    .option('--owner', 'give files back to their owners (as root)')
    .option('--trust-times', 'take a file of the same size and time for identical without reading it')
    .option('--fsync', 'flush every file to the disk');
}

export interface ReportOptions {
  to: string;
  /** The moment, in words. */
  asOf: string;
  /** What scripts are told beside it. */
  fields?: object;
}

export function reportRestore(output: Output, result: RestoreReport, elapsedMs: number, options: ReportOptions): void {
  const { counts } = result;
  const n = countInWords;
  const isThinned = ({ reason }: RestoreProblem): number => Number(reason === 'version_thinned');
  const problems = result.problems.toSorted((a, b) => isThinned(a) - isThinned(b));
  const rate = bytesInWords((counts.bytesRestored * 1000) / Math.max(1, elapsedMs));
  output.say(
    `Restore ${result.complete ? 'complete' : 'INCOMPLETE'} in ${durationInWords(elapsedMs)}: ${options.to}, as of ${options.asOf}.`,
  );
  output.say(
    `  files  ${n(counts.filesRestored)} restored, ${n(counts.filesIdentical)} there already, ${n(counts.filesKept)} kept, ${n(counts.problems)} left out`,
  );
  output.say(
    `         ${n(counts.folders)} folders, ${n(counts.symlinks)} symlinks, ${n(counts.hardLinks)} hard links`,
  );
  output.say(
    `  bytes  ${bytesInWords(counts.bytesRestored)} restored (${rate}/s), ${bytesInWords(counts.bytesFetched)} fetched, ${bytesInWords(counts.bytesResumed)} from an earlier try`,
  );
  for (const [title, events, total] of [
    // What may have been deleted by then comes behind what was there.
    ['LEFT OUT', problems.map((problem) => ({ ...problem, why: problem.reason })), counts.problems],
    ['note', result.notices.map((notice) => ({ ...notice, why: notice.what })), counts.notices],
  ] as const) {
    for (const event of events.slice(0, shownMax))
      output.say(`  ${title}: ${pathInWords(event.path)}: ${event.why}${event.detail ? ` (${event.detail})` : ''}`);
    if (total > shownMax) output.say(`  ... ${n(total - shownMax)} more; --json names all`);
  }
  output.emit('end', {
    outcome: result.complete ? 'completed' : 'incomplete',
    seq: result.seq,
    at: result.at,
    elapsedMs: Math.round(elapsedMs),
    ...counts,
    ...options.fields,
  });
}
