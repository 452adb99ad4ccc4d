/** `register`: makes this machine a device of a user, or lets it take the place of one that is lost. */
import { type Command, Option } from 'commander';
import type { DevicesAnswer } from '../../protocol/messages.ts';
import { connect } from '../client/client.ts';
import { lockHome } from '../state/lock.ts';
import { type Registration, readRegistration } from '../state/registration.ts';
import { type EnrollOptions, enroll, type WayIn, wayInFields } from './enroll.ts';
import { once, readArchivePassword, readCustomKey } from './keys/secrets.ts';
import { createOutput, exitCodes, type Output, UsageError } from './output.ts';
import { askLine, hasTerminal } from './passwords.ts';
import { type CommonOptions, homeOf } from './session.ts';
import { readWayIn, type WayInOptions, withCode } from './way-in.ts';
import { momentInWords } from './words.ts';

interface RegisterOptions extends CommonOptions, WayInOptions {
  archivePasswordFile?: string;
  customKeyFile?: string;
  level?: Registration['level'];
  name?: string;
  replace?: string | boolean;
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
      new Option('--code <code>', 'of your second factor, or a recovery code; asked for when it is needed').env(
        'HOLDFAST_CODE',
      ),
    )
    .addOption(
      new Option(
        '--registration-code <code>',
        "in the place of key, user and password ('-': asked for, or from stdin): good for one device, for a short time",
      ).env('HOLDFAST_REGISTRATION_CODE'),
    )
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
  npm run agent -- register --server https://backup.example:4443 --fingerprint 3f:9a:... --registration-code -

Without a password, or where you would rather not type it: a registration code. You make one yourself, signed in elsewhere,
with 'npm run admin -- me registration-codes create', or your administrator does. Others on this machine can read what
stands on the command line: with '-' the code is asked for. Cut off, run the same command again: it goes on with the same
device.

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
    const at = await readWayIn(options);
    const chosen =
      options.replace === true
        ? await chooseReplaced(at, output)
        : { wayIn: at.wayIn, replace: options.replace || null };
    if (chosen === null) return exitCodes.usage;
    const { replace } = chosen;
    const wanted = {
      ...at,
      home,
      deviceName: options.name,
      level: options.level,
      archivePassword: once(() => readArchivePassword(options, { isNew: false })),
      // Made only for a vault that may be new: a mistyped name must not bring a second key into the world that opens nothing.
      customKey: once(() =>
        readCustomKey(options, { mayMake: options.level === 'custom' && !options.replace }, output),
      ),
      ...(replace ? { replace } : {}),
    };
    const registration = await withCode(chosen.wayIn, output, (wayIn) => enroll({ ...wanted, wayIn }));
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

/**
 * The device to take over, and what to register with: where a code was used up by looking, what was answered in its place.
 * Null when the person has to choose, who is then told from what.
 */
async function chooseReplaced(
  { url, certificateSha256, wayIn }: Pick<EnrollOptions, 'url' | 'certificateSha256' | 'wayIn'>,
  output: Output,
): Promise<{ replace: string; wayIn: WayIn } | null> {
  const client = connect({ url, certificateSha256, retry: { giveUpAfterMs: 30_000 } });
  try {
    const [{ devices, registrationCode }, used] = await withCode(wayIn, output, async (given) => [
      await client.devices(wayInFields(given)),
      given,
    ]);
    const next = registrationCode === undefined ? used : { registrationCode };
    if (devices.length === 1) return { replace: devices[0]!.guid, wayIn: next };
    if (devices.length === 0) output.say('There is no device to replace. Register without --replace.');
    for (const device of devices) {
      output.say(`  ${device.guid.padEnd(20)} ${deviceInWords(device)}`);
      output.emit('device', device);
    }
    if (devices.length === 0) return null;
    const chosen = hasTerminal() && !output.json ? await askLine('Which one? Its GUID, or nothing to leave it') : '';
    if (devices.some(({ guid }) => guid === chosen)) return { replace: chosen, wayIn: next };
    if (chosen !== '') throw new UsageError(`${chosen} is none of them`);
    const code = registrationCode === undefined ? '' : ` --registration-code ${registrationCode}`;
    const instead =
      code && '\nThat code is good for ten minutes, in the place of --key, --user, the password and --code.';
    output.say(`Which one? Give its GUID: register --server ... --replace GUID${code}${instead}`);
    output.emit('choose', { ...(registrationCode !== undefined && { registrationCode }) });
    return null;
  } finally {
    await client.close();
  }
}

function deviceInWords({ deviceName, platform, state, lastCommittedAt }: DevicesAnswer['devices'][number]): string {
  const last = lastCommittedAt === null ? 'never backed up' : `last backed up ${momentInWords(lastCommittedAt)}`;
  return `${deviceName} (${platform}, ${state}, ${last})`;
}
