/** What is asked of a person, and secrets from files and stdin; never from the command line, where others can read them. */
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline/promises';
import { UsageError } from '../errors.ts';
import { printable } from './printable.ts';

/**
 * A secret from `file` ('-': stdin), else asked on the terminal without showing it. A file's last line break does not count.
 * @throws UsageError when there is no file and no terminal to ask on
 */
export async function readSecret(question: string, file: string | undefined, option: string): Promise<string> {
  const secret = file === undefined ? await askHidden(question, option) : readWhole(file).replace(/\r?\n$/, '');
  if (secret === '') throw new UsageError(`${printable(question)}: it is empty`);
  return secret;
}

/** A file's text, '-': of stdin. @throws UsageError naming the file */
export function readWhole(file: string): string {
  try {
    return readFileSync(file === '-' ? 0 : file, 'utf8');
  } catch (cause) {
    throw new UsageError(`${file} cannot be read: ${(cause as Error).message}`, { cause });
  }
}

/** A person can be asked: they type, and see what is asked. */
export function isSomebodyThere(): boolean {
  return process.stdin.isTTY === true && process.stderr.isTTY === true;
}

/** @throws UsageError without a terminal */
function askHidden(question: string, option: string): Promise<string> {
  const { stdin, stderr } = process;
  if (!isSomebodyThere())
    throw new UsageError(`no terminal to ask on (${printable(question)}); give ${option} FILE, or '-' for stdin`);
  return new Promise((resolve, reject) => {
    let typed = '';
    // Before it is asked: the terminal shows nothing of what comes, however early.
    stdin.setRawMode(true);
    stderr.write(`${printable(question)}: `);
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
        const isDone = character === '\r' || character === '\n' || character === '\u0004';
        if (isDone || character === '\u0003') {
          finish();
          if (isDone) resolve(typed);
          else reject(new UsageError('cancelled'));
          return;
        }
        if (character === '\u007f' || character === '\b') typed = [...typed].slice(0, -1).join('');
        else typed += character;
      }
    };
    stdin.on('data', onData);
  });
}

export interface Confirmation {
  /** What is about to happen, to what, where. */
  says: string;
  /** What has to be typed to go on. */
  name: string;
}

/** @throws UsageError when something else is typed, or nobody is there to type */
export async function confirm({ says, name }: Confirmation, ask: (question: string) => Promise<string>): Promise<void> {
  const shown = printable(name);
  const typed = await ask(`${printable(says)}\nType ${shown} to go on: `);
  if (typed.trim() !== shown.trim()) throw new UsageError('that is another name; nothing was done');
}

/** A line typed on the terminal. @throws UsageError without one */
export async function askLine(question: string): Promise<string> {
  if (!isSomebodyThere())
    throw new UsageError('no terminal to ask on; give --yes when it is to be done without asking');
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return await lines.question(question);
  } finally {
    lines.close();
  }
}
