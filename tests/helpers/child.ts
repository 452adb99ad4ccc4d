/** A program of this repository as a child process, heard until it says that it is ready. */
import { type ChildProcess, spawn } from 'node:child_process';

/** Of what a program says, the end is kept. */
export const saidCharactersMax = 64 * 1024;

export interface StartedChild {
  child: ChildProcess;
  /** The end of what it said so far. */
  said(): string;
  /** @throws Error with what it said, when it ends before it is ready, or is not ready in time */
  ready: Promise<void>;
  /** Resolves when it has ended; null when a signal ended it. */
  ended: Promise<number | null>;
}

export interface ChildOptions {
  /** What it is called in errors. */
  name: string;
  environment: Record<string, string | undefined>;
  /** What it says when it is ready. */
  says: RegExp;
  readyTimeoutMs: number;
}

/** Starts `node COMMAND`. Whoever starts it waits for `ready`, and ends it. */
export function startChild(command: readonly string[], options: ChildOptions): StartedChild {
  const { name, environment, says, readyTimeoutMs } = options;
  const child = spawn(process.execPath, command, { env: environment, stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const listen = (bytes: Buffer): void => {
    said = (said + bytes).slice(-saidCharactersMax);
    if (says.test(said)) resolve();
  };
  child.stdout.on('data', listen);
  child.stderr.on('data', listen);
  const ended = new Promise<number | null>((done) => {
    child.once('close', (code) => {
      reject(new Error(`the ${name} ended with ${code}: ${said}`));
      done(code);
    });
  });
  const late = setTimeout(() => reject(new Error(`the ${name} was not ready in time: ${said}`)), readyTimeoutMs);
  return { child, said: () => said, ready: promise.finally(() => clearTimeout(late)), ended };
}
