/**
 * Answers what is in folders of this machine, beside whatever else goes on, one folder after the other. Looks keep no more than
 * two of the four threads that Node has for files (browse-folder.ts), which backups and restores need, and tidying up after
 * restores no more than one (leftovers.ts); and while one is stuck in a disk that does not answer, no other is begun.
 */
import type { BrowseCommand, CommandAnswerRequest } from '../../protocol/commands.ts';
import { joinPath } from '../../protocol/paths.ts';
import type { CommandCalls } from '../client/command-calls.ts';
import { type BrowseHere, browseFolder, faultAt } from './browse-folder.ts';

/** The server waits for 20 s; a folder that takes longer is on a disk that does not answer. */
const timeMsMax = 15_000;
/** Those that wait; who asked first has given up by then. */
const waitingMax = 100;

interface Waiting {
  id: number;
  answer: () => Promise<CommandAnswerRequest>;
}

export class Browses {
  readonly #commands: Pick<CommandCalls, 'answer'>;
  readonly #here: BrowseHere;
  /** What is answered to all; null: they are looked at. */
  readonly #refusal: string | null;
  readonly #signal: AbortSignal;
  readonly #waiting: Waiting[] = [];
  /** The one that is looked at, or whose answer is on its way. */
  #underWay: number | null = null;
  readonly #look: typeof browseFolder;
  readonly #timeMs: number;
  /** The folder of a look whose time was up, and that the system still works at. */
  #stuckIn: Buffer | null = null;

  /** @param options.look for tests, as the time is: a disk that does not answer */
  constructor(
    commands: Pick<CommandCalls, 'answer'>,
    here: BrowseHere,
    refusal: string | null,
    signal: AbortSignal,
    options: { look?: typeof browseFolder; timeMs?: number } = {},
  ) {
    this.#look = options.look ?? browseFolder;
    this.#timeMs = options.timeMs ?? timeMsMax;
    this.#commands = commands;
    this.#here = here;
    this.#refusal = refusal;
    this.#signal = signal;
  }

  get idle(): boolean {
    return this.#underWay === null && this.#waiting.length === 0;
  }

  /** Told twice it is answered once, unless it was answered before: then whoever told it did not hear. */
  take(command: BrowseCommand): void {
    const refusal = this.#refusal;
    this.#add(command.id, async () =>
      refusal === null ? this.#lookWithin(command) : { fault: { code: 'refused', detail: refusal } },
    );
  }

  /** Answers that it cannot be done. */
  refuse(id: number, detail: string): void {
    this.#add(id, async () => ({ fault: { code: 'failed', detail } }));
  }

  #add(id: number, answer: Waiting['answer']): void {
    if (this.#underWay === id || this.#waiting.some((each) => each.id === id)) return;
    this.#waiting.push({ id, answer });
    if (this.#waiting.length > waitingMax) this.#waiting.shift();
    this.#next();
  }

  #next(): void {
    if (this.#underWay === null && this.#waiting.length > 0 && !this.#signal.aborted)
      void this.#answer(this.#waiting.shift()!);
  }

  async #answer({ id, answer }: Waiting): Promise<void> {
    this.#underWay = id;
    try {
      await this.#commands.answer(id, await answer(), this.#signal);
    } catch {
      // Nobody waits for it any more; or the connection broke, and it is told again.
    } finally {
      this.#underWay = null;
      this.#next();
    }
  }

  /** All of it, from the way to the folder to the last name: any call may hang on a disk that is away. */
  async #lookWithin(command: BrowseCommand): Promise<CommandAnswerRequest> {
    if (this.#stuckIn)
      return {
        fault: faultAt(this.#stuckIn, 'failed', 'it does not answer yet; no folder is looked into until it does'),
      };
    const stop = new AbortController();
    const { promise, resolve } = Promise.withResolvers<null>();
    const timer = setTimeout(resolve, this.#timeMs, null);
    timer.unref();
    const looking = this.#look(command, this.#here, AbortSignal.any([this.#signal, stop.signal]));
    const answer = await Promise.race([looking, promise]).finally(() => clearTimeout(timer));
    if (answer !== null) return answer;
    stop.abort();
    const path = command.path ?? joinPath([]);
    this.#stuckIn = path;
    const unstuck = (): void => {
      this.#stuckIn = null;
    };
    looking.then(unstuck, unstuck);
    return { fault: faultAt(path, 'failed', `it takes too long to read (more than ${this.#timeMs / 1000} s)`) };
  }
}
