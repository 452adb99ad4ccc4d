/**
 * The one entry point of the server: `node server/main.ts COMMAND`. Nothing of ours or of others' is loaded before the
 * version of Node is known to be right, and nothing is started before every setting is.
 */
import { parseArgs } from 'node:util';
import type { OperatorCommand, Say } from './commands/operator-command.ts';

const [major = 0] = process.versions.node.split('.').map(Number);
if (major < 24) {
  console.error(
    `Holdfast needs Node 24 or later; this is ${process.versions.node}. "npm ci" brings one along, which "npm start" uses.`,
  );
  process.exit(2);
}

process.stdout.on('error', () => {}); // a terminal that was closed must not end the server
process.stderr.on('error', () => {});
process.exitCode = await main(process.argv.slice(2));
// Connections of libraries may keep the process alive; everything that matters has been closed.
process.exit();

async function main(args: string[]): Promise<number> {
  const { helpText, versionText, settingsText, commandTable } = await import('./commands/help.ts');
  const wrongUsage = (why: string): number => {
    console.error(`${why}\n\n${helpText()}`);
    return 2;
  };

  const own = await ownOptions(args[0]);
  if (own) return failing(args[0]!, () => own(args.slice(1), (line) => console.log(line)));

  let parsed: { values: { help?: boolean; version?: boolean; embedded?: boolean }; positionals: string[] };
  try {
    const options = {
      help: { type: 'boolean', short: 'h' },
      version: { type: 'boolean' },
      embedded: { type: 'boolean' },
    } as const;
    parsed = parseArgs({ args, options, allowPositionals: true });
  } catch (error) {
    return wrongUsage((error as Error).message);
  }
  const { values, positionals } = parsed;
  const [command, ...more] = positionals;
  if (values.version) return print(versionText());
  if (command === 'config' || (values.help && positionals.includes('config'))) return print(settingsText());
  if (values.help || command === undefined) return print(helpText());
  if (!Object.hasOwn(commandTable, command)) return wrongUsage(`There is no command "${command}".`);
  if (more.length > 0) return wrongUsage(`"${more[0]}" is not understood after "${command}".`);
  if (values.embedded && command !== 'all') return wrongUsage('--embedded goes with "all" only.');

  return failing(command, () => run(command, values.embedded ?? false));
}

/** What is meant for operators is a message; the stack is for whoever mends the program. */
async function failing(command: string, work: () => Promise<number>): Promise<number> {
  const { ConfigError } = await import('./config.ts');
  try {
    return await work();
  } catch (error) {
    console.error(error instanceof ConfigError ? error.message : `holdfast ${command}: ${(error as Error).message}`);
    return error instanceof ConfigError ? 2 : 1;
  }
}

/** Commands that read their options themselves. */
async function ownOptions(
  command: string | undefined,
): Promise<((args: string[], say: (line: string) => void) => Promise<number>) | null> {
  switch (command) {
    case 'adopt':
      return (await import('./commands/adopt.ts')).adoptCommand;
    case 'seed':
      return (await import('./commands/seed.ts')).seedCommand;
    case 'verify':
      return (await import('./commands/check-data.ts')).verifyCommand;
    case 'recount':
      return (await import('./commands/check-data.ts')).recountCommand;
    case 'retention':
      return operator((await import('./commands/retention.ts')).retention);
    case 'usage':
      return operator((await import('./commands/usage.ts')).usage);
    case 'alerts':
      return operator((await import('./commands/alerts.ts')).alerts);
    case 'damage':
      return operator((await import('./commands/damage.ts')).damage);
    case 'audit':
      return operator((await import('./commands/audit.ts')).audit);
    case 'operators':
      return operator((await import('./commands/operators.ts')).operators);
    case 'keys':
      return operator((await import('./commands/keys.ts')).keys);
    default:
      return null;
  }
}

async function operator(command: OperatorCommand): Promise<(args: string[], say: Say) => Promise<number>> {
  const { runOperatorCommand } = await import('./commands/operator-command.ts');
  return (args, say) => runOperatorCommand(command, args, say, (line) => console.error(line));
}

async function run(command: string, embedded: boolean): Promise<number> {
  const { loadConfig, isStartedByNpm } = await import('./config.ts');
  const say = (line: string): void => console.log(line);
  switch (command) {
    case 'migrate': {
      const { migrateAll } = await import('./commands/migrate.ts');
      return migrateAll(loadConfig({ embedded: false, needs: ['database'] }), say);
    }
    case 'health': {
      const { checkHealth } = await import('./commands/health.ts');
      return checkHealth(loadConfig({ embedded: false, needs: [] }), say);
    }
    case 'check-objects': {
      const { checkObjectStore } = await import('./commands/check-objects.ts');
      return checkObjectStore(loadConfig({ embedded: false, needs: ['objects'] }), say);
    }
    default: {
      const roles = { api: command !== 'worker', worker: command !== 'api' };
      const config = loadConfig({
        embedded,
        needs: ['database', 'objects', ...(roles.api ? (['tls', 'keys'] as const) : [])],
      });
      const { listenForStop } = await import('./signals.ts');
      const stop = listenForStop({
        onImpatience: () => console.error('Ended at once, on the second signal.'),
        withParent: isStartedByNpm(),
      });
      const { serve } = await import('./commands/serve.ts');
      return serve(config, roles, stop, say);
    }
  }
}

function print(text: string): number {
  console.log(text);
  return 0;
}
