/** A command for each operation of the server, under the words of its name; `--help` of each says what the document does. */
import type { Command } from 'commander';
import { kebab, nameOperations } from '../document/names.ts';
import { hasNextPage, isStream, type Operation } from '../document/operations.ts';
import { asksOf, yesOption } from './dangerous.ts';
import { examplesOf } from './examples.ts';
import { addFieldOptions } from './options.ts';
import { printable, printableLines } from './printable.ts';
import { type CommonOptions, runOperation } from './run-operation.ts';
import type { Session } from './session.ts';

export function addOperations(program: Command, operations: readonly Operation[], session: Session): void {
  const named = nameOperations(operations);
  const groups = new Map<string, Command>([['', program]]);
  const groupOf = (words: readonly string[]): Command => {
    const name = words.join(' ');
    const known = groups.get(name);
    if (known) return known;
    const group = groupOf(words.slice(0, -1)).command(words.at(-1)!);
    group.summary(printable(summaryOf(name, named)));
    group.description(printable(summaryOf(name, named)));
    groups.set(name, group);
    return group;
  };
  for (const [name, operation] of named) {
    const words = name.split(' ');
    // What a group of one shows, it also shows without its verb.
    const isDefault = operation.method === 'GET' && words.length > 1 && isAlone(words.slice(0, -1), named);
    const command = groupOf(words.slice(0, -1)).command(words.at(-1)!, { isDefault });
    addOperation(command, name, { operation, operations, session });
  }
}

/** What is in a group: its verbs, and its groups. */
function summaryOf(group: string, named: ReadonlyMap<string, Operation>): string {
  const inside = [...named.keys()].filter((name) => name.startsWith(`${group} `));
  const words = inside.map((name) => name.slice(group.length + 1).split(' ')[0]!);
  return [...new Set(words)].join(', ');
}

function isAlone(group: readonly string[], named: ReadonlyMap<string, Operation>): boolean {
  return [...named.keys()].filter((name) => name.startsWith(`${group.join(' ')} `)).length === 1;
}

interface About {
  operation: Operation;
  operations: readonly Operation[];
  session: Session;
}

function addOperation(command: Command, name: string, { operation, operations, session }: About): void {
  command.summary(printable(operation.summary));
  command.description(
    printableLines(`${operation.summary}.\n\n${operation.description}\n\n${operation.method} ${operation.path}`),
  );
  for (const { name, description } of operation.inPath) command.argument(`<${kebab(name)}>`, printable(description));
  const given = addFieldOptions(command, operation);
  if (operation.body)
    command.option(
      '--body <json>',
      "the whole of what is sent, '{...}', or @FILE (@-: stdin); other options go over it",
    );
  if (hasNextPage(operation)) command.option('--all', 'every page; with --json one line of JSON for each');
  if (isStream(operation)) command.option('--output <file>', 'into a file, which is there when it is whole');
  else command.option('--json', 'JSON on stdout, for scripts');
  if (operation.isChange) {
    command.option('--if-match <version>', 'only if it still has the `version` that you have seen');
    command.option('--idempotency-key <key>', 'of your choosing: the same command with the same key is done once');
  }
  command.addOption(yesOption({ asks: asksOf(operation) }));
  command.addHelpText('after', `\n${examplesOf(name, operation, given).map(printable).join('\n')}`);
  command.action(async (...rest: unknown[]) => {
    const params = rest.slice(0, operation.inPath.length) as string[];
    await runOperation(session, { operation, operations, params, given, common: command.opts<CommonOptions>() });
  });
}
