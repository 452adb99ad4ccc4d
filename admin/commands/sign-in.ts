/** `sign-in`, `sign-out`, `whoami`: who asks. The password is asked for, or read from a file; the tokens stay in the folder. */
import { type Command, Option } from 'commander';
import { Problem } from '../../protocol/problems.ts';
import type { Connection } from '../client/connection.ts';
import { readFingerprint, readOrigin, type ServerAddress } from '../client/pinned-agent.ts';
import { SignInNeeded, UsageError } from '../errors.ts';
import { adminHome, firstStartFile, readTextFile, type Surroundings } from '../state/home.ts';
import { forgetTokens, readSignedIn, readTokens, type Tokens, writeSignedIn } from '../state/signed-in.ts';
import { isSomebodyThere, readSecret } from './ask.ts';
import { yesOption } from './dangerous.ts';
import { note, say, sayJson } from './output.ts';
import { printable } from './printable.ts';
import { ask, connectionTo, howToSignIn, openSession } from './session.ts';
import { detailLines } from './table.ts';
import { momentInWords } from './words.ts';

interface SignInOptions {
  server?: string;
  fingerprint?: string;
  tenant?: string;
  user?: string;
  operator?: boolean;
  passwordFile?: string;
  codeFile?: string;
  newPasswordFile?: string;
  local?: boolean;
  json?: boolean;
}

export function addSignIn(program: Command, around: Surroundings): void {
  program
    .command('sign-in')
    .summary('Sign in to a server')
    .description(
      'Sign in to a server. The password is asked for; tokens, good for a while, are kept in your own folder.',
    )
    .option('--server <url>', 'https://HOST:PORT; the one before when left out')
    .option(
      '--fingerprint <sha256>',
      "SHA-256 of the server's certificate; without it the system's authorities must vouch for it",
    )
    .option('--user <name>', 'your name')
    .option('--tenant <tenant>', "its number, its name, or a registration key in it; the server's first when left out")
    .addOption(new Option('--operator', 'as one who runs the server, who is of no tenant').conflicts('tenant'))
    .option('--password-file <file>', "read the password from a file, '-': stdin")
    .option('--code-file <file>', 'read the code of the second factor from a file')
    .option('--new-password-file <file>', 'read a new password from a file, when one has to be set')
    .addOption(yesOption())
    .option('--local', 'to the embedded server of this same machine, by its first-start file')
    .option('--json', 'JSON on stdout, for scripts')
    .addHelpText(
      'after',
      `
Examples:
  npm run admin -- sign-in --server https://backup.example:8443 --user anna
  npm run admin -- sign-in --server https://192.0.2.7:8443 --fingerprint 3f:9a:... --tenant 12 --user anna
  npm run admin -- sign-in --local

Scripts sign in as an API client, without this: HOLDFAST_ADMIN_SERVER (and HOLDFAST_ADMIN_FINGERPRINT) with
HOLDFAST_ADMIN_CLIENT_ID and HOLDFAST_ADMIN_CLIENT_SECRET, or with HOLDFAST_ADMIN_TOKEN.`,
    )
    .action((options: SignInOptions) => signIn(options, around));
  program
    .command('sign-out')
    .description('End your session on the server, and forget its tokens here.')
    .addOption(yesOption())
    .action(() => signOut(around));
  program
    .command('whoami')
    .description('Show who you are signed in as, where, and what you may.')
    .addOption(yesOption())
    .option('--json', 'JSON on stdout, for scripts')
    .action((options: { json?: boolean }) => whoami(options, around));
}

interface Credentials {
  address: ServerAddress;
  userName: string;
  password: () => Promise<string>;
}

async function signIn(options: SignInOptions, around: Surroundings): Promise<void> {
  const { tenant = null, operator = false } = options;
  const { address, userName, password } = options.local
    ? localCredentials(around, operator)
    : givenCredentials(options, around);
  const connection = connectionTo(address);
  const path = operator ? '/v1/operator/sessions' : '/v1/sessions';
  const given = { ...(tenant !== null && { tenant }), userName, password: await password() };
  const tokens = await untilSignedIn(connection, path, given, options);
  connection.close();
  const home = adminHome(around);
  await endFormer(home, around);
  const { origin: server, certificateSha256 } = address;
  writeSignedIn(home, { server, certificateSha256, tenant, userName, operator, tokens: tokens.tokens });
  if (options.json) return sayJson({ server, userName, session: tokens.tokens.session, limited: tokens.limited });
  say([`Signed in to ${server} as ${printable(userName)}. The tokens are in ${home}, readable by you alone.`]);
  if (tokens.limited)
    note('A second factor has to be set up before anything else: npm run admin -- me second-factor set-up');
}

