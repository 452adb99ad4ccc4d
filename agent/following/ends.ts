/** Tells the server how commands ended, until it has heard; what it has not is kept in the agent's folder. */
import type { CommandEndRequest } from '../../protocol/commands.ts';
import { Problem } from '../../protocol/problems.ts';
import type { CommandCalls } from '../client/command-calls.ts';
import { backoffMs } from '../client/retry.ts';
import { Bell } from './bell.ts';
import { failureInWords, isPassing } from './failures.ts';
import type { KeptCommands } from './kept-commands.ts';
import { plainerEnd } from './tally.ts';

const again = { firstDelayMs: 5_000, delayMsMax: 10 * 60_000 };

export class Ends {
  readonly #commands: Pick<CommandCalls, 'end'>;
  readonly #kept: KeptCommands;
  readonly #onRefused: (id: number, error: Error) => void;
  /** Of which that was said. */
  readonly #refused = new Set<number>();
  readonly #bell = new Bell();
  #failures = 0;

  /** @param onRefused the server takes an end for none, and is told it in fewer words as long as there are such; once for each */
  constructor(commands: Pick<CommandCalls, 'end'>, kept: KeptCommands, onRefused: (id: number, error: Error) => void) {
    this.#commands = commands;
    this.#kept = kept;
    this.#onRefused = onRefused;
  }

  /** There is a new one, or the server is back. */
  tell(): void {
    this.#failures = 0;
    this.#bell.ring();
  }

  /** Works until the signal. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      let all = true;
      for (const [id, end] of [...this.#kept.ends]) all = (await this.#tellOne(id, end, signal)) && all;
      await this.#bell.wait(all ? again.delayMsMax : backoffMs(again, ++this.#failures, Math.random()), signal);
    }
  }

  /** @returns false: it is told again later */
  async #tellOne(id: number, end: CommandEndRequest, signal: AbortSignal): Promise<boolean> {
    try {
      await this.#commands.end(id, end, signal);
    } catch (error) {
      if (signal.aborted || isPassing(error)) return false;
      // Of a command that it does not know it wants to hear nothing. What else it refuses for what it is, it would refuse again.
      if (!(error instanceof Problem && error.code === 'not_found')) {
        if (!this.#refused.has(id)) this.#onRefused(id, error as Error);
        this.#refused.add(id);
        const plainer = plainerEnd(end, failureInWords(error));
        if (plainer) {
          this.#kept.reword(id, plainer);
          return this.#tellOne(id, plainer, signal);
        }
      }
    }
    this.#refused.delete(id);
    this.#kept.delivered(id);
    return true;
  }
}
