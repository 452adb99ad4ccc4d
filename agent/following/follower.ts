/**
 * Does what the server tells this device: looks into folders at once, and restores one after the other. A command is done
 * once, however often it is told; its end is kept in the agent's folder until the server has it. What the network or the
 * server keeps from being done is tried again; what the machine refuses is ended with the reason.
 */
import { randomBytes } from 'node:crypto';
import { rmSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ChannelFrame, CommandEndRequest, RestoreCommand } from '../../protocol/commands.ts';
import { limits } from '../../protocol/limits.ts';
import type { CommandCalls } from '../client/command-calls.ts';
import { backoffMs } from '../client/retry.ts';
import { RestoreEnded, type RestoreSource } from '../restore/types.ts';
import type { Registration } from '../state/registration.ts';
import { Bell } from './bell.ts';
import type { BrowseHere } from './browse-folder.ts';
import { Browses } from './browses.ts';
import { Ends } from './ends.ts';
import { failureInWords, isPassing } from './failures.ts';
import { KeptCommands } from './kept-commands.ts';
import { Tidier } from './leftovers.ts';
import type { Here } from './places.ts';
import { CannotRestore, runRestore, stagingElsewhereOf } from './run-restore.ts';
import { addWhy, Tally } from './tally.ts';

/** The server hears of a restore, and says whether it goes on, this often. */
const progressEveryMs = 5_000;
const retries = { firstDelayMs: 5_000, delayMsMax: 10 * 60_000 };
const someIsLeft = 'unfinished files of it could not be taken away from the device yet';
const notUnderstood = 'this agent does not understand the command; a newer one may';

export interface FollowerOptions {
  commands: Omit<CommandCalls, 'listen'>;
  /** Connections of its own for what a restore reads. */
  openSource: () => { source: RestoreSource; close: () => void };
  /** As it is now: keys may have been added. */
  registration: () => Registration;
  home: string;
  here: Here & BrowseHere;
  /** Why nothing is done; null: all is. */
  refusal: string | null;
  signal: AbortSignal;
  /** What becomes of restores, for people. */
  onEvent: (event: FollowerEvent) => void;
  /** For tests. Default 5 s. */
  progressEveryMs?: number;
  /** For tests. */
  tidying?: ConstructorParameters<typeof Tidier>[0];
}

export type FollowerEvent =
  | { type: 'begun'; command: RestoreCommand }
  | { type: 'delayed'; command: RestoreCommand; error: Error; delayMs: number }
  /** Unfinished files of one that has ended could not be taken away. */
  | { type: 'left'; id: number; error: Error }
  /** The server takes what it was told of an end for no such thing. */
  | { type: 'end_refused'; id: number; error: Error }
  | { type: 'ended'; id: number; end: CommandEndRequest };

interface Waiting {
  command: RestoreCommand;
  failures: number;
  /** When it is its turn, as performance.now() tells time. */
  notBefore: number;
}

export class Follower {
  readonly #options: FollowerOptions;
  readonly #kept: KeptCommands;
  readonly #browses: Browses;
  readonly #ends: Ends;
  readonly #bell = new Bell();
  #queue: Waiting[] = [];
  #running: { id: number; stop: AbortController } | null = null;
  /** What the server told on this connection. */
  #told = new Set<number>();
  readonly #tidier: Tidier;
  /** Ended, and being tidied up after. */
  readonly #clearing = new Set<number>();
  /** What could not be tidied up after on this connection; its folders are kept, and it is tried again on the next one. */
  #left = new Set<number>();

  constructor(options: FollowerOptions) {
    const { commands, home, here, refusal, signal } = options;
    this.#options = options;
    this.#kept = new KeptCommands(home, options.registration());
    this.#browses = new Browses(commands, here, refusal, signal);
    this.#tidier = new Tidier(options.tidying);
    this.#ends = new Ends(commands, this.#kept, (id, error) => options.onEvent({ type: 'end_refused', id, error }));
  }

