/**
 * The administrator's command: its own commands, and one for each route of the server, made from the server's description
 * of itself. The description comes from this folder's copy where that is fresh; a word that it does not know is looked
 * for in the server's own before it is called wrong.
 */
import { Command, CommanderError } from 'commander';
import { type ApiDescription, describeApi, describeFromCopy } from './client/api-document.ts';
import { addOperations } from './commands/operation-commands.ts';
import { note, reportError } from './commands/output.ts';
import { openSession, programVersion, type Session } from './commands/session.ts';
import { addSignIn } from './commands/sign-in.ts';
import { ownCommands } from './document/names.ts';
import { exitCodes } from './errors.ts';
import type { Surroundings } from './state/home.ts';

/** @param args what follows the program's name @returns the exit code */
export async function run(args: readonly string[], around: Surroundings): Promise<number> {
  const json = args.includes('--json');
  let session: Session | null = null;
  try {
    session = openSession(around);
    const isOwn = args[0] !== 'help' && ownCommands.includes(args[0] ?? '');
    if (!session || isOwn) return await parse(args, { around, session, description: null, unknown: 'say' });
    const description = await describe(session, args);
    const options = { around, session, description };
    if (!description || description.isNew) return await parse(args, { ...options, unknown: 'say' });
    const code = await parse(args, { ...options, unknown: 'keep' });
    if (code !== isUnknown) return code;
    const anew = await describeApi(session.connection, session.home, { anew: true, now: Date.now() }).catch(() => null);
    return await parse(args, { ...options, description: anew ?? description, unknown: 'say' });
  } catch (error) {
    return reportError(error, { json });
  } finally {
    session?.connection.close();
  }
}

/** Null when there is none to be had, and none is needed to say how to sign in. */
async function describe({ connection, home }: Session, args: readonly string[]): Promise<ApiDescription | null> {
  try {
    return await describeApi(connection, home, { anew: false, now: Date.now() });
  } catch (error) {
    const copy = describeFromCopy(connection.origin, home);
    const isHelp = args.length === 0 || args[0] === 'help' || args.includes('--help') || args.includes('-h');
    if (!copy && !isHelp) throw error;
    if (isHelp) note(`${(error as Error).message}\n`);
    return copy;
  }
}

/** Instead of an exit code: a word is not known, and nothing was said or done. */
const isUnknown = -1;
const unknownCodes = ['commander.unknownCommand', 'commander.unknownOption', 'commander.excessArguments'];

interface Parsing {
  around: Surroundings;
  session: Session | null;
  description: ApiDescription | null;
  /** What to do about a word that is not known. */
  unknown: 'say' | 'keep';
}

async function parse(args: readonly string[], { around, session, description, unknown }: Parsing): Promise<number> {
  const kept: string[] = [];
  const program = new Command('npm run admin --')
    .description('Administers a Holdfast server: everything its JSON API does, for people and scripts.')
    .version(programVersion())
    .showHelpAfterError('(see --help)')
    .configureOutput({ writeErr: (text) => kept.push(text) })
    .configureHelp({ showGlobalOptions: false })
    .exitOverride()
    .addHelpText('after', `\n${footer(session, description)}`);
  addSignIn(program, around);
  if (session && description) addOperations(program, description.operations, session);
  try {
    await program.parseAsync([...args], { from: 'user' });
    return exitCodes.ok;
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (unknown === 'keep' && unknownCodes.includes(error.code)) return isUnknown;
    process.stderr.write(kept.join(''));
    if (unknownCodes.includes(error.code) && !description) note(withoutDescription(session));
    return error.exitCode === 0 ? exitCodes.ok : exitCodes.usage;
  }
}

function withoutDescription(session: Session | null): string {
  if (session) return 'Most commands come from the server, which could not be asked.';
  return 'Most commands come from the server: sign in first, npm run admin -- sign-in --help';
}

function footer(session: Session | null, description: ApiDescription | null): string {
  const from = description
    ? `The commands above are those of ${session!.connection.origin}. Each has --help, with who may and examples.`
    : withoutDescription(session);
  return `${from}

Exit codes: ${exitCodes.ok} done; ${exitCodes.failed} refused or failed; ${exitCodes.usage} wrong usage, nothing was sent; ${exitCodes.interrupted} interrupted.
Results are on stdout, everything else on stderr. With --json an error is JSON there too.
Settings: HOLDFAST_ADMIN_HOME: the folder of sign-in and cache. HOLDFAST_ADMIN_SERVER, HOLDFAST_ADMIN_FINGERPRINT,
HOLDFAST_ADMIN_CLIENT_ID and HOLDFAST_ADMIN_CLIENT_SECRET, or HOLDFAST_ADMIN_TOKEN: for scripts, instead of sign-in.`;
}
