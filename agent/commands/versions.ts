/** `versions PATH`: all states of one file that the archive keeps. */
import type { Command } from 'commander';
import { limits } from '../../protocol/limits.ts';
import { archivePathOf, type ReadingOptions, withArchive, withDeviceOption } from './archive.ts';
import { bytesInWords, momentInWords, pathForJson } from './words.ts';

export function addVersions(program: Command): void {
  withDeviceOption(program.command('versions'))
    .description('List the versions of a file, newest first.')
    .argument('<path>', 'a file or folder')
    .addHelpText('after', '\nExample:\n  npm run agent -- versions ~/Documents/letter.odt')
    .action(async (path: string, options: ReadingOptions) => {
      process.exitCode = await versionsCommand(path, options);
    });
}

async function versionsCommand(text: string, options: ReadingOptions): Promise<number> {
  const path = await archivePathOf(text);
  return withArchive(options, async ({ client, output, archive }) => {
    for (let after: number | undefined; ; ) {
      const page = await client.history(archive, { path, after, limit: limits.pageEntriesMax });
      for (const version of page.versions) {
        const what = version.deleted ? 'deleted' : version.kind === 'file' ? bytesInWords(version.size) : version.kind;
        output.say(
          `stored ${momentInWords(version.committedAt)}  changed ${momentInWords(version.mtime)}  ${what.padStart(10)}  #${version.seq}`,
        );
        const { seq, committedAt, mtime, size, kind, deleted } = version;
        output.emit('version', { ...pathForJson(path), seq, committedAt, mtime, size, kind, deleted });
      }
      after = page.versions.at(-1)?.seq;
      if (!page.more || after === undefined) return 0;
    }
  });
}
