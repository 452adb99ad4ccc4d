/** `register`: makes this machine a device of a user, or lets it take the place of one that is lost. */
import { type Command, Option } from 'commander';
import { connect } from '../client/client.ts';
import { parseFingerprint } from '../client/pinned-session.ts';
import { surroundings } from '../state/home.ts';
import { lockHome } from '../state/lock.ts';
import { type Registration, readRegistration, writeRegistration } from '../state/registration.ts';
import { type EnrollOptions, enroll } from './enroll.ts';
import { findFirstStart } from './first-start.ts';
import { once, readArchivePassword, readCustomKey } from './keys/secrets.ts';
import { createOutput, type Output, UsageError } from './output.ts';
import { readPassword } from './passwords.ts';
import { type CommonOptions, homeOf } from './session.ts';
import { momentInWords } from './words.ts';

interface RegisterOptions extends CommonOptions {
  server?: string;
  fingerprint?: string;
  key?: string;
  user?: string;
  passwordFile?: string;
  archivePasswordFile?: string;
  customKeyFile?: string;
  level?: Registration['level'];
  name?: string;
  replace?: string | boolean;
  local?: boolean;
  force?: boolean;
}

export function addRegister(program: Command): void {
  program
    .command('register')
    .description('Register this machine with a server, once.')
    .option('--server <url>', 'https://HOST:PORT')
    .option(
      '--fingerprint <sha256>',
      "SHA-256 of the server's certificate, as its administrator names it; without it the system's authorities must vouch",
    )
    .option('--key <registration-key>', "the organization's registration key")
    .option('--user <name>', 'the user the device belongs to')
    .option('--password-file <file>', "read the user's password from a file ('-': stdin) instead of asking")
    .addOption(
      new Option('--level <level>', 'who can open the archive, for a user who has none yet').choices([
        'standard',
        'password',
        'custom',
      ]),
    )
    .option('--archive-password-file <file>', "read the archive password (level 'password') from a file")
    .option(
      '--custom-key-file <file>',
      "the user's own key (level 'custom'), 64 hex digits; made and written there when the file does not exist",
    )
    .option('--name <name>', 'what to call this device; default the host name')
    .option(
      '--replace [guid]',
      'take the place and archive of an earlier device; without a GUID the only one, or a list',
    )
    .option('--local', 'register with the server of this same machine, by its first-start file')
    .option('--force', 'forget an earlier registration of this machine')
    .addHelpText(
      'after',
      `
Examples:
  npm run agent -- register --server https://backup.example:4443 --fingerprint 3f:9a:... --key ABCD-EFGH-JKLM-NPQR --user anna
  npm run agent -- register --server https://backup.example:4443 --fingerprint 3f:9a:... --key ABCD-... --user anna --replace

Levels: 'standard': the server keeps the key, sealed, and can restore in a browser. 'password': it keeps the key wrapped
by your archive password and cannot open it. 'custom': it never sees the key. Losing the archive password or the
custom key loses the archive.`,
    )
    .action(async (options: RegisterOptions) => {
      process.exitCode = await registerCommand(options);
    });
}

async function registerCommand(options: RegisterOptions): Promise<number> {
  const output = createOutput({ json: options.json ?? false });
  const home = homeOf(options);
  const unlock = lockHome(home);
  try {
    const existing = options.force ? null : readRegistration(home);
    if (existing) {
      throw new UsageError(
        `this machine is registered with ${existing.url} as device ${existing.guid} already; --force forgets that`,
      );
    }
    const signIn = await signInOf(options);
    const replace = await deviceToReplace(signIn, options, output);
    if (options.replace && replace === null) return 2;
    const registration = await enroll({
      ...signIn,
      deviceName: options.name,
      level: options.level,
      archivePassword: once(() => readArchivePassword(options, { isNew: false })),
      // Made only for a vault that may be new: a mistyped name must not bring a second key into the world that opens nothing.
      customKey: once(() =>
        readCustomKey(options, { mayMake: options.level === 'custom' && !options.replace }, output),
      ),
      ...(replace ? { replace } : {}),
    });
    writeRegistration(home, registration);
    output.say(
      `Registered with ${registration.url} as device ${registration.guid} (${registration.deviceName}) of ${registration.userName}.`,
    );
    if (options.level && options.level !== registration.level) {
      output.say(
        `The user's archive existed already, at level '${registration.level}'; '${options.level}' was not applied.`,
      );
    }
    output.say(`Token and key are in ${home}, readable by you alone.`);
    output.say(
      replace ? 'Restore with: npm run agent -- restore / --to FOLDER' : 'Back up with: npm run agent -- backup PATH',
    );
    output.emit('registered', {
      guid: registration.guid,
      deviceName: registration.deviceName,
      url: registration.url,
      level: registration.level,
      home,
    });
    return 0;
  } finally {
    unlock();
  }
}

async function signInOf(
  options: RegisterOptions,
): Promise<Pick<EnrollOptions, 'url' | 'certificateSha256' | 'registrationKey' | 'userName' | 'password'>> {
  if (options.local) {
    const found = findFirstStart(surroundings());
    if (!found)
      throw new UsageError(
        'no first-start file of a server on this machine was found; is it running, under the same HOLDFAST_DATA?',
      );
    return found;
  }
  const missing = (['server', 'key', 'user'] as const).filter((name) => !options[name]);
  if (missing.length > 0)
    throw new UsageError(`${missing.map((name) => `--${name}`).join(', ')} missing; see register --help`);
  const certificateSha256 = options.fingerprint === undefined ? null : parseFingerprint(options.fingerprint);
  if (options.fingerprint !== undefined && certificateSha256 === null)
    throw new UsageError('--fingerprint takes a SHA-256: 64 hex digits, with or without colons');
  const password = await readPassword(`Password of ${options.user}`, options.passwordFile, '--password-file');
  return { url: options.server!, certificateSha256, registrationKey: options.key!, userName: options.user!, password };
}

/** The GUID to take over; null when none is wanted or the person has to choose, who is then told from what. */
async function deviceToReplace(
  signIn: Awaited<ReturnType<typeof signInOf>>,
  options: RegisterOptions,
  output: Output,
): Promise<string | null> {
  if (typeof options.replace === 'string') return options.replace;
  if (!options.replace) return null;
  const client = connect({ ...signIn, retry: { giveUpAfterMs: 30_000 } });
  try {
    const { devices } = await client.devices({
      registrationKey: signIn.registrationKey,
      userName: signIn.userName,
      password: signIn.password,
    });
    if (devices.length === 1) return devices[0]!.guid;
    output.say(
      devices.length === 0
        ? `${signIn.userName} has no device to replace.`
        : 'Which one? Give its GUID: register --replace GUID',
    );
    for (const device of devices) {
      const last =
        device.lastCommittedAt === null ? 'never backed up' : `last backed up ${momentInWords(device.lastCommittedAt)}`;
      output.say(`  ${device.guid.padEnd(20)} ${device.deviceName} (${device.platform}, ${device.state}, ${last})`);
      output.emit('device', device);
    }
    return null;
  } finally {
    await client.close();
  }
}
