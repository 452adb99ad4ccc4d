/** `adopt`: says which catalog a bucket belongs to, after the catalog was restored from a backup or copied. */
import { parseArgs } from 'node:util';
import { type AdoptReport, adopt } from '../../storage/archive/checking/adopt.ts';
import { abortOnInterrupt, withStorage } from './with-storage.ts';

export const adoptHelp = `usage: node server/main.ts adopt --take-over | --own-prefix [--dry-run] [--json] [--force]

Deleting is stopped while it is not certain that this database is the one its bucket belongs to: after the database was
restored from a backup, and while a copy of it works on the same bucket. Which of the two it is you have to say. Stop the
other catalog first, and all workers of this one; backups and restores may go on with --take-over.

  --take-over   This database is the right one. Objects that it does not know are entered from what they say of
                themselves, blocks whose objects are gone are marked damaged (the next backups send them again), the
                fence is renewed, and deleting goes on after three minutes.
  --own-prefix  This database is a copy, for a test for example. From now on it stores under a prefix of its own and
                deletes nothing under the old one. Stop all processes of the copy before, and start them afterwards.
                What it needs of the old prefix its owner may delete at any time. Only with S3: a folder belongs to one
                catalog, so give a copy a copy of the folder.
  --dry-run     Count, and change nothing.
  --json        Print the report as JSON.
  --force       Although a worker seems to be running, or the bucket to be another one.

It can be interrupted and run again. Exit codes: 0 done, 1 refused or failed, 2 wrong usage.`;

/** @returns the exit code */
export async function adoptCommand(args: string[], say: (line: string) => void): Promise<number> {
  let given: Partial<Record<'take-over' | 'own-prefix' | 'dry-run' | 'json' | 'force' | 'help', boolean>>;
  try {
    const flag = { type: 'boolean' } as const;
    const options = { 'take-over': flag, 'own-prefix': flag, 'dry-run': flag, json: flag, force: flag, help: flag };
    given = parseArgs({ args, options }).values;
  } catch (error) {
    say(`${(error as Error).message}\n\n${adoptHelp}`);
    return 2;
  }
  if (given.help) {
    say(adoptHelp);
    return 0;
  }
  if (Boolean(given['take-over']) === Boolean(given['own-prefix'])) {
    say(`Say one of --take-over and --own-prefix.\n\n${adoptHelp}`);
    return 2;
  }
  const report = await withStorage(async (storage) => {
    if (given['own-prefix'] && (await storage.objects.inspect()).kind === 'directory')
      throw new Error(
        '--own-prefix is for buckets: a folder belongs to one catalog, so give the copy a copy of the folder',
      );
    return adopt(storage, {
      take: given['take-over'] ? 'over' : 'own-prefix',
      dryRun: given['dry-run'] ?? false,
      force: given.force ?? false,
      signal: abortOnInterrupt(),
      onProgress: (line) => {
        if (!given.json) say(line);
      },
    });
  });
  say(given.json ? JSON.stringify(report) : inWords(report));
  return 0;
}

function inWords(report: AdoptReport): string {
  const done = (what: string): string => (report.dryRun ? `would be ${what}` : what);
  if (report.take === 'own-prefix')
    return [
      `This catalog ${report.dryRun ? 'would get' : 'has'} a prefix of its own${report.dryRun ? '' : `: ${report.catalogId}`}.`,
      `${report.leftBehind} objects that it needs lie under another prefix, and are its owner's to keep or delete.`,
      ...(report.dryRun
        ? []
        : ['Start its processes again. The other catalog goes on deleting after "adopt --take-over" there.']),
    ].join('\n');
  const unknown = report.unknownVaults.join(', ');
  return [
    `${report.listed} objects in the bucket.`,
    `${report.adopted} of them had no row: ${done(`entered, with ${report.adoptedBlocks} blocks that were missing or damaged`)}.`,
    `${report.missing} rows have no object: ${report.markedDamaged} blocks ${done('marked damaged')}.`,
    ...(report.unreadable > 0
      ? [`${report.unreadable} objects do not say what they hold, and will be deleted as orphans.`]
      : []),
    ...(report.ofUnknownVaults > 0
      ? [
          `${report.ofUnknownVaults} objects belong to vaults that this catalog does not know (${unknown}), and will be deleted as orphans.`,
        ]
      : []),
    ...(report.strange > 0 ? [`${report.strange} objects are not named as ours are: left alone.`] : []),
    ...(report.vaultIdsPast === null
      ? []
      : [
          `New vaults ${report.dryRun ? 'would ' : ''}get ids above ${report.vaultIdsPast}, up to which the bucket holds objects.`,
        ]),
    report.dryRun
      ? 'Nothing was changed.'
      : "The fence is this catalog's. Deleting goes on when a worker has seen it three times.",
  ].join('\n');
}
