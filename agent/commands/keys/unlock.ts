/** `unlock`: gives this device the keys of its vault, after the level was raised on another one. */
import type { Command } from 'commander';
import { lockHome } from '../../state/lock.ts';
import { type Registration, writeRegistration } from '../../state/registration.ts';
import { createOutput, exitCodes } from '../output.ts';
import { type CommonOptions, clientOf, explained, homeOf, registrationOf } from '../session.ts';
import { missingOf, unlocked } from './kept-keys.ts';
import { once, readArchivePassword, readCustomKey, type SecretOptions } from './secrets.ts';

interface UnlockOptions extends CommonOptions, SecretOptions {}

export function withSecretOptions(command: Command): Command {
  return command
    .option('--archive-password-file <file>', "read the archive password from a file ('-': stdin) instead of asking")
    .option('--custom-key-file <file>', "the user's own key (level 'custom'), 64 hex digits");
}

export function addUnlock(program: Command): void {
  withSecretOptions(program.command('unlock'))
    .description('Give this device the keys of your backups, after another device has raised their level.')
    .addHelpText(
      'after',
      '\nExamples:\n  npm run agent -- unlock\n  npm run agent -- unlock --custom-key-file ~/backup.key',
    )
    .action(async (options: UnlockOptions) => {
      process.exitCode = await unlockCommand(options);
    });
}

async function unlockCommand(options: UnlockOptions): Promise<number> {
  const output = createOutput({ json: options.json ?? false });
  const home = homeOf(options);
  const unlock = lockHome(home);
  try {
    const registration = await registrationOf(home, output);
    const client = clientOf(registration, output);
    try {
      const { vaultKeys } = await client.self();
      const isNews = missingOf(registration, vaultKeys).length > 0;
      const now: Registration = isNews
        ? await unlocked(registration, vaultKeys, {
            archivePassword: once(() => readArchivePassword(options, { isNew: false })),
            customKey: once(() => readCustomKey(options, { mayMake: false }, output)),
          })
        : registration;
      if (isNews) writeRegistration(home, now);
      output.say(
        isNews
          ? `This device has the keys of level '${now.level}', and backs up and restores as before.`
          : `This device has all keys already; their level is '${now.level}'.`,
      );
      output.emit('unlocked', { level: now.level, generation: now.keyGeneration, changed: isNews });
      return exitCodes.ok;
    } catch (error) {
      throw explained(error, registration);
    } finally {
      client.destroy();
    }
  } finally {
    unlock();
  }
}
