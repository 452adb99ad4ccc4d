/** `restore PATH --to FOLDER`: hands files back, as of a moment. */
import type { Command } from 'commander';
import { restore } from '../restore/restore.ts';
import type { RestoreProgress } from '../restore/types.ts';
import { keyringOf } from '../state/registration.ts';
import { archivePathOf, type ReadingOptions, withArchive, withAtOption, withDeviceOption } from './archive.ts';
import { checked } from './backup.ts';
import { startMeter } from './meter.ts';
import { exitCodes, UsageError } from './output.ts';
import { reportRestore, type WritingOptions, withWritingOptions } from './restore-report.ts';
import { seqBeforeRun } from './runs.ts';
import { withInterrupt } from './session.ts';
import { countInWords, momentInWords, pathForJson } from './words.ts';

interface RestoreCommandOptions extends ReadingOptions, WritingOptions {
  to: string;
  beforeRun?: number;
  deleted?: boolean;
}

/** Fetches run side by side; two connections keep one lost packet from stopping them all. */
const connections = 2;

export function addRestore(program: Command): void {
  const command = withDeviceOption(withAtOption(program.command('restore')))
    .description(
      'Restore a file, or a folder and all below it. Run again after an interruption: it goes on where it was.',
    )
    .argument('<path>', "what to restore; '/' for everything")
    .requiredOption('--to <folder>', "where to; '/a/b' becomes FOLDER/b")
    .option(
      '--before-run <number>',
      "as it was just before one of the backups that 'runs' lists, instead of --at",
      checked(parseRun, 'is not the number of a run'),
    )
    .option('--deleted', 'also what was deleted by then, as it last was');
  withWritingOptions(command)
    .addHelpText(
      'after',
      `
Examples:
  npm run agent -- restore ~/Documents --to /tmp/back
  npm run agent -- restore ~/Documents/letter.odt --to . --at '2026-03-01 14:30'
  npm run agent -- restore ~/Documents --to /tmp/back --before-run 1234
  npm run agent -- restore / --to /mnt/new --device old-laptop --owner`,
    )
    .action(async (path: string, options: RestoreCommandOptions) => {
      process.exitCode = await restoreCommand(path, options);
    });
}

function parseRun(text: string): number | null {
  return /^[1-9]\d{0,14}$/.test(text) ? Number(text) : null;
}

async function restoreCommand(text: string, options: RestoreCommandOptions): Promise<number> {
  if (options.at !== undefined && options.beforeRun !== undefined)
    throw new UsageError('--at and --before-run say two moments; give one of them');
  const path = await archivePathOf(text);
  return withArchive(
    options,
    async (world) => {
      const { client, registration, output, archive } = world;
      const seq = options.beforeRun === undefined ? undefined : await seqBeforeRun(world, options.beforeRun);
      let progress: RestoreProgress | null = null;
      const startedAt = performance.now();
      const stopMeter = startMeter(output, () => ({
        doneBytes: progress?.bytesDone ?? 0,
        totalBytes: progress?.seenAll ? progress.bytesSeen : null,
        words: progress
          ? `${countInWords(progress.filesDone)} of ${countInWords(progress.filesSeen)}${progress.seenAll ? '' : '+'} files`
          : 'asking the server',
        fields: { ...progress },
      }));
      let interrupted = false;
      try {
        const result = await withInterrupt(output, async (signal) => {
          signal.addEventListener('abort', () => {
            interrupted = true;
          });
          return restore({
            client,
            keys: keyringOf(registration),
            archive,
            vault: registration.vault,
            path,
            to: options.to,
            at: options.at,
            seq,
            deleted: options.deleted,
            existing: options.existing,
            owner: options.owner,
            trustTimes: options.trustTimes,
            fsync: options.fsync,
            signal,
            onProgress: (now) => {
              progress = now;
            },
            onEvent: (event) => {
              const { type, path: at, ...fields } = event;
              output.emit(type, { ...pathForJson(at), ...fields });
            },
          });
        });
        stopMeter();
        const asOf =
          options.beforeRun === undefined ? momentInWords(result.at) : `just before run ${options.beforeRun}`;
        reportRestore(output, result, performance.now() - startedAt, { to: options.to, asOf });
        return result.complete ? exitCodes.ok : exitCodes.incomplete;
      } catch (error) {
        if (!interrupted) throw error;
        output.note('Interrupted. Run the same command again to go on.');
        output.emit('end', { outcome: 'interrupted' });
        return exitCodes.interrupted;
      } finally {
        stopMeter();
      }
    },
    connections,
  );
}
