/** Passwords come from a file, from stdin or from a person; never from the command line, where others can read them. */
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline/promises';
import { UsageError } from './output.ts';

/**
 * A password from `file` ('-': stdin), else asked on the terminal. The line break at a file's end does not count.
 * @throws UsageError when there is no file and no terminal to ask on
 */
export async function readPassword(question: string, file: string | undefined, option: string): Promise<string> {
  const password =
    file === undefined
      ? await askHidden(question, option)
      : readFileSync(file === '-' ? 0 : file, 'utf8').replace(/\r?\n$/, '');
  if (password === '') throw new UsageError('the password is empty');
  return password;
}

export const hasTerminal = (): boolean => process.stdin.isTTY === true;

/** What a person types, which need not be hidden: a code that is good once. Only where `hasTerminal`. */
export async function askLine(question: string): Promise<string> {
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return (await lines.question(`${question}: `)).trim();
  } catch (error) {
    throw new UsageError('cancelled', { cause: error }); // Ctrl-C
  } finally {
    lines.close();
  }
}

/** @throws UsageError without a terminal */
function askHidden(question: string, option: string): Promise<string> {
  const { stdin, stderr } = process;
  if (!stdin.isTTY)
    throw new UsageError(`no terminal to ask for a password on; give ${option} FILE (or '-' for stdin)`);
  stderr.write(`${question}: `);
  return new Promise((resolve, reject) => {
    let typed = '';
    stdin.setRawMode(true);
    stdin.setEncoding('utf8');
    stdin.resume();
    const finish = (): void => {
      stdin.off('data', onData);
      stdin.setRawMode(false);
      stdin.pause();
      stderr.write('\n');
    };
    const onData = (text: string): void => {
      for (const character of text) {
        const done = character === '\r' || character === '\n' || character === '\u0004';
        const cancelled = character === '\u0003';
        if (done || cancelled) {
          finish();
          if (done) resolve(typed);
          else reject(new UsageError('cancelled'));
          return;
        }
        typed = character === '\u007f' || character === '\b' ? typed.slice(0, -1) : typed + character;
      }
    };
    stdin.on('data', onData);
  });
}
