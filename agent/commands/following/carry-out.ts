/** `commands`: carries out what the server tells this device to do, once; `watch` does so all the time. */
import type { Command } from 'commander';
import { lockHome } from '../../state/lock.ts';
import { createOutput, exitCodes } from '../output.ts';
import { type CommonOptions, clientOf, explained, homeOf, registrationOf, withInterrupt } from '../session.ts';
import { countInWords } from '../words.ts';
import { carryOutCommands, sendsNoCommands } from './follow.ts';

export function addCommands(program: Command): void {
  program
    .command('commands')
    .description(
      "Carry out what waits for this device on the server: restores that were pushed to it. 'watch' does so all the time.",
    )
    .action(async (options: CommonOptions) => {
      process.exitCode = await commandsCommand(options);
    });
}

async function commandsCommand(options: CommonOptions): Promise<number> {
  const output = createOutput({ json: options.json ?? false });
  const home = homeOf(options);
  const unlock = lockHome(home);
  try {
    const registration = await registrationOf(home, output);
    const client = clientOf(registration, output);
    try {
      return await withInterrupt(output, async (signal) => {
        const { commands, notWhole } = await carryOutCommands({ client, registration, home, output }, signal);
        if (signal.aborted) return exitCodes.interrupted;
        if (commands === 0 && notWhole === 0) output.say('Nothing waits for this device.');
        if (commands > 0) output.say(`${countInWords(commands)} carried out.`);
        if (notWhole > 0) output.say(`${countInWords(notWhole)} failed, or left something out.`);
        output.emit('end', { commands, notWhole });
        return notWhole > 0 ? exitCodes.incomplete : exitCodes.ok;
      });
    } catch (error) {
      if (sendsNoCommands(error)) throw new Error('this server sends devices no commands', { cause: error });
      throw explained(error, registration);
    } finally {
      client.destroy();
    }
  } finally {
    unlock();
  }
}
