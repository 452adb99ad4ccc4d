/** A command with words and options of its own: everything after its name on the command line is read by it. */

/** The command line is not understood. The message says what of it; the usage follows. */
export class UsageError extends Error {
  override name = 'UsageError';
}

export type Say = (line: string) => void;

export interface OperatorCommand {
  /** What `--help` prints: what it is for, how it is called, an example. */
  usage: string;
  /** @returns the exit code. @throws UsageError, and what parseArgs throws */
  run(args: readonly string[], say: Say): Promise<number>;
}

/** Runs a command, or prints its usage. @returns the process's exit code */
export async function runOperatorCommand(
  command: OperatorCommand,
  args: readonly string[],
  say: Say,
  complain: Say,
): Promise<number> {
  if (args.includes('--help') || args.includes('-h')) {
    say(command.usage);
    return 0;
  }
  try {
    return await command.run(args, say);
  } catch (error) {
    const { code } = error as { code?: unknown };
    const isUsage = error instanceof UsageError || (typeof code === 'string' && code.startsWith('ERR_PARSE_ARGS'));
    if (!isUsage) throw error;
    complain(`${(error as Error).message}\n\n${command.usage}`);
    return 2;
  }
}
