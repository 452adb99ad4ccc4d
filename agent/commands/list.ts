/** `list [PATH]`: one folder of an archive, as of a moment. */
import type { Command } from 'commander';
import { archivePathOf, type ReadingOptions, withArchive, withAtOption, withDeviceOption } from './archive.ts';
import { bytesInWords, momentInWords, pathForJson, pathInWords } from './words.ts';

interface ListOptions extends ReadingOptions {
  deleted?: boolean;
}

export function addList(program: Command): void {
  withDeviceOption(withAtOption(program.command('list')))
    .description('List a folder of the archive.')
    .argument('[path]', "a folder's path; default the archive's root")
    .option('--deleted', 'also what was deleted')
    .addHelpText(
      'after',
      '\nExamples:\n  npm run agent -- list ~/Documents\n  npm run agent -- list /home --at 3d --deleted',
    )
    .action(async (path: string | undefined, options: ListOptions) => {
      process.exitCode = await listCommand(path, options);
    });
}

async function listCommand(text: string | undefined, options: ListOptions): Promise<number> {
  const path = await archivePathOf(text);
  return withArchive(options, async ({ client, output, archive }) => {
    for await (const entry of client.treeEntries(archive, { path, at: options.at, deleted: options.deleted })) {
      const mark = entry.kind === 'directory' ? '/' : entry.kind === 'symlink' ? '@' : '';
      const size = entry.kind === 'file' ? bytesInWords(entry.size) : '';
      const time = entry.seq === 0 ? '' : momentInWords(entry.mtime);
      output.say(
        `${size.padStart(10)}  ${time.padEnd(19)}  ${pathInWords(entry.name)}${mark}${entry.deleted ? '  (deleted)' : ''}`,
      );
      const { name: _, ...fields } = entry;
      output.emit('entry', {
        name: pathForJson(entry.name).path,
        nameBase64: pathForJson(entry.name).pathBase64,
        ...fields,
      });
    }
    return 0;
  });
}
