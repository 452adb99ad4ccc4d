/** The reference agent's command. Each subcommand lies in agent/commands/ and says there what it does. */
import { Command, CommanderError } from 'commander';
import { addBackup } from './commands/backup.ts';
import { addCommands } from './commands/following/carry-out.ts';
import { addRaise } from './commands/keys/raise.ts';
import { addUnlock } from './commands/keys/unlock.ts';
import { addList } from './commands/list.ts';
import { addOpenExport } from './commands/open-export.ts';
import { createOutput, exitCodes, reportError } from './commands/output.ts';
import { addPlans } from './commands/plans/show-plans.ts';
import { addRegister } from './commands/register.ts';
import { addRestore } from './commands/restore.ts';
import { addRuns } from './commands/runs.ts';
import { addStatus } from './commands/status.ts';
import { agentVersion } from './commands/version.ts';
import { addVersions } from './commands/versions.ts';
import { addWatch } from './commands/watch.ts';
import { collectEarly } from './files/memory.ts';

// Whoever reads our output may stop reading (head, a closed terminal); the backup goes on.
process.stdout.on('error', () => undefined);
process.stderr.on('error', () => undefined);

collectEarly();

const program = new Command('npm run agent --')
  .description('Backs up this machine to a Holdfast server, and gives it back.')
  .version(agentVersion())
  .showHelpAfterError('(see --help)')
  .addHelpText(
    'after',
    `
On the machine that runs the server, 'backup PATH' is all it takes: the agent finds the server and registers itself.

Exit codes: ${exitCodes.ok} done; ${exitCodes.failed} failed; ${exitCodes.usage} wrong usage; ${exitCodes.incomplete} done but incomplete (a restore that left files out; a backup that skipped
files, with --strict); ${exitCodes.interrupted} interrupted (what was complete is stored; run again to go on).
Settings: HOLDFAST_AGENT_HOME or --home: where registration, keys and cache lie. HOLDFAST_DATA: a local server's data.`,
  );

addBackup(program);
addWatch(program);
addPlans(program);
addRestore(program);
addOpenExport(program);
addList(program);
addVersions(program);
addRuns(program);
addCommands(program);
addStatus(program);
addRegister(program);
addRaise(program);
addUnlock(program);
for (const command of program.commands) {
  command
    .option(
      '--home <folder>',
      "the agent's folder (default: HOLDFAST_AGENT_HOME, or the platform's place for settings)",
    )
    .option('--json', 'one JSON object per line on stdout, for scripts')
    .exitOverride();
}
program.exitOverride();

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? exitCodes.ok : exitCodes.usage;
  else process.exitCode = reportError(createOutput({ json: process.argv.includes('--json') }), error);
}
