/** Runs testing.child.ts for tests, and ends it whatever happens. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

export interface Holder {
  pid: number;
  /** The next line it says. */
  says(): Promise<Record<string, unknown>>;
  kill(signal: NodeJS.Signals): void;
  /** Resolves when it has ended. */
  ended: Promise<void>;
}

const children = new Set<ChildProcess>();

export function startHolder(what: 'postgres' | 'lock', folder: string): Holder {
  const script = fileURLToPath(new URL('testing.child.ts', import.meta.url));
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', script, what, folder], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.add(child);
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    pid: child.pid!,
    async says() {
      const { value, done } = await lines.next();
      if (done) throw new Error('it ended and said nothing');
      return JSON.parse(value) as Record<string, unknown>;
    },
    kill: (signal) => child.kill(signal),
    ended,
  };
}

export function endHolders(): void {
  for (const child of children) child.kill('SIGKILL');
  children.clear();
}
