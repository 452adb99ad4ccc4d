/** The reference agent's command line as a child process, in an agent's folder of its own, heard through --json. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { type Client, connect } from '../../agent/client/index.ts';
import { type Registration, readRegistration } from '../../agent/state/registration.ts';
import type { Person } from './server.ts';

const agentMain = fileURLToPath(new URL('../../agent/main.ts', import.meta.url));

/** A line of --json: `event` says which. */
export type AgentEvent = { event: string } & Record<string, unknown>;

export interface AgentRun {
  exitCode: number | null;
  events: AgentEvent[];
  errors: string;
}

export interface RunningAgent {
  child: ChildProcess;
  done: Promise<AgentRun>;
}

export interface AgentOptions {
  /** The data folder of a server on this machine, by which the agent finds it and registers itself. */
  localServer?: string;
  /** What Node runs in place of the agent's main file. */
  main?: string;
}

export class TestAgent {
  readonly home = mkdtempSync(join(tmpdir(), 'holdfast-agent-'));
  readonly #options: AgentOptions;
  readonly #running = new Set<ChildProcess>();

  constructor(options: AgentOptions = {}) {
    this.#options = options;
  }

  /** Starts a command, without waiting for its end. */
  start(...args: string[]): RunningAgent {
    const { localServer, main = agentMain } = this.#options;
    const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', main, ...args, '--json'], {
      env: {
        PATH: process.env.PATH,
        HOME: this.home,
        HOLDFAST_AGENT_HOME: join(this.home, 'agent'),
        ...(localServer === undefined ? {} : { HOLDFAST_DATA: localServer }),
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#running.add(child);
    const events: AgentEvent[] = [];
    let errors = '';
    createInterface({ input: child.stdout }).on('line', (line) => events.push(JSON.parse(line)));
    child.stderr.on('data', (bytes) => {
      errors = (errors + bytes).slice(-16_384);
    });
    const done = new Promise<AgentRun>((resolve) =>
      child.once('close', (exitCode) => {
        this.#running.delete(child);
        resolve({ exitCode, events, errors });
      }),
    );
    return { child, done };
  }

  /** Runs a command to its end, whatever that is. */
  run(...args: string[]): Promise<AgentRun> {
    return this.start(...args).done;
  }

  /** Runs a command that must end with 0. @returns the fields of its last event. @throws Error with what it said */
  async succeed(...args: string[]): Promise<AgentEvent> {
    const { exitCode, events, errors } = await this.run(...args);
    const last = events.at(-1);
    if (exitCode !== 0 || !last)
      throw new Error(`agent ${args.join(' ')} ended with ${exitCode}: ${JSON.stringify(events.slice(-5))} ${errors}`);
    return last;
  }

  /** Arguments of `register` for a person's sign-in; passwords go through files in the agent's folder. */
  signIn(server: { url: string; certificateSha256: string }, person: Person, archivePassword?: string): string[] {
    const { registrationKey, userName } = person;
    const at = ['--server', server.url, '--fingerprint', server.certificateSha256];
    const who = [
      '--key',
      registrationKey,
      '--user',
      userName,
      '--password-file',
      this.file('password', person.password),
    ];
    if (archivePassword === undefined) return ['register', ...at, ...who];
    return ['register', ...at, ...who, '--archive-password-file', this.file('archive-password', archivePassword)];
  }

  /** Writes a file into the agent's scratch folder. @returns its path */
  file(name: string, text: string): string {
    const path = join(this.home, name);
    writeFileSync(path, text, { mode: 0o600 });
    return path;
  }

  get registration(): Registration {
    const registration = readRegistration(join(this.home, 'agent'));
    if (!registration) throw new Error(`there is no registration in ${this.home}`);
    return registration;
  }

  /** The client library with this device's token. The caller closes it. */
  client(): Client {
    return connect(this.registration);
  }

  /** Ends what still runs and removes the folder. */
  remove(): void {
    for (const child of this.#running) child.kill('SIGKILL');
    rmSync(this.home, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 });
  }
}
