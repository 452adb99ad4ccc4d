/**
 * Starts programs, those of this repository and others, as processes of their own, and ends every one of them, however we end.
 * Each leads a process group of its own: a Ctrl-C reaches us alone, and we stop the others in order.
 */
import { type ChildProcess, spawn } from 'node:child_process';

export interface Program {
  pid: number;
  /** Standard output so far, and standard error, each the last 64 KiB. */
  output(): string;
  errors(): string;
  /** Resolves with the match once standard output shows it. @throws Error with what it said, when it ends first */
  says(what: RegExp, timeoutMs: number): Promise<RegExpMatchArray>;
  /** Resolves with the exit code when it has ended; null when a signal ended it. */
  ended: Promise<number | null>;
  /** Asks it to end, and makes it after a bound. Resolves when it has. */
  stop(boundMs: number): Promise<void>;
}

export interface ProgramOptions {
  /** Given to Node itself, before the script. */
  nodeArguments?: readonly string[];
  /** It looks after itself when we are killed. Others are ended (see end-with-parent.ts). */
  endsByItself?: boolean;
  environment?: Record<string, string>;
  /** Called with each whole line of standard output. */
  onLine?: (line: string) => void;
}

const endWithParent = new URL('./end-with-parent.ts', import.meta.url).href;
const keptCharacters = 64 * 1024;
const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGTERM');
});

/** Runs `node SCRIPT ARGUMENTS`. */
export function startProgram(
  script: string,
  programArguments: readonly string[],
  options: ProgramOptions = {},
): Program {
  const nodeArguments = [
    '--disable-warning=ExperimentalWarning',
    ...(options.endsByItself ? [] : ['--import', endWithParent]),
    ...(options.nodeArguments ?? []),
  ];
  return startCommand(process.execPath, [...nodeArguments, script, ...programArguments], { ...options, name: script });
}

/**
 * Runs any program. One that is not ours sees nothing of our being killed: give it a bound of its own (timeout(1)).
 * @param options.name what it is called in errors
 */
export function startCommand(
  command: string,
  commandArguments: readonly string[],
  options: Pick<ProgramOptions, 'environment' | 'onLine'> & { name?: string } = {},
): Program {
  const { name = command } = options;
  const child = spawn(command, commandArguments, {
    env: { ...surroundings(), ...options.environment },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: process.platform !== 'win32',
    windowsHide: true,
  });
  running.add(child);
  let output = '';
  let errors = '';
  let line = '';
  const listeners = new Set<() => void>();
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output = (output + text).slice(-keptCharacters);
    const lines = (line + text).split('\n');
    line = lines.pop()!;
    for (const whole of lines) options.onLine?.(whole);
    for (const listener of listeners) listener();
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    errors = (errors + text).slice(-keptCharacters);
  });
  const ended = new Promise<number | null>((resolve) => {
    child.once('error', (error) => {
      errors += error.message;
      resolve(null);
    });
    child.once('close', resolve);
  });
  void ended.then(() => running.delete(child));
  return {
    pid: child.pid ?? -1,
    output: () => output,
    errors: () => errors,
    ended,
    says: (what, timeoutMs) =>
      new Promise((resolve, reject) => {
        const fail = (why: string): void => {
          listeners.delete(look);
          reject(new Error(`${name} ${why}: ${output}${errors}`.trim()));
        };
        const timer = setTimeout(() => fail(`did not say ${what} within ${timeoutMs / 1000} s`), timeoutMs);
        const look = (): void => {
          const match = output.match(what);
          if (!match) return;
          clearTimeout(timer);
          listeners.delete(look);
          resolve(match);
        };
        listeners.add(look);
        void ended.then((code) => {
          clearTimeout(timer);
          fail(`ended with ${code}`);
        });
        look();
      }),
    stop: async (boundMs) => {
      child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), boundMs);
      await ended;
      clearTimeout(timer);
    },
  };
}

/** Our own environment, without what is set for a server, an agent or a restic of this machine's user. */
function surroundings(): Record<string, string> {
  const kept = Object.entries(process.env).filter(
    ([name, value]) => value !== undefined && !/^(HOLDFAST|npm|RESTIC|RCLONE)_/.test(name),
  );
  return Object.fromEntries(kept) as Record<string, string>;
}