  /** Nothing waits or is under way, and the server has heard all. */
  get idle(): boolean {
    const restoring = this.#queue.length > 0 || this.#running !== null || this.#clearing.size > 0;
    return !restoring && this.#browses.idle && this.#kept.ends.size === 0;
  }

  onFrame(frame: ChannelFrame): void {
    switch (frame.type) {
      case 'hello':
        this.#told = new Set();
        this.#left = new Set();
        this.#ends.tell(); // it is back
        for (const each of this.#queue) each.notBefore = 0;
        this.#bell.ring();
        break;
      case 'heartbeat':
        this.#forgetUntold();
        break;
      case 'command':
        this.#told.add(frame.command.id);
        if (frame.command.kind === 'browse') this.#browses.take(frame.command);
        else this.#take(frame.command);
        break;
      case 'cancel':
        this.#cancel(frame.id);
        break;
      case 'unreadable':
        this.#told.add(frame.id);
        if (frame.kind === 'browse') this.#browses.refuse(frame.id, notUnderstood);
        else this.#abandon(frame.id, 'failed', notUnderstood);
        break;
    }
  }

  /** Works until the signal. */
  async run(): Promise<void> {
    await Promise.all([this.#runRestores(), this.#ends.run(this.#options.signal)]);
  }

  #take(command: RestoreCommand): void {
    const { id } = command;
    if (this.#running?.id === id || this.#queue.some((each) => each.command.id === id)) return;
    if (this.#clearing.has(id) || this.#kept.hasEnded(id) || this.#queue.length >= limits.deviceCommandsMax) return;
    this.#queue.push({ command, failures: 0, notBefore: 0 });
    this.#bell.ring();
  }

  #cancel(id: number): void {
    if (this.#running?.id === id) this.#running.stop.abort(new RestoreEnded('cancelled'));
    else this.#abandon(id, 'cancelled');
  }

  /** One that is not under way. Perhaps begun by an agent that was killed; and one that was never heard of has an end as well. */
  #abandon(id: number, outcome: 'cancelled' | 'failed', why = ''): void {
    if (this.#running?.id === id || this.#clearing.has(id) || this.#kept.hasEnded(id)) return;
    this.#queue = this.#queue.filter(({ command }) => command.id !== id);
    void this.#clearAndEnd(id, new Tally().end(randomBytes(16), outcome, why));
  }

  /** All open commands are told when a connection begins, before its first heartbeat: others are open no more. */
  #forgetUntold(): void {
    this.#queue = this.#queue.filter(({ command }) => this.#told.has(command.id));
    for (const id of [...this.#kept.begun.keys()]) {
      if (this.#told.has(id) || this.#running?.id === id || this.#clearing.has(id) || this.#left.has(id)) continue;
      void this.#clearAndEnd(id, null);
    }
  }

  /** Of what nobody goes on with. What cannot be taken away is no reason not to tell the end. */
  async #clearAndEnd(id: number, end: CommandEndRequest | null): Promise<void> {
    const isTidy = await this.#tidy(id, async () => {
      for (const folder of this.#kept.begun.get(id) ?? []) await this.#tidier.clear(folder, this.#options.here.way);
      this.#clearElsewhere(id);
    });
    if (end === null) this.#kept.end(id, null, { isTidy });
    else this.#end(id, end, { isTidy });
  }

  #clearElsewhere(id: number): void {
    rmSync(stagingElsewhereOf(this.#options.home, id), { recursive: true, force: true });
  }

  /** Takes away what a restore left that nobody goes on with. Never fails. @returns false: something is left */
  async #tidy(id: number, clear: () => void | Promise<void>): Promise<boolean> {
    this.#clearing.add(id);
    try {
      await clear();
      return true;
    } catch (error) {
      this.#left.add(id);
      this.#options.onEvent({ type: 'left', id, error: error as Error });
      return false;
    } finally {
      this.#clearing.delete(id);
    }
  }

  #end(id: number, as: CommandEndRequest, { isTidy }: { isTidy: boolean }): void {
    const end = isTidy ? as : addWhy(as, someIsLeft);
    this.#kept.end(id, end, { isTidy });
    this.#options.onEvent({ type: 'ended', id, end });
    this.#ends.tell();
  }

  // --- restores -------------------------------------------------------------------------------------------------

  async #runRestores(): Promise<void> {
    const { signal } = this.#options;
    while (!signal.aborted) {
      const now = performance.now();
      const next = this.#queue.findIndex(({ notBefore }) => notBefore <= now);
      if (next >= 0) {
        await this.#restore(this.#queue.splice(next, 1)[0]!);
        continue;
      }
      const until = Math.min(...this.#queue.map(({ notBefore }) => notBefore)); // none: for ever
      await this.#bell.wait(until - now, signal);
    }
  }

  async #restore(waiting: Waiting): Promise<void> {
    const { command } = waiting;
    const { signal, onEvent, refusal } = this.#options;
    const attempt = randomBytes(16);
    const tally = new Tally();
    const stop = new AbortController();
    this.#running = { id: command.id, stop };
    const ended = new AbortController();
    const told = this.#report(command.id, attempt, tally, stop, ended.signal);
    try {
      if (refusal !== null) throw new CannotRestore(refusal);
      onEvent({ type: 'begun', command });
      const complete = await this.#runOnce(command, tally, AbortSignal.any([signal, stop.signal]), told);
      const isTidy = await this.#tidy(command.id, () => this.#clearElsewhere(command.id));
      this.#end(command.id, tally.end(attempt, complete ? 'completed' : 'incomplete'), { isTidy });
    } catch (error) {
      if (stop.signal.aborted) {
        const isGone = stop.signal.reason instanceof Gone;
        await this.#clearAndEnd(command.id, isGone ? null : tally.end(attempt, 'cancelled'));
      } else if (signal.aborted) {
        // Goes on when the agent runs again.
      } else if (isPassing(error)) {
        const delayMs = backoffMs(retries, ++waiting.failures, Math.random());
        onEvent({ type: 'delayed', command, error: error as Error, delayMs });
        this.#queue.push({ ...waiting, notBefore: performance.now() + delayMs });
      } else {
        await this.#clearAndEnd(command.id, tally.end(attempt, 'failed', failureInWords(error)));
      }
    } finally {
      ended.abort();
      this.#running = null;
    }
  }

  async #runOnce(command: RestoreCommand, tally: Tally, signal: AbortSignal, told: Promise<void>): Promise<boolean> {
    await told; // one that was cancelled meanwhile is not begun
    signal.throwIfAborted();
    const { registration, home, here, openSource } = this.#options;
    this.#kept.begin(command.id, null);
    const { source, close } = openSource();
    try {
      const onFolder = (folder: Buffer): void => this.#kept.begin(command.id, folder);
      return await runRestore({ command, source, registration: registration(), home, here, signal, tally, onFolder });
    } finally {
      close();
    }
  }

  /**
   * Tells the server how far a restore is until `ended`, and stops it when it says so. Resolves when it was first told, or could
   * not be.
   */
  #report(id: number, attempt: Buffer, tally: Tally, stop: AbortController, ended: AbortSignal): Promise<void> {
    const { commands, signal } = this.#options;
    const either = AbortSignal.any([signal, ended]);
    const tell = async (): Promise<void> => {
      try {
        const { go } = await commands.progress(id, { attempt, ...tally.progress }, either);
        if (go === 'cancelled') stop.abort(new RestoreEnded('cancelled'));
        if (go === 'gone') stop.abort(new Gone('the server has ended it'));
      } catch {
        // It could not be asked; the next one says more.
      }
    };
    const first = tell();
    const everyMs = this.#options.progressEveryMs ?? progressEveryMs;
    const goOn = async (): Promise<void> => {
      await first;
      while (!either.aborted) {
        await sleep(everyMs, undefined, { signal: either }).catch(() => undefined);
        if (!either.aborted) await tell();
      }
    };
    void goOn();
    return first;
  }
}

/** The server has ended it by itself: it wants to hear nothing more. */
class Gone extends RestoreEnded {}
