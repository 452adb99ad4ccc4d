/**
 * The channels to devices that this process holds: one for each device, along which it is told what to do. What is to be done
 * are rows; here is only who has been told of them on which channel. What must stay true:
 * - every open command is told on every new channel, so none is lost with a process, a connection or a message;
 * - of two channels of a device the newer stays, wherever it is: its number is in the device's row;
 * - an installation that may no more, or whose place another has taken, is told nothing: that is asked at each look (of an answer
 *   that is no channel, when it begins: it is as long as what is open then);
 * - what a channel takes up is bounded: numbers of what is open, and one frame that its reader has not taken;
 * - a heartbeat comes after all that was open when the channel began, for a device takes the rest to have ended.
 *
 * A process hears of changes by NOTIFY. Whatever it did not hear it finds by looking, soon after: when its connection is back,
 * and every `lookEveryMs`.
 */
import { type ChannelFrame, Command } from '../../protocol/commands.ts';
import { Problem } from '../../protocol/problems.ts';
import { encodeFrame } from '../../protocol/wire.ts';
import type { Database } from '../../storage/catalog/database.ts';
import type { Listening } from '../../storage/catalog/listening.ts';
import {
  closeChannels,
  currentChannels,
  hearChannels,
  newChannel,
  openChannel,
} from '../directory/devices/commands/channels.ts';
import { listOpenIds, noteSent, type OpenId, readOpen } from '../directory/devices/commands/rows.ts';
import { readTold, toldOn } from '../directory/devices/commands/tell.ts';
import { commandOf } from './command-of.ts';

export interface ChannelSettings {
  /** Channels of this process. */
  max: number;
  heartbeatMs: number;
  /** How often it is looked whether something was not heard. */
  lookEveryMs: number;
  /** How often it is written that devices are there, and asked whether they may stay. */
  hearEveryMs: number;
}

export interface ChannelDevice {
  /** The installation: another that takes its place has the same GUID. */
  deviceId: number;
  tenantId: number;
  userId: number;
  guid: string;
}

interface Channel {
  readonly deviceId: number;
  readonly guid: string;
  /** A UUID. */
  readonly channel: string;
  /** What was told on it, of what is open; true: also that it was cancelled. */
  told: Map<number, boolean>;
  /** Its row names it. */
  isOpen: boolean;
  isDirty: boolean;
  /** All that was open when it began has been told. */
  hasLooked: boolean;
  isOver: boolean;
  /** Wakes it while it waits. */
  wake: (() => void) | null;
}

/** After a look that failed. */
const lookAgainMs = 2_000;
/** Channels asked about in one statement. */
const batch = 500;

export class DeviceChannels {
  readonly #database: Database;
  readonly #settings: ChannelSettings;
  readonly #onFault: (error: unknown) => void;
  readonly #channels = new Map<string, Channel>();
  readonly #answers = new Map<number, Set<() => void>>();
  #listening: Listening | null = null;
  #timers: NodeJS.Timeout[] = [];
  #sweeping: Promise<void> | null = null;
  #sweepNext: { withStates: boolean } | null = null;
  #isClosed = false;
  /** Answers that are no channels, while they last. */
  #onces = 0;
  #ending: Channel[] = [];

  constructor(database: Database, settings: ChannelSettings, onFault: (error: unknown) => void) {
    this.#database = database;
    this.#settings = settings;
    this.#onFault = onFault;
  }

  get size(): number {
    return this.#channels.size;
  }