function givenCredentials(options: SignInOptions, around: Surroundings): Credentials {
  const before = readSignedInOrNone(adminHome(around));
  const text = options.server ?? before?.server;
  const userName = options.user ?? (options.server === undefined ? before?.userName : undefined);
  const missing = [text === undefined ? '--server' : '', userName === undefined ? '--user' : ''].filter(Boolean);
  if (missing.length > 0) throw new UsageError(`missing: ${missing.join(', ')}   (see sign-in --help)`);
  const origin = readOrigin(text!);
  const pinned = before?.server === origin ? before.certificateSha256 : null;
  const certificateSha256 = options.fingerprint === undefined ? pinned : readFingerprint(options.fingerprint);
  const question = `Password of ${userName} at ${origin}`;
  return {
    address: { origin, certificateSha256 },
    userName: userName!,
    password: () => readSecret(question, options.passwordFile, '--password-file'),
  };
}

/** A damaged file is no reason not to sign in anew. */
function readSignedInOrNone(home: string) {
  try {
    return readSignedIn(home);
  } catch {
    return null;
  }
}

function localCredentials(around: Surroundings, operator: boolean): Credentials {
  const file = firstStartFile(around);
  const text = readTextFile(file);
  if (text === null)
    throw new UsageError(`${file} is not there: is a server running on this machine, under the same HOLDFAST_DATA?`);
  const read = JSON.parse(text) as Record<string, unknown>;
  const { url, certificateSha256 } = read;
  const { userName, password } = (operator ? (read.operator ?? {}) : read) as Record<string, unknown>;
  if (typeof url !== 'string' || url === '' || typeof userName !== 'string' || typeof password !== 'string')
    throw new UsageError(`${file} does not say where the server is: start it once`);
  return {
    address: {
      origin: readOrigin(url),
      certificateSha256: typeof certificateSha256 === 'string' ? readFingerprint(certificateSha256) : null,
    },
    userName,
    password: async () => password,
  };
}

/** Asks for what is still missing, each once: the code of the second factor, a new password. */
async function untilSignedIn(
  connection: Connection,
  path: string,
  given: Record<string, unknown>,
  options: SignInOptions,
): Promise<{ tokens: Tokens; limited: boolean }> {
  const body = { ...given };
  for (;;) {
    try {
      const now = Date.now();
      const answer = await connection.json({ method: 'POST', path, body, repeatable: false });
      return { tokens: readTokens(answer, now), limited: (answer as { limited?: unknown }).limited === true };
    } catch (error) {
      const code = error instanceof Problem ? error.code : null;
      if (code === 'second_factor_needed' && body.code === undefined)
        body.code = (await readSecret('Code of the second factor', options.codeFile, '--code-file')).trim();
      else if (code === 'password_change_needed' && body.newPassword === undefined)
        body.newPassword = await readNewPassword(options.newPasswordFile);
      else throw error;
    }
  }
}

async function readNewPassword(file: string | undefined): Promise<string> {
  const option = '--new-password-file';
  if (file === undefined && isSomebodyThere()) note('A new password has to be set.');
  const password = await readSecret('New password', file, option);
  if (file === undefined && password !== (await readSecret('The same again', undefined, option)))
    throw new UsageError('the two are not the same; nothing was changed');
  return password;
}

/** The session before is of no more use to anyone but a thief. That it cannot be ended is no reason not to sign in. */
async function endFormer(home: string, around: Surroundings): Promise<void> {
  if (!readSignedInOrNone(home)?.tokens) return;
  await endSession(around).catch(() => note('The session before could not be ended; it ends by itself.'));
}

async function endSession(around: Surroundings): Promise<void> {
  const session = openSession({ ...around, env: { HOLDFAST_ADMIN_HOME: adminHome(around) } });
  if (!session) return;
  try {
    const { body } = await ask(session, { method: 'DELETE', path: '/v1/sessions/current', repeatable: true });
    body.resume();
  } catch (error) {
    // Ended already.
    if (!(error instanceof SignInNeeded)) throw error;
  } finally {
    session.connection.close();
  }
}

async function signOut(around: Surroundings): Promise<void> {
  const home = adminHome(around);
  const signedIn = readSignedIn(home);
  if (!signedIn?.tokens) return note('Nobody is signed in.');
  try {
    await endSession(around);
  } finally {
    forgetTokens(home);
  }
  say([`Signed out of ${signedIn.server}.`]);
}

async function whoami({ json }: { json?: boolean }, around: Surroundings): Promise<void> {
  const session = openSession(around);
  if (!session) throw new SignInNeeded(howToSignIn);
  const answer = await ask(session, { method: 'GET', path: '/v1/me', repeatable: true });
  let text = '';
  for await (const part of answer.body) text += part;
  const me = JSON.parse(text) as object;
  session.connection.close();
  const server = session.connection.origin;
  if (json) return sayJson({ server, ...me });
  const tokens = session.isSignedIn ? readSignedInOrNone(session.home)?.tokens : null;
  say(detailLines({ server, ...me }));
  if (tokens) note(`Without use this sign-in ends on ${momentInWords(Date.parse(tokens.refreshExpiresAt))}.`);
}
