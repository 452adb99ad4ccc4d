/** `runs`: the backups of an archive that the server remembers, to find the moment before one of them. */
import type { Command } from 'commander';
import { limits } from '../../protocol/limits.ts';
import type { RunEntry } from '../../protocol/messages.ts';
import { type ReadingOptions, type ReadingWorld, withArchive, withDeviceOption } from './archive.ts';
import { type Output, UsageError } from './output.ts';
import { bytesInWords, countInWords, momentInWords } from './words.ts';

interface RunsOptions extends ReadingOptions {
  all?: boolean;
}

/** Without --all as many are shown. */
const shownRuns = 50;

export function addRuns(program: Command): void {
  withDeviceOption(program.command('runs'))
    .description(
      'List the backup runs of the archive, newest first. SUSPICIOUS: it changed an unusual share of the files.',
    )
    .option('--all', `all of them, not only the last ${shownRuns}`)
    .addHelpText(
      'after',
      `
Examples:
  npm run agent -- runs
  npm run agent -- restore ~/Documents --to /tmp/back --before-run 1234`,
    )
    .action(async (options: RunsOptions) => {
      process.exitCode = await withArchive(options, (world) => listRuns(world, options));
    });
}

async function listRuns(world: ReadingWorld, options: RunsOptions): Promise<number> {
  let shown = 0;
  for await (const run of runsOf(world, options.all ? limits.pageEntriesMax : shownRuns)) {
    if (!options.all && ++shown > shownRuns) break;
    tell(world.output, run);
  }
  return 0;
}

/** All runs, newest first, page by page. */
async function* runsOf({ client, archive }: ReadingWorld, limit: number): AsyncGenerator<RunEntry> {
  for (let before: number | undefined; ; ) {
    const page = await client.runs(archive, { before, limit });
    yield* page.runs;
    before = page.runs.at(-1)?.run;
    if (!page.more || before === undefined) return;
  }
}

function tell(output: Output, run: RunEntry): void {
  const { counts } = run;
  const did = counts
    ? `${countInWords(counts.filesChanged)} changed, ${countInWords(counts.filesDeleted)} deleted, ${bytesInWords(counts.bytesSent)} sent`
    : '';
  const words = [
    `#${run.run}`.padEnd(10),
    momentInWords(run.startedAt),
    (run.outcome ?? 'running').padEnd(11),
    did,
    run.suspicious ? 'SUSPICIOUS' : '',
    run.reason ? `(${run.reason})` : '',
  ];
  output.say(words.filter((word) => word !== '').join('  '));
  output.emit('run', run);
}

/**
 * The archive's newest seq just before a run began.
 * @throws UsageError when the archive has no such run
 */
export async function seqBeforeRun({ client, archive }: ReadingWorld, run: number): Promise<number> {
  // The run itself is the first of the page that ends behind it.
  const { runs } = await client.runs(archive, { before: run + 1, limit: 1 });
  if (runs[0]?.run === run) return runs[0].beforeSeq;
  throw new UsageError(`this archive has no run ${run}; npm run agent -- runs lists them`);
}