  /**
   * The frames for a device, until its reader goes, a newer channel takes its place, it may no more, or this process ends them.
   * @param signal of the reader
   * @throws Problem overloaded: there are as many as this process takes
   */
  async *open(device: ChannelDevice, signal: AbortSignal): AsyncGenerator<Buffer> {
    if (this.#isClosed)
      throw new Problem('shutting_down', 'this server takes no more requests', { retryAfterSeconds: 1 });
    const older = this.#channels.get(device.guid);
    if (!older) this.#assertRoom();
    this.#start();
    const channel: Channel = {
      deviceId: device.deviceId,
      guid: device.guid,
      channel: newChannel(),
      told: new Map(),
      isOpen: false,
      isDirty: true,
      hasLooked: false,
      isOver: false,
      wake: null,
    };
    if (older) end(older);
    this.#channels.set(device.guid, channel);
    const onGone = (): void => end(channel);
    signal.addEventListener('abort', onGone);
    if (signal.aborted) end(channel);
    try {
      await this.#database.transaction((tx) => openChannel(tx, device, channel.channel));
      channel.isOpen = true;
      yield frame({ type: 'hello', heartbeatSeconds: heartbeatSecondsOf(this.#settings) });
      while (!channel.isOver) {
        if (channel.isDirty) {
          channel.isDirty = false;
          if (yield* this.#look(channel)) channel.hasLooked ||= !channel.isDirty;
          else setTimeout(() => this.#wake(channel), lookAgainMs).unref();
        } else if (!(await this.#woken(channel)) && channel.hasLooked) yield frame({ type: 'heartbeat' });
      }
    } finally {
      signal.removeEventListener('abort', onGone);
      channel.isOver = true;
      if (this.#channels.get(device.guid) === channel) this.#channels.delete(device.guid);
      if (channel.isOpen && !this.#isClosed) await closeChannels(this.#database, [channel]).catch(this.#onFault);
    }
  }

  /**
   * What is open, and the end: for an agent that carries out what there is, and goes. It is no channel, and takes up as much.
   * @throws Problem overloaded
   */
  async *once({ guid }: ChannelDevice): AsyncGenerator<Buffer> {
    this.#assertRoom();
    this.#onces++;
    try {
      yield frame({ type: 'hello', heartbeatSeconds: heartbeatSecondsOf(this.#settings) });
      const open = await listOpenIds(this.#database, [guid]);
      for (const { id } of open.filter(({ state }) => state === 'cancelling')) yield frame({ type: 'cancel', id });
      for (const each of open.filter(({ state }) => state !== 'cancelling')) yield* this.#tell(each);
    } finally {
      this.#onces--;
    }
  }

  #assertRoom(): void {
    if (this.#channels.size + this.#onces >= this.#settings.max)
      throw new Problem('overloaded', 'this server holds as many channels to devices as it can', {
        retryAfterSeconds: 60,
      });
  }

  /** One command, read when it is its turn: what waits for a reader is one. */
  async *#tell({ guid, id }: Pick<OpenId, 'guid' | 'id'>): AsyncGenerator<Buffer> {
    const row = await readOpen(this.#database, { guid, id });
    for (const command of row ? commandOf(row) : []) {
      // Its agent would not understand it, and say so each time.
      const { error } = Command.safeParse(command);
      if (error) this.#onFault(new Error(`the command ${id} cannot be told`, { cause: error }));
      else yield frame({ type: 'command', command });
      await noteSent(this.#database, id).catch(this.#onFault);
    }
  }

  /** Resolves when a browse was answered, as far as that is heard, and after `withinMs` in any case. */
  async answered(command: number, withinMs: number, signal: AbortSignal): Promise<void> {
    this.#start();
    const { promise, resolve } = Promise.withResolvers<void>();
    const waiting = this.#answers.get(command) ?? new Set();
    this.#answers.set(command, waiting.add(resolve));
    const timer = setTimeout(resolve, withinMs);
    const onGone = (): void => resolve();
    signal.addEventListener('abort', onGone);
    await promise;
    signal.removeEventListener('abort', onGone);
    clearTimeout(timer);
    waiting.delete(resolve);
    if (waiting.size === 0) this.#answers.delete(command);
  }

  /** Ends all of them, so that their devices go elsewhere; opens no more. */
  endAll(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#ending = [...this.#channels.values()];
    for (const channel of this.#ending) end(channel);
  }

  async close(): Promise<void> {
    this.endAll();
    for (const timer of this.#timers) clearInterval(timer);
    await this.#listening?.close();
    await this.#sweeping;
    const open = this.#ending.filter(({ isOpen }) => isOpen);
    for (let at = 0; at < open.length; at += batch)
      await closeChannels(this.#database, open.slice(at, at + batch)).catch(this.#onFault);
  }

  /** With the first that needs it: most processes hold none. */
  #start(): void {
    if (this.#timers.length > 0 || this.#isClosed) return;
    const { lookEveryMs, hearEveryMs } = this.#settings;
    this.#timers = [
      setInterval(() => this.#sweep(false), lookEveryMs).unref(),
      setInterval(() => this.#sweep(true), hearEveryMs).unref(),
    ];
    this.#listening =
      this.#database.listen?.(toldOn, {
        heard: (payload) => this.#heard(payload),
        // Anything may have been told before.
        connected: () => this.#sweep(true),
      }) ?? null;
  }

  #heard(payload: string): void {
    const told = readTold(payload);
    if (!told) return;
    if ('answer' in told) for (const resolve of this.#answers.get(told.answer) ?? []) resolve();
    else this.#wake(this.#channels.get(told.device));
  }

  #wake(channel: Channel | undefined): void {
    if (!channel) return;
    channel.isDirty = true;
    channel.wake?.();
  }

  /** @returns false: nothing happened until it was time for a heartbeat */
  async #woken(channel: Channel): Promise<boolean> {
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const timer = setTimeout(() => resolve(false), this.#settings.heartbeatMs);
    channel.wake = () => resolve(true);
    const isWoken = await promise;
    channel.wake = null;
    clearTimeout(timer);
    return isWoken;
  }

  /** Tells what was not told on this channel. @returns false: that failed, and it is to be looked again */
  async *#look(channel: Channel): AsyncGenerator<Buffer, boolean> {
    const { guid } = channel;
    try {
      if (!(await currentChannels(this.#database, [channel])).has(channel.channel)) {
        end(channel);
        return true;
      }
      const open = await listOpenIds(this.#database, [guid]);
      // What is open no more needs not be known.
      channel.told = new Map(open.flatMap(({ id }) => (channel.told.has(id) ? [[id, channel.told.get(id)!]] : [])));
      const news = open.filter((each) => isNews(channel, each));
      for (const { id } of news.filter(({ state }) => state === 'cancelling')) {
        channel.told.set(id, true);
        yield frame({ type: 'cancel', id });
      }
      for (const each of news.filter(({ state }) => state !== 'cancelling')) {
        if (channel.isOver) return true;
        yield* this.#tell(each);
        channel.told.set(each.id, false);
        if (channel.isDirty) return true; // it may be told no more: the rest is for the next look
      }
      return true;
    } catch (error) {
      this.#onFault(error);
      return false;
    }
  }

  /** One at a time; asked for while one goes on, another follows, for that one may have passed what has changed since. */
  #sweep(withStates: boolean): void {
    if (this.#isClosed) return;
    if (this.#sweeping) {
      this.#sweepNext = { withStates: withStates || (this.#sweepNext?.withStates ?? false) };
      return;
    }
    this.#sweeping = this.#sweepAll(withStates)
      .catch(this.#onFault)
      .finally(() => {
        this.#sweeping = null;
        const next = this.#sweepNext;
        this.#sweepNext = null;
        if (next) this.#sweep(next.withStates);
      });
  }

  async #sweepAll(withStates: boolean): Promise<void> {
    const all = [...this.#channels.values()].filter(({ isOpen }) => isOpen);
    for (let at = 0; at < all.length && !this.#isClosed; at += batch) {
      const some = all.slice(at, at + batch);
      if (withStates) {
        await hearChannels(this.#database, some);
        const current = await currentChannels(this.#database, some);
        for (const channel of some) if (!current.has(channel.channel)) end(channel);
      }
      const open = await listOpenIds(
        this.#database,
        some.map(({ guid }) => guid),
      );
      for (const each of open) {
        const channel = this.#channels.get(each.guid);
        if (channel && isNews(channel, each)) this.#wake(channel);
      }
    }
  }
}

function isNews({ told }: Channel, { id, state }: OpenId): boolean {
  const cancelTold = told.get(id);
  return cancelTold === undefined || (state === 'cancelling' && !cancelTold);
}

function end(channel: Channel): void {
  channel.isOver = true;
  channel.wake?.();
}

const heartbeatSecondsOf = ({ heartbeatMs }: ChannelSettings): number => Math.max(1, Math.round(heartbeatMs / 1_000));

const frame = (message: ChannelFrame): Buffer => encodeFrame(message);
