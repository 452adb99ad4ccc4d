/**
 * `raise --to LEVEL`: a new key for what is backed up from now on, and every earlier one wrapped so that the server opens
 * none of them any more. It may be interrupted anywhere and run again: what only this machine would know is never what
 * the keys hang on, for the server keeps everything that opens with the user's secret.
 */
import { randomBytes, timingSafeEqual } from 'node:crypto';
import { type Command, Option } from 'commander';
import type { KeptKey, RaiseRequest } from '../../../protocol/messages.ts';
import { Problem } from '../../../protocol/problems.ts';
import {
  keyCheck,
  unwrapKey,
  unwrapKeyInKey,
  vaultKeyBytes,
  wrapKey,
  wrapKeyInKey,
} from '../../../protocol/sealing/index.ts';
import { lockHome } from '../../state/lock.ts';
import {
  type GenerationKey,
  keysOf,
  type Registration,
  withKeys,
  writeRegistration,
} from '../../state/registration.ts';
import { createOutput, exitCodes, type Output, UsageError } from '../output.ts';
import { readPassword } from '../passwords.ts';
import { type CommonOptions, clientOf, explained, homeOf, registrationOf } from '../session.ts';
import { levels, missingOf, raisedWords, unlocked } from './kept-keys.ts';
import { once, readArchivePassword, readCustomKey, type SecretOptions } from './secrets.ts';
import { withSecretOptions } from './unlock.ts';

interface RaiseOptions extends CommonOptions, SecretOptions {
  to: RaiseRequest['to'];
  passwordFile?: string;
  code?: string;
}

type Secret = { level: 'password'; password: string } | { level: 'custom'; key: Buffer };

export function addRaise(program: Command): void {
  withSecretOptions(program.command('raise'))
    .description('Raise who can open your backups: of all your devices, for ever.')
    .addOption(
      new Option('--to <level>', "'password': your archive password opens them; 'custom': your own key")
        .choices(['password', 'custom'])
        .makeOptionMandatory(),
    )
    .option('--password-file <file>', "read your account's password from a file ('-': stdin) instead of asking")
    .option('--code <code>', 'of your second factor, where you have one')
    .addHelpText(
      'after',
      `
Examples:
  npm run agent -- raise --to password
  npm run agent -- raise --to custom --custom-key-file ~/backup.key

What is stored stays as it is, and the server cannot open it any more. What changes from now on is sealed with a new key,
so it is sent again even where equal parts are stored. Your other devices need 'unlock' once. A level is never lowered.
Losing the archive password or the custom key loses the archive. A key file that does not exist is made.`,
    )
    .action(async (options: RaiseOptions) => {
      process.exitCode = await raiseCommand(options);
    });
}

