/** For the tests of this command: it as a process, in a folder of its own, against the real server of tests/api/world.ts. */
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll } from '@jest/globals';

const main = fileURLToPath(new URL('./main.ts', import.meta.url));

/** What Node made of the command's code, for all runs of a test file: half of what a run takes. */
const codeFolder = mkdtempSync(join(tmpdir(), 'holdfast-admin-code-'));
afterAll(() => rmSync(codeFolder, { recursive: true, force: true }));

export interface AdminRun {
  code: number | null;
  out: string;
  err: string;
}

/**
 * Whether there is what makes a terminal: `script` of util-linux. Debian, Ubuntu, Fedora and Arch have it always; the one of
 * macOS and BSD is another, and takes no command so.
 */
export const hasTerminal =
  process.platform === 'linux' &&
  /util-linux/.test(spawnSync('script', ['--version'], { encoding: 'utf8' }).stdout ?? '');

/** What is typed when these words are on the screen. */
export type Dialogue = readonly (readonly [asked: string, typed: string])[];

export class TestAdmin {
  readonly home = mkdtempSync(join(tmpdir(), 'holdfast-admin-'));
  /** Of the commands from here on. */
  environment: Record<string, string> = {};

  /** Runs a command to its end. What it is told on stdin is all there is. */
  async run(args: readonly string[], stdin = ''): Promise<AdminRun> {
    const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', main, ...args], {
      env: this.#env(),
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    let out = '';
    let err = '';
    child.stdout.setEncoding('utf8').on('data', (text) => {
      out += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text) => {
      err += text;
    });
    // A command that asks for nothing may have ended before it is told anything.
    child.stdin.on('error', () => undefined);
    child.stdin.end(stdin);
    const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
    return { code, out, err };
  }

  /**
   * Runs a command on a terminal of its own, and types each answer when it is asked for.
   * @returns its exit code, and all that was on the screen: what is typed, too, where the terminal shows it
   */
  async onTerminal(args: readonly string[], dialogue: Dialogue): Promise<{ code: number | null; screen: string }> {
    const words = [process.execPath, '--disable-warning=ExperimentalWarning', main, ...args];
    const command = words.map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(' ');
    const child = spawn('script', ['--quiet', '--return', '--command', command, '/dev/null'], { env: this.#env() });
    const left = [...dialogue];
    let screen = '';
    let unread = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      screen += text;
      unread += text;
      const [next] = left;
      if (!next || !unread.includes(next[0])) return;
      left.shift();
      unread = '';
      child.stdin.write(next[1]);
    });
    child.stdin.on('error', () => undefined);
    const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
    if (left.length > 0) throw new Error(`"${left[0]![0]}" was not asked: ${screen}`);
    return { code, screen };
  }

  #env(): Record<string, string | undefined> {
    return {
      PATH: process.env.PATH,
      HOME: this.home,
      HOLDFAST_ADMIN_HOME: this.home,
      NODE_COMPILE_CACHE: codeFolder,
      ...this.environment,
    };
  }

  /** Runs a command that must end with 0, with --json. @returns what it said @throws Error with what it said instead */
  async json<T = Record<string, unknown>>(...args: string[]): Promise<T> {
    const { code, out, err } = await this.run([...args, '--json']);
    if (code !== 0) throw new Error(`admin ${args.join(' ')} ended with ${code}: ${out} ${err}`);
    return JSON.parse(out) as T;
  }

  remove(): void {
    rmSync(this.home, { recursive: true, force: true });
  }
}
