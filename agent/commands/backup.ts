/** `backup [PATH...]` and the options it shares with `watch`. */
import { type Command, InvalidArgumentError } from 'commander';
import { lockHome } from '../state/lock.ts';
import { type BackupRules, runBackup } from './backup-run.ts';
import { createOutput, exitCodes } from './output.ts';
import { parseRate, parseShare } from './parse.ts';
import { backUpPlans } from './plans/follow.ts';
import { type CommonOptions, cacheOf, clientOf, explained, homeOf, registrationOf, withInterrupt } from './session.ts';

export interface BackupCommandOptions extends CommonOptions, BackupRules {
  limitUpload?: number;
  cpu?: number;
  strict?: boolean;
}

export function withBackupOptions(command: Command): Command {
  return command
    .option('--exclude <pattern>', 'leave out what matches, as in .gitignore; may be given several times', collect, [])
    .option('--no-exclude-defaults', 'do not leave out the system files of the default list (docs/excludes.md)')
    .option('--exclude-caches', 'leave out folders marked by a CACHEDIR.TAG', false)
    .option('--one-file-system', 'stay on the file system of each PATH (default)', true)
    .option('--no-one-file-system', 'go into other file systems mounted below PATH')
    .option(
      '--limit-upload <rate>',
      "bytes per second, such as '2MiB/s'",
      checked(parseRate, "is not a rate such as '2MiB/s'"),
    )
    .option(
      '--cpu <share>',
      "at most this much of one processor, such as '50%'",
      checked(parseShare, "is not a share such as '50%'"),
    );
}

export function addBackup(program: Command): void {
  withBackupOptions(program.command('backup'))
    .description('Back up files and folders once: what changed since the last time is sent.')
    .argument('[path...]', 'files and folders; none: what the plans of this device say')
    .option('--rehash', 'read every file, even if its size and times did not change')
    .option('--accept-roots', 'a PATH that is empty now, or on another file system than last time, is as it should be')
    .option('--delete-unseen', 'record as deleted also what the archive holds below PATH and this machine never had')
    .option('--strict', `end with exit code ${exitCodes.incomplete} when files were skipped`)
    .addHelpText(
      'after',
      `
Examples:
  npm run agent -- backup
  npm run agent -- backup ~/Documents ~/Pictures
  npm run agent -- backup / --exclude '*.iso' --exclude '/var/lib/docker/' --limit-upload 2MiB/s --cpu 50%
  npm run agent -- backup ~ --json --strict

A PATH that is missing, unreadable, empty after having held files, or on another file system makes the run fail, and
nothing below it is recorded as deleted. Excluding a path never deletes what was stored of it before.
Without a PATH every plan of this device is run once, whenever it would be due; --exclude then adds to what each leaves out.`,
    )
    .action(async (paths: string[], options: BackupCommandOptions) => {
      process.exitCode = await backupCommand(paths, options);
    });
}

async function backupCommand(paths: string[], options: BackupCommandOptions): Promise<number> {
  const output = createOutput({ json: options.json ?? false });
  const home = homeOf(options);
  const unlock = lockHome(home);
  try {
    const registration = await registrationOf(home, output);
    const cache = cacheOf(home, registration);
    const client = clientOf(registration, output, { limitUploadBytesPerSecond: options.limitUpload, connections: 2 });
    try {
      const world = { client, cache, registration, home, output };
      const rules = { ...options, cpuShare: options.cpu };
      if (paths.length === 0) return await withInterrupt(output, (signal) => backUpPlans(world, rules, signal));
      const result = await withInterrupt(output, (signal) => runBackup(world, paths, rules, { signal }));
      if (result.outcome === 'interrupted') return exitCodes.interrupted;
      if (result.outcome === 'failed') return exitCodes.failed;
      return options.strict && result.counts.filesSkipped > 0 ? exitCodes.incomplete : exitCodes.ok;
    } catch (error) {
      throw explained(error, registration);
    } finally {
      client.destroy();
      cache.close();
    }
  } finally {
    unlock();
  }
}

function collect(value: string, before: string[]): string[] {
  return [...before, value];
}

/** Turns a reader that answers null into one that commander reports. */
export function checked<T>(read: (text: string) => T | null, fault: string): (text: string) => T {
  return (text) => {
    const value = read(text);
    if (value === null) throw new InvalidArgumentError(`'${text}' ${fault}.`);
    return value;
  };
}