async function raiseCommand(options: RaiseOptions): Promise<number> {
  const output = createOutput({ json: options.json ?? false });
  const home = homeOf(options);
  const unlock = lockHome(home);
  try {
    const registration = await registrationOf(home, output);
    const client = clientOf(registration, output);
    try {
      const { vaultKeys } = await client.self();
      const now = hasRaisedBefore(vaultKeys, registration, options.to)
        ? await unlocked(registration, vaultKeys, {
            archivePassword: once(() => readArchivePassword(options, { isNew: false })),
            customKey: once(() => readCustomKey(options, { mayMake: false }, output)),
          })
        : await raise(registration, options, output, (request) => client.raise(request), vaultKeys);
      writeRegistration(home, now);
      tell(output, now);
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

/** A raise to this level whose answer never came, or another device's: then this one only has to learn the keys. */
function hasRaisedBefore(kept: readonly KeptKey[], registration: Registration, to: RaiseRequest['to']): boolean {
  const newest = kept.at(-1);
  if (!newest) throw new Error('this server cannot raise the level: it is older than this agent');
  if (newest.generation > registration.keyGeneration) {
    if (newest.level === to) return true;
    throw new UsageError(raisedWords(newest.level));
  }
  if (levels.indexOf(to) > levels.indexOf(newest.level)) return false;
  throw new UsageError(`your backups are at level '${newest.level}' already; a level is raised, and never lowered`);
}

async function raise(
  registration: Registration,
  options: RaiseOptions,
  output: Output,
  send: (request: RaiseRequest) => Promise<unknown>,
  kept: readonly KeptKey[],
): Promise<Registration> {
  const present = kept.at(-1)!.generation;
  const again = present < registration.keyGeneration ? requireRaisable(registration, options.to, present) : null;
  const have = keysOf(registration).filter(({ generation }) => generation <= present);
  if (missingOf(registration, kept).length > 0)
    throw new UsageError('This device lacks an earlier key of your backups. Run: npm run agent -- unlock');
  const of = registration.userName;
  const password = await readPassword(`Password of ${of}`, options.passwordFile, '--password-file');
  const secret: Secret =
    options.to === 'password'
      ? { level: 'password', password: await readArchivePassword(options, { isNew: true }) }
      : { level: 'custom', key: await readCustomKey(options, { mayMake: true }, output) };
  const newest = again ?? {
    generation: registration.keyGeneration + 1,
    key: secret.level === 'custom' ? secret.key : randomBytes(vaultKeyBytes),
  };
  if (secret.level === 'custom' && !secret.key.equals(newest.key))
    throw new UsageError('the key is not the one your backups were raised with');
  if (have.some(({ key }) => key.equals(newest.key))) throw new UsageError('this key is in use already; take another');
  const code = options.code === undefined ? {} : { code: options.code };
  try {
    await send({ password, ...code, ...(await recordsOf(secret, newest, have)) });
  } catch (error) {
    if (!(error instanceof Problem) || error.code !== 'second_factor_needed') throw error;
    throw new UsageError(`${error.message}: give --code CODE`);
  }
  return withKeys(registration, options.to, [...have, newest]);
}

/**
 * The newest key of this device, which the server lost when it was set back to before it was raised: the same key is
 * raised to again, for it has sealed what is stored since.
 */
function requireRaisable(registration: Registration, to: RaiseRequest['to'], present: number): GenerationKey {
  const { keyGeneration: generation, vaultKey: key, level } = registration;
  if (to !== level) throw new UsageError(`this device knows level '${level}': raise --to ${level}, never lower`);
  if (generation !== present + 1)
    throw new UsageError('the server was set back to before two raises: it has to be brought to a later state');
  return { generation, key };
}

/** What the server is to keep, each opened again before it takes the place of anything. */
async function recordsOf(
  secret: Secret,
  newest: GenerationKey,
  have: readonly GenerationKey[],
): Promise<Pick<RaiseRequest, 'to' | 'newGeneration' | 'oldGenerations'>> {
  const by = newest.generation;
  const wrap = async ({ generation, key }: GenerationKey): Promise<Buffer> => {
    const wrapped =
      secret.level === 'password'
        ? await wrapKey(key, secret.password, { generation })
        : wrapKeyInKey(key, secret.key, { generation, by });
    const again =
      secret.level === 'password'
        ? await unwrapKey(wrapped, secret.password, { generation })
        : unwrapKeyInKey(wrapped, secret.key, { generation, by });
    if (!timingSafeEqual(again, key)) throw new Error('a wrapped key did not open to the same key');
    return wrapped;
  };
  const oldGenerations = [];
  for (const each of have) oldGenerations.push({ generation: each.generation, wrapped: await wrap(each) });
  const kept = secret.level === 'password' ? { wrapped: await wrap(newest) } : { check: keyCheck(newest.key) };
  return { to: secret.level, newGeneration: { generation: by, ...kept }, oldGenerations };
}

function tell(output: Output, { level, keyGeneration: generation }: Registration): void {
  const secret = level === 'custom' ? 'Your key file' : 'Your archive password';
  output.say(
    `Your backups are at level '${level}' now: the server cannot open them. ${secret} alone can: keep it safe.`,
  );
  output.say('What changes from now on is sealed with the new key, and sent again even where equal parts are stored.');
  output.say('Your other devices stop until you run there: npm run agent -- unlock');
  output.emit('raised', { level, generation });
}
